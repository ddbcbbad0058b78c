//! `henge node run` where it must refuse to.

use std::fs;
use std::path::Path;

use crate::process::{base_port, command, henge, text};

/// A cluster of one that was made and never got to start: its HTTP port is taken.
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
