//! What the operator sees of requests.

use axum::body::Body;
use henge_api::MetricsHandle;
use http::Request;

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
