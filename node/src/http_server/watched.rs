//! The requests of one connection: counted while they are under way, and with a check that the
//! client reads the responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use henge_git::http::Peer;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::door::{Place, UnderWay, now};

/// The most bytes of a response that a connection gets at once.
const PIECE_BYTES: usize = 128 * 1024;
/// The same for HTTP/2, which buffers a whole piece as soon as the client reads one byte.
const STREAM_PIECE_BYTES: usize = 16 * 1024;

tokio::task_local! {
    /// The progress of the HTTP/2 stream that this task handles.
    pub(super) static STREAM: Arc<Progress>;
}

/// Whether the client of one stream reads the response.
///
/// An HTTP/2 client may answer pings for hours and read nothing of one response: the connection
/// lives, and the response holds its permits. A body is polled for its next piece only when the
/// client reads more.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The time of the last piece, until the next one is polled.
    waits_since: Mutex<Option<Instant>>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waits_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a piece, or the beginning of the response.
    pub(super) fn given(&self) {
        *self.lock() = Some(now());
    }

    /// Notes that the next piece is polled.
    fn asked(&self) {
        *self.lock() = None;
    }

    /// Resolves when the client has read nothing for `rest`.
    pub(super) async fn stalled(&self, rest: Duration) {
        loop {
            let now = now();
            let due = self.lock().unwrap_or(now) + rest;
            if due <= now {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Answers the requests of one connection.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    router: Router,
    place: Place,
    peer: Peer,
}

impl Watched {
    pub(super) const fn new(router: Router, place: Place, peer: Peer) -> Self {
        Self {
            router,
            place,
            peer,
        }
    }
}

impl Service<Request<Incoming>> for Watched {
    type Response = Response<WatchedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let under_way = self.place.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        let answering = self.router.clone().oneshot(request);
        Box::pin(async move {
            let response = answering.await?;
            // This future runs in the stream's task.
            let progress = STREAM.try_with(Arc::clone).ok();
            Ok(response.map(|body| WatchedBody::new(body, under_way, progress)))
        })
    }
}

/// A response, until its last byte was given to the connection.
pub(super) struct WatchedBody {
    body: Body,
    /// The rest of a piece that was too large.
    rest: Bytes,
    progress: Option<Arc<Progress>>,
    _under_way: UnderWay,
}

impl WatchedBody {
    fn new(body: Body, under_way: UnderWay, progress: Option<Arc<Progress>>) -> Self {
        if let Some(progress) = &progress {
            progress.given();
        }
        Self {
            body,
            rest: Bytes::new(),
            progress,
            _under_way: under_way,
        }
    }

    fn give(&mut self, mut data: Bytes) -> Frame<Bytes> {
        // The last byte of the data waits until the client has read the others. Otherwise the
        // response would end, and free its permits, while HTTP/2 still buffers a piece of it.
        let most = match self.progress {
            Some(_) => STREAM_PIECE_BYTES.min(data.len().saturating_sub(1).max(1)),
            None => PIECE_BYTES,
        };
        if data.len() > most {
            self.rest = data.split_off(most);
        }
        if let Some(progress) = &self.progress {
            progress.given();
        }
        Frame::data(data)
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Some(progress) = &this.progress {
            progress.asked();
        }
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(this.give(rest))));
        }
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(frame.map(|frame| match frame.into_data() {
            Ok(data) => this.give(data),
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let mut with_rest = SizeHint::new();
        with_rest.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            with_rest.set_upper(upper.saturating_add(rest));
        }
        with_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_server::door::{Bounds, Door, Entered};
    use http_body_util::BodyExt;
    use std::net::IpAddr;

    fn place() -> Place {
        let door = Door::new(Bounds {
            max: 1,
            kept: 0,
            kept_per_address: 0,
        });
        match door.enter(IpAddr::from([10, 0, 0, 1])) {
            Entered::Place(place) => place,
            other @ (Entered::Kept(_) | Entered::Full) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_large_answer_comes_in_pieces_and_whole() {
        let bytes: Vec<u8> = (0_u8..=250).cycle().take(3 * PIECE_BYTES + 5).collect();
        let mut body = WatchedBody::new(Body::from(bytes.clone()), place().begin(), None);
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        let mut taken = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.expect("sound").into_data().expect("data");
            assert!(data.len() <= PIECE_BYTES);
            taken.extend_from_slice(&data);
            let left = (bytes.len() - taken.len()) as u64;
            assert_eq!(body.size_hint().exact(), Some(left));
        }
        assert_eq!(taken, bytes);
        assert!(body.is_end_stream());
    }

    /// Regression: HTTP/2 takes a whole piece once there is room for one byte of it, and a stream
    /// whose body has ended has no idle time-out. Clients with a window of one byte made it buffer
    /// 128 KiB each.
    #[tokio::test]
    async fn an_answer_over_http2_ends_when_the_client_has_taken_the_rest() {
        let bytes = vec![7; STREAM_PIECE_BYTES + 9];
        let progress = Some(Arc::new(Progress::default()));
        let mut body = WatchedBody::new(Body::from(bytes), place().begin(), progress);
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(frame.expect("sound").into_data().expect("data").len());
        }
        assert_eq!(pieces, [STREAM_PIECE_BYTES, 8, 1]);
    }

    /// Regression: a stream whose client read nothing held its permits for two hours, because pings
    /// were answered.
    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_noticed_and_who_waits_for_the_job_is_not() {
        let rest = Duration::from_secs(60);
        let progress = Arc::new(Progress::default());
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let stream = futures::stream::unfold(receiver, |mut receiver| async {
            let item = receiver.recv().await?;
            Some((item, receiver))
        });
        let under_way = place().begin();
        let body = Body::from_stream(stream);
        let mut body = WatchedBody::new(body, under_way, Some(Arc::clone(&progress)));
        // The next piece is polled, and the job has none yet.
        assert!(futures::poll!(body.frame()).is_pending());
        let waited = tokio::time::timeout(rest * 10, progress.stalled(rest)).await;
        assert!(waited.is_err(), "the job takes its time");
        sender
            .send(Ok(Bytes::from_static(b"x")))
            .await
            .expect("taken");
        assert!(body.frame().await.is_some());
        let waited = tokio::time::timeout(rest * 3, progress.stalled(rest)).await;
        assert!(waited.is_ok(), "nothing was asked for since");
    }
}
