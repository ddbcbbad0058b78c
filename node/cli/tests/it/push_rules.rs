//! `henge repo edit --fsck`, and the rules in the output of `henge repo show`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use henge_cli::Exit;
use serde_json::Value;

use crate::repo::{Repos, error, router};
use crate::run::{Server, henge};

/// A node of an earlier release lacks the route, as this one does until rules are set.
pub(crate) async fn rules(
    State(repos): State<Repos>,
    Path((owner, name)): Path<(String, String)>,
) -> Response {
    let repos = repos.lock().expect("not poisoned");
    let rules = repos
        .get(&format!("{owner}/{name}"))
        .map(|repo| repo["push_rules"].clone())
        .filter(Value::is_object);
    match rules {
        Some(rules) => Json(rules).into_response(),
        None => error(StatusCode::NOT_FOUND, "not_found"),
    }
}

pub(crate) async fn set_rules(
    State(repos): State<Repos>,
    Path((owner, name)): Path<(String, String)>,
    Json(rules): Json<Value>,
) -> Response {
    let mut repos = repos.lock().expect("not poisoned");
    let Some(repo) = repos.get_mut(&format!("{owner}/{name}")) else {
        return error(StatusCode::NOT_FOUND, "not_found");
    };
    repo["push_rules"] = rules.clone();
    Json(rules).into_response()
}

#[tokio::test]
async fn rules_for_pushes_are_set_and_shown() {
    let server = Server::start(router()).await;
    let url = server.url.as_str();
    henge(url, &["repo", "create", "admin/demo"]).await;
    let show = async || henge(url, &["repo", "show", "admin/demo"]).await;
    let done = show().await;
    assert_eq!(done.exit, Exit::Ok, "{}", done.err);
    assert!(!done.out.contains("pushed objects"), "{}", done.out);
    for level in ["lenient", "strict"] {
        let edit = ["repo", "edit", "admin/demo", "--fsck", level];
        let done = henge(url, &edit).await;
        assert_eq!(
            (done.exit, done.out.as_str()),
            (Exit::Ok, "changed admin/demo\n")
        );
        let line = format!("\npushed objects  checked, {level}\n");
        let done = show().await;
        assert!(done.out.contains(&line), "{}", done.out);
    }
    let done = henge(url, &["repo", "edit", "admin/none", "--fsck", "strict"]).await;
    assert_eq!(done.exit, Exit::NotFound);
}
