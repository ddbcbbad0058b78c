//! Health and metrics when all connections are at work: a monitor must not take the node for dead.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::door::KeptPlace;
use super::refusals::{Client, Refusal};
use super::strict::Strict;

/// The beginnings of such requests.
const BEGINNINGS: [&[u8]; 3] = [b"GET /healthz ", b"GET /readyz ", b"GET /metrics "];
/// The length of the longest of them, in bytes.
const BEGINNING_BYTES_MAX: usize = 13;
/// The time from the first byte to the end of the response: reserved permits are few.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The poll interval of a connection whose first bytes come one by one.
const BEGIN_PAUSE: Duration = Duration::from_millis(20);
/// The largest head of such a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The response to all other requests.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n\
content-length: 52\r\nretry-after: 5\r\nconnection: close\r\n\r\n\
all connections of this node are at work: try again\n";

/// Answers one health or metrics request; any other gets 503.
pub(super) async fn answer(
    mut stream: TcpStream,
    (client, place): (Client, KeptPlace),
    router: Router,
) {
    let answered = async {
        if !asks_how_it_stands(&stream).await {
            client.refused(Refusal::Busy);
            // The client may be gone.
            drop(stream.write_all(FULL).await);
            return;
        }
        let peer = client.peer();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Strict::new(stream, client.clone())), service);
        if let Err(error) = connection.await {
            if error.is_parse() {
                client.malformed();
            }
            tracing::debug!(%error, "a connection broke");
        }
    };
    // The connection ends in any case, by the time-out at the latest.
    let in_time = tokio::time::timeout(TIME_MAX, answered).await;
    if in_time.is_err() {
        client.refused(Refusal::Late);
    }
    drop(place);
}

async fn asks_how_it_stands(stream: &TcpStream) -> bool {
    let mut begin = [0; BEGINNING_BYTES_MAX];
    loop {
        let Ok(seen) = stream.peek(&mut begin).await else {
            return false;
        };
        let seen = begin.get(..seen).unwrap_or_default();
        if BEGINNINGS.iter().any(|one| seen.starts_with(one)) {
            return true;
        }
        // Waits only for the rest of such a beginning.
        if seen.is_empty() || !BEGINNINGS.iter().any(|one| one.starts_with(seen)) {
            return false;
        }
        tokio::time::sleep(BEGIN_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginnings_fit_and_the_length_is_told() {
        let longest = BEGINNINGS.iter().map(|one| one.len()).max();
        assert_eq!(longest, Some(BEGINNING_BYTES_MAX));
        let text = std::str::from_utf8(FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
