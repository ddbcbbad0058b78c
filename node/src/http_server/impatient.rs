//! An idle time-out for writes: the connection breaks when its peer reads nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use henge_types::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::refusals::{Client, Refusal};

/// The idle time-out of writes.
const REST_MAX: Duration = Duration::from_millis(limits::ANSWER_REST_MS_MAX);

/// A connection whose writes fail with `TimedOut` after [`limits::ANSWER_REST_MS_MAX`] without
/// progress. The system itself waits forever for a peer that is connected and does not read.
#[derive(Debug)]
pub(super) struct Impatient<S> {
    inner: S,
    /// `None` once the time-out was counted.
    client: Option<Client>,
    /// The running time-out, while the peer reads nothing.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(super) const fn new(inner: S, client: Client) -> Self {
        Self {
            inner,
            client: Some(client),
            patience: None,
        }
    }

    /// The result of a write, or of the idle time-out.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let patience = &mut self.patience;
        let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(REST_MAX)));
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => {
                if let Some(client) = self.client.take() {
                    client.refused(Refusal::Stalled);
                }
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_server::refusals::Refusals;
    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use henge_api::{MetricsHandle, metrics};
    use hyper::server::conn::http1;
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;
    use std::net::IpAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn client() -> Client {
        Refusals::default().client(IpAddr::from([192, 0, 2, 1]), 1)
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Regression: a paused clone held its connection and its permit for fetches forever.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_an_answer_is_left() {
        let (recorder, page) = MetricsHandle::recorder();
        let _collecting = metrics::set_default_local_recorder(&recorder);
        let endless = || async {
            let piece = Bytes::from_static(&[7; 1024]);
            Body::from_stream(futures::stream::repeat_with(move || {
                io::Result::Ok(piece.clone())
            }))
        };
        let router = Router::new().route("/", get(endless));
        let (mut other_end, server) = tokio::io::duplex(4096);
        let server = TokioIo::new(Impatient::new(server, client()));
        let served =
            http1::Builder::new().serve_connection(server, TowerToHyperService::new(router));
        other_end
            .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .expect("written");
        let ended = tokio::time::timeout(DAY, served).await.expect("left alone");
        assert!(ended.is_err(), "the answer has no end");
        drop(other_end);
        let line = "henge_api_listener_refusals_total{reason=\"stalled\"} 1\n";
        assert!(page.render().contains(line), "{}", page.render());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_everything() {
        let (mut other_end, server) = tokio::io::duplex(16);
        let mut server = Impatient::new(server, client());
        let write = async {
            server.write_all(&[7; 160]).await.expect("taken");
            server.shutdown().await.expect("ended");
        };
        let read = async {
            let mut taken = 0;
            let mut piece = [0; 16];
            loop {
                tokio::time::sleep(REST_MAX / 2).await;
                match other_end.read(&mut piece).await.expect("read") {
                    0 => return taken,
                    bytes => taken += bytes,
                }
            }
        };
        let ((), taken) = tokio::join!(write, read);
        assert_eq!(taken, 160);
    }
}
