//! The listener for HTTP/1.1 and HTTP/2. HTTP/2 needs prior knowledge: without TLS there is no
//! other way to agree on it.
//!
//! Bounds: the connections, the requests at once in each, the size and the time of a request's
//! head, and the time in which a client reads nothing of a response. A stop waits for requests that
//! have begun.
//!
//! - `door`: the permits of connections. `watched`: their requests. `impatient`: their sockets.
//! - `standing`: responses when all permits are taken.
//! - `strict`, `guard`: refused requests. `refusals`: their metrics and log lines.

mod door;
mod guard;
mod impatient;
#[cfg(test)]
mod raw_tests;
mod refusals;
mod standing;
mod strict;
mod watched;

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use henge_types::limits;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use door::{Bounds, Door, Entered, Place};
use impatient::Impatient;
use refusals::{Client, Refusal, Refusals};
use strict::Strict;
use watched::{Progress, STREAM, Watched};

/// The permits of connections.
const PLACES: Bounds = Bounds {
    max: limits::CONNECTIONS_MAX,
    kept: limits::CONNECTIONS_KEPT_FOR_HEALTH,
    kept_per_address: limits::CONNECTIONS_KEPT_PER_ADDRESS,
};
/// The time for the first bytes of a connection: clients connect when they have a request.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for the head of a request, from the end of the one before: the idle time-out of
/// connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest head of an HTTP/1.1 request, and the most that is read of its body at once, in
/// bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Concurrent requests in one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// Bytes of one HTTP/2 response that are buffered in its connection.
const STREAM_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// The idle time-out of an HTTP/2 response: the longest time in which its client reads nothing.
const ANSWER_REST_MAX: Duration = Duration::from_millis(limits::ANSWER_REST_MS_MAX);
/// The largest header list of an HTTP/2 request, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// The time for an HTTP/2 client to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The time for one HTTP/2 request and its response: a client that reads nothing of one response
/// still answers pings. Longer than a push may take to arrive and to be handled.
const STREAM_TIME_MAX: Duration = Duration::from_millis(2 * limits::GIT_REQUEST_MS_MAX);
/// The first bytes of an HTTP/2 connection; no method of HTTP/1 begins so.
const HTTP2_BEGIN: &[u8] = b"PRI";
/// The poll interval of a connection whose first bytes come one by one.
const BEGIN_PAUSE: Duration = Duration::from_millis(20);
/// The pause after the system refused a connection (too many open files): other connections must
/// end first.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// A running listener.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stopping: CancellationToken,
    door: Door,
}

impl HttpServer {
    /// Listens, and serves until [`HttpServer::stop`] or the end of the scope.
    pub(crate) async fn start(
        listen: SocketAddr,
        router: Router,
        scope: &Scope,
    ) -> io::Result<Self> {
        Self::start_with(PLACES, listen, router, scope).await
    }

    /// The same with other bounds.
    async fn start_with(
        places: Bounds,
        listen: SocketAddr,
        router: Router,
        scope: &Scope,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let door = Door::new(places);
        let refusals = Refusals::default();
        let served = Served {
            router: guard::guarded(router, refusals.clone()),
            refusals,
            scope: scope.clone(),
            stopping: stopping.clone(),
        };
        let accept = accept(listener, door.clone(), served);
        scope.spawn("http accept", OnPanic::EndProcess, accept);
        Ok(Self {
            address,
            stopping,
            door,
        })
    }

    /// The listener's address. Port 0 becomes the port that the system chose.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more requests and waits for those that have begun; `false` when the deadline
    /// passed first.
    pub(crate) async fn stop(self, deadline: Duration) -> bool {
        self.stopping.cancel();
        self.door.all_left(deadline).await
    }
}

/// The state that connections share.
#[derive(Clone)]
struct Served {
    router: Router,
    refusals: Refusals,
    scope: Scope,
    stopping: CancellationToken,
}

async fn accept(listener: TcpListener, door: Door, served: Served) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = served.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let address = address.ip();
        let (scope, refusals) = (&served.scope, &served.refusals);
        match door.enter(address) {
            Entered::Place(place) => {
                let client = refusals.client(address, place.number());
                let connection = serve(stream, (client, place), served.clone());
                scope.spawn("http connection", OnPanic::Log, connection);
            }
            Entered::Kept(place) => {
                let client = refusals.client(address, place.number());
                let answering = standing::answer(stream, (client, place), served.router.clone());
                scope.spawn("http standing", OnPanic::Log, answering);
            }
            Entered::Full => {
                drop(stream);
                refusals.note(Refusal::Full, address.to_canonical());
            }
        }
    }
}

async fn serve(stream: TcpStream, (client, place): (Client, Place), served: Served) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection was gone before its first request");
        return;
    }
    let leave = place.leave().clone();
    let answered = answer(stream, (client.clone(), place), served);
    tokio::select! {
        biased;
        () = leave.cancelled() => client.refused(Refusal::Displaced),
        () = answered => {}
    }
}

/// Answers the requests of one connection.
async fn answer(stream: TcpStream, (client, place): (Client, Place), served: Served) {
    let begin = tokio::time::timeout(BEGIN_TIMEOUT, version(&stream));
    let begin = tokio::select! {
        biased;
        () = served.stopping.cancelled() => return,
        begin = begin => begin,
    };
    let version = match begin {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection broke before its first request");
            return;
        }
        Err(_) => {
            client.refused(Refusal::Late);
            return;
        }
    };
    let service = Watched::new(served.router, place, client.peer());
    let (scope, stopping) = (served.scope, served.stopping);
    let answered = match version {
        Version::One => serve_one(stream, service, client.clone(), stopping).await,
        Version::Two => serve_two(stream, service, (client.clone(), scope), stopping).await,
    };
    if let Err(error) = answered {
        if is_malformed(version, &error) {
            client.malformed();
        }
        // Broken connections are usual: logged at debug only.
        tracing::debug!(%error, "a connection broke");
    }
}

/// Whether a connection ended because of its client's bytes.
fn is_malformed(version: Version, error: &hyper::Error) -> bool {
    match version {
        Version::One => error.is_parse(),
        // A violation of the frame rules is an error of the HTTP/2 library; a failure of the
        // network is an error of the system.
        Version::Two => {
            let source = error.source().filter(|_| !error.is_timeout());
            source.is_some_and(|source| !source.is::<io::Error>())
        }
    }
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// The client's protocol, from its first bytes, which stay unread.
async fn version(stream: &TcpStream) -> io::Result<Version> {
    let mut begin = [0; HTTP2_BEGIN.len()];
    loop {
        let seen = stream.peek(&mut begin).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if begin[..seen] != HTTP2_BEGIN[..seen] {
            return Ok(Version::One);
        }
        if seen == begin.len() {
            return Ok(Version::Two);
        }
        tokio::time::sleep(BEGIN_PAUSE).await;
    }
}

async fn serve_one(
    stream: TcpStream,
    service: Watched,
    client: Client,
    stopping: CancellationToken,
) -> hyper::Result<()> {
    let stream = Strict::new(Impatient::new(stream, client.clone()), client);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::pin(connection);
    tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn serve_two(
    stream: TcpStream,
    service: Watched,
    (client, scope): (Client, Scope),
    stopping: CancellationToken,
) -> hyper::Result<()> {
    let streams = Arc::new(Streams::default());
    let executor = StreamExecutor {
        scope,
        streams: Arc::clone(&streams),
        client: client.clone(),
    };
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(STREAM_BUFFER_BYTES_MAX)
        .keep_alive_interval(HEAD_TIMEOUT)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(Impatient::new(stream, client)), service);
    let mut connection = Box::pin(connection);
    let is_idle = tokio::select! {
        biased;
        served = connection.as_mut() => return served,
        () = stopping.cancelled() => false,
        () = streams.idle() => true,
    };
    connection.as_mut().graceful_shutdown();
    if !is_idle {
        return connection.await;
    }
    // The client may leave the last bytes of a response unread.
    match tokio::time::timeout(ANSWER_REST_MAX, connection).await {
        Ok(served) => served,
        Err(_) => Ok(()),
    }
}

/// The requests of one HTTP/2 connection: hyper has no idle time-out for it.
#[derive(Debug, Default)]
struct Streams {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Streams {
    /// Resolves after one to two times [`HEAD_TIMEOUT`] without a request.
    async fn idle(&self) {
        let mut before = None;
        loop {
            let begun = self.begun.load(Ordering::Acquire);
            let is_quiet = self.ended.load(Ordering::Acquire) == begun;
            if is_quiet && before == Some(begun) {
                return;
            }
            before = is_quiet.then_some(begun);
            tokio::time::sleep(HEAD_TIMEOUT).await;
        }
    }
}

/// Runs the requests of one HTTP/2 connection in the scope.
#[derive(Debug, Clone)]
struct StreamExecutor {
    scope: Scope,
    streams: Arc<Streams>,
    client: Client,
}

/// Counts a request as ended, also when its task is cancelled.
struct EndOnDrop(Arc<Streams>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.streams.begun.fetch_add(1, Ordering::Release);
        let end = EndOnDrop(Arc::clone(&self.streams));
        let client = self.client.clone();
        self.scope.spawn("http stream", OnPanic::Log, async move {
            let progress = Arc::new(Progress::default());
            let request = STREAM.scope(Arc::clone(&progress), request);
            let late = tokio::time::sleep(STREAM_TIME_MAX);
            tokio::select! {
                biased;
                () = request => {}
                () = progress.stalled(ANSWER_REST_MAX) => client.refused(Refusal::StreamStalled),
                () = late => client.refused(Refusal::StreamLate),
            }
            drop(end);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use henge_client::{Client, ClientError};
    use std::net::IpAddr;
    use std::sync::Arc;
    use tokio::runtime::Handle;
    use tokio::sync::Notify;

    const LONG: Duration = Duration::from_secs(60);

    async fn start(router: Router) -> (HttpServer, Client, Scope) {
        let scope = Scope::root("test", Handle::current(), 1);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = HttpServer::start(listen, router, &scope)
            .await
            .expect("listens");
        let url = format!("http://{}", server.address());
        (
            server,
            Client::new(&[url], None).expect("an address"),
            scope,
        )
    }

    #[tokio::test]
    async fn a_stop_lets_a_request_end_and_takes_no_other() {
        let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waits) = (Arc::clone(&begun), Arc::clone(&release));
        let route = get(move || async move {
            told.notify_one();
            waits.notified().await;
            "{\"version\":\"1\"}"
        });
        let (server, client, scope) = start(Router::new().route("/api/v1/version", route)).await;
        let call = async {
            let version = client.version().await;
            let refused = client.version().await;
            (version, refused)
        };
        let stop = async {
            begun.notified().await;
            let stop = server.stop(LONG);
            let mut stop = Box::pin(stop);
            // The stop waits for the request: its first poll is pending.
            assert!(futures::poll!(stop.as_mut()).is_pending());
            release.notify_one();
            stop.await
        };
        let ((version, refused), stopped) = tokio::join!(call, stop);
        assert_eq!(version.expect("answered"), "1");
        assert!(
            matches!(refused, Err(ClientError::Unreachable { .. })),
            "{refused:?}"
        );
        assert!(stopped, "nothing was left");
        assert!(scope.shutdown(LONG).await);
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_an_idle_connection() {
        let route = get(|| async { "{\"version\":\"1\"}" });
        let (server, client, scope) = start(Router::new().route("/api/v1/version", route)).await;
        client.version().await.expect("answered");
        // The client keeps its connection for the next call.
        assert!(server.stop(LONG).await);
        assert!(scope.shutdown(LONG).await);
    }

    /// An HTTP/2 client with prior knowledge.
    async fn two(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
        let stream = TcpStream::connect(address).await.expect("connects");
        let executor = hyper_util::rt::TokioExecutor::new();
        let (client, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
                .await
                .expect("agrees");
        drop(tokio::task::spawn_local(
            async move { drop(connection.await) },
        ));
        client
    }

    #[tokio::test]
    async fn http2_is_spoken_and_stopped() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let route = get(|| async { "{\"version\":\"1\"}" });
                let router = Router::new().route("/api/v1/version", route);
                let (server, one, scope) = start(router).await;
                let mut client = two(server.address()).await;
                for _ in 0..3 {
                    let uri = format!("http://{}/api/v1/version", server.address());
                    let request = http::Request::get(uri).body(Body::empty());
                    let answer = client.send_request(request.expect("valid")).await;
                    let answer = answer.expect("answered");
                    assert_eq!(answer.status(), 200);
                    assert_eq!(answer.version(), http::Version::HTTP_2);
                }
                assert_eq!(one.version().await.expect("answered"), "1");
                assert!(
                    server.stop(LONG).await,
                    "an idle connection is not waited for"
                );
                assert!(scope.shutdown(LONG).await);
            })
            .await;
    }

    /// Regression: only the log at its finest level showed that a flood of streams was cut off.
    #[tokio::test(start_paused = true)]
    async fn streams_that_are_cut_off_are_counted() {
        let (recorder, page) = henge_api::MetricsHandle::recorder();
        let _collecting = henge_api::metrics::set_default_local_recorder(&recorder);
        let scope = Scope::root("test", Handle::current(), 1);
        let executor = StreamExecutor {
            scope: scope.clone(),
            streams: Arc::default(),
            client: Refusals::default().client(IpAddr::from([192, 0, 2, 1]), 1),
        };
        executor.execute(std::future::pending::<()>());
        executor.execute(async {
            STREAM.with(|progress| progress.given());
            std::future::pending::<()>().await;
        });
        tokio::time::sleep(STREAM_TIME_MAX + BEGIN_TIMEOUT).await;
        for reason in ["stream_late", "stream_stalled"] {
            let line = format!("henge_api_listener_refusals_total{{reason=\"{reason}\"}} 1\n");
            assert!(page.render().contains(&line), "{}", page.render());
        }
        assert!(scope.shutdown(LONG).await);
    }

    #[tokio::test]
    async fn the_version_is_known_from_the_first_bytes() {
        use tokio::io::AsyncWriteExt as _;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        for (begin, is_two) in [
            ("GET", false),
            ("P", false),
            ("POST", false),
            ("PRI * HTTP/2.0", true),
        ] {
            let mut client = TcpStream::connect(address).await.expect("connects");
            let (server, _) = listener.accept().await.expect("accepts");
            let (first, rest) = begin.as_bytes().split_at(1);
            client.write_all(first).await.expect("written");
            let more = async {
                tokio::task::yield_now().await;
                client.write_all(rest).await.expect("written");
                client.write_all(b"OST").await.expect("written");
            };
            let (seen, ()) = tokio::join!(version(&server), more);
            let seen = seen.expect("known");
            assert_eq!(matches!(seen, Version::Two), is_two, "{begin}");
        }
    }
}
