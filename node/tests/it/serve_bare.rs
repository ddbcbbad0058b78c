//! `henge serve-bare` and stock git.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use henge_types::limits;

use crate::flood::{CLOSED, Flood, HERE, Memory, Version, alone, clone_of, clone_time_max};
use crate::process::{Running, command, henge, text, until};
use crate::ring::harness::large_tree;

fn git(folder: &Path, args: &[&str]) -> Output {
    Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()
        .expect("git runs")
}

fn ok(folder: &Path, args: &[&str]) -> String {
    let done = git(folder, args);
    assert!(
        done.status.success(),
        "git {args:?}: {}",
        text(&done.stderr)
    );
    text(&done.stdout)
}

fn serve(root: &Path, more: &[&str]) -> (Running, String) {
    let mut serve = command(&["serve-bare", "--listen", "127.0.0.1:0"]);
    serve.arg(root).args(more);
    let mut running = Running::start(serve);
    running.wait_for_line("ready");
    let line = running.seen.iter().find(|line| line.contains("git clone"));
    let url = line.and_then(|line| line.split(' ').find(|word| word.starts_with("http")));
    let url = url.expect("a URL").trim_end_matches("/PATH").to_owned();
    (running, url)
}

#[test]
fn a_bare_repository_is_cloned_and_pushed_to_only_where_that_is_allowed() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    ok(root, &["init", "-q", "--bare", "-b", "main", "a/demo.git"]);
    ok(root, &["init", "-q", "-b", "main", "work"]);
    let work = root.join("work");
    ok(&work, &["commit", "-q", "--allow-empty", "-m", "one"]);

    let (running, url) = serve(root, &["--allow-push"]);
    ok(&work, &["push", "-q", &format!("{url}/a/demo"), "main"]);
    ok(
        root,
        &["clone", "-q", &format!("{url}/a/demo.git"), "clone"],
    );
    let head = ok(&work, &["rev-parse", "HEAD"]);
    assert_eq!(ok(&root.join("clone"), &["rev-parse", "HEAD"]), head);
    let (status, errors) = running.interrupt();
    assert!(status.success(), "{errors}");

    let (running, url) = serve(root, &[]);
    ok(&work, &["commit", "-q", "--allow-empty", "-m", "two"]);
    let refused = git(&work, &["push", "-q", &format!("{url}/a/demo"), "main"]);
    assert!(!refused.status.success(), "pushes were not allowed");
    let (status, errors) = running.interrupt();
    assert!(status.success(), "{errors}");
}

#[test]
fn pushes_without_accounts_stay_on_this_machine() {
    let done = henge(&[
        "serve-bare",
        "/nonexistent",
        "--listen",
        "0.0.0.0:0",
        "--allow-push",
    ]);
    assert_eq!(done.status.code(), Some(1));
    let error = text(&done.stderr);
    assert!(error.contains("loopback address only"), "{error}");
}

#[test]
fn http2_is_spoken_to_clients_that_know() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    ok(root, &["init", "-q", "--bare", "-b", "main", "demo.git"]);
    let (running, url) = serve(root, &[]);
    let seen = Command::new("curl")
        .args(["--silent", "--show-error", "--http2-prior-knowledge"])
        .args(["--header", "Git-Protocol: version=2"])
        .args(["--write-out", "%{http_version} %{http_code}"])
        .arg(format!("{url}/demo.git/info/refs?service=git-upload-pack"))
        .output();
    match seen {
        Ok(seen) => {
            let answer = text(&seen.stdout);
            assert!(
                answer.contains("version 2"),
                "{answer} {}",
                text(&seen.stderr)
            );
            assert!(answer.ends_with("2 200"), "{answer}");
        }
        Err(error) => eprintln!("NOT CHECKED: no curl: {error}"),
    }
    // Without TLS git requests an upgrade, and goes on with HTTP/1.1 if the server ignores it.
    ok(
        root,
        &[
            "-c",
            "http.version=HTTP/2",
            "ls-remote",
            &format!("{url}/demo.git"),
        ],
    );
    let (status, errors) = running.interrupt();
    assert!(status.success(), "{errors}");
}

/// Regression: 64 clones with a window of 0, on one connection, stopped the whole server.
#[test]
fn clones_that_take_nothing_stop_no_other_client() {
    const STREAMS: usize = 64;
    /// The share of one connection in the permits for fetches.
    const PLACES: usize = limits::BLOCKING_JOBS_MAX / 8;
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    let work = large_tree(root, "work");
    let tip = ok(&work, &["rev-parse", "HEAD"]).trim().to_owned();
    ok(root, &["clone", "-q", "--bare", "work", "large.git"]);
    let repack = ["-c", "core.compression=0", "repack", "-adq"];
    ok(&root.join("large.git"), &repack);

    let (running, url) = serve(root, &[]);
    let large = format!("{url}/large.git");
    let clone_time = |name: &str| {
        // A stalled server fails the clone, instead of the whole test by its time-out.
        let patience = ["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60"];
        let clone: [&str; 5] = ["clone", "-q", "--bare", &large, name];
        let began = Instant::now();
        ok(root, &[&patience[..], &clone[..]].concat());
        began.elapsed()
    };
    let mut usual: Vec<Duration> = ["a", "b", "c"].into_iter().map(&clone_time).collect();
    usual.sort_unstable();
    let usual = usual[1];
    let memory = Memory::of(running.pid());
    let go_on = |name: &str| {
        let took = clone_time(name);
        assert!(
            took <= clone_time_max(usual),
            "a clone took {took:?}, usually {usual:?}"
        );
        memory.assert_bounded();
    };

    let address = url.strip_prefix("http://").expect("HTTP");
    let mut flood = Flood::of(address.parse().expect("an address"));
    let requests = (0..STREAMS).map(|_| clone_of("large", Version::Two, &tip, None));
    flood.connection(HERE, CLOSED, requests);
    until("the first answers to begin", || {
        (flood.begun() >= PLACES).then_some(())
    });
    // The others wait for permits.
    go_on("d");
    until("all answers to begin", || {
        (flood.begun() == STREAMS).then_some(())
    });
    go_on("e");
    assert_eq!(
        (flood.count(200), flood.count(429)),
        (PLACES, STREAMS - PLACES),
        "{:?}",
        flood.answers()
    );
    drop(flood);
    memory.assert_given_back();
    let (status, errors) = running.interrupt();
    assert!(status.success(), "{errors}");
}
