//! The listener under requests of raw bytes.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::{get, post};
use henge_api::{MetricsHandle, metrics};
use henge_git::http::Peer;
use henge_runtime::Scope;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::door::Bounds;
use super::{HttpServer, PLACES};

const PATIENCE: Duration = Duration::from_secs(60);

async fn start() -> (HttpServer, Scope) {
    start_with(PLACES).await
}

async fn start_with(places: Bounds) -> (HttpServer, Scope) {
    let echo = |body: String| async move { body };
    let who = |Extension(peer): Extension<Peer>| async move {
        format!("{} {}", peer.address, peer.connection)
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }).post(echo))
        .route("/who", get(who))
        .route("/healthz", get(|| async { "ok" }))
        .route("/metrics", get(who))
        .route("/late", post(|| async { "unread" }));
    let scope = Scope::root("test", Handle::current(), 1);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = HttpServer::start_with(places, listen, router, &scope).await;
    (server.expect("listens"), scope)
}

/// Sends these bytes on one connection and returns all bytes that come back until its end.
async fn answers(server: &HttpServer, bytes: &str) -> String {
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connects");
    stream.write_all(bytes.as_bytes()).await.expect("written");
    let mut answers = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        // A reset is an end too.
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            answers.extend(&piece[..read]);
        }
    };
    let ended = tokio::time::timeout(PATIENCE, reading).await;
    ended.expect("the connection ends");
    String::from_utf8(answers).expect("text")
}

/// The statuses of all responses on one connection.
async fn statuses(server: &HttpServer, bytes: &str) -> Vec<u16> {
    let answers = answers(server, bytes).await;
    let begins = answers
        .match_indices("HTTP/1.")
        .map(|(at, _)| &answers[at..]);
    begins
        .map(|answer| answer[9..12].parse().expect("a status"))
        .collect()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn plain_requests_are_answered() {
    let (server, scope) = start().await;
    let sized = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n\na\n";
    let chunks =
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\n\r\n";
    let many = format!("{GET}{sized}{chunks}{sized}{LAST}");
    assert_eq!(statuses(&server, &many).await, [200; 5]);
    let old = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(statuses(&server, old).await, [200]);
    assert!(server.stop(PATIENCE).await);
    assert!(scope.shutdown(PATIENCE).await);
}

/// Regression: each of these was answered, or read as another request than a proxy in front may
/// have read.
#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let (server, scope) = start().await;
    for refused in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET http://g/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        // The last request would be answered if the refused one had been read in some other way.
        let alone = format!("{refused}{}", LAST.replace("GET /", "GET /who"));
        let seen = statuses(&server, &alone).await;
        assert_eq!(seen.first(), Some(&400), "{refused:?}: {seen:?}");
        let behind = statuses(&server, &format!("{GET}{refused}")).await;
        assert_eq!(behind, [200, 400], "{refused:?}");
    }
    let chunks =
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n";
    let seen = statuses(&server, &format!("{chunks}{LAST}")).await;
    assert!(!seen.contains(&200), "{seen:?}");
    assert!(server.stop(PATIENCE).await);
    assert!(scope.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn every_answer_tells_browsers_what_it_is_not() {
    let (server, scope) = start().await;
    for path in ["/", "/nothing", "/late"] {
        let request = LAST.replace("GET / ", &format!("GET {path} "));
        let answer = answers(&server, &request).await.to_ascii_lowercase();
        for header in [
            "\r\nx-content-type-options: nosniff\r\n",
            "\r\nx-frame-options: deny\r\n",
            "\r\ncontent-security-policy: default-src 'none'; frame-ancestors 'none'\r\n",
            "\r\nreferrer-policy: no-referrer\r\n",
        ] {
            assert_eq!(answer.matches(header).count(), 1, "{path}: {answer}");
        }
    }
    let who = answers(&server, &LAST.replace("GET /", "GET /who")).await;
    assert!(who.contains("\r\n\r\n127.0.0.1 "), "{who}");
    assert!(server.stop(PATIENCE).await);
    assert!(scope.shutdown(PATIENCE).await);
}

/// Regression: connections with a reserved permit were parsed with hyper's latitude, and their
/// requests had no peer address.
#[tokio::test]
async fn kept_connections_are_as_strict_as_all_others() {
    let places = Bounds {
        max: 0,
        kept: 1,
        kept_per_address: 1,
    };
    let (server, scope) = start_with(places).await;
    let health = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(statuses(&server, health).await, [200]);
    for refused in [
        "GET /healthz HTTP/1.1\nHost: h\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: h\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(statuses(&server, refused).await, [400], "{refused:?}");
    }
    for connection in 5..7 {
        let request = health.replace("/healthz", "/metrics");
        let who = answers(&server, &request).await;
        let told = format!("\r\n\r\n127.0.0.1 {connection}");
        assert!(who.ends_with(&told), "{who}");
    }
    assert_eq!(statuses(&server, GET).await, [503]);
    assert!(server.stop(PATIENCE).await);
    assert!(scope.shutdown(PATIENCE).await);
}

/// Regression: neither the metrics nor the log showed that connections were refused or evicted.
#[tokio::test]
async fn refusals_are_counted() {
    let (recorder, page) = MetricsHandle::recorder();
    let _collecting = metrics::set_default_local_recorder(&recorder);
    for (max, kept) in [(1, 0), (0, 1), (0, 0)] {
        let places = Bounds {
            max,
            kept,
            kept_per_address: kept,
        };
        let (server, scope) = start_with(places).await;
        // With one permit, its connection is idle when the next one comes.
        let idle = match max {
            0 => None,
            _ => Some(TcpStream::connect(server.address()).await),
        };
        answers(&server, LAST).await;
        drop(idle);
        assert!(server.stop(PATIENCE).await);
        assert!(scope.shutdown(PATIENCE).await);
    }
    let (server, scope) = start().await;
    // Refused once for the bytes, once by the parser, and once for the Host header.
    for refused in [
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(statuses(&server, refused).await, [400], "{refused:?}");
    }
    assert!(server.stop(PATIENCE).await);
    assert!(scope.shutdown(PATIENCE).await);
    let page = page.render();
    for (reason, times) in [("displaced", 1), ("busy", 1), ("full", 1), ("malformed", 3)] {
        let line = format!("henge_api_listener_refusals_total{{reason=\"{reason}\"}} {times}\n");
        assert!(page.contains(&line), "no {line:?} in:\n{page}");
    }
}
