//! Every call: its method, path, token and body, and the decoding of its answer.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use henge_client::model::{NewRepo, RefChange};
use henge_client::{Client, Deadlines, Readiness, Secret};
use henge_types::{ObjectFormat, RepoPath};
use std::sync::{Arc, Mutex};

use crate::server::{Server, nobody};

const REPO: &str = r#"{"id":"000102030405060708090a0b0c0d0e0f","network":"000102030405060708090a0b0c0d0e0f",
  "owner":"admin","name":"demo","shard":3,"generation":1,"state":"ready","leader":2,"new_field":1}"#;

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

async fn record(State(seen): State<Seen>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let token = head
        .headers
        .get("authorization")
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let body = axum::body::to_bytes(body, 100_000).await.expect("a body");
    seen.0.lock().expect("not poisoned").push(format!(
        "{} {} {} {}",
        head.method,
        head.uri,
        token.unwrap_or_default(),
        String::from_utf8_lossy(&body)
    ));
    let path = head.uri.path();
    let (status, answer) = match (head.method.as_str(), path) {
        ("DELETE", _) => (204, String::new()),
        ("POST", "/api/henge/v1/repos") => (201, REPO.to_owned()),
        ("GET", "/api/henge/v1/repos") => (200, format!("{{\"repositories\":[{REPO}]}}")),
        ("GET", "/api/v1/version") => (200, "{\"version\":\"9.9\"}".to_owned()),
        ("GET", "/readyz") => (503, "no leader yet\n".to_owned()),
        (_, path) if path.ends_with("/branches") => (
            200,
            "[{\"name\":\"main\",\"commit\":{\"id\":\"ab\"}}]".to_owned(),
        ),
        (_, path) if path.ends_with("/refs") => (
            200,
            "{\"results\":[{\"ref\":\"refs/heads/x\",\"ok\":false,\"reason\":\"stale\"}]}"
                .to_owned(),
        ),
        (_, path) if path.ends_with("/admin/demo") => (200, REPO.to_owned()),
        _ => (404, "{\"message\":\"no such route\"}".to_owned()),
    };
    (StatusCode::from_u16(status).expect("a status"), answer).into_response()
}

#[tokio::test]
async fn every_call_is_sent_as_the_api_wants_it() {
    let seen = Seen::default();
    let server = Server::start(Router::new().fallback(record).with_state(seen.clone())).await;
    let client =
        Client::new(&[server.address.to_string()], Some(Secret::new("t0ken"))).expect("an address");
    let path: RepoPath = "admin/demo".parse().expect("a path");

    assert_eq!(client.version().await.expect("version"), "9.9");
    let mut new = NewRepo::new(path.clone());
    new.default_branch = Some("trunk".to_owned());
    new.object_format = Some(ObjectFormat::Sha256.to_string());
    let made = client.create_repo(&new).await.expect("created");
    assert_eq!(made.path(), path);
    assert_eq!(client.get_repo(&path).await.expect("shown"), made);
    let listed = client
        .list_repos(Some(&path.owner), Some(&path), 10)
        .await
        .expect("listed");
    assert_eq!(listed, [made]);
    let branches = client.branches(&path).await.expect("branches");
    assert_eq!(branches.first().expect("one branch").commit.id, "ab");
    let change = RefChange {
        name: "refs/heads/x".to_owned(),
        old: Some("any".to_owned()),
        new: None,
    };
    let verdicts = client
        .update_refs(&path, &[change], true)
        .await
        .expect("refs");
    assert_eq!(
        verdicts.first().expect("one verdict").reason.as_deref(),
        Some("stale")
    );
    client.delete_repo(&path).await.expect("deleted");

    let seen = seen.0.lock().expect("not poisoned").clone();
    assert_eq!(
        seen,
        [
            "GET /api/v1/version Bearer t0ken ",
            "POST /api/henge/v1/repos Bearer t0ken \
             {\"owner\":\"admin\",\"name\":\"demo\",\"private\":true,\"default_branch\":\"trunk\",\
             \"object_format_name\":\"sha256\"}",
            "GET /api/henge/v1/repos/admin/demo Bearer t0ken ",
            "GET /api/henge/v1/repos?limit=10&owner=admin&after=admin/demo Bearer t0ken ",
            "GET /api/v1/repos/admin/demo/branches Bearer t0ken ",
            "POST /api/henge/v1/repos/admin/demo/refs Bearer t0ken \
             {\"updates\":[{\"ref\":\"refs/heads/x\",\"old\":\"any\",\"new\":null}],\"atomic\":true}",
            "DELETE /api/v1/repos/admin/demo Bearer t0ken ",
        ]
    );
}

#[tokio::test]
async fn readiness_tells_not_yet_from_silent() {
    let server = Server::start(Router::new().fallback(record).with_state(Seen::default())).await;
    let client = Client::with_deadlines(Vec::new(), None, Deadlines::default());
    assert_eq!(
        client.readiness(&server.address).await,
        Readiness::NotYet("no leader yet".to_owned())
    );
    assert!(matches!(
        client.readiness(&nobody()).await,
        Readiness::Silent(_)
    ));
    let ready = Server::answering(200, "ok").await;
    assert_eq!(client.readiness(&ready.address).await, Readiness::Ready);
}
