//! The answers to faults of the request, of the cluster and of the code.

use axum::body::Body;
use henge_types::{ErrorCode, limits};
use http::{Request, StatusCode};
use serde_json::json;

use crate::harness::{Answered, Node, TOKEN};
use crate::memory::Fault;

const JSON: Option<&str> = Some("application/json; charset=utf-8");

async fn post_raw(node: &Node, kind: Option<&str>, body: Body) -> Answered {
    let mut request = Request::builder()
        .method("POST")
        .uri("/api/v1/user/repos")
        .header("authorization", format!("Bearer {TOKEN}"));
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    node.send(request.body(body).expect("a request")).await
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused() {
    let node = Node::new();
    for text in ["", "{", "name=x", "{\"name\":\"x\"} {}"] {
        let answer = post_raw(&node, JSON, Body::from(text)).await;
        answer.error(422, "invalid");
    }
    let form = "application/x-www-form-urlencoded";
    for kind in [None, Some("text/plain"), Some(form)] {
        let answer = post_raw(&node, kind, Body::from("{\"name\":\"x\"}")).await;
        answer.error(415, "invalid");
    }
    let fine = post_raw(&node, JSON, Body::from("{\"name\":\"x\"}")).await;
    assert_eq!(fine.status, StatusCode::CREATED);
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_announced_or_not() {
    let node = Node::new();
    let padding = " ".repeat(limits::API_BODY_BYTES_MAX);
    let text = format!("{{\"name\":\"x\"}}{padding}");
    let whole = post_raw(&node, JSON, Body::from(text.clone())).await;
    whole.error(413, "invalid");
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(text)]);
    let streamed = post_raw(&node, JSON, Body::from_stream(chunks)).await;
    streamed.error(413, "invalid");
    assert!(node.backend.created_by().is_empty());
}

#[tokio::test]
async fn unknown_routes_and_methods_are_told_apart() {
    let node = Node::new();
    for uri in [
        "/api",
        "/api/",
        "/api/v1/x",
        "/api/v1/repos/a/b/c",
        "/api/henge/v2/cluster",
    ] {
        node.get(uri).await.error(404, "not_found");
    }
    let answer = node.ask("PUT", "/api/v1/repos/a/b", None).await;
    answer.error(405, "invalid");
    let allowed = answer.header("allow");
    assert!(
        allowed.is_some_and(|allow| allow.contains("DELETE")),
        "{answer:?}"
    );
    let elsewhere = node.get("/nothing").await;
    assert_eq!(elsewhere.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn unavailable_says_when_to_try_again() {
    let node = Node::new();
    node.create("demo").await;
    let fault = Fault::Fails(ErrorCode::Unavailable, Some(7));
    node.backend.set_fault(fault);
    let changes = json!({"updates": [{"ref": "refs/heads/a", "old": "any", "new": null}]});
    let answers = [
        node.get("/api/v1/repos/admin/demo").await,
        node.get("/api/v1/repos/admin/demo/branches").await,
        node.get("/api/v1/repos/search").await,
        node.get("/api/henge/v1/repos").await,
        node.get("/api/henge/v1/repos/admin/demo").await,
        node.ask("DELETE", "/api/v1/repos/admin/demo", None).await,
        node.post("/api/v1/user/repos", json!({"name": "y"})).await,
        node.post("/api/henge/v1/repos/admin/demo/refs", changes)
            .await,
    ];
    for answer in answers {
        answer.error(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("7"));
    }
    node.backend
        .set_fault(Fault::Fails(ErrorCode::Unavailable, None));
    let answer = node.get("/api/v1/repos/admin/demo").await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    let health = node.get("/healthz").await;
    assert_eq!(health.status, StatusCode::OK);
    let ready = node.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text.starts_with("not serving: "), "{ready:?}");
    let cluster = node.get("/api/henge/v1/cluster").await;
    assert_eq!(cluster.status, StatusCode::OK);
}

#[tokio::test]
async fn other_codes_keep_their_status() {
    let node = Node::new();
    for (code, status, name) in [
        (ErrorCode::Timeout, 504, "timeout"),
        (ErrorCode::Throttled, 429, "throttled"),
        (ErrorCode::Forbidden, 403, "forbidden"),
        (ErrorCode::Internal, 500, "internal"),
    ] {
        node.backend.set_fault(Fault::Fails(code, None));
        let answer = node.get("/api/v1/repos/admin/demo").await;
        assert_eq!(answer.error(status, name), "the cluster is broken");
    }
}

#[tokio::test]
async fn one_lost_shard_does_not_take_the_list_away() {
    let node = Node::new();
    node.create("demo").await;
    node.create("lost").await;
    node.backend.set_fault(Fault::ShardLost("admin/lost"));
    let found = node.get("/api/v1/repos/search").await.json();
    assert_eq!(found["data"][0]["empty"], true);
    assert_eq!(found["data"][1]["name"], "lost");
    assert_eq!(found["data"][1]["empty"], false);
    let single = node.get("/api/v1/repos/admin/lost").await;
    single.error(503, "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_never_answers_is_a_timeout() {
    let node = Node::new();
    node.backend.set_fault(Fault::Hangs);
    let read = node.get("/api/v1/repos/admin/demo").await;
    assert_eq!(read.error(504, "timeout"), "no answer in time: try again");
    let write = node.post("/api/v1/user/repos", json!({"name": "x"})).await;
    let message = write.error(504, "timeout");
    assert!(message.contains("the outcome is not known"), "{message}");
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_next_request_is_served() {
    let node = Node::new();
    node.backend.set_fault(Fault::Panics);
    let answer = node.get("/api/v1/repos/admin/demo").await;
    let message = answer.error(500, "internal");
    let id = answer.header("x-request-id").expect("a request id");
    assert!(message.contains(id), "{message}");
    assert!(!message.contains("ordered by a test"), "{message}");
    let git = node.get("/admin/demo/panic").await;
    git.error(500, "internal");
    node.backend.set_fault(Fault::None);
    node.create("demo").await;
}

/// A page of another site can make a browser with the token send forms. For any other request the
/// browser sends a preflight request first.
#[tokio::test]
async fn what_changes_something_comes_as_json_and_from_no_other_site() {
    const SYNC: &str = "/api/v1/repos/admin/demo/push_mirrors-sync";
    let node = Node::new();
    node.create("demo").await;
    let ask = async |method: &str, uri: &str, headers: &[(&str, &str)], body: &'static str| {
        let mut request = Request::builder().method(method).uri(uri);
        request = request.header("authorization", format!("Bearer {TOKEN}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        node.send(request.body(Body::from(body)).expect("a request"))
            .await
    };
    let form = ("content-type", "application/x-www-form-urlencoded");
    let json = ("content-type", "application/json");
    let plain = ("content-type", "text/plain");
    for (headers, body) in [
        (vec![form], ""),
        (vec![form], "{}"),
        (vec![plain], "{}"),
        (vec![], "{}"),
    ] {
        let answer = ask("POST", SYNC, &headers, body).await;
        answer.error(415, "invalid");
    }
    for (headers, body) in [(vec![], ""), (vec![json], ""), (vec![json], "{}")] {
        let answer = ask("POST", SYNC, &headers, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{headers:?} {answer:?}");
    }
    let repo = "/api/v1/repos/admin/demo";
    for site in ["cross-site", "same-site", "x"] {
        let answer = ask("DELETE", repo, &[("sec-fetch-site", site)], "").await;
        answer.error(403, "forbidden");
        let read = ask("GET", repo, &[("sec-fetch-site", site)], "").await;
        assert_eq!(read.status, StatusCode::OK, "{site}");
    }
    let own = ask("DELETE", repo, &[("sec-fetch-site", "same-origin")], "").await;
    assert_eq!(own.status, StatusCode::NO_CONTENT, "{own:?}");
}
