//! Private unless published: repositories, however they are made, and the directories of nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::carry::{ok, repo};
use super::harness::{Ring, git, git_raw, gits, work_tree};
use super::mirrors::{add, ended};
use crate::process::text;

/// Whether a repository can be read without a token.
fn is_public(ring: &Ring, path: &str) -> bool {
    let url = ring.open_url(ring.nodes()[0], path);
    let listed = git_raw(&gits()[0], ring.dir.path(), &["ls-remote", &url]);
    let info = ring.json(ring.nodes()[1], &format!("/api/henge/v1/repos/{path}"));
    let private = info["private"].as_bool();
    assert_eq!(private, Some(!listed.status.success()), "{path}");
    listed.status.success()
}

#[test]
fn a_push_that_creates_says_that_it_made_something_private() {
    let ring = Ring::start(2);
    let tree = work_tree(ring.dir.path(), "tree");
    for (at, stock) in gits().iter().enumerate() {
        let path = format!("admin/pushed-{at}");
        let said = format!("remote: created {path}, private");
        for (node, count) in [(0, 1), (1, 0)] {
            let url = ring.url(ring.nodes()[node], &path);
            let branch = format!("main:refs/heads/at-{node}");
            let pushed = git_raw(stock, &tree, &["push", &url, &branch]);
            let error = text(&pushed.stderr);
            assert!(pushed.status.success(), "{error}");
            assert_eq!(error.matches(&said).count(), count, "{error}");
        }
        assert!(!is_public(&ring, &path));
    }
    // A fork has the visibility of its source.
    let fork = ["fork", "admin/pushed-0", "admin/forked"];
    let said = ok(&ring, &fork);
    assert!(
        said.lines()
            .next()
            .is_some_and(|line| line.ends_with(", private")),
        "{said}"
    );
    assert!(!is_public(&ring, "admin/forked"));
    ok(&ring, &["edit", "admin/pushed-0", "--public"]);
    assert!(ok(&ring, &["fork", "admin/pushed-0", "admin/open"]).contains("public: everybody"));
    assert!(is_public(&ring, "admin/open") && !is_public(&ring, "admin/forked"));
}

/// Removes a commit's tree from a bare repository, so that an import of it breaks off. Returns the
/// path and the bytes.
fn break_off(bare: &Path) -> (PathBuf, Vec<u8>) {
    let tree = git(bare, &["rev-parse", "main^{tree}"]);
    let file = bare.join("objects").join(&tree[..2]).join(&tree[2..]);
    let bytes = fs::read(&file).expect("a loose object");
    fs::remove_file(&file).expect("removed");
    (file, bytes)
}

/// Regression: an import published even a private source, also when it broke off in the middle.
#[test]
fn an_import_publishes_what_is_whole_and_only_where_that_is_said() {
    let ring = Ring::start(2);
    let dir = ring.dir.path().to_owned();
    let source = dir.join("source.git");
    let tree = work_tree(&dir, "tree");
    git(&dir, &["init", "-q", "--bare", "source.git"]);
    git(&tree, &["push", "-q", "../source.git", "main"]);
    let from = source.to_str().expect("text");

    let said = ok(&ring, &["import", from, "admin/usual"]);
    assert!(said.ends_with("admin/usual is private\n"), "{said}");
    assert!(!is_public(&ring, "admin/usual"));

    let (file, bytes) = break_off(&source);
    let open = ["import", from, "admin/open", "--public"];
    let broken = repo(&ring, &open);
    assert!(!broken.status.success(), "{}", text(&broken.stdout));
    assert!(!is_public(&ring, "admin/open"));
    fs::write(file, bytes).expect("written");
    let said = ok(&ring, &[&open[..], &["--update"]].concat());
    assert!(said.contains("admin/open is public: everybody"), "{said}");
    assert!(is_public(&ring, "admin/open"));

    // An existing repository keeps its visibility, unless a flag changes it.
    let update = ["import", from, "admin/open", "--update"];
    let said = ok(&ring, &update);
    assert!(
        said.contains("is public") && is_public(&ring, "admin/open"),
        "{said}"
    );
    ok(&ring, &["import", from, "admin/usual", "--update"]);
    assert!(!is_public(&ring, "admin/usual"));
    ok(&ring, &[&update[..], &["--private"]].concat());
    assert!(!is_public(&ring, "admin/open"));
    let listed = ok(&ring, &["list"]);
    assert_eq!(listed.matches("private").count(), 2, "{listed}");
}

/// Regression: `henge dev` allows mirrors of private addresses, and through them a mirror could
/// read a machine's own credentials.
#[test]
fn a_mirror_never_asks_a_metadata_service() {
    let ring = Ring::start(1);
    let node = ring.nodes()[0];
    super::mirrors::create(&ring, node);
    let id = add(
        &ring,
        node,
        "pull",
        "http://[::ffff:169.254.169.254]/latest.git",
    );
    let failed = ended(&ring, node, &id, &serde_json::Value::Null);
    let why = failed["last"]["error"].as_str().expect("a reason");
    assert!(why.contains("metadata service"), "{why}");
    let import = ["import", "http://169.254.169.254/latest.git", "admin/x"];
    let refused = repo(&ring, &import);
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("metadata service"),
        "{said}"
    );
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a folder").permissions().mode() & 0o777
}

/// Regression: every user of the machine could read the folders with the passwords of mirrors and
/// all pushed data.
#[test]
fn a_data_directory_is_closed_and_one_that_is_open_is_closed_at_start() {
    let mut ring = Ring::start(1);
    let node = ring.nodes()[0];
    let dir = ring.node_dir(node);
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&ring.ring_dir()), 0o700);
    ring.kill(node);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("opened");
    ring.restart(node);
    ring.wait_ready(node);
    assert_eq!(mode(&dir), 0o700);
    let log = fs::read_to_string(dir.join("henge.log")).expect("a log");
    assert!(log.contains("mode 755"), "{log}");
}
