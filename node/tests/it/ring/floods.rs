//! Floods of one client without a token, or with a wrong one, and the service for other clients
//! meanwhile.
//!
//! Each flood is bounded: a fixed number of connections or streams, which end with the test. Other
//! clients are measured before it and during it: `usual`.
//!
//! Here: bodies and connections that never end. `answers`: expensive responses that are not read.
//! `tokens`: wrong tokens.

mod answers;
mod tokens;
mod usual;

use std::io::Write as _;
use std::net::TcpStream;

use axum::body::{Body, Bytes};
use henge_types::limits;

use super::harness::{git, wait};
use crate::flood::{CLOSED, Flood, HERE, OPEN, Version, upload_pack};
use usual::{Flooded, REPO, Usual};

/// A body that never ends.
fn unfinished(first: Bytes) -> Body {
    let first = futures::stream::iter([Ok::<_, std::io::Error>(first)]);
    Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
}

/// Regression: 64 streams of one connection, to a repository that does not exist, held all permits
/// of clients without a token for five minutes. git's first request, which carries no token, got
/// 429, and clones of users with a token gave up.
#[test]
fn unfinished_bodies_keep_nobody_out() {
    const STREAMS: usize = 90;
    let flooded = Flooded::start_small();
    let usual = Usual::measure(&flooded, REPO);
    let mut flood = Flood::of(flooded.address());
    let requests = (0..STREAMS).map(|stream| {
        let repo = if stream % 2 == 0 {
            "admin/nothing"
        } else {
            REPO
        };
        let body = unfinished(Bytes::from_static(b"0011command=fetch"));
        upload_pack(repo, Version::Two, body)
    });
    flood.connection(HERE, OPEN, requests);
    // The connection keeps its share of the bodies that are read.
    let refused = STREAMS - limits::ANONYMOUS_BODIES_PER_CONNECTION;
    wait("the others to be refused", || flood.begun() >= refused);
    let answers = flood.answers();
    assert!(answers.len() < STREAMS, "no body is read: {answers:?}");
    usual.others_go_on();
    // Another connection without a token is served as well.
    let open = flooded.ring.open_url(flooded.node, REPO);
    git(flooded.ring.dir.path(), &["ls-remote", "-q", &open]);
    drop(flood);
    usual.assert_calm();
}

/// Regression: 64 bodies with a megabyte in all, on the wire, took a gigabyte of the node's memory.
#[test]
fn bodies_that_inflate_are_held_within_a_budget() {
    let flooded = Flooded::start_small();
    let usual = Usual::measure(&flooded, REPO);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..15 {
        gzip.write_all(&[0; 1 << 20]).expect("written");
    }
    let bomb = Bytes::from(gzip.finish().expect("finished"));
    let mut flood = Flood::of(flooded.address());
    for _ in 0..8 {
        let requests = (0..16).map(|_| {
            let mut request = upload_pack(REPO, Version::Two, unfinished(bomb.clone()));
            let gzip = http::HeaderValue::from_static("gzip");
            request.headers_mut().insert("content-encoding", gzip);
            request
        });
        flood.connection(HERE, OPEN, requests);
    }
    for _ in 0..3 {
        usual.others_go_on();
    }
    drop(flood);
    usual.assert_calm();
}

/// Regression: 32 clones with a window of 0 held their permits for two hours.
#[test]
fn clients_that_take_nothing_of_their_answers_keep_nobody_out() {
    const STREAMS: usize = 64;
    let flooded = Flooded::start_small();
    let usual = Usual::measure(&flooded, REPO);
    let mut flood = Flood::of(flooded.address());
    for _ in 0..4 {
        let requests = (0..STREAMS / 4).map(|_| {
            let body = Body::from(&b"0014command=ls-refs\n0000"[..]);
            upload_pack(REPO, Version::Two, body)
        });
        flood.connection(HERE, CLOSED, requests);
    }
    wait("all answers to begin", || flood.begun() == STREAMS);
    usual.others_go_on();
    drop(flood);
    usual.assert_calm();
}

/// Regression: 1,024 silent sockets kept all clients out of a node for a minute, `/healthz` and
/// `/metrics` included.
#[test]
fn silent_sockets_shut_no_door() {
    let flooded = Flooded::start_small();
    let usual = Usual::measure(&flooded, REPO);
    let mut flood = Vec::new();
    for number in 0..1_400 {
        let mut stream = TcpStream::connect(flooded.address()).expect("connects");
        if number % 2 == 0 {
            // The beginning of a head; the node may have evicted the connection already.
            drop(stream.write_all(b"GET /admin/public.git/info/refs HTTP/1.1\r\nX: "));
        }
        flood.push(stream);
    }
    usual.others_go_on();
    let metrics = flooded.ring.get(flooded.node, "/metrics");
    assert_eq!(metrics.expect("answers").0, 200);
    drop(flood);
    usual.assert_calm();
}
