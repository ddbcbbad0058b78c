//! Every route, with a request of every kind of client for every kind of repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum::body::Body;
use henge_api::TokenSet;
use henge_auth::Action;
use http::{Method, Request};
use serde_json::json;

use crate::harness::{Node, TOKEN};

const SCRAPER: &str = "a-token-for-the-page-of-metrics";

/// The answers to each client for a public, a private and a missing repository. `ok` is any answer
/// of the route itself.
#[derive(Debug, Clone, Copy)]
struct Rule {
    admin: &'static str,
    metrics: &'static str,
    wrong: &'static str,
    none: &'static str,
}

/// The reads of a public repository.
const PUBLIC: Rule = Rule {
    admin: "ok ok ok",
    metrics: "403 403 403",
    wrong: "401 401 401",
    none: "ok 401 401",
};
/// A fetch: the git service, which is not part of this router, looks up the repository.
const FETCH: Rule = Rule {
    none: "ok ok ok",
    ..PUBLIC
};
/// The routes for the administrator's token only.
const TOKEN_ONLY: Rule = Rule {
    none: "401 401 401",
    ..PUBLIC
};
/// The routes that a token for metrics opens too.
const METRICS: Rule = Rule {
    metrics: "ok ok ok",
    ..TOKEN_ONLY
};
/// The routes without authentication.
const HEALTH: Rule = Rule {
    wrong: "ok ok ok",
    none: "ok ok ok",
    ..METRICS
};

#[rustfmt::skip]
const ROUTES: &[(&str, &str, Rule)] = &[
    ("GET", "/api/henge/v1/cluster", TOKEN_ONLY),
    ("GET", "/api/henge/v1/node", TOKEN_ONLY),
    ("GET", "/api/henge/v1/node/tasks", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos", TOKEN_ONLY),
    ("POST", "/api/henge/v1/repos", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}/fsck", TOKEN_ONLY),
    ("POST", "/api/henge/v1/repos/{owner}/{repo}/fsck", TOKEN_ONLY),
    ("POST", "/api/henge/v1/repos/{owner}/{repo}/gc", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}/limits", TOKEN_ONLY),
    ("PUT", "/api/henge/v1/repos/{owner}/{repo}/limits", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}/mirrors", TOKEN_ONLY),
    ("POST", "/api/henge/v1/repos/{owner}/{repo}/mirrors", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}", TOKEN_ONLY),
    ("PATCH", "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}", TOKEN_ONLY),
    ("DELETE", "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}", TOKEN_ONLY),
    ("POST", "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}/sync", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}/push-certificates", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}/push-rules", TOKEN_ONLY),
    ("PUT", "/api/henge/v1/repos/{owner}/{repo}/push-rules", TOKEN_ONLY),
    ("POST", "/api/henge/v1/repos/{owner}/{repo}/refs", TOKEN_ONLY),
    ("GET", "/api/henge/v1/repos/{owner}/{repo}/stats", TOKEN_ONLY),
    ("GET", "/api/v1/repos/search", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}", PUBLIC),
    ("PATCH", "/api/v1/repos/{owner}/{repo}", TOKEN_ONLY),
    ("DELETE", "/api/v1/repos/{owner}/{repo}", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}/branch_protections", TOKEN_ONLY),
    ("POST", "/api/v1/repos/{owner}/{repo}/branch_protections", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}/branch_protections/{*name}", TOKEN_ONLY),
    ("PATCH", "/api/v1/repos/{owner}/{repo}/branch_protections/{*name}", TOKEN_ONLY),
    ("DELETE", "/api/v1/repos/{owner}/{repo}/branch_protections/{*name}", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}/branches", PUBLIC),
    ("GET", "/api/v1/repos/{owner}/{repo}/branches/{*branch}", PUBLIC),
    ("GET", "/api/v1/repos/{owner}/{repo}/forks", TOKEN_ONLY),
    ("POST", "/api/v1/repos/{owner}/{repo}/forks", TOKEN_ONLY),
    ("POST", "/api/v1/repos/{owner}/{repo}/mirror-sync", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}/push_mirrors", TOKEN_ONLY),
    ("POST", "/api/v1/repos/{owner}/{repo}/push_mirrors", TOKEN_ONLY),
    ("POST", "/api/v1/repos/{owner}/{repo}/push_mirrors-sync", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}/push_mirrors/{name}", TOKEN_ONLY),
    ("DELETE", "/api/v1/repos/{owner}/{repo}/push_mirrors/{name}", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}/topics", PUBLIC),
    ("PUT", "/api/v1/repos/{owner}/{repo}/topics", TOKEN_ONLY),
    ("PUT", "/api/v1/repos/{owner}/{repo}/topics/{topic}", TOKEN_ONLY),
    ("DELETE", "/api/v1/repos/{owner}/{repo}/topics/{topic}", TOKEN_ONLY),
    ("POST", "/api/v1/repos/{owner}/{repo}/transfer", TOKEN_ONLY),
    ("GET", "/api/v1/user", TOKEN_ONLY),
    ("POST", "/api/v1/user/repos", TOKEN_ONLY),
    ("GET", "/api/v1/version", TOKEN_ONLY),
    ("GET", "/healthz", HEALTH),
    ("GET", "/metrics", METRICS),
    ("GET", "/readyz", HEALTH),
];

/// Requests that match no route of the API: those of git, of other methods, and of other paths.
#[rustfmt::skip]
const OTHERS: &[(&str, &str, Rule)] = &[
    ("GET", "/{owner}/{repo}.git/info/refs?service=git-upload-pack", FETCH),
    ("POST", "/{owner}/{repo}.git/git-upload-pack", FETCH),
    ("GET", "/{owner}/{repo}.git/bundles/{bundle}.bundle", FETCH),
    ("HEAD", "/{owner}/{repo}.git/bundles/{bundle}.bundle", FETCH),
    ("HEAD", "/{owner}/{repo}.git/info/refs?service=git-upload-pack", TOKEN_ONLY),
    ("GET", "/{owner}/{repo}.git/info/refs?service=git-receive-pack", TOKEN_ONLY),
    ("GET", "/{owner}/{repo}.git/info/refs", TOKEN_ONLY),
    ("POST", "/{owner}/{repo}.git/git-receive-pack", TOKEN_ONLY),
    ("PUT", "/{owner}/{repo}.git/git-upload-pack", TOKEN_ONLY),
    ("GET", "/{owner}/{repo}.git/HEAD", TOKEN_ONLY),
    ("POST", "/api/v1/repos/{owner}/{repo}", TOKEN_ONLY),
    ("OPTIONS", "/api/v1/repos/{owner}/{repo}", TOKEN_ONLY),
    ("GET", "/api/v1/repos/{owner}/{repo}/nothing", TOKEN_ONLY),
    ("GET", "/api/nothing", TOKEN_ONLY),
    ("DELETE", "/api", TOKEN_ONLY),
    ("GET", "/api/", TOKEN_ONLY),
    ("POST", "/metrics", METRICS),
    ("GET", "/metrics/", TOKEN_ONLY),
    ("GET", "/", TOKEN_ONLY),
    ("POST", "/healthz", HEALTH),
    ("GET", "/healthz/", TOKEN_ONLY),
];

/// HEAD of the routes with GET: without a token only health answers it.
fn heads() -> Vec<(&'static str, &'static str, Rule)> {
    let gets = ROUTES.iter().filter(|(method, _, _)| *method == "GET");
    let heads = gets.map(|(_, path, rule)| match rule.wrong == HEALTH.wrong {
        true => ("HEAD", *path, *rule),
        false => {
            let none = TOKEN_ONLY.none;
            ("HEAD", *path, Rule { none, ..*rule })
        }
    });
    heads.collect()
}

/// A node with `admin/open`, which is public, and `admin/closed`.
async fn node() -> Node {
    let node = Node::new();
    let public = json!({"name": "open", "private": false});
    node.post("/api/v1/user/repos", public).await;
    node.create("closed").await;
    let tokens = TokenSet::new(TOKEN).expect("a token");
    let tokens = tokens.with_metrics(SCRAPER).expect("another token");
    node.tokens.replace(tokens);
    node
}

fn filled(path: &str, repo: &str) -> String {
    let mut filled = path
        .replace("{owner}", "admin")
        .replace("{repo}", repo)
        .replace("{bundle}", &"0".repeat(64));
    for rest in ["{id}", "{name}", "{topic}", "{*name}", "{*branch}"] {
        filled = filled.replace(rest, "x");
    }
    assert!(!filled.contains('{'), "{filled}: say what stands there");
    filled
}

/// The answers to a client with this token for the three repositories. Each call has a node of its
/// own: requests change repositories, and the answers to wrong tokens are delayed more and more.
async fn seen(method: &str, path: &str, token: Option<&str>) -> String {
    let node = node().await;
    let mut seen = Vec::new();
    for repo in ["open", "closed", "absent"] {
        let mut request = Request::builder().method(method).uri(filled(path, repo));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).expect("a request");
        let answer = node.send(request).await;
        seen.push(match answer.status.as_u16() {
            401 => "401",
            403 => "403",
            _ => "ok",
        });
    }
    seen.join(" ")
}

async fn check(rows: &[(&str, &str, Rule)]) {
    for (method, path, rule) in rows {
        for (client, token, expected) in [
            ("admin", Some(TOKEN), rule.admin),
            ("metrics", Some(SCRAPER), rule.metrics),
            ("wrong", Some("a-token-of-nobody"), rule.wrong),
            ("none", None, rule.none),
        ] {
            let seen = seen(method, path, token).await;
            assert_eq!(seen, expected, "{method} {path} by {client}");
        }
    }
}

#[test]
fn every_route_has_a_row_of_the_table() {
    let routes: BTreeSet<_> = henge_api::routes()
        .into_iter()
        .map(|route| (route.method.to_string(), route.path))
        .collect();
    let rows: BTreeSet<_> = ROUTES
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), *path))
        .collect();
    let without_a_row: Vec<_> = routes.difference(&rows).collect();
    assert!(without_a_row.is_empty(), "{without_a_row:?}");
    let without_a_route: Vec<_> = rows.difference(&routes).collect();
    assert!(without_a_route.is_empty(), "{without_a_route:?}");
    assert_eq!(rows.len(), ROUTES.len(), "a row stands twice");
}

/// A route that is registered with axum's router directly would have neither a rule nor a row.
#[test]
fn routes_are_registered_with_rules_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![src.clone()];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            seen += 1;
            // This file registers a route with its rule.
            if path == src.join("routes.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a file");
            for past_the_rules in [".route(", ".route_service(", ".nest("] {
                let file = path.display();
                assert!(!text.contains(past_the_rules), "{file}: {past_the_rules}");
            }
        }
    }
    assert!(seen > 20, "only {seen} files were found");
}

/// A row that admits clients without a token is a read, and every such read has a row.
#[test]
fn the_actions_of_open_routes_are_reads() {
    for route in henge_api::routes() {
        let method = route.method.as_str();
        let row = ROUTES
            .iter()
            .find(|(other, path, _)| *other == method && *path == route.path);
        let (_, path, rule) = row.expect("a row");
        let is_open = rule.none != TOKEN_ONLY.none;
        let reads = matches!(route.action, Action::ReadRepo | Action::ReadHealth);
        assert_eq!(is_open, reads, "{method} {path}");
        assert!(!is_open || route.method == Method::GET, "{method} {path}");
    }
}

#[tokio::test]
async fn routes_answer_as_the_table_says() {
    check(ROUTES).await;
}

#[tokio::test]
async fn head_is_answered_with_a_token_only() {
    check(&heads()).await;
}

#[tokio::test]
async fn requests_without_a_route_answer_as_the_table_says() {
    check(OTHERS).await;
}
