//! Pruning of unreachable objects with processes that end at the worst moment: reachable objects
//! are never lost, and unreachable ones go from every disk in the end.

use std::path::Path;

use super::compaction::{on_disk, stats};
use super::harness::{
    Ring, alive, clone_checked, commit, commit_large, git, git_raw, wait, work_tree,
};
use crate::gits::gits;

const REPO: &str = "admin/demo";

fn gc(ring: &Ring, node: u64, seconds: u64) {
    let path = format!("/api/henge/v1/repos/{REPO}/gc");
    let body = format!("{{\"prune\": {seconds}}}");
    wait("a leader that takes the request", || {
        let answer = ring.request(node, "POST", &path, &body);
        answer.is_some_and(|(status, _)| status == 202)
    });
}

/// Pushes a commit that no ref ever reaches: its pack is accepted, and its ref is refused because
/// it lies below another one. Returns the commit.
fn push_refused(tree: &Path, url: &str) -> String {
    git(tree, &["switch", "-q", "--detach"]);
    let lost = commit(tree, "nobody reaches this");
    let refused = git_raw(
        &gits()[0],
        tree,
        &[
            "push",
            "-q",
            url,
            "HEAD:refs/heads/main/x",
            "main:refs/heads/other",
        ],
    );
    assert!(!refused.status.success(), "{refused:?}");
    git(tree, &["switch", "-q", "main"]);
    git(tree, &["ls-remote", "--exit-code", url, "refs/heads/other"]);
    lost
}

fn holds(ring: &Ring, node: u64, network: &str, object: &str) -> bool {
    let store = ring.node_dir(node).join("networks");
    let store = store.join(&network[..2]).join(network);
    let store = store.to_str().expect("a path");
    let args = ["--git-dir", store, "cat-file", "-e", object];
    git_raw(&gits()[0], ring.dir.path(), &args).status.success()
}

/// Ends the leader at `failpoint`, with packs of `bytes` bytes.
fn pruning_survives(failpoint: &str, bytes: usize) {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    let url = ring.url(nodes[0], REPO);
    if bytes > 0 {
        commit_large(&tree, "large", bytes, 1);
    }
    git(&tree, &["push", "-q", &url, "main"]);
    let lost = push_refused(&tree, &url);
    let info = ring.json(nodes[0], &format!("/api/henge/v1/repos/{REPO}"));
    let network = info["network"].as_str().expect("a network").to_owned();
    assert!(holds(&ring, nodes[0], &network, &lost));
    // Sets the mark, and raises the shard to the release level of marks.
    gc(&ring, nodes[0], 1_000_000);
    wait("the mark", || {
        stats(&ring, nodes[0]).is_some_and(|stats| !stats["prune_mark"].is_null())
    });
    let leader = ring.leader_of(REPO, &nodes);
    let pid = ring.pid(leader).expect("running");
    let survivors: Vec<u64> = nodes
        .iter()
        .copied()
        .filter(|node| *node != leader)
        .collect();
    ring.arm(leader, failpoint);
    gc(&ring, survivors[0], 0);
    wait("the failpoint to end the leader", || !alive(pid));
    for node in &survivors {
        clone_checked(&ring, *node, REPO, &format!("clone-{node}"));
    }
    let tip = commit(&tree, "after");
    let url = ring.url(survivors[0], REPO);
    git(&tree, &["push", "-q", &url, "main"]);
    wait("the lost commit to go from the survivors", || {
        gc(&ring, survivors[0], 0);
        let mut survivors = survivors.iter();
        survivors.all(|node| !holds(&ring, *node, &network, &lost))
    });
    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
    wait(
        "the same packs on every node, without the lost commit",
        || {
            let first = on_disk(&ring, nodes[0], &network);
            nodes.iter().all(|node| {
                on_disk(&ring, *node, &network) == first && !holds(&ring, *node, &network, &lost)
            })
        },
    );
    for node in nodes {
        assert!(ring.metric(node, "henge_repos_uncovered_packs", "") < 0.5);
        let clone = clone_checked(&ring, node, REPO, &format!("last-{node}"));
        assert_eq!(git(&clone, &["rev-parse", "main"]), tip);
    }
}

#[test]
fn a_small_drop_survives_its_leader_before_the_proposal() {
    pruning_survives("compaction.durable", 0);
}

#[test]
fn a_large_drop_survives_its_leader_between_durable_and_proposal() {
    pruning_survives("compaction.durable", 300_000);
}

#[test]
fn a_large_drop_survives_its_leader_after_the_commit() {
    pruning_survives("compaction.committed", 300_000);
}

#[test]
fn what_was_dropped_is_removed_by_the_next_run_when_this_one_ended_before() {
    pruning_survives("retire.verified", 0);
}

#[test]
fn what_was_dropped_is_removed_by_the_next_run_when_this_one_ended_in_the_middle() {
    pruning_survives("retire.removed", 300_000);
}
