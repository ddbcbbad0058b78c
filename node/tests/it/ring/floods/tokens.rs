//! Wrong tokens: responses to their address are delayed, and those to other addresses are not.

use std::time::{Duration, Instant};

use axum::body::Body;
use henge_types::limits;
use http::Request;

use super::usual::{Flooded, REPO, Usual};
use crate::flood::{ELSEWHERE, Flood, HERE, OPEN};
use crate::ring::harness::wait;

const VERSION: &str = "/api/v1/version";
/// The time for a response without a delay.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Log lines about wrong tokens: ten in a minute, and a few of the next one.
const LOG_LINES_MAX: usize = 12;

fn with_token(token: &str) -> Request<Body> {
    Request::get(format!("http://x{VERSION}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .expect("a request")
}

/// Regression: 64 wrong tokens of one address took all permits of delayed responses. A mistyped
/// token from any address got 429, after which git does not ask for another one.
#[test]
fn wrong_tokens_delay_nobody_else() {
    const CONNECTIONS: usize = 4;
    const TOKENS: usize = 200;
    let flooded = Flooded::start_small();
    let usual = Usual::measure(&flooded, REPO);
    let (ring, node) = (&flooded.ring, flooded.node);
    let counted = || ring.metric(node, "henge_api_auth_failures_total", "reason=\"wrong\"");
    let all = counted() + TOKENS as f64;
    let mut flood = Flood::of(flooded.address());
    for connection in 0..CONNECTIONS {
        let requests = (0..TOKENS / CONNECTIONS)
            .map(|number| with_token(&format!("a-wrong-token-{connection}-{number}")));
        flood.connection(ELSEWHERE, OPEN, requests);
    }
    wait("the wrong tokens to be counted", || counted() >= all);
    let began = Instant::now();
    let (status, body) = ring.get(node, VERSION).expect("answers");
    let took = began.elapsed();
    assert_eq!(status, 200, "{body}");
    assert!(took <= AT_ONCE, "a right token was answered after {took:?}");
    let began = Instant::now();
    let answer = flood.ask(HERE, with_token("a-mistyped-token"));
    let took = began.elapsed();
    assert_eq!(answer.status(), 401);
    let delay_max = Duration::from_millis(limits::WRONG_TOKEN_DELAY_MS_MAX);
    assert!(took <= delay_max, "answered after {took:?}");
    usual.others_go_on();
    wait("all answers to end", || flood.ended() == TOKENS);
    assert_eq!(flood.count(401), TOKENS, "{:?}", flood.answers());
    let log = std::fs::read_to_string(ring.node_dir(node).join("henge.log"));
    let log = log.expect("a log");
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("a wrong token came"))
        .collect();
    assert!(lines.len() <= LOG_LINES_MAX, "{lines:#?}");
    let address = ELSEWHERE.to_string();
    assert!(
        lines.iter().any(|line| line.contains(&address)),
        "{lines:#?}"
    );
    drop(flood);
    usual.assert_calm();
}
