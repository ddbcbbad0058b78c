//! The HTTP/1.1 listener: a bound on connections and on how long a request's head may take, and a stop that
//! lets what has begun come to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: u32 = 1024;
/// For the head of a request, counted from the end of the one before: idle connections end too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After the system refused a connection (too many open files): room must be made by others first.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// A listener that serves.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stopping: CancellationToken,
    connections: Arc<Semaphore>,
}

impl HttpServer {
    /// Listens, and serves until [`HttpServer::stop`] or the end of the scope.
    pub(crate) async fn start(
        listen: SocketAddr,
        router: Router,
        scope: &Scope,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let slots = usize::try_from(CONNECTIONS_MAX).unwrap_or(usize::MAX);
        let connections = Arc::new(Semaphore::new(slots));
        let accept = accept(
            listener,
            router,
            scope.clone(),
            stopping.clone(),
            Arc::clone(&connections),
        );
        scope.spawn("http accept", OnPanic::EndProcess, accept);
        Ok(Self {
            address,
            stopping,
            connections,
        })
    }

    /// Where it listens: the port that the system chose where it was asked for port 0.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests and waits for those that have begun; `false` when the deadline passed first.
    pub(crate) async fn stop(self, deadline: Duration) -> bool {
        self.stopping.cancel();
        let all = self.connections.acquire_many(CONNECTIONS_MAX);
        tokio::time::timeout(deadline, all).await.is_ok()
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    scope: Scope,
    stopping: CancellationToken,
    connections: Arc<Semaphore>,
) {
    loop {
        let accepted = async {
            let slot = Arc::clone(&connections).acquire_owned().await;
            let slot = slot.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((stream, slot))
        };
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let connection = serve(stream, slot, router.clone(), stopping.clone());
                scope.spawn("http connection", OnPanic::Log, connection);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    router: Router,
    stopping: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection was gone before its first request");
        return;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = Box::pin(connection);
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // Clients come and go: of no interest unless one looks for it.
        tracing::debug!(%error, "a connection broke");
    }
    drop(slot);
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use henge_client::{Client, ClientError};
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
            // It waits for the request: polled once, it cannot be done.
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
}
