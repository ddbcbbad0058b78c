//! The listener's responses before the node serves: that it lives, the progress of its start, and
//! 503 for everything else. A replay after a crash takes minutes, and a silent listener looks like
//! a dead node.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use henge_cluster::StartProgress;
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use tower::{Service, ServiceExt as _};

/// The time until a client may retry, in seconds.
const RETRY_AFTER_S: &str = "5";

/// Answers for the node until it is opened, then passes every request to the node; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct StartGate {
    progress: StartProgress,
    node: Arc<OnceLock<Router>>,
}

impl StartGate {
    pub(crate) fn new(progress: StartProgress) -> Self {
        Self {
            progress,
            node: Arc::default(),
        }
    }

    /// The router of the listener.
    pub(crate) fn router(&self) -> Router {
        Router::new().fallback_service(self.clone())
    }

    /// Passes all further requests to `node`.
    pub(crate) fn open(&self, node: Router) {
        if self.node.set(node).is_err() {
            tracing::warn!("the node was started twice");
        }
    }

    fn answer(&self, path: &str) -> Response {
        let text = self.progress.text();
        // The log is replayed; the remaining steps take moments.
        let text = text.unwrap_or_else(|| "starting: opening the repositories".to_owned());
        match path {
            "/healthz" => "ok\n".into_response(),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n")).into_response(),
            _ => (
                StatusCode::SERVICE_UNAVAILABLE,
                [(RETRY_AFTER, RETRY_AFTER_S)],
                format!(
                    "this node does not serve yet ({text}): ask another node, or again later\n"
                ),
            )
                .into_response(),
        }
    }
}

impl Service<Request<Body>> for StartGate {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.node.get() {
            Some(node) => Box::pin(node.clone().oneshot(request)),
            None => {
                let answer = self.answer(request.uri().path());
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    async fn ask(gate: &StartGate, path: &str) -> (StatusCode, bool, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = gate.router().oneshot(request).await.expect("infallible");
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 10_000).await.expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        (head.status, head.headers.contains_key(RETRY_AFTER), text)
    }

    /// Regression: a node that replayed its log had no listener for two minutes. Supervisors killed
    /// it, and the replay began again.
    #[tokio::test]
    async fn a_starting_node_answers_and_then_serves() {
        let progress = StartProgress::default();
        let gate = StartGate::new(progress.clone());
        progress.stage("reading the write-ahead log");
        let (status, _, text) = ask(&gate, "/healthz").await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ok\n"));
        let (status, _, text) = ask(&gate, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "starting: reading the write-ahead log\n");
        let (status, retry, text) = ask(&gate, "/admin/demo.git/info/refs").await;
        assert_eq!((status, retry), (StatusCode::SERVICE_UNAVAILABLE, true));
        assert!(text.contains("reading the write-ahead log"), "{text}");

        gate.open(Router::new().route("/readyz", get(|| async { "ready\n" })));
        let (status, _, text) = ask(&gate, "/readyz").await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ready\n"));
    }
}
