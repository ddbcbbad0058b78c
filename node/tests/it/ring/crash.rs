//! All three at once: kill -9 under load, again and again. Nothing acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::harness::{Ring, clone_checked, commit, git, git_raw, gits, wait, work_tree};

const ROUNDS: u32 = 20;

/// One pusher appends commits to its branch and remembers the last acknowledged one; all nodes are
/// killed at a moment that moves through the pushes; after the restart the branch holds it.
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
        let pushed = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let urls: Vec<String> = nodes
            .iter()
            .map(|node| ring.url(*node, "admin/demo"))
            .collect();
        let pusher = {
            let (tree, pushed, stop) = (tree.clone(), Arc::clone(&pushed), Arc::clone(&stop));
            let mut last = acknowledged.clone();
            std::thread::spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let tip = commit(&tree, &format!("round {round} push {number}"));
                    let url = &urls[number % urls.len()];
                    if git_raw(&gits()[0], &tree, &["push", "-q", url, "main"])
                        .status
                        .success()
                    {
                        last = tip;
                        pushed.fetch_add(1, Ordering::SeqCst);
                    } else {
                        break;
                    }
                }
                last
            })
        };
        wait("pushes of this round", || {
            pushed.load(Ordering::SeqCst) > round % 4
        });
        for node in &nodes {
            ring.kill(*node);
        }
        stop.store(true, Ordering::SeqCst);
        acknowledged = pusher.join().expect("the pusher ends");
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
            // What was pushed and not acknowledged may be there too: then it is ahead of it.
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
