//! Work and connections that one client can cause, and the service for other clients meanwhile.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Ring, git, wait, work_tree};

const REPO: &str = "admin/demo";

/// Checks the node's health, within the second that a prober waits.
fn healthy(ring: &Ring, node: u64) {
    let asked = Instant::now();
    let (status, _) = ring.get(node, "/healthz").expect("an answer");
    let took = asked.elapsed();
    assert_eq!(status, 200);
    assert!(took < Duration::from_secs(1), "/healthz took {took:?}");
}

/// Lines in a node's log about handshakes that failed.
fn failed_handshakes(ring: &Ring, node: u64) -> usize {
    let log = std::fs::read_to_string(ring.node_dir(node).join("henge.log"));
    let log = log.expect("a log");
    let failed = log.lines().filter(|line| line.contains("handshake failed"));
    failed.count()
}

/// Regression: fifty protected patterns and 400 long refs took 45 s on a thread of the server, for
/// every listing of the branches, and in apply for a push of as many. Names in as many folders as
/// fit were looked up folder by folder.
#[test]
fn long_names_and_patterns_hold_up_neither_readers_nor_pushes() {
    const REFS: usize = 30;
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(nodes[0], REPO), "main"]);
    let tip = git(&tree, &["rev-parse", "HEAD"]);
    let refs = format!("/api/henge/v1/repos/{REPO}/refs");
    let change = |updates: Vec<serde_json::Value>| {
        let body = json!({"updates": updates, "atomic": true}).to_string();
        let (status, answer) = ring
            .request(nodes[0], "POST", &refs, &body)
            .expect("an answer");
        assert_eq!(status, 200, "{answer:.2000}");
        assert!(!answer.contains("\"ok\":false"), "{answer:.2000}");
    };
    let long = |number: usize| format!("refs/heads/{}{number:03}", "a".repeat(990));
    let create = |name: String| json!({"ref": name, "old": null, "new": tip});
    change((0..REFS).map(|number| create(long(number))).collect());
    let stars = "*a".repeat(115);
    let path = format!("/api/v1/repos/{REPO}/branch_protections");
    for number in 0..50 {
        let rule = json!({"rule_name": format!("{stars}b{number:02}")}).to_string();
        let made = ring.request(nodes[0], "POST", &path, &rule);
        assert_eq!(made.expect("an answer").0, 201);
    }
    std::thread::scope(|scope| {
        let listing = scope.spawn(|| {
            let path = format!("/api/v1/repos/{REPO}/branches");
            let (status, body) = ring.get(nodes[0], &path).expect("an answer");
            assert_eq!(status, 200);
            body.matches("\"protected\":false").count()
        });
        let pushing = scope.spawn(|| {
            let deep = "d/".repeat(480);
            let folders = (0..REFS).map(|number| create(format!("refs/heads/{number}/{deep}x")));
            change(folders.collect());
            let moves =
                (0..REFS).map(|number| json!({"ref": long(number), "old": tip, "new": tip}));
            change(moves.collect());
        });
        while !listing.is_finished() || !pushing.is_finished() {
            for node in &nodes {
                healthy(&ring, *node);
            }
        }
        assert_eq!(listing.join().expect("listed"), REFS + 1);
        pushing.join().expect("pushed");
    });
    ring.wait_equal_hashes();
}

/// Regression: five thousand half-open connections to the cluster's port took as many descriptors,
/// and thousands of log lines.
#[test]
fn half_open_connections_to_the_cluster_s_port_are_few_and_quiet() {
    const FLOOD: usize = 600;
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    let url = ring.url(nodes[0], REPO);
    git(&tree, &["push", "-q", &url, "main"]);
    let status = ring.json(nodes[0], "/api/henge/v1/cluster");
    let of_node = |node: u64| {
        let nodes = status["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|known| known["node"] == node);
        node.expect("a node")["rpc"]
            .as_str()
            .expect("an address")
            .to_owned()
    };
    let address = of_node(nodes[0]);
    let pid = ring.pid(nodes[0]).expect("running");
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let (before, lines) = (descriptors(), failed_handshakes(&ring, nodes[0]));
    let mut flood: Vec<TcpStream> = (0..FLOOD)
        .map(|_| TcpStream::connect(&address).expect("connects"))
        .collect();
    let oldest = flood.first_mut().expect("one of them");
    let timeout = Some(Duration::from_secs(60));
    oldest.set_read_timeout(timeout).expect("a timeout");
    let ended = oldest.read(&mut [0]);
    let held = descriptors().saturating_sub(before);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(held < FLOOD / 2, "{held} descriptors");
    // A node that restarts meanwhile is admitted.
    ring.kill(nodes[1]);
    ring.restart(nodes[1]);
    wait("the node to be ready", || {
        flood.remove(0);
        flood.push(TcpStream::connect(&address).expect("connects"));
        let answer = ring.get(nodes[1], "/readyz");
        answer.is_some_and(|(status, _)| status == 200)
    });
    git(&tree, &["ls-remote", &url]);
    healthy(&ring, nodes[0]);
    let more = failed_handshakes(&ring, nodes[0]) - lines;
    // Ten lines a minute for each of TCP and QUIC.
    assert!(more <= 100, "{more} lines");
    let failed = ring.metric(
        nodes[0],
        "henge_cluster_handshakes_failed_total",
        "displaced",
    );
    assert!(failed >= 100.0, "{failed}");
}
