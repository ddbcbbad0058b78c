//! The log and the metrics of requests.

use std::fmt::{Debug, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use henge_api::MetricsHandle;
use henge_git::http::Peer;
use henge_types::ErrorCode;
use http::{Request, StatusCode};
use tokio::runtime::Handle;
use tower::ServiceExt;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::harness::{Node, TOKEN};
use crate::memory::Fault;

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let node = Node::new();
    let first = node.get("/healthz").await;
    let second = node.get("/api/v1/version").await;
    let ids = [first.header("x-request-id"), second.header("x-request-id")];
    for id in ids {
        assert!(id.is_some_and(|id| id.len() == 32), "{id:?}");
    }
    assert_ne!(ids[0], ids[1]);
    let request = Request::builder()
        .uri("/healthz")
        .header("x-request-id", "mine-1");
    let request = request.body(Body::empty()).expect("a request");
    let answer = node.send(request).await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
}

#[tokio::test]
async fn the_metrics_page_counts_requests_by_route_and_names_nobody() {
    let (recorder, handle) = MetricsHandle::recorder();
    let _collecting = metrics::set_default_local_recorder(&recorder);
    let node = Node::with_metrics(handle);
    node.create("very-secret").await;
    node.get("/api/v1/repos/admin/very-secret").await;
    node.get("/api/v1/repos/admin/very-secret2").await;
    node.get("/admin/very-secret.git/info/refs?service=git-upload-pack")
        .await;
    let wrong = Request::builder()
        .uri("/api/v1/version")
        .header("authorization", "token x");
    node.send(wrong.body(Body::empty()).expect("a request"))
        .await;
    node.backend.set_fault(Fault::Panics);
    node.get("/api/v1/repos/admin/very-secret").await;
    node.backend.set_fault(Fault::None);

    let page = node.get("/metrics").await;
    let kind = page.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    let repo = "method=\"GET\",route=\"/api/v1/repos/{owner}/{repo}\"";
    for line in [
        format!("henge_api_requests_total{{{repo},status=\"200\"}} 1"),
        format!("henge_api_requests_total{{{repo},status=\"404\"}} 1"),
        format!("henge_api_requests_total{{{repo},status=\"500\"}} 1"),
        format!("henge_api_request_duration_seconds_count{{{repo}}} 3"),
        "route=\"/{owner}/{repo}/info/refs\",status=\"200\"} 1".to_owned(),
        "henge_api_panics_total 1".to_owned(),
        "henge_api_auth_failures_total{reason=\"wrong\"} 1".to_owned(),
        "henge_api_wrong_token_answers_total{answered=\"at_once\"} 1".to_owned(),
        "henge_api_requests_in_flight 1".to_owned(),
        "henge_build_info{version=\"1.2.3\"} 1".to_owned(),
        "# TYPE henge_api_request_duration_seconds histogram".to_owned(),
        "# HELP henge_api_requests_total HTTP requests answered".to_owned(),
    ] {
        assert!(page.text.contains(&line), "no {line:?} in:\n{}", page.text);
    }
    assert!(!page.text.contains("very-secret"), "{}", page.text);
    assert!(!page.text.contains(TOKEN));
}

/// The logged warnings, a line each.
#[derive(Debug, Default, Clone)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }
}

/// One warning.
#[derive(Debug, Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).expect("a string takes it");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn from(address: u8, uri: &str, token: Option<&str>) -> Request<Body> {
    let peer = Peer {
        address: IpAddr::from([192, 0, 2, address]),
        connection: address.into(),
    };
    let mut request = Request::get(uri).extension(peer);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).expect("a request")
}

/// The log had no line about refused requests and their addresses.
#[tokio::test]
async fn the_log_says_from_where_refused_requests_come() {
    const FETCH: &str = "/admin/x.git/info/refs?service=git-upload-pack";
    let warnings = Warnings::default();
    let _logging = tracing::subscriber::set_default(warnings.clone());
    let node = Node::new();
    node.send(from(1, "/api/v1/version", Some("wrong"))).await;
    node.backend
        .set_fault(Fault::Fails(ErrorCode::Throttled, None));
    for _ in 0..15 {
        node.send(from(2, "/api/v1/repos/admin/x", Some(TOKEN)))
            .await;
    }
    let slow = Router::new().route(
        "/{owner}/{repo}/info/refs",
        get(std::future::pending::<String>),
    );
    let slow = Node::over(slow, &Handle::current());
    let mut held: Vec<_> = (0..16)
        .map(|_| Box::pin(slow.clone().oneshot(from(3, FETCH, None))))
        .collect();
    for request in &mut held {
        assert!(futures::poll!(request.as_mut()).is_pending());
    }
    let refused = slow.oneshot(from(3, FETCH, None)).await;
    let refused = refused.expect("the router never fails");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let lines = warnings.lines();
    for (text, address, times) in [
        ("a wrong token came", 1, 1),
        ("a request was answered 429", 2, 10),
        ("a request without a token found no place", 3, 1),
    ] {
        let told = lines.iter().filter(|line| line.contains(text));
        let address = format!("address=192.0.2.{address} ");
        let named = told.filter(|line| line.contains(&address));
        assert_eq!(named.count(), times, "{text}: {lines:?}");
    }
}
