//! Expensive responses to clients without a token.

use std::time::{Duration, Instant};

use henge_types::limits;
use serde_json::{Value, json};

use super::usual::{Flooded, REPO, Usual};
use crate::flood::{CLOSED, ELSEWHERE, Flood, HERE, OPEN, Version, clone_of, listing};
use crate::ring::harness::{generated, git, large_tree, wait, work_tree};

/// The time from the first response to the end of the last unread one: a minute, and some time for
/// a busy machine.
const REST_MAX: Duration = Duration::from_secs(100);

/// Regression: 64 streams held all permits of clients without a token for five minutes.
#[test]
fn answers_of_which_nothing_is_taken_end() {
    const STREAMS: usize = 64;
    let flooded = Flooded::start(|dir| large_tree(dir, "tree"));
    let usual = Usual::measure(&flooded, REPO);
    let tip = flooded.tip();
    let request = || clone_of(REPO, Version::Two, &tip, None);
    let mut flood = Flood::of(flooded.address());
    // One address alone does not get all permits.
    for from in [ELSEWHERE, ELSEWHERE, ELSEWHERE, HERE] {
        let requests = (0..STREAMS / 4).map(|_| request());
        flood.connection(from, CLOSED, requests);
    }
    let began = Instant::now();
    wait("all answers to begin", || flood.begun() == STREAMS);
    let places = limits::ANONYMOUS_FETCHES_AT_ONCE;
    assert_eq!(
        (flood.count(200), flood.count(401)),
        (places, STREAMS - places),
        "{:?}",
        flood.answers()
    );
    // No 429: git asks the user for a token only after a 401.
    for from in [HERE, ELSEWHERE] {
        let refused = flood.ask(from, request());
        assert_eq!(refused.status(), 401);
        assert!(refused.headers().contains_key("www-authenticate"));
    }
    usual.others_go_on();
    wait("the answers to end", || flood.ended() == STREAMS);
    let took = began.elapsed();
    assert!(took <= REST_MAX, "the last answer ended after {took:?}");
    // The permits are free while the client is still connected.
    let open = flooded.ring.open_url(flooded.node, REPO);
    git(
        flooded.ring.dir.path(),
        &["clone", "-q", "--bare", &open, "without-a-token"],
    );
    drop(flood);
    usual.assert_calm();
}

/// Makes branches with long names, all at one commit.
fn make_branches(flooded: &Flooded, count: usize) {
    let (tip, folder) = (flooded.tip(), "x".repeat(200));
    let path = format!("/api/henge/v1/repos/{REPO}/refs");
    let updates: Vec<Value> = (0..count)
        .map(|number| {
            let name = format!("refs/heads/{folder}/{number}");
            json!({"ref": name, "old": null, "new": tip})
        })
        .collect();
    for part in updates.chunks(3_000) {
        let body = json!({"updates": part, "atomic": true}).to_string();
        let answer = flooded.ring.request(flooded.node, "POST", &path, &body);
        let (status, answer) = answer.expect("an answer");
        assert_eq!(status, 200, "{answer:.2000}");
        assert!(!answer.contains("\"ok\":false"), "{answer:.2000}");
    }
}

/// Regression: 8 connections that requested a listing of 9,000 refs in protocol v0, with a window
/// of 0, took 650 MB of the node's memory.
#[test]
fn listings_of_which_nothing_is_taken_are_few() {
    const CONNECTIONS: usize = 8;
    const STREAMS: usize = 64;
    let flooded = Flooded::start_small();
    make_branches(&flooded, 9_000);
    let usual = Usual::measure(&flooded, REPO);
    let mut flood = Flood::of(flooded.address());
    for connection in 0..CONNECTIONS {
        let from = if connection % 2 == 0 { HERE } else { ELSEWHERE };
        let requests = (0..STREAMS / CONNECTIONS).map(|_| listing(REPO));
        flood.connection(from, CLOSED, requests);
    }
    wait("all answers to begin", || {
        usual.assert_bounded();
        flood.begun() == STREAMS
    });
    usual.others_go_on();
    let (listed, refused) = (flood.count(200), flood.count(401));
    assert_eq!(listed + refused, STREAMS, "{:?}", flood.answers());
    assert!(listed > 0, "nothing was listed");
    drop(flood);
    usual.assert_calm();
}

/// Regression: 30 requests of 250 bytes, without a token and with one commit that no repository
/// has, delayed the clone of another, private repository by 40 to 118 s.
#[test]
fn a_hurry_of_clones_delays_no_other_repository() {
    const PRIVATE: &str = "admin/private";
    const REQUESTS: usize = 30;
    // 22,000 objects: a response of fewer than 20,000 needs no permit.
    let flooded = Flooded::start(|dir| generated(dir, "generated", 5_500));
    let ring = &flooded.ring;
    let tree = work_tree(ring.dir.path(), "private");
    let url = ring.url(flooded.node, PRIVATE);
    git(&tree, &["push", "-q", &url, "main"]);
    for node in ring.nodes() {
        // Bitmaps come with a large push, and not with the flood.
        wait("bitmaps on every node", || {
            ring.metric(node, "henge_repos_bitmaps_made_total", "ok") >= 1.0
        });
    }
    let usual = Usual::measure(&flooded, PRIVATE);
    let (tip, mut number) = (flooded.tip(), 0_u32);
    let mut request = || {
        // No two requests are equal: the response cache serves none.
        number += 1;
        let version = match number % 2 {
            0 => Version::Zero,
            _ => Version::Two,
        };
        clone_of(REPO, version, &tip, Some(&format!("{number:040x}")))
    };
    let mut flood = Flood::of(flooded.address());
    // One request of each version, as a check that it returns a pack.
    for _ in 0..2 {
        let whole = flood.ask(HERE, request());
        let has_pack = whole.body().windows(4).any(|bytes| bytes == b"PACK");
        assert!(has_pack, "{} bytes", whole.body().len());
    }
    // The first address has as many requests as each connection (8) and each address (24) may have.
    for (from, count) in [(ELSEWHERE, 8), (ELSEWHERE, 8), (ELSEWHERE, 8), (HERE, 6)] {
        let requests: Vec<_> = (0..count).map(|_| request()).collect();
        flood.connection(from, OPEN, requests);
    }
    wait("all answers to begin", || flood.begun() == REQUESTS);
    assert_eq!(flood.count(200), REQUESTS, "{:?}", flood.answers());
    for _ in 0..5 {
        usual.others_go_on();
        if flood.ended() == REQUESTS {
            break;
        }
    }
    drop(flood);
    usual.assert_calm();
}
