//! Status, readiness and the log are right: with dead nodes, with a replica that does not run, and
//! while nodes stop under load.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::harness::{PATIENCE, Pusher, Ring, alive, commit, git, henge, signal, wait, work_tree};

/// The exit code and the JSON of `cluster status --check`, from one node.
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

/// Regression: with two of three nodes dead the last one still reported itself as leader, and the
/// status was `degraded: every group is served` for a cluster that could take no write.
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

/// Regression: a shard did not run on one node after its snapshots could not be read. The status
/// was ok, that node was ready, and every request for the shard through it got 503.
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

/// Sends `SIGTERM` to these nodes at once, and waits for the end of their processes.
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

/// The lines of all logs that report a fault of the product.
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

/// Regression: an ordinary stop wrote 4 to 23 lines at ERROR, because calls of the other nodes
/// reached groups whose cores had stopped. Such lines at every stop hide the one that matters.
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

/// Regression: after a crash an INFO line said `kv wiped`, which operators took for lost data.
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

/// The leader tasks by name and group, and the nodes that run them, as one node reports them.
fn leader_tasks(ring: &Ring, asked: u64) -> BTreeMap<(String, u64), Vec<u64>> {
    let done = henge()
        .args(["debug", "--output", "json", "tasks"])
        .env("HENGE_URL", format!("http://{}", ring.address(asked)))
        .env("HENGE_TOKEN", ring.token())
        .output()
        .expect("henge runs");
    let nodes: Value = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    let mut found: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for node in nodes.as_array().into_iter().flatten() {
        for task in node["leader_tasks"].as_array().into_iter().flatten() {
            let name = task["name"].as_str().expect("a name").to_owned();
            let group = task["group"].as_u64().expect("a group");
            let node = node["node"].as_u64().expect("a node");
            found.entry((name, group)).or_default().push(node);
        }
    }
    found
}

/// A task runs on one node for each group, also after a failover. Formerly each loop of a leader
/// polled whether its node leads.
#[test]
fn leader_tasks_run_once_for_each_group_and_follow_the_leader() {
    let mut ring = Ring::start(2);
    let nodes = ring.nodes();
    let of_group = |name: &str, groups: &[u64]| -> Vec<(String, u64)> {
        let keys = groups.iter().map(|group| (name.to_owned(), *group));
        keys.collect()
    };
    let mut expected = [
        of_group("catalogue reconciler", &[0]),
        of_group("compaction", &[1, 2]),
        of_group("mirrors", &[1, 2]),
        of_group("prune schedule", &[1, 2]),
        of_group("release levels", &[0, 1, 2]),
    ]
    .concat();
    expected.sort();
    let run_once = |ring: &Ring, asked: u64| {
        let tasks = leader_tasks(ring, asked);
        let once = tasks.values().all(|nodes| nodes.len() == 1);
        once && tasks.into_keys().eq(expected.clone())
    };
    wait("each task once", || run_once(&ring, nodes[0]));
    let of_meta = ("catalogue reconciler".to_owned(), 0);
    let leader = leader_tasks(&ring, nodes[0])[&of_meta][0];
    ring.kill(leader);
    let left: Vec<u64> = nodes.into_iter().filter(|node| *node != leader).collect();
    wait("each task once, on the nodes that are left", || {
        run_once(&ring, left[0])
    });
}
