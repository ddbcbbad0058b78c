//! `henge node export --offline`: the repositories of a node that does not run, opened with stock
//! git.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::harness::{
    Ring, alive, commit, commit_large, contents, git, henge, signal, wait, work_tree,
};

fn export(data_dir: &Path, dest: &Path) -> Output {
    henge()
        .args(["node", "export", "--offline", "--data-dir"])
        .arg(data_dir)
        .arg(dest)
        .output()
        .expect("henge runs")
}

fn said(done: &Output) -> String {
    let (out, err) = (&done.stdout, &done.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Every file below a directory, with its length and a checksum of its contents.
fn fingerprint(dir: &Path) -> Vec<(PathBuf, u64, u64)> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("its metadata");
            if meta.is_dir() {
                left.push(entry.path());
            } else {
                let bytes = fs::read(entry.path()).expect("a file");
                let sum = bytes.iter().fold(17_u64, |sum, byte| {
                    sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
                });
                found.push((entry.path(), meta.len(), sum));
            }
        }
    }
    found.sort();
    found
}

/// Makes two repositories with two branches, a tag, small pushes and a large one, and a small
/// repository. Returns their contents as stock git sees them through a node.
fn fill(ring: &Ring) -> Vec<(&'static str, String)> {
    let node = ring.nodes()[0];
    let mut expected = Vec::new();
    for (number, repo) in ["admin/one", "admin/two"].into_iter().enumerate() {
        let tree = work_tree(ring.dir.path(), &format!("tree-{number}"));
        let url = ring.url(node, repo);
        git(&tree, &["push", "-q", &url, "main"]);
        for push in 0..5 {
            commit(&tree, &format!("small {push}"));
            git(&tree, &["push", "-q", &url, "main"]);
        }
        git(&tree, &["tag", "-a", "-m", "a tag", "v1"]);
        git(&tree, &["push", "-q", &url, "v1", "main:refs/heads/side"]);
        commit_large(&tree, "large", 300_000, 11 + number as u64);
        git(&tree, &["push", "-q", &url, "main"]);
        let clone = super::harness::clone_checked(ring, node, repo, &format!("clone-{number}"));
        expected.push((repo, contents(&clone)));
    }
    // One push: its pack is never compacted, so that it stays in the log.
    let tree = work_tree(ring.dir.path(), "tree-small");
    let url = ring.url(node, "admin/small");
    git(&tree, &["push", "-q", &url, "main"]);
    let clone = super::harness::clone_checked(ring, node, "admin/small", "clone-small");
    expected.push(("admin/small", contents(&clone)));
    ring.wait_equal_hashes();
    expected
}

fn compare(dest: &Path, expected: &[(&str, String)]) {
    for (repo, contents_before) in expected {
        let path = dest.join(format!("{repo}.git"));
        git(&path, &["fsck", "--full", "--strict"]);
        assert_eq!(&contents(&path), contents_before, "{repo}");
        let clone = dest.join("clones").join(repo);
        fs::create_dir_all(&clone).expect("a directory");
        git(&clone, &["clone", "-q", path.to_str().expect("text"), "."]);
        git(&clone, &["rev-parse", "HEAD"]);
    }
}

/// If a cluster cannot start again, the disk of any one node gives its repositories.
#[test]
fn every_repository_comes_out_of_one_nodes_disk() {
    let mut ring = Ring::start(3);
    let nodes = ring.nodes();
    let expected = fill(&ring);
    let (killed, stopped) = (nodes[1], nodes[2]);

    let dest = ring.dir.path().join("running");
    let done = export(&ring.node_dir(killed), &dest);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        said(&done).contains("in use by another process"),
        "{}",
        said(&done)
    );

    // Nothing in a data directory is changed.
    let dest = ring.node_dir(killed).join("out");
    ring.kill(killed);
    let before = fingerprint(&ring.node_dir(killed));
    let done = export(&ring.node_dir(killed), &dest);
    assert_eq!(done.status.code(), Some(1));
    let text = said(&done);
    assert!(text.contains("lies in the data directory"), "{text}");
    assert_eq!(fingerprint(&ring.node_dir(killed)), before, "{text}");

    // After a crash: from the snapshots and the log.
    let dest = ring.dir.path().join("from-killed");
    let done = export(&ring.node_dir(killed), &dest);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("admin/one: whole"), "{}", said(&done));
    assert_eq!(
        fingerprint(&ring.node_dir(killed)),
        before,
        "nothing was changed"
    );
    compare(&dest, &expected);

    // After a clean stop: from the kv.
    let pid = ring.pid(stopped).expect("it runs");
    signal(pid, "TERM");
    wait("the node to be gone", || !alive(pid));
    let before = fingerprint(&ring.node_dir(stopped));
    let dest = ring.dir.path().join("from-stopped");
    let done = export(&ring.node_dir(stopped), &dest);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(
        fingerprint(&ring.node_dir(stopped)),
        before,
        "nothing was changed"
    );
    compare(&dest, &expected);

    // Small packs that are only in the log are written too; a missing large one is named.
    fs::remove_dir_all(ring.node_dir(stopped).join("networks")).expect("removed");
    let dest = ring.dir.path().join("from-torn");
    let done = export(&ring.node_dir(stopped), &dest);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    let text = said(&done);
    assert_eq!(text.matches("INCOMPLETE").count(), 2, "{text}");
    assert_eq!(text.matches("MISSING pack ").count(), 2, "{text}");
    assert!(text.contains("refs/heads/main is at "), "{text}");
    assert!(text.contains("admin/small: whole"), "{text}");
    compare(&dest, &expected[2..]);

    // The kv has the whole state; the entries behind the damage in the log are unknown.
    damage_log(&ring.node_dir(stopped));
    let dest = ring.dir.path().join("from-damaged");
    let done = export(&ring.node_dir(stopped), &dest);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    let text = said(&done);
    assert!(
        text.contains("MISSING the log is damaged at offset 4152 "),
        "{text}"
    );
    assert!(text.contains("refs/heads/main is at "), "{text}");
    assert!(!text.contains(": whole, "), "{text}");
}

/// Changes the second record of the newest segment. The first one, behind the header, takes 56
/// bytes.
fn damage_log(data_dir: &Path) {
    const GENERATION_AT: usize = 16;
    const SECOND_RECORD: usize = 4096 + 56;
    let files = fs::read_dir(data_dir.join("wal")).expect("a log");
    let paths = files.map(|file| file.expect("a file").path());
    let segments = paths.filter_map(|path| {
        let bytes = fs::read(&path).expect("a file");
        let generation = bytes.get(GENERATION_AT..GENERATION_AT + 8)?;
        let generation = u64::from_le_bytes(generation.try_into().expect("eight bytes"));
        bytes
            .starts_with(b"HENGEWAL")
            .then_some((generation, path, bytes))
    });
    let (_, path, mut bytes) = segments.max().expect("a segment");
    bytes[SECOND_RECORD + 4] ^= 1;
    fs::write(path, bytes).expect("writes");
}
