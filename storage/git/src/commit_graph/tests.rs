//! Reads commit-graph files and chains that git wrote.
#![expect(clippy::disallowed_methods, reason = "git writes what is read here")]

use std::path::Path;
use std::process::Command;

use henge_types::ObjectFormat;

use super::{CHAIN_FILE, CHAIN_FOLDER, CommitGraph, FILE, Stamp};
use crate::oid::Oid;

fn git(repository: &Path, arguments: &[&str]) -> String {
    let run = Command::new("git")
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org"])
        .arg("-C")
        .arg(repository)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output();
    let output = run.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Adds commits to the branch; returns their ids.
fn commits(repository: &Path, numbers: std::ops::Range<usize>) -> Vec<Oid> {
    let commit = |number: usize| {
        let message = format!("commit {number}");
        git(
            repository,
            &["commit", "-q", "--allow-empty", "-m", &message],
        );
        let id = git(repository, &["rev-parse", "HEAD"]);
        Oid::from_hex(id.as_bytes()).unwrap()
    };
    numbers.map(commit).collect()
}

/// Checks that the commit-graph holds these commits, each the parent of the next.
fn assert_known(objects: &Path, ids: &[Oid]) {
    let graph = CommitGraph::open(objects, ObjectFormat::Sha1).unwrap();
    for (number, id) in ids.iter().enumerate() {
        let parents: Vec<Oid> = number
            .checked_sub(1)
            .map(|one| ids[one])
            .into_iter()
            .collect();
        assert_eq!(graph.get(id).unwrap().parents, parents, "{number}");
    }
}

#[test]
fn chains_of_files_are_read_like_single_ones() {
    let repository = tempfile::tempdir().unwrap();
    let repository = repository.path();
    git(repository, &["init", "-q"]);
    let objects = repository.join(".git/objects");
    assert_eq!(Stamp::of(&objects), None);

    let mut ids = commits(repository, 0..3);
    let split = ["commit-graph", "write", "--reachable", "--split=no-merge"];
    git(repository, &split);
    let first = Stamp::of(&objects).unwrap();
    assert_known(&objects, &ids);
    ids.extend(commits(repository, 3..6));
    git(repository, &split);
    let second = Stamp::of(&objects).unwrap();
    assert_ne!(first, second, "another chain looks like the one before");
    assert_known(&objects, &ids);

    // A wrong file in the chain, a missing file, and names that are no ids.
    let chain = objects.join(CHAIN_FOLDER).join(CHAIN_FILE);
    let text = std::fs::read_to_string(&chain).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    std::fs::remove_file(&chain).unwrap();
    for broken in [
        format!("{}\n{}\n", lines[1], lines[0]),
        format!("{}\n", lines[1]),
        format!("{}\n{}\n", lines[0], "0".repeat(40)),
        "../../../graph\n".to_owned(),
        String::new(),
    ] {
        std::fs::write(&chain, &broken).unwrap();
        let opened = CommitGraph::open(&objects, ObjectFormat::Sha1);
        assert!(opened.is_none(), "{broken:?}");
    }
    std::fs::write(&chain, &text).unwrap();
    assert_known(&objects, &ids);

    // Where both exist, git reads the single file.
    let more = commits(repository, 6..7);
    git(repository, &["commit-graph", "write", "--reachable"]);
    assert!(objects.join(FILE).is_file());
    ids.extend(more);
    assert_known(&objects, &ids);
}
