//! Bitmaps and commit-graphs that every replica makes by itself: stock git reads them, and clones
//! use them to count objects.

use super::harness::{Ring, clone_checked, generated, git, wait};

const REPO: &str = "admin/generated";

#[test]
fn every_replica_makes_bitmaps_that_git_reads() {
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let big = generated(ring.dir.path(), "generated", 1_500);
    git(&big, &["push", "-q", &ring.url(nodes[0], REPO), "main"]);
    let tip = git(&big, &["rev-parse", "main"]);
    let info = ring.json(nodes[0], &format!("/api/henge/v1/repos/{REPO}"));
    let network = info["network"].as_str().expect("a network").to_owned();
    for node in nodes {
        wait("bitmaps on every node", || {
            ring.metric(node, "henge_repos_bitmaps_made_total", "ok") >= 1.0
        });
        let networks = ring.node_dir(node).join("networks");
        let objects = networks.join(&network[..2]).join(&network).join("objects");
        // A repository of stock git around the node's store.
        let around = ring.dir.path().join(format!("around-{node}"));
        git(
            ring.dir.path(),
            &["init", "-q", "--bare", &around.display().to_string()],
        );
        let alternates = around.join("objects/info/alternates");
        std::fs::write(alternates, format!("{}\n", objects.display())).expect("written");
        git(&around, &["rev-list", "--test-bitmap", &tip]);
        let object_dir = objects.display().to_string();
        git(
            &around,
            &["commit-graph", "verify", "--object-dir", &object_dir],
        );
        clone_checked(&ring, node, REPO, &format!("clone-{node}"));
    }
}
