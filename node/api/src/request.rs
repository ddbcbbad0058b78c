//! The layers around every request of every route: an id, a span, its metrics, and an answer even
//! when the code behind it panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use henge_git::http::Peer;
use henge_runtime::Clock;
use henge_types::{ErrorCode, limits};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tracing::{Instrument, field};

use crate::error::ApiError;
use crate::extract::{is_json, not_json};
use crate::metrics;
use crate::refusal_log::{RefusalLine, RefusalLog, peer_of};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id of a client that is accepted.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The client's id, if it is safe for a log, or a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID);
    let given = given.and_then(|id| id.to_str().ok());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match given {
        Some(id) if (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed) => {
            id.to_owned()
        }
        _ => hex::encode(henge_runtime::random_bytes()),
    }
}

/// The route's template: never a repository's or a user's name.
fn route(request: &Request) -> String {
    if let Some(path) = request.extensions().get::<MatchedPath>() {
        return path.as_str().to_owned();
    }
    // The git router is a fallback: the ends of paths distinguish its routes.
    let path = request.uri().path();
    if henge_git::http::bundle_path(path).is_some() {
        return "/{owner}/{repo}/bundles/{bundle}".to_owned();
    }
    let git = ["/info/refs", "/git-upload-pack", "/git-receive-pack"];
    match git.iter().find(|end| path.ends_with(*end)) {
        Some(end) => format!("/{{owner}}/{{repo}}{end}"),
        None => "other".to_owned(),
    }
}

/// The method as a label; unknown methods share one, so that a client cannot add labels.
fn method_label(method: &Method) -> &'static str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let labels = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let at = known.iter().position(|other| other == method);
    at.and_then(|at| labels.get(at)).copied().unwrap_or("other")
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// The state of the outermost layer.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    clock: Arc<dyn Clock>,
    throttled: Arc<RefusalLog>,
}

impl Observer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let throttled = Arc::new(RefusalLog::new(Arc::clone(&clock)));
        Self { clock, throttled }
    }

    /// Logs an answer 429: a bound of the node or of the repository was reached.
    fn answered(&self, status: StatusCode, peer: Option<Peer>) {
        if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(RefusalLine { address, held_back }) = self.throttled.line(peer)
        {
            tracing::warn!(%address, held_back, "a request was answered 429");
        }
    }
}

/// The outermost layer.
pub(crate) async fn observe(
    State(observer): State<Observer>,
    request: Request,
    next: Next,
) -> Response {
    let id = request_id(&request);
    let route = route(&request);
    let method = method_label(request.method());
    let span = tracing::info_span!(
        "http",
        method,
        route,
        request_id = id,
        status = field::Empty
    );
    let peer = peer_of(&request);
    let started = observer.clock.instant();
    let in_flight = metrics::InFlight::start();
    let answered = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone())
        .await;
    let mut response = answered.unwrap_or_else(|panic| {
        metrics::panicked();
        let message = panic_text(panic.as_ref());
        span.in_scope(|| tracing::error!(message, "a request panicked"));
        let text = format!("internal error: the node's log says more under request {id}");
        ApiError::new(ErrorCode::Internal, text).into_response()
    });
    drop(in_flight);
    let status = response.status().as_u16();
    span.record("status", status);
    let took = observer.clock.instant();
    let took = took.saturating_duration_since(started);
    metrics::answered(method, &route, status, took);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| {
        observer.answered(response.status(), peer);
        tracing::debug!(took_ms, "answered");
    });
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The header in which a browser reports that the page of another site caused a request.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The layer around the API's routes: a request that may change something has a JSON body or none,
/// and does not come from a page of another site. A browser with the token adds it to every request
/// that such a page causes, forms included.
pub(crate) async fn only_as_json(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let headers = request.headers();
    let own: [&[u8]; 2] = [b"same-origin", b"none"];
    let mut sites = headers.get_all(FETCH_SITE).iter();
    if sites.any(|site| !own.contains(&site.as_bytes())) {
        let text = "a page of another site may change nothing here";
        return ApiError::new(ErrorCode::Forbidden, text).into_response();
    }
    let has_body = headers.contains_key(CONTENT_TYPE) || !request.body().is_end_stream();
    if has_body && !is_json(headers) {
        return not_json().into_response();
    }
    next.run(request).await
}

/// The layer around the API's routes: a deadline. Git's routes have none of it, as their streams
/// take long.
pub(crate) async fn within_deadline(request: Request, next: Next) -> Response {
    let deadline = Duration::from_millis(limits::API_REQUEST_MS_MAX);
    let changes = !request.method().is_safe();
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) if changes => {
            let text = "no answer in time: the outcome is not known, look before trying again";
            ApiError::new(ErrorCode::Timeout, text).into_response()
        }
        Err(_) => ApiError::new(ErrorCode::Timeout, "no answer in time: try again").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(uri: &str, id: &str) -> Request {
        let builder = Request::builder().uri(uri).header(REQUEST_ID, id);
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn a_clients_id_is_taken_over_only_if_it_is_harmless() {
        assert_eq!(request_id(&request("/", "a-1_b.c")), "a-1_b.c");
        for id in ["", "a b", "a\"", &"x".repeat(65)] {
            assert_eq!(request_id(&request("/", id)).len(), 32, "{id:?}");
        }
    }

    #[test]
    fn labels_never_hold_what_a_client_made_up() {
        let git = route(&request(
            "/alice/secret.git/info/refs?service=git-upload-pack",
            "x",
        ));
        assert_eq!(git, "/{owner}/{repo}/info/refs");
        assert_eq!(route(&request("/alice/secret", "x")), "other");
        let made_up = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(method_label(&made_up), "other");
        assert_eq!(method_label(&Method::PATCH), "PATCH");
    }
}
