//! Whole repositories into a ring and out of it, without a git binary on the way.

use std::path::Path;
use std::process::Output;

use super::harness::{Ring, clone_checked, commit, contents, git, git_with, gits, work_tree};
use crate::process::{Running, command, text};

fn repo(ring: &Ring, args: &[&str]) -> Output {
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
fn ok(ring: &Ring, args: &[&str]) -> String {
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

    // A work tree, then a server that has the same.
    let tree_text = tree.to_str().expect("text");
    let said = ok(&ring, &["import", tree_text, "admin/demo", "--private"]);
    assert!(said.contains("3 refs created"), "{said}");
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
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
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
    for (number, program) in gits().iter().enumerate() {
        git_with(program, &bare, &["fsck", "--full", "--strict"]);
        git_with(program, &bare, &["bundle", "verify", "-q", bundle_text]);
        let name = format!("from-bundle-{number}");
        git_with(
            program,
            &dir,
            &["clone", "-q", "--mirror", bundle_text, &name],
        );
        assert_eq!(contents(&dir.join(name)), exported);
    }
    let again = repo(&ring, &["export", "admin/demo", bundle_text]);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));

    // Mirrors are made, told and removed; it is copied to a server that takes no pushes.
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
    let made: serde_json::Value = serde_json::from_str(&said).expect("JSON");
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

    // What cannot be had is told without what is secret.
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
