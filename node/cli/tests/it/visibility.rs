//! The visibility of a new repository.

use clap::Parser as _;
use henge_cli::Exit;
use serde_json::Value;

use crate::repo::router;
use crate::run::{Henge, Server, henge};

/// A repository became public without a request for it and without a message.
#[tokio::test]
async fn a_repository_is_private_unless_it_is_said_to_be_public() {
    let server = Server::start(router()).await;
    let url = server.url.as_str();
    for (name, flag, seen, private) in [
        ("admin/a", None, "private\n", true),
        ("admin/b", Some("--private"), "private\n", true),
        ("admin/c", Some("--public"), "public: everybody", false),
    ] {
        let args = [&["repo", "create", name][..], flag.as_slice()].concat();
        let done = henge(url, &args).await;
        assert_eq!(done.exit, Exit::Ok, "{}", done.err);
        let said = format!("created {name} in shard 2, {seen}");
        assert!(done.out.starts_with(&said), "{}", done.out);
        let shown = henge(url, &["repo", "show", name, "--output", "json"]).await;
        let shown: Value = serde_json::from_str(&shown.out).expect("JSON");
        assert_eq!(shown["private"], private);
    }
    let listed = henge(url, &["repo", "list"]).await.out;
    let words: Vec<&str> = listed
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    assert_eq!(words, ["private", "private", "public"], "{listed}");
    let both = [
        "henge",
        "repo",
        "create",
        "admin/d",
        "--private",
        "--public",
    ];
    assert!(Henge::try_parse_from(both).is_err(), "one of them");
}
