//! The leader of a repository's shard dies: pushes go on, and nothing acknowledged is lost.

use std::path::Path;
use std::process::{Command, Stdio};

use super::harness::{
    Ring, clone_checked, commit, commit_large, contents, generated, git, git_raw, gits, wait,
    work_tree,
};

/// This project's own history and a generated one of 5,000 commits are pushed through one node
/// each. Then the leader is killed, and pushes and clones go on through the survivors.
#[test]
fn push_kill_clone() {
    let mut ring = Ring::start(4);
    let nodes = ring.nodes();
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned();
    git(
        ring.dir.path(),
        &["clone", "-q", "--bare", &own.display().to_string(), "own"],
    );
    let own = ring.dir.path().join("own");
    let big = generated(ring.dir.path(), "generated", 5_000);
    let objects = git(
        &big,
        &["rev-list", "--all", "--objects", "--no-object-names"],
    )
    .lines()
    .count();
    assert!(objects >= 20_000, "{objects} objects");
    git(
        &own,
        &[
            "push",
            "-q",
            &ring.url(nodes[0], "admin/own"),
            "HEAD:refs/heads/main",
        ],
    );
    git(
        &big,
        &["push", "-q", &ring.url(nodes[1], "admin/generated"), "main"],
    );
    let tree = work_tree(ring.dir.path(), "small");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[2], "admin/small"), "main"],
    );
    let staged: f64 = nodes
        .iter()
        .map(|node| ring.metric(*node, "henge_repos_pushes_total", "staged"))
        .sum();
    let inline: f64 = nodes
        .iter()
        .map(|node| ring.metric(*node, "henge_repos_pushes_total", "inline"))
        .sum();
    assert!(
        staged >= 1.0 && inline >= 1.0,
        "both paths of a push: {staged} staged, {inline} inline"
    );

    let leader = ring.leader_of("admin/generated", &nodes);
    ring.kill(leader);
    let survivors: Vec<u64> = nodes.into_iter().filter(|node| *node != leader).collect();
    git(
        &big,
        &[
            "push",
            "-q",
            &ring.url(survivors[0], "admin/generated"),
            "main:refs/heads/after",
        ],
    );
    let small = commit(&tree, "after the kill");
    git(
        &tree,
        &["push", "-q", &ring.url(survivors[1], "admin/small"), "main"],
    );
    let large = commit_large(&tree, "noise", 700_000, 7);
    git(
        &tree,
        &["push", "-q", &ring.url(survivors[0], "admin/small"), "main"],
    );
    for node in &survivors {
        let clone = clone_checked(&ring, *node, "admin/small", &format!("small-{node}"));
        assert_eq!(git(&clone, &["rev-parse", "main"]), large);
        assert_eq!(git(&clone, &["rev-parse", "main~1"]), small);
        let clone = clone_checked(
            &ring,
            *node,
            "admin/generated",
            &format!("generated-{node}"),
        );
        assert_eq!(
            git(&clone, &["rev-parse", "after"]),
            git(&big, &["rev-parse", "main"])
        );
        clone_checked(&ring, *node, "admin/own", &format!("own-{node}"));
    }

    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
    let back = clone_checked(&ring, leader, "admin/small", "small-back");
    let other = clone_checked(&ring, survivors[0], "admin/small", "small-other");
    assert_eq!(contents(&back), contents(&other));
}

/// Ends the leader at `failpoint` while a push of `bytes` bytes is under way through another node:
/// the pushing git sees a pause and `ok`.
fn push_survives(failpoint: &str, bytes: usize) {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
    let leader = ring.leader_of("admin/demo", &nodes);
    let through = *nodes
        .iter()
        .find(|node| **node != leader)
        .expect("three nodes");
    let tip = if bytes == 0 {
        commit(&tree, "small")
    } else {
        commit_large(&tree, "large", bytes, 3)
    };
    ring.arm(leader, failpoint);
    let pid = ring.pid(leader).expect("running");
    let output = git_raw(
        &gits()[0],
        &tree,
        &[
            "push",
            "--porcelain",
            &ring.url(through, "admin/demo"),
            "main",
        ],
    );
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    wait("the failpoint to end the leader", || {
        !super::harness::alive(pid)
    });
    assert!(output.status.success(), "the push failed: {said}");
    let survivors: Vec<u64> = nodes.into_iter().filter(|node| *node != leader).collect();
    for node in &survivors {
        let clone = clone_checked(&ring, *node, "admin/demo", &format!("clone-{node}"));
        assert_eq!(git(&clone, &["rev-parse", "main"]), tip, "{said}");
    }
    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
    clone_checked(&ring, leader, "admin/demo", "clone-back");
}

#[test]
fn a_small_push_survives_its_leader_between_commit_and_report() {
    push_survives("push.committed", 0);
}

#[test]
fn a_large_push_survives_its_leader_between_durable_and_proposal() {
    push_survives("push.durable", 600_000);
}

#[test]
fn a_large_push_survives_its_leader_between_commit_and_report() {
    push_survives("push.committed", 600_000);
}

/// Small and large pushes go on through the survivors while the leader is killed with -9.
#[test]
fn pushes_in_flight_survive_a_kill() {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
    let leader = ring.leader_of("admin/demo", &nodes);
    let survivors: Vec<u64> = nodes
        .iter()
        .copied()
        .filter(|node| *node != leader)
        .collect();
    let mut pushers = Vec::new();
    for (number, node) in survivors.iter().cycle().take(4).enumerate() {
        let name = format!("pusher{number}");
        let path = ring.dir.path().join(&name);
        git(
            ring.dir.path(),
            &["clone", "-q", &tree.display().to_string(), &name],
        );
        let bytes = if number < 2 { 2_000 } else { 900_000 };
        let tip = commit_large(&path, &name, bytes, 11 + number as u64);
        let child = Command::new(&gits()[0])
            .current_dir(&path)
            .args([
                "push",
                "--porcelain",
                &ring.url(*node, "admin/demo"),
                &format!("HEAD:refs/heads/{name}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("git runs");
        pushers.push((name, tip, child));
    }
    ring.kill(leader);
    for (name, tip, child) in pushers {
        let output = child.wait_with_output().expect("git ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name} failed: {said}");
        for node in &survivors {
            let refs = git(
                &tree,
                &[
                    "ls-remote",
                    &ring.url(*node, "admin/demo"),
                    &format!("refs/heads/{name}"),
                ],
            );
            assert!(refs.starts_with(&tip), "{name} through node {node}: {refs}");
        }
    }
    for node in &survivors {
        clone_checked(&ring, *node, "admin/demo", &format!("clone-{node}"));
    }
    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
}
