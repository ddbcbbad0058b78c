//! `henge node run`: starts that are refused, and the exchange of tokens.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use crate::process::{Running, base_port, command, henge, text, until};

/// A cluster of one node that was made and not started, because its HTTP port was taken.
fn made(dir: &Path) -> String {
    let base = base_port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", base + 1)).expect("a port");
    let path = dir.to_str().expect("a path");
    let port = base.to_string();
    let done = henge(&["dev", "--nodes", "1", "--dir", path, "--base-port", &port]);
    assert_eq!(done.status.code(), Some(1));
    let error = text(&done.stderr);
    assert!(
        error.contains(&format!("port {} on 127.0.0.1 is in use", base + 1)),
        "{error}"
    );
    drop(taken);
    format!("{path}/n1/node.toml")
}

#[test]
fn a_wrong_configuration_ends_with_two_and_says_where() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = made(&dir.path().join("dev"));
    let text_of = fs::read_to_string(&config).expect("read");
    fs::write(&config, text_of.replace("low_space =", "lowspace =")).expect("written");
    let done = henge(&["node", "run", "--config", &config]);
    assert_eq!(done.status.code(), Some(2));
    let error = text(&done.stderr);
    assert!(error.contains("unknown field `lowspace`"), "{error}");

    let done = command(&["node", "run"])
        .env("HENGE_CONFIG", "/nonexistent/node.toml")
        .output()
        .expect("runs");
    assert_eq!(done.status.code(), Some(2));
    let error = text(&done.stderr);
    assert!(
        error.contains("cannot read the configuration /nonexistent"),
        "{error}"
    );
}

#[test]
fn a_data_directory_that_is_not_what_it_was_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = made(&dir.path().join("dev"));
    let home = dir.path().join("dev/n1");
    let refused = || {
        let done = henge(&["node", "run", "--config", &config]);
        assert_eq!(done.status.code(), Some(1));
        text(&done.stderr)
    };
    let identity = fs::read_to_string(home.join("identity.toml")).expect("read");
    let life = |life: &str| identity.replace("\"new\"", life);

    fs::write(home.join("identity.toml"), life("\"started\"")).expect("written");
    assert!(refused().contains("its log is lost"), "no wal");

    fs::create_dir(home.join("wal")).expect("made");
    fs::write(home.join("wal/1"), "x").expect("written");
    fs::write(home.join("identity.toml"), &identity).expect("written");
    assert!(
        refused().contains("they do not belong together"),
        "no identity"
    );
    fs::remove_dir_all(home.join("wal")).expect("removed");

    let other = identity.replace("incarnation = \"", "incarnation = \"00");
    let other: String = other
        .lines()
        .map(|line| match line.strip_prefix("incarnation = \"") {
            Some(rest) => format!("incarnation = \"{}\"\n", &rest[..32]),
            None => format!("{line}\n"),
        })
        .collect();
    fs::write(home.join("identity.toml"), other).expect("written");
    let error = refused();
    assert!(
        error.contains("does not come back under its old number"),
        "{error}"
    );

    fs::remove_dir_all(home.join("wal")).expect("removed");
    fs::write(home.join("identity.toml"), &identity).expect("written");
    let key = home.join("node.key");
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    fs::set_permissions(&key, open).expect("chmod");
    let error = refused();
    assert!(
        error.contains("node.key can be read by others (mode 644)"),
        "{error}"
    );
}

/// The status of a GET with a token; `None` while no node answers.
fn status(address: &str, path: &str, token: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    write!(stream, "{head}Authorization: Bearer {token}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_whitespace().nth(1)?.parse().ok()
}

/// Regression: SIGHUP stopped a node, and so did every exchange of a token. A file that cannot be
/// used would lock all clients out.
#[test]
fn tokens_are_exchanged_without_a_restart() {
    const NEW: &str = "the-next-token-of-the-administrator";
    const SCRAPER: &str = "a-token-for-the-page-of-metrics";
    let version = "/api/v1/version";
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().join("dev");
    let config = made(&home);
    let node_toml = fs::read_to_string(&config).expect("read");
    let listen = node_toml
        .lines()
        .find_map(|line| line.strip_prefix("http_listen = "));
    let address = listen.expect("an address").trim_matches('"').to_owned();
    let file = home.join("admin.token");
    let old = fs::read_to_string(&file)
        .expect("a token")
        .trim()
        .to_owned();
    let scraper = home.join("metrics.token");
    fs::copy(&file, &scraper).expect("as private as the other one");
    fs::write(&scraper, SCRAPER).expect("written");

    let mut run = command(&["node", "run", "--config", &config]);
    run.env("HENGE_AUTH_METRICS_TOKEN_FILE", &scraper);
    let log_file = dir.path().join("log");
    let mut node = Running::start_logging(run, &log_file);
    let log = || fs::read_to_string(&log_file).expect("a log");
    let answers = |token: &str, wanted: u16| {
        until("the answer", || {
            (status(&address, version, token)? == wanted).then_some(())
        });
    };
    answers(&old, 200);
    answers(NEW, 401);
    assert_eq!(status(&address, "/metrics", SCRAPER), Some(200));
    assert_eq!(status(&address, version, SCRAPER), Some(403));

    fs::write(&file, format!("{NEW}\n{old}\n")).expect("written");
    node.signal(Signal::HUP);
    answers(NEW, 200);
    answers(&old, 200);
    fs::write(&file, "short\n").expect("written");
    node.signal(Signal::HUP);
    until("the line about the file", || {
        let said = log().contains("the tokens stay as they were");
        said.then_some(())
    });
    for token in [NEW, old.as_str()] {
        assert_eq!(status(&address, version, token), Some(200));
    }
    fs::write(&file, format!("{NEW}\n")).expect("written");
    node.signal(Signal::HUP);
    answers(&old, 401);
    answers(NEW, 200);

    node.signal(Signal::TERM);
    // The first process has run until now.
    let (ended, _) = node.wait();
    let log = log();
    assert!(ended.success(), "{log}");
    assert_eq!(
        log.matches("the tokens were read again").count(),
        2,
        "{log}"
    );
    let wrong = log.lines().find(|line| line.contains("a wrong token came"));
    assert!(
        wrong.is_some_and(|line| line.contains("127.0.0.1")),
        "{log}"
    );
    for token in [&old, NEW, SCRAPER] {
        assert!(!log.contains(token), "a token is in the log");
    }
}
