//! Import and export of whole repositories, without a git binary.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::harness::{Ring, clone_checked, commit, contents, git, git_with, gits, wait, work_tree};
use crate::process::{Running, command, text};

pub(super) fn repo(ring: &Ring, args: &[&str]) -> Output {
    let urls: Vec<String> = ring
        .nodes()
        .iter()
        .map(|node| {
            let url = ring.url(*node, "x");
            let (_, address) = url.split_once('@').expect("credentials");
            format!("http://{}", address.trim_end_matches("/x.git"))
        })
        .collect();
    let mut command = command(&["repo"]);
    command
        .args(args)
        .env("HENGE_URL", urls.join(","))
        .env("HENGE_TOKEN", ring.token())
        // No git is found: none is needed.
        .env("PATH", "/nonexistent");
    command.output().expect("the binary runs")
}

#[track_caller]
pub(super) fn ok(ring: &Ring, args: &[&str]) -> String {
    let done = repo(ring, args);
    assert!(done.status.success(), "{args:?}: {}", text(&done.stderr));
    text(&done.stdout)
}

fn serve_bare(root: &Path) -> (Running, String) {
    let mut serve = command(&["serve-bare", "--listen", "127.0.0.1:0"]);
    serve.arg(root);
    let mut running = Running::start(serve);
    running.wait_for_line("ready");
    let line = running.seen.iter().find(|line| line.contains("git clone"));
    let url = line.and_then(|line| line.split(' ').find(|word| word.starts_with("http")));
    let url = url.expect("a URL").trim_end_matches("/PATH").to_owned();
    (running, url)
}

/// Checks that the bare repository is sound, and that the bundle clones to the same contents.
fn every_git_opens(dir: &Path, bare: &Path, bundle: &str, exported: &str) {
    for (number, program) in gits().iter().enumerate() {
        git_with(program, bare, &["fsck", "--full", "--strict"]);
        git_with(program, bare, &["bundle", "verify", "-q", bundle]);
        let name = format!("from-bundle-{number}");
        git_with(program, dir, &["clone", "-q", "--mirror", bundle, &name]);
        assert_eq!(contents(&dir.join(name)), *exported);
    }
}

#[test]
fn a_repository_is_imported_followed_and_exported() {
    let ring = Ring::start(2);
    let node = ring.nodes()[0];
    let dir = ring.dir.path().to_owned();
    let tree = work_tree(&dir, "tree");
    git(&tree, &["branch", "-m", "trunk"]);
    commit(&tree, "second");
    git(&tree, &["branch", "dev", "HEAD~1"]);
    git(&tree, &["tag", "-a", "-m", "v1", "v1"]);
    git(&tree, &["update-ref", "refs/pull/1/head", "HEAD"]);
    git(&tree, &["update-ref", "refs/remotes/origin/x", "HEAD"]);

    // A work tree, then a server with the same history.
    let tree_text = tree.to_str().expect("text");
    let said = ok(&ring, &["import", tree_text, "admin/demo"]);
    assert!(said.contains("3 refs created"), "{said}");
    assert!(said.contains("admin/demo is private\n"), "{said}");
    assert!(said.contains("2 left out"), "{said}");
    let again = repo(&ring, &["import", tree_text, "admin/demo"]);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("pass --update"));
    let info = ring.json(node, "/api/henge/v1/repos/admin/demo");
    assert_eq!(
        (&info["default_branch"], &info["private"]),
        (&"trunk".into(), &true.into())
    );

    git(&dir, &["clone", "-q", "--mirror", "tree", "served.git"]);
    commit(&tree, "third");
    git(&tree, &["push", "-q", "../served.git", "trunk"]);
    git(&dir.join("served.git"), &["branch", "-D", "dev"]);
    let (_serving, url) = serve_bare(&dir);
    let served = format!("{url}/served.git");
    let args = [
        "import",
        &served,
        "admin/demo",
        "--update",
        "--prune",
        "--output",
        "json",
    ];
    let said = ok(&ring, &args);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["updated"], 1, "{said}");
    assert_eq!(
        (&said["deleted"], &said["objects"]),
        (&1.into(), &3.into()),
        "{said}"
    );
    let clone = clone_checked(&ring, node, "admin/demo", "clone.git");
    let exported = contents(&clone);

    let (bundle, bare) = (dir.join("demo.bundle"), dir.join("bare.git"));
    let (bundle_text, bare_text) = (bundle.to_str().expect("text"), bare.to_str().expect("text"));
    ok(&ring, &["export", "admin/demo", bundle_text]);
    ok(&ring, &["export", "admin/demo", bare_text, "--bare"]);
    assert_eq!(contents(&bare), exported);
    every_git_opens(&dir, &bare, bundle_text, &exported);
    let again = repo(&ring, &["export", "admin/demo", bundle_text]);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));

    // Mirrors are added, listed and removed. The remote is a server that takes no pushes.
    let secret_url = served.replace("http://", "http://me:hunter2@");
    let args = [
        "mirror",
        "add",
        "admin/demo",
        "--push",
        &secret_url,
        "--every",
        "1h",
        "--output",
        "json",
    ];
    let said = ok(&ring, &args);
    assert!(!said.contains("hunter2"), "{said}");
    let made: Value = serde_json::from_str(&said).expect("JSON");
    let id = made[0]["id"].as_str().expect("an id");
    ok(&ring, &["mirror", "sync", "admin/demo", id]);
    let listed = ok(&ring, &["mirror", "list", "admin/demo"]);
    assert!(listed.contains(&served) && listed.contains(id), "{listed}");
    assert!(ok(&ring, &["mirror", "remove", "admin/demo", id]).contains("removed"));
    let gone = repo(&ring, &["mirror", "sync", "admin/demo", id]);
    assert_eq!(gone.status.code(), Some(3), "{}", text(&gone.stderr));
    let short = repo(
        &ring,
        &[
            "mirror",
            "add",
            "admin/demo",
            "--push",
            &served,
            "--every",
            "5s",
        ],
    );
    assert_eq!(short.status.code(), Some(2), "{}", text(&short.stderr));

    // The error about a missing source contains no password.
    let secret = served
        .replace("http://", "http://me:hunter2@")
        .replace("served", "none");
    let none = repo(&ring, &["import", &secret, "admin/none"]);
    let error = text(&none.stderr);
    assert_eq!(none.status.code(), Some(3), "{error}");
    assert!(
        error.contains("/none.git") && !error.contains("hunter2"),
        "{error}"
    );
    let none = repo(&ring, &["import", "/nonexistent", "admin/none"]);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));
    ring.wait_equal_hashes();
}

/// The only mirror of a repository.
#[track_caller]
fn mirror(ring: &Ring, path: &str) -> Value {
    let said = ok(ring, &["mirror", "list", path, "--output", "json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said.as_array().map(Vec::len), Some(1), "{said}");
    said[0].clone()
}

/// The settings that `edit` changes, as a mirror shows them.
fn told(mirror: &Value) -> Value {
    json!([
        mirror["url"],
        mirror["user"],
        mirror["interval_s"],
        mirror["on_push"]
    ])
}

#[test]
fn a_mirror_is_edited_and_what_makes_no_sense_changes_nothing() {
    const COPY: &str = "admin/copy";
    let ring = Ring::start(1);
    let dir = ring.dir.path().to_owned();
    let tree = work_tree(&dir, "tree");
    git(&dir, &["clone", "-q", "--mirror", "tree", "served.git"]);
    commit(&tree, "second");
    git(&dir, &["clone", "-q", "--mirror", "tree", "moved.git"]);
    let (_serving, url) = serve_bare(&dir);
    let (served, moved) = (format!("{url}/served.git"), format!("{url}/moved.git"));
    let secret_url = served.replace("http://", "http://me:hunter2@");
    ok(&ring, &["create", COPY]);
    ok(
        &ring,
        &[
            "mirror",
            "add",
            COPY,
            "--pull",
            &secret_url,
            "--every",
            "1h",
        ],
    );
    let ended = |before: &Value| {
        wait("a run of the mirror to end", || {
            let now = mirror(&ring, COPY);
            now["running"] == false && !now["last"].is_null() && now["last"] != *before
        });
        mirror(&ring, COPY)
    };
    let first = ended(&Value::Null);
    let id = first["id"].as_str().expect("an id").to_owned();
    let edit = |args: &[&str]| repo(&ring, &[&["mirror", "edit", COPY, &id], args].concat());

    // A setting that is not given stays.
    let done = edit(&["--every", "2h"]);
    let said = text(&done.stdout);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(said.contains("7200 s") && said.contains(&served), "{said}");
    let second = ended(&first["last"]);
    assert_eq!(told(&second), json!([served, "me", 7200, false]));

    // A password is not sent to another URL than the one that it was given for: it is removed.
    let done = edit(&["--remote-url", &moved]);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(4), "{said}");
    assert!(
        said.contains("refs/heads/main") && said.contains("--replace"),
        "{said}"
    );
    let done = edit(&["--remote-url", &moved, "--replace", "--output", "json"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said: Value = serde_json::from_str(&text(&done.stdout)).expect("JSON");
    let expected = json!([moved, null, 7200, false]);
    assert_eq!(told(&said[0]), expected);
    let third = ended(&second["last"]);
    assert_eq!(third["last"]["outcome"], "done", "{third}");
    let clone = clone_checked(&ring, ring.nodes()[0], COPY, "clone.git");
    assert_eq!(contents(&clone), contents(&dir.join("moved.git")));

    let (private, open) = (dir.join("private"), dir.join("open"));
    for (file, mode) in [(&private, 0o600), (&open, 0o644)] {
        fs::write(file, "hunter2\n").expect("written");
        fs::set_permissions(file, Permissions::from_mode(mode)).expect("changed");
    }
    let (private, open) = (
        private.to_str().expect("text"),
        open.to_str().expect("text"),
    );
    let done = edit(&["--remote-token-file", private, "--output", "json"]);
    let said = text(&done.stdout);
    assert!(done.status.success() && !said.contains("hunter2"), "{said}");
    let before = mirror(&ring, COPY);
    let expected = json!([moved, "git", 7200, false]);
    assert_eq!(told(&before), expected);

    let unknown = "00112233445566778899aabbccddeeff";
    let of = |path, id, args: &[&str]| repo(&ring, &[&["mirror", "edit", path, id], args].concat());
    let every = ["--every", "3h"];
    for (done, code, says) in [
        (edit(&[]), 2, "--every"),
        (edit(&["--every", "2w"]), 2, "is not a time"),
        (edit(&["--every", "59s"]), 2, "interval lies between 60 s"),
        (edit(&["--on-push", "often"]), 2, "--on-push"),
        (edit(&["--on-push", "true"]), 2, "only one that pushes"),
        (
            edit(&["--remote-url", "ftp://example.org/a.git"]),
            2,
            "http",
        ),
        (edit(&["--remote-url", "nowhere"]), 2, "URL"),
        // `--url` is the cluster's address, so nothing is changed.
        (edit(&["--url", &moved]), 2, "--remote-url"),
        (edit(&["--pull", &moved]), 2, "--pull"),
        (edit(&["--every", "3h", "--replace"]), 2, "--remote-url"),
        (edit(&["--remote-token-file", open]), 2, "chmod 600"),
        (
            edit(&["--remote-token-file", "/nonexistent"]),
            2,
            "cannot read",
        ),
        (of(COPY, "1", &every), 2, "'1'"),
        (of(COPY, unknown, &every), 3, unknown),
        (of("admin/none", &id, &every), 3, "admin/none"),
    ] {
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{says}: {said}");
        assert!(
            said.contains(says) && !said.contains("hunter2"),
            "{says}: {said}"
        );
    }
    assert_eq!(told(&mirror(&ring, COPY)), expected);
    ring.wait_equal_hashes();
}
