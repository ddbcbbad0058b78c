//! Access to the routes.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_api::TokenSet;
use henge_git::http::Peer;
use http::{Request, StatusCode};
use std::net::IpAddr;
use std::time::Duration;

use crate::harness::{Answered, Node, TOKEN};

async fn with_header(node: &Node, uri: &str, authorization: Option<&str>) -> Answered {
    let mut request = Request::builder().uri(uri);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let request = request.body(Body::empty()).expect("a request");
    node.send(request).await
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn every_form_of_the_token_is_let_in() {
    let node = Node::new();
    let forms = [
        format!("token {TOKEN}"),
        format!("Bearer {TOKEN}"),
        format!("bearer {TOKEN}"),
        basic("admin", TOKEN),
        basic("x-token", TOKEN),
        basic("", TOKEN),
    ];
    for form in forms {
        let answer = with_header(&node, "/api/v1/version", Some(&form)).await;
        assert_eq!(answer.status, StatusCode::OK, "{form}");
    }
}

#[tokio::test]
async fn every_other_request_is_refused_with_a_challenge() {
    let node = Node::new();
    let wrong = [
        None,
        Some("token 0123456789abcdef0123456789abcdee".to_owned()),
        Some(format!("token {TOKEN}x")),
        Some("Bearer ".to_owned()),
        Some("Bearer".to_owned()),
        Some(TOKEN.to_owned()),
        Some(basic("admin", "wrong")),
        Some(basic(TOKEN, "")),
        Some("Basic ???".to_owned()),
        Some("Digest x".to_owned()),
    ];
    for form in wrong {
        let answer = with_header(&node, "/api/v1/version", form.as_deref()).await;
        answer.error(401, "unauthenticated");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some("Basic realm=\"henge\""), "{form:?}");
        assert!(!answer.text.contains(TOKEN));
    }
}

#[tokio::test]
async fn everything_but_health_needs_the_token() {
    let node = Node::new();
    let closed = [
        "/metrics",
        "/api/v1/version",
        "/api/v1/user",
        "/api/v1/repos/search",
        "/api/v1/repos/admin/x",
        "/api/v1/repos/admin/x/branches",
        "/api/v1/repos/admin/x/branches/main",
        "/api/v1/repos/admin/x/topics",
        "/api/v1/repos/admin/x/branch_protections",
        "/api/v1/repos/-/-",
        "/api/henge/v1/repos/admin/x",
        "/api/henge/v1/repos/admin/x/stats",
        "/api/henge/v1/repos/admin/x/push-certificates",
        "/api/henge/v1/cluster",
        "/api/henge/v1/node",
        "/api/henge/v1/repos",
        "/api/nothing",
        "/admin/x.git/info/refs?service=git-receive-pack",
        "/admin/x.git/info/refs",
        "/api/v1/repos/admin/info/refs?service=git-upload-pack",
        "/",
        "/nothing",
        "/healthz/",
        "//healthz",
    ];
    for uri in closed {
        let answer = with_header(&node, uri, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{uri}");
    }
    for (uri, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = with_header(&node, uri, None).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (StatusCode::OK, text)
        );
    }
}

#[tokio::test]
async fn the_git_router_learns_who_asks_and_answers_in_text_to_strangers() {
    let node = Node::new();
    let uri = "/admin/x.git/info/refs?service=git-receive-pack";
    let known = with_header(&node, uri, Some(&basic("me", TOKEN))).await;
    assert_eq!(
        (known.status, known.text.as_str()),
        (StatusCode::OK, "admin")
    );
    let stranger = with_header(&node, uri, None).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    assert!(stranger.text.starts_with("no token: "), "{stranger:?}");
    assert!(stranger.header("www-authenticate").is_some());
}

fn json(uri: &str, method: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("content-type", "application/json");
    request.body(Body::from("{}")).expect("a request")
}

#[tokio::test]
async fn public_repositories_are_read_without_a_token_and_nothing_else_is() {
    let node = Node::new();
    let public = serde_json::json!({"name": "open", "private": false});
    node.post("/api/v1/user/repos", public).await;
    node.create("closed").await;
    let id = "0123456789abcdef0123456789abcdef01234567";
    for repo in ["admin/open", "admin/closed"] {
        node.backend.set_ref(repo, "refs/heads/main", id);
    }
    let open = with_header(&node, "/api/v1/repos/admin/open", None).await;
    assert_eq!(open.status, StatusCode::OK, "{open:?}");
    let seen = serde_json::json!({"admin": false, "push": false, "pull": true});
    assert_eq!(open.json()["permissions"], seen);
    for below in ["branches", "branches/main", "topics"] {
        let uri = format!("/api/v1/repos/admin/open/{below}");
        let answer = with_header(&node, &uri, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{uri}: {answer:?}");
    }
    // The answers for private and for missing repositories are equal.
    for below in ["", "/branches", "/branches/main", "/topics"] {
        let ask = async |name: &str| {
            let uri = format!("/api/v1/repos/admin/{name}{below}");
            let answer = with_header(&node, &uri, None).await;
            answer.error(401, "unauthenticated");
            (
                answer.text.clone(),
                answer.header("www-authenticate").map(str::to_owned),
            )
        };
        let closed = ask("closed").await;
        assert_eq!(closed, ask("nothing").await);
        assert_eq!(closed, ask("-not-a-name-").await);
        assert!(closed.1.is_some());
    }
    // Without a token no change is allowed, not even of public repositories.
    for (method, below) in [
        ("PATCH", ""),
        ("DELETE", ""),
        ("PUT", "/topics"),
        ("PUT", "/topics/x"),
        ("POST", "/transfer"),
        ("POST", "/branch_protections"),
        ("HEAD", "/stats"),
    ] {
        let uri = format!("/api/v1/repos/admin/open{below}");
        let answer = node.send(json(&uri, method)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {uri}");
    }
    // A wrong token is refused even where a request without a token is answered.
    let wrong = with_header(&node, "/api/v1/repos/admin/open", Some("token x")).await;
    wrong.error(401, "unauthenticated");
}

#[tokio::test]
async fn fetches_reach_the_git_router_without_a_token_and_pushes_do_not() {
    let node = Node::new();
    let fetch = "/admin/x.git/info/refs?service=git-upload-pack";
    let nobody = with_header(&node, fetch, None).await;
    assert_eq!(
        (nobody.status, nobody.text.as_str()),
        (StatusCode::OK, "anonymous")
    );
    let push = "/admin/x.git/info/refs?service=git-receive-pack";
    let nobody = with_header(&node, push, None).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_node_may_answer_nothing_at_all_without_a_token() {
    let node = Node::closed();
    node.create("open").await;
    let id = "0123456789abcdef0123456789abcdef01234567";
    node.backend.set_ref("admin/open", "refs/heads/main", id);
    for below in ["", "/branches", "/branches/main", "/topics"] {
        let uri = format!("/api/v1/repos/admin/open{below}");
        let answer = with_header(&node, &uri, None).await;
        answer.error(401, "unauthenticated");
        assert!(answer.header("www-authenticate").is_some());
        let known = with_header(&node, &uri, Some(&basic("me", TOKEN))).await;
        assert_eq!(known.status, StatusCode::OK, "{known:?}");
    }
    let fetch = "/admin/open.git/info/refs?service=git-upload-pack";
    let nobody = with_header(&node, fetch, None).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    let upload = node
        .send(json("/admin/open.git/git-upload-pack", "POST"))
        .await;
    assert_eq!(upload.status, StatusCode::UNAUTHORIZED);
    let known = with_header(&node, fetch, Some(&basic("me", TOKEN))).await;
    assert_eq!(known.status, StatusCode::OK);
    for uri in ["/healthz", "/readyz"] {
        assert_eq!(with_header(&node, uri, None).await.status, StatusCode::OK);
    }
}

/// The replacement of a token required a stop of every node, and a scraper of metrics had the
/// administrator's.
#[tokio::test]
async fn tokens_are_exchanged_while_the_node_runs() {
    const NEXT: &str = "another-token-of-the-administrator";
    const SCRAPER: &str = "a-token-for-the-page-of-metrics";
    let node = Node::new();
    let ask = async |uri: &str, token: &str| {
        let form = format!("Bearer {token}");
        with_header(&node, uri, Some(&form)).await.status.as_u16()
    };
    let version = "/api/v1/version";
    assert_eq!(ask(version, NEXT).await, 401);
    let both = TokenSet::new(&format!("{NEXT}\n{TOKEN}\n")).expect("two tokens");
    node.tokens.replace(both);
    assert_eq!(ask(version, TOKEN).await, 200);
    assert_eq!(ask(version, NEXT).await, 200);
    let after = TokenSet::new(NEXT).expect("a token");
    let after = after.with_metrics(SCRAPER).expect("another token");
    node.tokens.replace(after);
    assert_eq!(ask(version, TOKEN).await, 401);
    assert_eq!(ask(version, NEXT).await, 200);

    assert_eq!(ask("/metrics", SCRAPER).await, 200);
    assert_eq!(ask("/metrics", NEXT).await, 200);
    for elsewhere in [
        version,
        "/api/henge/v1/cluster",
        "/metrics/",
        "/admin/x.git/info/refs?service=git-upload-pack",
    ] {
        assert_eq!(ask(elsewhere, SCRAPER).await, 403, "{elsewhere}");
    }
}

/// The rate of guesses of a token was bounded only by the speed of the node.
#[tokio::test(start_paused = true)]
async fn wrong_tokens_are_answered_later_and_later_and_right_ones_at_once() {
    const SHORT: Duration = Duration::from_millis(50);
    let node = Node::new();
    let ask = async |token: &str| {
        let form = format!("Bearer {token}");
        with_header(&node, "/api/v1/version", Some(&form)).await
    };
    for _ in 0..4 {
        let soon = tokio::time::timeout(SHORT, ask("wrong")).await;
        soon.expect("answered at once")
            .error(401, "unauthenticated");
    }
    for _ in 0..10 {
        let soon = tokio::time::timeout(SHORT, ask("wrong")).await;
        assert!(soon.is_err(), "{soon:?}");
        let right = tokio::time::timeout(SHORT, ask(TOKEN)).await;
        assert_eq!(right.expect("answered at once").status, StatusCode::OK);
    }
    let late = tokio::time::timeout(Duration::from_secs(3), ask("wrong")).await;
    late.expect("in the end").error(401, "unauthenticated");
    // The number of delayed answers is bounded: the others are equal but immediate, and their
    // connections end.
    let many = futures::future::join_all((0..70).map(|_| ask("wrong"))).await;
    let last = many.iter().filter(|answer| {
        assert_eq!(
            answer.error(401, "unauthenticated"),
            "the token is not valid"
        );
        answer.header("connection") == Some("close")
    });
    assert_eq!(last.count(), 70 - 64);
}

/// One address took all permits to wait. The answer to a mistyped token from elsewhere was 429, on
/// which git gives up.
#[tokio::test(start_paused = true)]
async fn a_flood_of_wrong_tokens_keeps_to_its_address() {
    const SHORT: Duration = Duration::from_millis(50);
    let node = Node::new();
    let ask = async |address: u8, connection: u64| {
        let peer = Peer {
            address: IpAddr::from([192, 0, 2, address]),
            connection,
        };
        let request = Request::get("/admin/x.git/info/refs?service=git-upload-pack")
            .extension(peer)
            .header("authorization", basic("me", "mistyped"));
        let request = request.body(Body::empty()).expect("a request");
        let answer = node.send(request).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
        assert_eq!(answer.text, "the token is not valid\n");
        assert!(answer.header("www-authenticate").is_some());
        answer.header("connection") == Some("close")
    };
    for address in [1, 2] {
        for _ in 0..4 {
            assert!(!ask(address, 0).await, "answered at once");
        }
    }
    let flood = futures::future::join_all((0..80).map(|connection| ask(1, connection)));
    let mut flood = Box::pin(flood);
    assert!(futures::poll!(flood.as_mut()).is_pending());
    assert!(!ask(2, 100).await, "answered a little later");
    // Above its bound an address does not wait.
    let crowded = tokio::time::timeout(SHORT, ask(1, 200)).await;
    assert!(crowded.expect("answered at once"), "and it is the last");
    let last = flood.await.into_iter().filter(|is_last| *is_last);
    assert_eq!(last.count(), 80 - 8);
}
