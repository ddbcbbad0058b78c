//! Histories that git's own checks refuse: accepted with `--fsck lenient`, except those that harm
//! clients.

use std::path::Path;

use super::carry::{ok, repo};
use super::harness::{Ring, clone_checked, git, work_tree};
use crate::process::text;

/// Moves `main` to a commit whose tree has one folder of this mode and name.
fn commit_of(tree: &Path, mode: &str, name: &str) -> String {
    let below = git(tree, &["rev-parse", "HEAD^{tree}"]);
    let mut data = format!("{mode} {name}\0").into_bytes();
    data.extend((0..below.len()).step_by(2).map(|at| {
        let digits = &below[at..at + 2];
        u8::from_str_radix(digits, 16).expect("hex digits")
    }));
    std::fs::write(tree.join(".git/odd"), data).expect("a file");
    let words = ["hash-object", "-w", "--literally", "-t", "tree", ".git/odd"];
    let odd = git(tree, &words);
    let commit = git(tree, &["commit-tree", "-m", name, "-p", "HEAD", &odd]);
    git(tree, &["update-ref", "HEAD", &commit]);
    commit
}

#[test]
fn an_old_history_is_imported_where_lenient_is_said() {
    let ring = Ring::start(1);
    let node = ring.nodes()[0];
    let tree = work_tree(ring.dir.path(), "tree");
    let old = commit_of(&tree, "040000", "old");
    let from = tree.to_str().expect("text");
    let strict = repo(&ring, &["import", from, "admin/old"]);
    let said = text(&strict.stderr);
    assert!(!strict.status.success(), "{said}");
    assert!(
        said.contains("zeroPaddedFilemode: contains zero-padded file modes"),
        "{said}"
    );
    assert!(
        said.contains("run it again with --update --fsck lenient"),
        "{said}"
    );
    let words = ["import", from, "admin/old", "--update", "--fsck", "lenient"];
    ok(&ring, &words);
    let clone = clone_checked_loosely(&ring, "admin/old");
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), old);
    assert!(ok(&ring, &["show", "admin/old"]).contains("checked, lenient"));
    let rules = ring.json(node, "/api/henge/v1/repos/admin/old/push-rules");
    assert_eq!(rules["fsck"], "lenient");

    commit_of(&tree, "40000", ".git ");
    let hostile = repo(&ring, &["import", from, "admin/old", "--update"]);
    let said = text(&hostile.stderr);
    assert!(!hostile.status.success(), "{said}");
    assert!(said.contains("hasDotgit: contains '.git'"), "{said}");
    assert!(!said.contains("lenient"), "{said}");
    git(&tree, &["update-ref", "HEAD", &old]);
    ok(&ring, &["edit", "admin/old", "--fsck", "strict"]);
    let rules = ring.json(node, "/api/henge/v1/repos/admin/old/push-rules");
    assert_eq!(rules["fsck"], "strict");
    // None of its objects is sent again.
    ok(&ring, &["import", from, "admin/old", "--update"]);
    let sound = work_tree(ring.dir.path(), "sound");
    let words = ["import", sound.to_str().expect("text"), "admin/new"];
    ok(&ring, &words);
    clone_checked(&ring, node, "admin/new", "new.git");
}

/// Clones without a check: `git fsck --strict` would report the old history.
fn clone_checked_loosely(ring: &Ring, repo: &str) -> std::path::PathBuf {
    let path = ring.dir.path().join("loose");
    let url = ring.url(ring.nodes()[0], repo);
    let target = path.to_str().expect("text");
    git(ring.dir.path(), &["clone", "-q", "--bare", &url, target]);
    path
}
