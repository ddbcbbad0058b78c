//! Floods of one client that shows no token, and what stays possible for everybody else meanwhile.
//!
//! Each flood is bounded: so many connections or streams, and it ends with its test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;

use super::harness::{Ring, commit, git, wait, work_tree};

const REPO: &str = "admin/public";
/// How much more a node may hold in memory while a flood lasts.
const MEMORY_MAX_KIB: u64 = 256 * 1024;

/// A ring with a public repository that has a commit, and the node that is flooded.
fn flooded() -> (Ring, u64) {
    let ring = Ring::start(4);
    let node = ring.nodes()[0];
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(node, REPO), "main"]);
    let public = r#"{"private":false}"#;
    let path = format!("/api/v1/repos/{REPO}");
    let (status, body) = ring.request(node, "PATCH", &path, public).expect("answers");
    assert_eq!(status, 200, "{body}");
    wait("everybody to see it", || {
        let mut stream = TcpStream::connect(ring.address(node)).expect("listens");
        let head = format!(
            "GET /{REPO}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        answer.starts_with("HTTP/1.1 200")
    });
    (ring, node)
}

fn address(ring: &Ring, node: u64) -> SocketAddr {
    ring.address(node).parse().expect("an address")
}

/// Private, dirty memory of a node's process.
fn memory_kib(ring: &Ring, node: u64) -> u64 {
    let pid = ring.pid(node).expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("a number").parse().expect("a number")
}

/// Somebody with a token clones and pushes, and the node says how it stands.
fn others_go_on(ring: &Ring, node: u64, name: &str) {
    let clone = ring.dir.path().join(name);
    let target = clone.to_str().expect("a path");
    git(
        ring.dir.path(),
        &["clone", "-q", &ring.url(node, REPO), target],
    );
    commit(&clone, name);
    git(&clone, &["push", "-q", "origin", "HEAD:main"]);
    for path in ["/healthz", "/readyz"] {
        let began = Instant::now();
        let (status, body) = ring.get(node, path).expect("answers");
        assert_eq!(status, 200, "{path}: {body}");
        // What asks for it gives up after seconds.
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{path}: {:?}",
            began.elapsed()
        );
    }
}

/// A body whose bytes never come to their end.
fn unfinished(first: &'static [u8]) -> Body {
    let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(first))]);
    Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
}

async fn two(address: SocketAddr, window: u32) -> SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("listens");
    let (client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    client
}

fn fetch(repo: &str, body: Body) -> http::Request<Body> {
    http::Request::post(format!("http://x/{repo}.git/git-upload-pack"))
        .header("content-type", "application/x-git-upload-pack-request")
        .header("git-protocol", "version=2")
        .body(body)
        .expect("a request")
}

/// 64 streams of one connection, to a repository that does not exist, held all places of those without a token for
/// five minutes: git's first request, which carries none, got 429, and clones of people with a token gave up.
#[test]
fn unfinished_bodies_keep_nobody_out() {
    let (ring, node) = flooded();
    let runtime = Runtime::new().expect("a runtime");
    let flood = runtime.block_on(async {
        let client = two(address(&ring, node), 65_535).await;
        let mut answers = Vec::new();
        for stream in 0..90 {
            let repo = if stream % 2 == 0 {
                "admin/nothing"
            } else {
                REPO
            };
            let mut client = client.clone();
            let request = fetch(repo, unfinished(b"0011command=fetch"));
            answers.push(tokio::spawn(
                async move { client.send_request(request).await },
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        (client, answers)
    });
    others_go_on(&ring, node, "one");
    // Without a token as well, from another connection.
    git(
        ring.dir.path(),
        &["ls-remote", "-q", &ring.open_url(node, REPO)],
    );
    drop(flood);
}

/// 64 bodies of a megabyte in all, on the wire, took a gigabyte of the node's memory.
#[test]
fn bodies_that_inflate_are_held_within_a_budget() {
    let (ring, node) = flooded();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..15 {
        gzip.write_all(&[0; 1 << 20]).expect("written");
    }
    let bomb = Bytes::from(gzip.finish().expect("finished"));
    let rest = memory_kib(&ring, node);
    let runtime = Runtime::new().expect("a runtime");
    let flood = runtime.block_on(async {
        let mut held = Vec::new();
        for _ in 0..8 {
            let client = two(address(&ring, node), 65_535).await;
            for _ in 0..16 {
                let first = futures::stream::iter([Ok::<_, std::io::Error>(bomb.clone())]);
                let body = futures::StreamExt::chain(first, futures::stream::pending());
                let mut request = fetch(REPO, Body::from_stream(body));
                let gzip = http::HeaderValue::from_static("gzip");
                request.headers_mut().insert("content-encoding", gzip);
                let mut client = client.clone();
                held.push(tokio::spawn(
                    async move { client.send_request(request).await },
                ));
            }
        }
        held
    });
    for round in 0..3 {
        others_go_on(&ring, node, &format!("clone-{round}"));
        let more = memory_kib(&ring, node).saturating_sub(rest);
        assert!(more < MEMORY_MAX_KIB, "{more} KiB more");
    }
    drop(flood);
}

/// 32 clones whose window is 0 held their places for two hours.
#[test]
fn clients_that_take_nothing_of_their_answers_keep_nobody_out() {
    let (ring, node) = flooded();
    let runtime = Runtime::new().expect("a runtime");
    let flood = runtime.block_on(async {
        let mut held = Vec::new();
        for _ in 0..4 {
            let client = two(address(&ring, node), 0).await;
            for _ in 0..16 {
                let body = Body::from(&b"0014command=ls-refs\n0000"[..]);
                let mut client = client.clone();
                held.push(tokio::spawn(async move {
                    client.send_request(fetch(REPO, body)).await
                }));
            }
        }
        held
    });
    others_go_on(&ring, node, "one");
    drop(flood);
}

/// 1,024 sockets of which nothing came shut a node's door for a minute, `/healthz` and `/metrics` included.
#[test]
fn silent_sockets_shut_no_door() {
    let (ring, node) = flooded();
    let rest = memory_kib(&ring, node);
    let mut flood = Vec::new();
    for number in 0..1_400 {
        let mut stream = TcpStream::connect(address(&ring, node)).expect("connects");
        if number % 2 == 0 {
            // The beginning of a head; the node may have given the place away already.
            drop(stream.write_all(b"GET /admin/public.git/info/refs HTTP/1.1\r\nX: "));
        }
        flood.push(stream);
    }
    others_go_on(&ring, node, "one");
    let (status, _) = ring.get(node, "/metrics").expect("answers");
    assert_eq!(status, 200);
    let more = memory_kib(&ring, node).saturating_sub(rest);
    assert!(more < MEMORY_MAX_KIB, "{more} KiB more");
    drop(flood);
}
