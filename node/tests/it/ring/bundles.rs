//! Clones that begin with a bundle: stock git, with every kind of credentials.

use std::path::Path;
use std::process::Command;

use super::harness::{Ring, commit_large, git, git_raw, git_with, gits, wait, work_tree};

const REPO: &str = "admin/large";
const FETCHED: &str = "henge_repos_fetched_pack_bytes_total";

/// Runs git with a trace of its packets.
fn traced(git: &Path, dir: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new(git)
        .current_dir(dir)
        .args(["-c", "transfer.bundleURI=true"])
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_TRACE_PACKET", "1")
        .output()
        .expect("git runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

/// A ring with a private repository, whose first node offers bundles of small repositories too.
fn with_repo() -> (Ring, u64) {
    let mut ring = Ring::start(1);
    let node = ring.nodes()[0];
    ring.kill(node);
    ring.restart_with(node, &[("HENGE_GIT_BUNDLE_URI_MIN", "1KiB")]);
    ring.wait_ready(node);
    let tree = work_tree(ring.dir.path(), "tree");
    commit_large(&tree, "noise", 300_000, 7);
    let url = ring.url(node, REPO);
    git(&tree, &["push", "-q", &url, "main"]);
    wait("bundles are offered", || {
        let (_, said) = traced(&gits()[0], &tree, &["ls-remote", &url]);
        said.contains("bundle-uri")
    });
    (ring, node)
}

/// Whether the clone in this folder began with a bundle. Checks in any case that it is whole.
fn began_with_bundle(dir: &Path) -> bool {
    git(dir, &["fsck", "--full", "--strict"]);
    !git(dir, &["for-each-ref", "refs/bundles/"]).is_empty()
}

#[test]
fn a_bundle_is_downloaded_with_the_credentials_of_the_clone() {
    let (ring, node) = with_repo();
    let place = ring.dir.path();
    let (with_token, open) = (ring.url(node, REPO), ring.open_url(node, REPO));
    let header = format!("http.extraHeader=Authorization: Bearer {}", ring.token());
    let helper = format!(
        "credential.helper=!f() {{ echo username=admin; echo password={}; }}; f",
        ring.token()
    );
    let ways: [(&str, &str, &[&str]); 3] = [
        ("url", &with_token, &[]),
        ("header", &open, &["-c", &header]),
        ("helper", &open, &["-c", &helper]),
    ];
    let mut uri = String::new();
    for (name, url, options) in ways {
        let before = ring.metric(node, FETCHED, "");
        let args = [options, &["clone", "-q", url, name]].concat();
        let (cloned, said) = traced(&gits()[0], place, &args);
        assert!(cloned, "{said}");
        let (_, named) = said.split_once("bundle.refs.uri=").expect("a bundle");
        uri = named.lines().next().unwrap_or_default().to_owned();
        assert!(began_with_bundle(&place.join(name)), "{name}: {said}");
        let fetched = ring.metric(node, FETCHED, "") - before;
        assert!(
            fetched < 10_000.0,
            "{name}: {fetched} bytes beside the bundle"
        );
    }
    // Without a token, neither the clone nor the bundle is available.
    let (cloned, said) = traced(&gits()[0], place, &["clone", "-q", &open, "nobody"]);
    assert!(!cloned && !said.contains("bundle.refs.uri"), "{said}");
    let status = |url: &str| {
        let write = ["-s", "-o", "/dev/null", "-w", "%{http_code}"];
        let output = Command::new("curl").args(write).arg(url).output();
        String::from_utf8(output.expect("curl runs").stdout).expect("text")
    };
    assert_eq!(status(&format!("{open}/{uri}")), "401");
    assert_eq!(status(&format!("{with_token}/{uri}")), "200");
    // A bundle requested by its URL, which every git with bundles can do; and a missing bundle.
    for (number, program) in gits().iter().enumerate() {
        let name = format!("asked-{number}");
        let asked = format!("--bundle-uri={with_token}/{uri}");
        git_with(program, place, &["clone", "-q", &asked, &with_token, &name]);
        assert!(began_with_bundle(&place.join(&name)));
        let name = format!("gone-{number}");
        let asked = format!("{asked}x");
        let output = git_raw(program, place, &["clone", "-q", &asked, &with_token, &name]);
        assert!(output.status.success(), "{output:?}");
        assert!(!began_with_bundle(&place.join(&name)));
    }
}

#[test]
fn a_public_repository_s_bundle_needs_no_token() {
    let (ring, node) = with_repo();
    let place = ring.dir.path();
    let url = format!("/api/v1/repos/{REPO}");
    let changed = ring.request(node, "PATCH", &url, "{\"private\": false}");
    assert_eq!(changed.expect("an answer").0, 200);
    for (number, program) in gits().iter().enumerate() {
        let name = format!("public-{number}");
        let open = ring.open_url(node, REPO);
        let (cloned, said) = traced(program, place, &["clone", "-q", &open, &name]);
        assert!(cloned, "{said}");
        // git 2.39 does not request bundle URIs.
        let asked = said.contains("command=bundle-uri");
        assert_eq!(began_with_bundle(&place.join(&name)), asked, "{said}");
        assert_eq!(asked, number == 0);
    }
    // Other nodes serve the bundle as well, though only this one made it.
    let (_, said) = traced(
        &gits()[0],
        place,
        &["clone", "-q", &ring.open_url(node, REPO), "again"],
    );
    let (_, named) = said.split_once("bundle.refs.uri=").expect("a bundle");
    let uri = named.lines().next().unwrap_or_default();
    let bytes = |node: u64| {
        let from = format!("{}/{uri}", ring.open_url(node, REPO));
        let output = Command::new("curl").args(["-s", "--fail", &from]).output();
        output.expect("curl runs").stdout
    };
    let own = bytes(node);
    assert!(own.starts_with(b"# v2 git bundle\n"));
    for other in ring.nodes() {
        assert!(bytes(other) == own, "node {other}");
    }
}
