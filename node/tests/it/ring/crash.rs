//! All three nodes at once: kill -9 under load, repeatedly. Nothing acknowledged is lost.

use super::harness::{Pusher, Ring, clone_checked, commit, git, work_tree};

const ROUNDS: u32 = 20;

/// One pusher appends commits to its branch and keeps the last acknowledged one. All nodes are
/// killed at a moment that moves through the pushes. After the restart the branch contains that
/// commit.
#[test]
fn kill_all_twenty_times_loses_nothing_acknowledged() {
    let mut ring = Ring::start(2);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
    let mut acknowledged = git(&tree, &["rev-parse", "HEAD"]);
    for round in 0..ROUNDS {
        let pusher = Pusher::start(
            &ring,
            "admin/demo",
            &tree,
            &acknowledged,
            move |tree, number| commit(tree, &format!("round {round} push {number}")),
        );
        pusher.wait_for_more_than(round % 4);
        for node in &nodes {
            ring.kill(*node);
        }
        acknowledged = pusher.end();
        for node in &nodes {
            ring.restart(*node);
        }
        for node in &nodes {
            ring.wait_ready(*node);
        }
        for node in &nodes {
            let url = ring.url(*node, "admin/demo");
            let line = git(&tree, &["ls-remote", &url, "refs/heads/main"]);
            let tip = line
                .split_whitespace()
                .next()
                .expect("the branch is there")
                .to_owned();
            // A push that was not acknowledged may be there too: the tip is then ahead.
            git(&tree, &["merge-base", "--is-ancestor", &acknowledged, &tip]);
        }
        git(
            &tree,
            &["fetch", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
        );
        git(&tree, &["reset", "-q", "--hard", "FETCH_HEAD"]);
    }
    ring.wait_equal_hashes();
    for node in &nodes {
        let clone = clone_checked(&ring, *node, "admin/demo", &format!("clone-{node}"));
        git(
            &clone,
            &["merge-base", "--is-ancestor", &acknowledged, "main"],
        );
    }
}
