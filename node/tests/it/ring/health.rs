//! Status, readiness and the log tell the truth: with nodes that are dead, with a replica that does not run, and while
//! nodes stop under load.

use std::fs;

use serde_json::Value;

use super::harness::{PATIENCE, Pusher, Ring, alive, commit, git, henge, signal, wait, work_tree};

/// Every exit code and verdict of `cluster status --check`, asked of one node.
fn check(ring: &Ring, node: u64) -> (i32, Value) {
    let done = henge()
        .args(["cluster", "--output", "json", "status", "--check"])
        .env("HENGE_URL", format!("http://{}", ring.address(node)))
        .env("HENGE_TOKEN", ring.token())
        .output()
        .expect("henge runs");
    let value = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    (done.status.code().expect("a code"), value)
}

fn is_ready(ring: &Ring, node: u64) -> bool {
    ring.get(node, "/readyz")
        .is_some_and(|(status, _)| status == 200)
}

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

/// With two of three nodes dead the last one still called itself leader, and the status was `degraded: every group is
/// served` for a cluster that could take no write.
#[test]
fn two_of_three_dead_is_failing_everywhere() {
    let mut ring = Ring::start(2);
    let nodes = ring.nodes();
    let left = nodes[0];
    wait("a healthy cluster", || check(&ring, left).0 == 0);

    ring.kill(nodes[2]);
    wait("a degraded cluster", || check(&ring, left).0 == 8);
    let (_, status) = check(&ring, left);
    assert_eq!(status["health"], "degraded", "{status}");
    assert!(
        problems(&status).contains("node 3: does not answer"),
        "{status}"
    );

    ring.kill(nodes[1]);
    wait("a failing cluster", || check(&ring, left).0 == 6);
    let (_, status) = check(&ring, left);
    assert_eq!(status["health"], "failing", "{status}");
    assert_eq!(status["healthy"], false, "{status}");
    assert!(
        problems(&status).contains("no quorum: 1 of 3 voters answer"),
        "{status}"
    );
    wait("the last node to be not ready", || !is_ready(&ring, left));
    let (code, body) = ring.get(left, "/healthz").expect("it lives");
    assert_eq!((code, body.as_str()), (200, "ok\n"));

    for node in &nodes[1..] {
        ring.restart(*node);
    }
    for node in &nodes {
        ring.wait_ready(*node);
    }
    wait("a healthy cluster", || check(&ring, left).0 == 0);
}

/// A shard did not run on one node after its snapshots could not be read: the status was ok, that node was ready, and
/// everything of the shard through it was 503.
#[test]
fn a_replica_that_does_not_run_is_reported() {
    let mut ring = Ring::start(2);
    let nodes = ring.nodes();
    let (asked, sick) = (nodes[0], nodes[2]);
    ring.kill(sick);
    let snapshots = ring.node_dir(sick).join("snapshots").join("2");
    if snapshots.is_dir() {
        fs::remove_dir_all(&snapshots).expect("removed");
    }
    fs::write(&snapshots, "no directory").expect("written");
    ring.restart(sick);
    let sentence = format!("node {sick}, shard 2: the replica is missing");
    let mut last = Value::Null;
    wait("the missing replica to be reported", || {
        let (code, status) = check(&ring, asked);
        let said = code == 8 && problems(&status).contains(&sentence);
        last = status;
        said
    });
    assert_eq!(last["health"], "degraded", "{last}");
    assert!(!is_ready(&ring, sick), "a node without one of its shards");
    assert!(is_ready(&ring, asked), "the others serve");
    wait("the condition's gauge", || {
        ring.metric(sick, "henge_conditions", "replica_missing") > 0.0
    });

    fs::remove_file(&snapshots).expect("removed");
    wait("a healthy cluster", || check(&ring, asked).0 == 0);
    wait("the node to be ready", || is_ready(&ring, sick));
}

/// `SIGTERM` to these nodes at once, and the end of their processes.
fn stop(ring: &Ring, nodes: &[u64]) {
    let pids: Vec<i32> = nodes
        .iter()
        .map(|node| ring.pid(*node).expect("a running node has a pid file"))
        .collect();
    for pid in &pids {
        signal(*pid, "TERM");
    }
    wait("the nodes to be gone", || {
        pids.iter().all(|pid| !alive(*pid))
    });
}

/// The lines of all logs that say that something is wrong with the product.
fn alarms(ring: &Ring) -> Vec<String> {
    let logs = ring.nodes().into_iter().map(|node| {
        let log = ring.node_dir(node).join("henge.log");
        (node, fs::read_to_string(log).expect("a log"))
    });
    let lines = logs.flat_map(|(node, log)| {
        let lines: Vec<String> = log.lines().map(|line| format!("n{node}: {line}")).collect();
        lines
    });
    lines
        .filter(|line| line.contains("ERROR") || line.contains("panicked"))
        .collect()
}

/// An ordinary stop wrote 4 to 23 lines at ERROR: calls of the other nodes reached groups whose cores had stopped. Who reads
/// such lines at every stop does not read the one that matters.
#[test]
fn an_ordinary_stop_under_pushes_writes_no_error() {
    let mut ring = Ring::start(4);
    let nodes = ring.nodes();
    let trees: Vec<_> = (0..3)
        .map(|number| work_tree(ring.dir.path(), &format!("tree-{number}")))
        .collect();
    let repo = |number: usize| format!("admin/demo-{number}");
    let mut tips: Vec<String> = Vec::new();
    for (number, tree) in trees.iter().enumerate() {
        git(
            tree,
            &["push", "-q", &ring.url(nodes[0], &repo(number)), "main"],
        );
        tips.push(git(tree, &["rev-parse", "HEAD"]));
    }
    // One after another, then all at once.
    let rounds: Vec<Vec<u64>> = nodes
        .iter()
        .map(|node| vec![*node])
        .chain([nodes.clone()])
        .collect();
    for (round, stopped) in rounds.into_iter().enumerate() {
        let pushers: Vec<Pusher> = trees
            .iter()
            .enumerate()
            .map(|(number, tree)| {
                let change = move |tree: &std::path::Path, push: usize| {
                    commit(tree, &format!("round {round} push {push}"))
                };
                Pusher::start(&ring, &repo(number), tree, &tips[number], change)
            })
            .collect();
        for pusher in &pushers {
            pusher.wait_for_more_than(1);
        }
        stop(&ring, &stopped);
        tips = pushers.into_iter().map(Pusher::end).collect();
        for node in &stopped {
            ring.restart(*node);
        }
        for node in &nodes {
            ring.wait_ready(*node);
        }
    }
    assert_eq!(
        alarms(&ring),
        Vec::<String>::new(),
        "within {PATIENCE:?} each"
    );
    for (number, tip) in tips.iter().enumerate() {
        let url = ring.url(nodes[0], &repo(number));
        git(&trees[number], &["fetch", "-q", &url, "main"]);
        git(
            &trees[number],
            &["merge-base", "--is-ancestor", tip, "FETCH_HEAD"],
        );
    }
}

/// After a crash an INFO line said `kv wiped`: operators took it for lost data.
#[test]
fn no_line_after_a_crash_reads_like_a_loss() {
    let mut ring = Ring::start(1);
    let node = ring.nodes()[0];
    ring.kill(node);
    let log = ring.node_dir(node).join("henge.log");
    let before = fs::read_to_string(&log).expect("a log").len();
    ring.restart(node);
    ring.wait_ready(node);
    let text = fs::read_to_string(&log).expect("a log");
    let text = &text[before..];
    assert!(text.contains("nothing is lost"), "{text}");
    for word in ["wiped", "discarded", "dropped"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}
