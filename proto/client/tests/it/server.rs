//! A server on a port of its own that counts its requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use henge_client::Address;
use tokio::net::TcpListener;

pub(crate) struct Server {
    pub(crate) address: Address,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let router = router.layer(axum::middleware::from_fn(
            move |request: axum::extract::Request, next: axum::middleware::Next| {
                counter.fetch_add(1, Ordering::SeqCst);
                next.run(request)
            },
        ));
        #[expect(clippy::disallowed_methods, reason = "a test has no task scope")]
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        });
        Self {
            address: url(address),
            asked,
            task,
        }
    }

    /// One that answers everything with this status and JSON text.
    pub(crate) async fn answering(status: u16, body: &'static str) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self::start(Router::new().fallback(move || async move { (status, body).into_response() }))
            .await
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address without a listener.
pub(crate) fn nobody() -> Address {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    url(listener.local_addr().expect("an address"))
}

pub(crate) fn url(address: SocketAddr) -> Address {
    format!("http://{address}").parse().expect("an address")
}
