//! What must be refused, and with which words.

use super::harness::{Ring, commit, git, git_raw, gits, work_tree};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_tokens_unknown_repositories_and_stale_pushes_are_refused_in_git_s_words() {
    let ring = Ring::start(1);
    let node = ring.nodes()[0];
    let tree = work_tree(ring.dir.path(), "tree");
    let url = ring.url(node, "admin/demo");
    git(&tree, &["push", "-q", &url, "main"]);

    let wrong = url.replace(ring.token(), "wrong");
    let output = git_raw(&gits()[0], &tree, &["push", "-q", &wrong, "main"]);
    assert!(
        !output.status.success() && stderr(&output).contains("Authentication failed"),
        "{}",
        stderr(&output)
    );

    let output = git_raw(
        &gits()[0],
        &tree,
        &["ls-remote", &ring.url(node, "admin/nothing-there")],
    );
    assert!(
        !output.status.success() && stderr(&output).contains("not found"),
        "{}",
        stderr(&output)
    );

    git(ring.dir.path(), &["clone", "-q", &url, "other"]);
    let other = ring.dir.path().join("other");
    commit(&other, "theirs");
    git(&other, &["push", "-q", "origin", "main"]);
    commit(&tree, "ours");
    let output = git_raw(&gits()[0], &tree, &["push", &url, "main"]);
    assert!(
        !output.status.success() && stderr(&output).contains("fetch first"),
        "{}",
        stderr(&output)
    );
    let lease = format!(
        "--force-with-lease=main:{}",
        git(&tree, &["rev-parse", "main~1"])
    );
    let output = git_raw(&gits()[0], &tree, &["push", &lease, &url, "main"]);
    assert!(
        !output.status.success() && stderr(&output).contains("stale info"),
        "{}",
        stderr(&output)
    );
    git(&tree, &["push", "-q", "--force", &url, "main"]);
}

/// Two of three nodes are gone: pushes and reads are refused in time, with words, and nothing hangs.
#[test]
fn without_a_quorum_git_is_told_so_in_time() {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
    ring.kill(nodes[1]);
    ring.kill(nodes[2]);
    let started = std::time::Instant::now();
    let output = git_raw(
        &gits()[0],
        &tree,
        &["ls-remote", &ring.url(nodes[0], "admin/demo")],
    );
    assert!(!output.status.success());
    let (status, body) = ring
        .get(
            nodes[0],
            "/admin/demo.git/info/refs?service=git-upload-pack",
        )
        .expect("an answer");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("no quorum for this repository"), "{body}");
    assert!(
        started.elapsed() < std::time::Duration::from_secs(25),
        "two answers took {:?}",
        started.elapsed()
    );
    // The one node still says how things stand.
    let status = ring.json(nodes[0], "/api/henge/v1/cluster");
    assert_eq!(status["healthy"], false);
    ring.restart(nodes[1]);
    ring.restart(nodes[2]);
    for node in &nodes {
        ring.wait_ready(*node);
    }
    commit(&tree, "after");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
}
