//! A change of settings whose leader is lost between the catalogue and the shard: the next leader
//! delivers the pending settings.

use serde_json::{Value, json};

use super::harness::{Ring, alive, git, git_raw, gits, wait, work_tree};

const REPO: &str = "admin/demo";

/// The leader of the catalogue's group.
fn catalogue_leader(ring: &Ring) -> u64 {
    let mut leader = None;
    wait("a leader of the catalogue", || {
        let status = ring.json(ring.nodes()[0], "/api/henge/v1/cluster");
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let replicas = nodes.iter().flat_map(|node| {
            let replicas = node["report"]["replicas"].as_array();
            replicas.cloned().unwrap_or_default()
        });
        let mut of_catalogue = replicas.filter(|replica| replica["group"] == 0);
        leader = of_catalogue.find_map(|replica| replica["leader"].as_u64());
        leader.is_some()
    });
    leader.expect("waited for it")
}

#[test]
fn a_change_that_its_leader_did_not_live_to_tell_the_shard_is_told_by_the_next() {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    let url = ring.url(nodes[0], REPO);
    git(&tree, &["push", "-q", &url, "main", "main:refs/heads/dev"]);
    // First all nodes must report that they understand the command: while one of them is down, the
    // command is not used.
    let path = format!("/api/v1/repos/{REPO}");
    for archived in [true, false] {
        let body = json!({"archived": archived}).to_string();
        wait("the shard to know the command", || {
            let answer = ring.request(nodes[0], "PATCH", &path, &body);
            answer.is_some_and(|(status, _)| status == 200)
        });
    }
    let leader = catalogue_leader(&ring);
    let pid = ring.pid(leader).expect("running");
    ring.arm(leader, "settings.changed");
    let body = json!({"archived": true, "default_branch": "dev"}).to_string();
    let answer = ring.request(leader, "PATCH", &path, &body);
    assert!(
        answer.is_none_or(|(status, _)| status != 200),
        "it is not done before the shard knows"
    );
    wait("the failpoint to end the leader", || !alive(pid));
    let left: Vec<u64> = nodes.into_iter().filter(|node| *node != leader).collect();
    // The shard's state, not the catalogue's: HEAD comes from the shard, and so does the refusal of
    // a push.
    wait("the shard to be told", || {
        let found = ring
            .get(left[0], &path)
            .filter(|(status, _)| *status == 200);
        found.is_some_and(|(_, body)| {
            let (from, to) = (body.find('{'), body.rfind('}'));
            let repo: Option<Value> = from
                .zip(to)
                .and_then(|(from, to)| serde_json::from_str(&body[from..=to]).ok());
            repo.is_some_and(|repo| repo["archived"] == true && repo["default_branch"] == "dev")
        })
    });
    let url = ring.url(left[1], REPO);
    let head = git(&tree, &["ls-remote", "--symref", &url, "HEAD"]);
    assert!(head.starts_with("ref: refs/heads/dev"), "{head}");
    let refs = format!("/api/henge/v1/repos/{REPO}/refs");
    let update = json!({"updates": [{"ref": "refs/heads/dev", "old": "any", "new": null}]});
    let (status, body) = ring
        .request(left[0], "POST", &refs, &update.to_string())
        .expect("an answer");
    assert!(status == 200 && body.contains("\"archived\""), "{body}");
    let pushed = git_raw(&gits()[0], &tree, &["push", &url, "main:refs/heads/x"]);
    assert!(!pushed.status.success());
    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
}
