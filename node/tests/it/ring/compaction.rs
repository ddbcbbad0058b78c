//! Compaction with processes that end at the worst moment: nothing is lost, and few packs remain.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::harness::{Ring, alive, clone_checked, commit, commit_large, git, wait, work_tree};

const REPO: &str = "admin/demo";

fn gc(ring: &Ring, node: u64) {
    let path = format!("/api/henge/v1/repos/{REPO}/gc");
    wait("a leader that takes the request", || {
        let answer = ring.request(node, "POST", &path, "{\"aggressive\": true}");
        answer.is_some_and(|(status, _)| status == 202)
    });
}

pub(super) fn stats(ring: &Ring, node: u64) -> Option<Value> {
    let path = format!("/api/henge/v1/repos/{REPO}/stats");
    let (status, body) = ring.get(node, &path)?;
    let (from, to) = (body.find('{')?, body.rfind('}')?);
    (status == 200).then(|| serde_json::from_str(&body[from..=to]).expect("JSON"))
}

/// The packs of the repository on a node's disk.
pub(super) fn on_disk(ring: &Ring, node: u64, network: &str) -> BTreeSet<PathBuf> {
    let packs = ring
        .node_dir(node)
        .join("networks")
        .join(&network[..2])
        .join(network)
        .join("objects/pack");
    let files = std::fs::read_dir(packs).expect("a store");
    let names = files.map(|file| PathBuf::from(file.expect("a file").file_name()));
    names
        .filter(|name| {
            name.extension()
                .is_some_and(|extension| extension == "pack")
        })
        .collect()
}

/// Ends the leader at `failpoint` of a compaction of packs of `bytes` bytes each.
fn compaction_survives(failpoint: &str, bytes: usize) {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    let url = ring.url(nodes[0], REPO);
    git(&tree, &["push", "-q", &url, "main"]);
    commit(&tree, "second");
    git(&tree, &["push", "-q", &url, "main"]);
    // The first compaction of a shard waits for all its replicas, later ones for a majority.
    gc(&ring, nodes[0]);
    wait("one pack", || {
        stats(&ring, nodes[0]).is_some_and(|stats| stats["packs"] == 1)
    });
    for number in 0..3 {
        let name = format!("file-{number}");
        match bytes {
            0 => commit(&tree, &name),
            bytes => commit_large(&tree, &name, bytes, 1),
        };
        git(&tree, &["push", "-q", &url, "main"]);
    }
    let leader = ring.leader_of(REPO, &nodes);
    let pid = ring.pid(leader).expect("running");
    let survivors: Vec<u64> = nodes
        .iter()
        .copied()
        .filter(|node| *node != leader)
        .collect();
    let info = ring.json(leader, &format!("/api/henge/v1/repos/{REPO}"));
    let network = info["network"].as_str().expect("a network").to_owned();
    ring.arm(leader, failpoint);
    gc(&ring, survivors[0]);
    wait("the failpoint to end the leader", || !alive(pid));
    for node in &survivors {
        clone_checked(&ring, *node, REPO, &format!("clone-{node}"));
    }
    let tip = commit(&tree, "after");
    git(
        &tree,
        &["push", "-q", &ring.url(survivors[0], REPO), "main"],
    );
    gc(&ring, survivors[0]);
    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
    wait("the same one pack on every node", || {
        let first = on_disk(&ring, nodes[0], &network);
        first.len() == 1
            && nodes
                .iter()
                .all(|node| on_disk(&ring, *node, &network) == first)
    });
    for node in nodes {
        let clone = clone_checked(&ring, node, REPO, &format!("last-{node}"));
        assert_eq!(git(&clone, &["rev-parse", "main"]), tip);
    }
}

#[test]
fn a_small_compaction_survives_its_leader_before_the_proposal() {
    compaction_survives("compaction.durable", 0);
}

#[test]
fn a_large_compaction_survives_its_leader_between_durable_and_proposal() {
    compaction_survives("compaction.durable", 300_000);
}

#[test]
fn a_large_compaction_survives_its_leader_after_the_commit() {
    compaction_survives("compaction.committed", 300_000);
}

#[test]
fn old_packs_are_removed_by_the_next_run_when_this_one_ended_before() {
    compaction_survives("retire.verified", 0);
}

#[test]
fn old_packs_are_removed_by_the_next_run_when_this_one_ended_in_the_middle() {
    compaction_survives("retire.removed", 300_000);
}
