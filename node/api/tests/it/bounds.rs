//! The bounds of a request's cost, and the effect of one request on others.

use std::cell::Cell;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Node, TOKEN};

const ONE: &str = "1111111111111111111111111111111111111111";
const REFS: &str = "/api/henge/v1/repos/admin/demo/refs";

/// Ten thousand updates were documented, and the body of a request ended at 1 MiB: at about 6,000
/// of them.
#[tokio::test]
async fn ten_thousand_updates_fit_into_one_request() {
    let node = Node::new();
    node.create("demo").await;
    // The largest updates that fit into a log entry of 4 MiB.
    let folder = "x".repeat(350);
    let updates: Vec<Value> = (0..10_000)
        .map(|number| {
            let name = format!("refs/heads/{folder}/{number}");
            json!({"ref": name, "old": null, "new": ONE})
        })
        .collect();
    let body = json!({"updates": updates, "atomic": true});
    assert!(body.to_string().len() > 4 * 1024 * 1024);
    let answer = node.post(REFS, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:.1000}", answer.text);
    let results = answer.json();
    let results = results["results"].as_array().expect("results");
    assert_eq!(results.len(), 10_000);
    assert!(results.iter().all(|result| result["ok"] == true));

    let padding = " ".repeat(8 * 1024 * 1024);
    let request = Request::post(REFS)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(Body::from(padding));
    let answer = node.send(request.expect("a request")).await;
    answer.error(422, "invalid");
    let request = Request::post(REFS)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(Body::from(" ".repeat(8 * 1024 * 1024 + 1)));
    let answer = node.send(request.expect("a request")).await;
    answer.error(413, "invalid");
}

/// Fifty long patterns and a few hundred long branches took a thread of the server for 45 s,
/// without a token.
#[tokio::test]
async fn a_long_list_of_branches_holds_nobody_up() {
    let node = Node::new();
    let public = json!({"name": "demo", "private": false});
    node.post("/api/v1/user/repos", public).await;
    let stars = "*a".repeat(115);
    for number in 0..50 {
        let rule = json!({"rule_name": format!("{stars}{number:02}")});
        let path = "/api/v1/repos/admin/demo/branch_protections";
        let made = node.post(path, rule).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    for number in 0..60 {
        let name = format!("refs/heads/{}{number:02}", "a".repeat(1000));
        node.backend.set_ref("admin/demo", &name, ONE);
    }
    let is_listed = Cell::new(false);
    let list = async {
        let request = Request::get("/api/v1/repos/admin/demo/branches").body(Body::empty());
        let answer = node.send(request.expect("a request")).await;
        is_listed.set(true);
        answer
    };
    let health = async {
        let answer = node.get("/healthz").await;
        assert!(!is_listed.get(), "it waited for the list");
        answer
    };
    let (listed, health) = tokio::join!(list, health);
    assert_eq!(health.status, StatusCode::OK);
    let listed = listed.json();
    let protected = listed.as_array().expect("branches").iter();
    let protected = protected.filter(|branch| branch["protected"] == true);
    assert_eq!(
        (listed.as_array().map(Vec::len), protected.count()),
        (Some(60), 50)
    );
}
