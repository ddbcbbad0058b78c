//! When the next address is tried, and when it must not be.

use std::time::Duration;

use axum::Router;
use henge_client::model::NewRepo;
use henge_client::{Address, Client, ClientError, Deadlines, Secret};
use henge_types::{ErrorCode, RepoPath};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::server::{Server, nobody, url};

const VERSION: &str = "{\"version\":\"1\"}";
const UNAVAILABLE: &str = "{\"message\":\"no quorum\",\"code\":\"unavailable\"}";

fn client(addresses: &[&Address]) -> Client {
    let short = Deadlines {
        answer: Duration::from_millis(300),
        ..Deadlines::default()
    };
    let addresses = addresses.iter().map(|address| (*address).clone()).collect();
    Client::with_deadlines(addresses, None, short)
}

fn demo() -> RepoPath {
    "admin/demo".parse().expect("a path")
}

fn new_demo() -> NewRepo {
    NewRepo::new(demo())
}

/// Accepts connections, reads the request, and closes them without an answer.
async fn breaking() -> (Address, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = url(listener.local_addr().expect("an address"));
    #[expect(clippy::disallowed_methods, reason = "a test has no task scope")]
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.expect("a request");
            assert!(read > 0);
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_refused_connection_moves_every_call_on() {
    let dead = nobody();
    let alive = Server::answering(200, VERSION).await;
    let client = client(&[&dead, &alive.address]);
    assert_eq!(client.version().await.expect("an answer"), "1");
    let error = client
        .create_repo(&new_demo())
        .await
        .expect_err("not a repository");
    assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
    assert_eq!(alive.asked(), 2);
}

#[tokio::test]
async fn the_address_that_answered_is_asked_first_the_next_time() {
    let first = Server::answering(503, UNAVAILABLE).await;
    let second = Server::answering(200, VERSION).await;
    let client = client(&[&first.address, &second.address]);
    for _ in 0..3 {
        client.version().await.expect("an answer");
    }
    assert_eq!((first.asked(), second.asked()), (1, 3));
}

#[tokio::test]
async fn nobody_reachable_names_every_address() {
    let (one, two) = (nobody(), nobody());
    let error = client(&[&one, &two])
        .delete_repo(&demo())
        .await
        .expect_err("nobody");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    let text = error.to_string();
    assert!(
        text.contains(one.as_str()) && text.contains(two.as_str()),
        "{text}"
    );
}

#[tokio::test]
async fn a_change_moves_on_only_after_a_node_said_that_it_did_nothing() {
    let proxy = Server::answering(502, "<html>bad gateway</html>").await;
    let other = Server::answering(201, "{}").await;
    let error = client(&[&proxy.address, &other.address])
        .create_repo(&new_demo())
        .await
        .expect_err("a proxy's word is not a node's");
    assert_eq!(
        (error.code(), error.status()),
        (ErrorCode::Unavailable, Some(502))
    );
    assert_eq!(other.asked(), 0);

    let unavailable = Server::answering(503, UNAVAILABLE).await;
    let error = client(&[&unavailable.address, &other.address])
        .create_repo(&new_demo())
        .await
        .expect_err("an empty object is no repository");
    assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
    assert_eq!(other.asked(), 1);
}

#[tokio::test]
async fn a_broken_connection_leaves_a_change_unknown_and_a_read_retried() {
    let (address, task) = breaking().await;
    let alive = Server::answering(200, VERSION).await;
    let error = client(&[&address, &alive.address])
        .create_repo(&new_demo())
        .await
        .expect_err("nobody knows");
    assert_eq!(error.code(), ErrorCode::Timeout, "{error:?}");
    assert_eq!(alive.asked(), 0);
    assert_eq!(
        client(&[&address, &alive.address])
            .version()
            .await
            .expect("an answer"),
        "1"
    );
    task.abort();
}

#[tokio::test]
async fn a_silent_node_costs_its_deadline_and_no_more() {
    let silent = Server::start(
        Router::new().fallback(|| async { std::future::pending::<&'static str>().await }),
    )
    .await;
    let alive = Server::answering(200, VERSION).await;
    let client = client(&[&silent.address, &alive.address]);
    assert_eq!(client.version().await.expect("an answer"), "1");

    let alone = self::client(&[&silent.address]);
    let error = alone.delete_repo(&demo()).await.expect_err("silence");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::Timeout);
}

#[tokio::test]
async fn answers_are_bounded_and_errors_keep_code_and_status() {
    let long =
        Server::start(Router::new().fallback(|| async { vec![b' '; 2 * 1024 * 1024] })).await;
    let error = client(&[&long.address])
        .version()
        .await
        .expect_err("too long");
    assert!(matches!(error, ClientError::TooLong { .. }), "{error:?}");

    let gone = Server::answering(
        404,
        "{\"message\":\"no such repository\",\"code\":\"not_found\"}",
    )
    .await;
    let error = client(&[&gone.address])
        .get_repo(&demo())
        .await
        .expect_err("gone");
    assert_eq!(
        (error.code(), error.status()),
        (ErrorCode::NotFound, Some(404))
    );
    assert_eq!(error.to_string(), "no such repository");

    let plain = Server::answering(401, "").await;
    let error = client(&[&plain.address])
        .version()
        .await
        .expect_err("no token");
    assert_eq!(error.code(), ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_token_that_no_header_takes_is_refused_before_anything_is_sent() {
    let server = Server::answering(200, VERSION).await;
    let client = Client::new(
        &[server.address.to_string()],
        Some(Secret::new("two\nlines")),
    )
    .expect("an address");
    assert_eq!(
        client.version().await.expect_err("a bad token"),
        ClientError::Token
    );
    assert_eq!(server.asked(), 0);
}
