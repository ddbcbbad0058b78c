//! A router over a cluster in memory, and its answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use henge_api::{AnonymousReads, ApiDeps, Backend, MetricsHandle, TokenSet, Tokens, router};
use henge_git::http::Caller;
use henge_runtime::{Scope, SystemClock};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::runtime::Handle;
use tower::ServiceExt;

use crate::memory::Memory;

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn whoami(Extension(caller): Extension<Caller>) -> String {
    caller.principal.to_string()
}

async fn panics() -> &'static str {
    panic!("ordered by a test")
}

/// A stand-in for the git router that returns the caller.
fn git() -> Router {
    Router::new()
        .route("/{owner}/{repo}/info/refs", get(whoami))
        .route("/{owner}/{repo}/panic", get(panics))
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {:?}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name);
        value.map(|value| value.to_str().expect("text"))
    }

    /// Checks the shape of an error, and returns its message.
    #[track_caller]
    pub(crate) fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert!(body["url"].is_string(), "{body}");
        let message = body["message"].as_str().expect("a message").to_owned();
        assert!(
            !message.is_empty() && !message.ends_with('.'),
            "{message:?}"
        );
        message
    }
}

pub(crate) struct Node {
    pub(crate) backend: Arc<Memory>,
    pub(crate) tokens: Tokens,
    router: Router,
}

impl Node {
    pub(crate) fn new() -> Self {
        let (_recorder, metrics) = MetricsHandle::recorder();
        Self::with_metrics(metrics)
    }

    pub(crate) fn with_metrics(metrics: MetricsHandle) -> Self {
        Self::assemble(metrics, git())
    }

    /// The whole router over this git router, to be served.
    pub(crate) fn over(git: Router, runtime: &Handle) -> Router {
        let _entered = runtime.enter();
        let (_recorder, metrics) = MetricsHandle::recorder();
        Self::assemble(metrics, git).router
    }

    /// A node that refuses every request without a token.
    pub(crate) fn closed() -> Self {
        let (_recorder, metrics) = MetricsHandle::recorder();
        Self::assemble_with(metrics, git(), AnonymousReads::Refused)
    }

    fn assemble(metrics: MetricsHandle, git: Router) -> Self {
        Self::assemble_with(metrics, git, AnonymousReads::Allowed)
    }

    fn assemble_with(metrics: MetricsHandle, git: Router, anonymous_reads: AnonymousReads) -> Self {
        let backend = Arc::new(Memory::new());
        let tokens = Tokens::new(TokenSet::new(TOKEN).expect("a token"));
        let router = router(ApiDeps {
            backend: Arc::clone(&backend) as Arc<dyn Backend>,
            git,
            tokens: tokens.clone(),
            anonymous_reads,
            metrics,
            version: "1.2.3",
            clock: SystemClock::shared(),
            work: Scope::root("test", Handle::current(), 4),
        });
        Self {
            backend,
            tokens,
            router,
        }
    }

    /// Sends a request without additions.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answered {
        let answer = self.router.clone().oneshot(request).await;
        let (head, body) = answer.expect("the router never fails").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answered {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).expect("UTF-8"),
        }
    }

    /// Sends a request with the token.
    pub(crate) async fn ask(&self, method: &str, uri: &str, body: Option<Value>) -> Answered {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "node.test:7401")
            .header("authorization", format!("token {TOKEN}"));
        let request = match body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.expect("a request")).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answered {
        self.ask("GET", uri, None).await
    }

    pub(crate) async fn post(&self, uri: &str, body: Value) -> Answered {
        self.ask("POST", uri, Some(body)).await
    }

    /// Makes `admin/NAME`.
    pub(crate) async fn create(&self, name: &str) {
        let body = serde_json::json!({ "name": name });
        let made = self.post("/api/v1/user/repos", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
}
