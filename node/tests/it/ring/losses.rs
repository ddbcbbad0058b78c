//! Mirrors and imports that would delete or overwrite refs: refused with the names of the refs, and
//! done with an explicit flag.

use std::path::Path;

use serde_json::{Value, json};

use super::carry::{ok, repo};
use super::harness::{Ring, commit, git, work_tree};
use super::mirrors::{Counted, add, create, ended, mirrors_path, sync};
use crate::process::text;

const REPO: &str = "admin/demo";

/// The refs of a repository, read through a node.
fn refs(ring: &Ring, node: u64) -> Vec<String> {
    let listed = git(
        ring.dir.path(),
        &["ls-remote", "--refs", &ring.url(node, REPO)],
    );
    let names = listed.lines().filter_map(|line| line.split('\t').nth(1));
    names.map(str::to_owned).collect()
}

/// The branches of a bare repository.
fn branches(bare: &Path) -> Vec<String> {
    let listed = git(bare, &["for-each-ref", "--format=%(refname)", "refs/heads"]);
    listed.lines().map(str::to_owned).collect()
}

/// Checks that `henge repo …` is refused as a conflict, with all of these texts.
#[track_caller]
fn refused(ring: &Ring, args: &[&str], says: &[&str]) {
    let done = repo(ring, args);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(4), "{args:?}: {said}");
    for word in says {
        assert!(said.contains(word), "{word}: {said}");
    }
}

fn mirrors(ring: &Ring, node: u64) -> usize {
    let mirrors = ring.json(node, &mirrors_path());
    mirrors.as_array().map_or(0, Vec::len)
}

/// The id in the output of `mirror add --output json`.
fn id_of(said: &str) -> String {
    let made: Value = serde_json::from_str(said).expect("JSON");
    made[0]["id"].as_str().expect("an id").to_owned()
}

/// Regression: `mirror add X --pull URL` onto a repository with refs of its own deleted them within
/// three seconds, without a question. `--push` did the same at the remote.
#[test]
fn a_mirror_takes_nothing_that_nobody_agreed_to() {
    let ring = Ring::start(1);
    let node = ring.nodes()[0];
    let dir = ring.dir.path().to_owned();
    let source = Counted::start(&dir);
    let tree = work_tree(&dir, "tree");
    let older = source.put(&tree, "older.git");
    commit(&tree, "second");
    let from = source.put(&tree, "from.git");
    git(&tree, &["branch", "mine"]);
    git(
        &tree,
        &["push", "-q", &ring.url(node, REPO), "main", "mine"],
    );
    let own = ["refs/heads/main", "refs/heads/mine"];
    assert_eq!(refs(&ring, node), own);

    let pull = ["mirror", "add", REPO, "--pull", &from, "--every", "1h"];
    let says = [
        "1 of 2 refs would be deleted: refs/heads/mine",
        "--replace",
        REPO,
    ];
    refused(&ring, &pull, &says);
    let body = json!({"kind": "pull", "url": from, "interval_s": 3600}).to_string();
    let answer = ring.request(node, "POST", &mirrors_path(), &body);
    let (status, body) = answer.expect("an answer");
    assert!(status == 409 && body.contains("refs/heads/mine"), "{body}");

    // The remote of a push has a branch of its own; then another value of a branch that is here.
    let theirs = source.put(&tree, "theirs.git");
    let bare = source.root.join("theirs.git");
    git(&bare, &["branch", "theirs", "main"]);
    let push = ["mirror", "add", REPO, "--push", &theirs, "--every", "1h"];
    refused(
        &ring,
        &push,
        &["would be deleted: refs/heads/theirs", &theirs],
    );
    git(&bare, &["branch", "-D", "theirs"]);
    let other = work_tree(&dir, "other");
    commit(&other, "of another history");
    let bare_text = bare.to_str().expect("text");
    git(&other, &["push", "-q", "-f", bare_text, "main"]);
    let value = "1 of 2 refs would get another value: refs/heads/main";
    refused(&ring, &push, &[value]);
    assert_eq!(mirrors(&ring, node), 0);
    assert_eq!(refs(&ring, node), own);

    // A remote that is only behind loses nothing.
    let args = ["mirror", "add", REPO, "--push", &older, "--every", "1h"];
    let id = id_of(&ok(&ring, &[&args[..], &["--output", "json"]].concat()));
    let done = ended(&ring, node, &id, &Value::Null);
    assert_eq!(done["last"]["outcome"], "done", "{done}");
    assert_eq!(branches(&source.root.join("older.git")), own);
    ok(&ring, &["mirror", "remove", REPO, &id]);

    // With `--replace` the mirror is made.
    for (args, of) in [(&push, "push"), (&pull, "pull")] {
        let args = [&args[..], &["--replace", "--output", "json"]].concat();
        let id = id_of(&ok(&ring, &args));
        let done = ended(&ring, node, &id, &Value::Null);
        assert_eq!(done["last"]["outcome"], "done", "{of}: {done}");
    }
    assert_eq!(branches(&bare), own);
    assert_eq!(refs(&ring, node), own[..1]);
    ring.wait_equal_hashes();
}

/// The remote's refs were unknown when the mirror was made, so its run must not delete any either.
#[test]
fn a_first_run_takes_nothing_that_nobody_agreed_to() {
    let ring = Ring::start(1);
    let node = ring.nodes()[0];
    let dir = ring.dir.path().to_owned();
    let source = Counted::start(&dir);
    let tree = work_tree(&dir, "tree");
    git(&tree, &["branch", "mine"]);
    git(
        &tree,
        &["push", "-q", &ring.url(node, REPO), "main", "mine"],
    );
    let id = add(&ring, node, "pull", &format!("{}/late.git", source.url));
    let missing = ended(&ring, node, &id, &Value::Null);
    assert_eq!(missing["last"]["outcome"], "failed", "{missing}");

    git(&tree, &["branch", "-D", "mine"]);
    source.put(&tree, "late.git");
    sync(&ring, node, &id);
    let kept = ended(&ring, node, &id, &missing["last"]);
    let why = kept["last"]["error"].as_str().expect("a reason");
    assert!(
        why.contains("deleted: refs/heads/mine") && why.contains("--force"),
        "{why}"
    );
    assert_eq!(refs(&ring, node).len(), 2);
    ok(&ring, &["mirror", "sync", REPO, &id, "--force"]);
    let done = ended(&ring, node, &id, &kept["last"]);
    assert_eq!(done["last"]["outcome"], "done", "{done}");
    assert_eq!(refs(&ring, node), ["refs/heads/main"]);
}

/// Regression: a source that had lost most of its refs deleted them from every mirror of it.
#[test]
fn a_mirror_and_a_pruning_import_delete_half_at_most_unless_forced() {
    let ring = Ring::start(1);
    let node = ring.nodes()[0];
    let dir = ring.dir.path().to_owned();
    let source = Counted::start(&dir);
    let tree = work_tree(&dir, "tree");
    for name in ["b1", "b2", "b3"] {
        git(&tree, &["branch", name]);
    }
    let url = source.put(&tree, "from.git");
    let bare = source.root.join("from.git");
    create(&ring, node);
    let id = add(&ring, node, "pull", &url);
    let first = ended(&ring, node, &id, &Value::Null);
    assert_eq!(first["last"]["outcome"], "done", "{first}");
    assert_eq!(refs(&ring, node).len(), 4);

    git(&bare, &["branch", "-D", "b1", "b2", "b3"]);
    sync(&ring, node, &id);
    let kept = ended(&ring, node, &id, &first["last"]);
    let why = kept["last"]["error"].as_str().expect("a reason");
    assert!(
        why.contains("3 of 4 refs would be deleted") && why.contains("--force"),
        "{why}"
    );
    assert_eq!(refs(&ring, node).len(), 4);
    // The deletion of half of the branches is usual.
    git(&bare, &["branch", "b1", "main"]);
    sync(&ring, node, &id);
    let half = ended(&ring, node, &id, &kept["last"]);
    assert_eq!(half["last"]["outcome"], "done", "{half}");
    assert_eq!(refs(&ring, node), ["refs/heads/b1", "refs/heads/main"]);
    // A renamed branch is the only one: its deletion needs `--force`.
    git(&bare, &["branch", "-D", "b1"]);
    git(&bare, &["branch", "-m", "main", "trunk"]);
    sync(&ring, node, &id);
    let renamed = ended(&ring, node, &id, &half["last"]);
    assert_eq!(renamed["last"]["outcome"], "failed", "{renamed}");
    ok(&ring, &["mirror", "sync", REPO, &id, "--force"]);
    let done = ended(&ring, node, &id, &renamed["last"]);
    assert_eq!(done["last"]["outcome"], "done", "{done}");
    assert_eq!(refs(&ring, node), ["refs/heads/trunk"]);
    // `--force` holds for one run.
    git(&bare, &["branch", "-m", "trunk", "main"]);
    sync(&ring, node, &id);
    let again = ended(&ring, node, &id, &done["last"]);
    assert_eq!(again["last"]["outcome"], "failed", "{again}");
    ok(&ring, &["mirror", "remove", REPO, &id]);

    // The same for an import.
    git(&tree, &["push", "-q", &ring.url(node, REPO), "main", "b2"]);
    let import = ["import", &url, REPO, "--update", "--prune"];
    let says = [
        "2 of 3 refs would be deleted: refs/heads/b2, refs/heads/trunk",
        "--force",
    ];
    refused(&ring, &import, &says);
    assert_eq!(refs(&ring, node).len(), 3);
    ok(&ring, &[&import[..], &["--force"]].concat());
    assert_eq!(refs(&ring, node), ["refs/heads/main"]);
    // An import that goes on as a mirror deletes nothing more than the import was allowed to.
    git(&tree, &["push", "-q", &ring.url(node, REPO), "b2"]);
    let follow = ["import", &url, REPO, "--update", "--mirror", "1h"];
    refused(&ring, &follow, &["imported, but", "refs/heads/b2"]);
    assert_eq!(mirrors(&ring, node), 0);
    ok(&ring, &[&follow[..], &["--prune"]].concat());
    assert_eq!(refs(&ring, node), ["refs/heads/main"]);
    assert_eq!(mirrors(&ring, node), 1);
    ring.wait_equal_hashes();
}
