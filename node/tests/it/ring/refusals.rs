//! Refusals, and their messages.

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

/// Two of three nodes are gone: reads are refused in time, with a message, and nothing hangs.
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
    // The one node still reports the status.
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

/// Free space below the watermark: pushes are refused before a proposal, and reads go on.
#[test]
fn with_low_disk_space_pushes_are_refused_and_reads_go_on() {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
    let tip = git(&tree, &["rev-parse", "HEAD"]);
    for node in &nodes {
        ring.kill(*node);
    }
    for node in &nodes {
        ring.restart_with(*node, &[("HENGE_STORAGE_LOW_SPACE", "1000000GiB")]);
    }
    for node in &nodes {
        ring.wait_ready(*node);
    }
    commit(&tree, "too much");
    for node in &nodes {
        let output = git_raw(
            &gits()[0],
            &tree,
            &["push", &ring.url(*node, "admin/demo"), "main"],
        );
        assert!(!output.status.success(), "the push was taken");
        let (status, body) = ring
            .request(*node, "GET", "/api/v1/repos/admin/demo/branches", "")
            .expect("an answer");
        assert_eq!(status, 200, "{body}");
        let line = git(
            &tree,
            &[
                "ls-remote",
                &ring.url(*node, "admin/demo"),
                "refs/heads/main",
            ],
        );
        assert!(line.starts_with(&tip), "{line}");
    }
    git(
        ring.dir.path(),
        &["clone", "-q", &ring.url(nodes[1], "admin/demo"), "clone"],
    );
}

/// A leader that was paused while another was elected shows no old ref when it goes on.
#[test]
fn a_paused_old_leader_never_shows_an_old_ref() {
    const ROUNDS: usize = 5;
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
    for round in 0..ROUNDS {
        let leader = ring.leader_of("admin/demo", &nodes);
        let other = *nodes
            .iter()
            .find(|node| **node != leader)
            .expect("three nodes");
        let pid = ring.pid(leader).expect("running");
        super::harness::signal(pid, "STOP");
        let tip = commit(&tree, &format!("round {round}"));
        git(
            &tree,
            &["push", "-q", &ring.url(other, "admin/demo"), "main"],
        );
        // The request comes during the pause: it is the first thing that the leader handles
        // afterwards.
        let url = ring.url(leader, "admin/demo");
        let asked = std::thread::scope(|scope| {
            let asking =
                scope.spawn(|| git_raw(&gits()[0], &tree, &["ls-remote", &url, "refs/heads/main"]));
            super::harness::signal(pid, "CONT");
            asking.join().expect("git runs")
        });
        let shown = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert!(
            !asked.status.success() || shown.starts_with(&tip),
            "round {round}: {shown} is not {tip}"
        );
        ring.wait_ready(leader);
    }
}

/// A leader that is cut off from the others and runs on shows no old ref as the current one.
#[test]
fn a_partitioned_old_leader_never_shows_an_old_ref() {
    const CUT_OFF: &str = "cluster.cut_off";
    const ROUNDS: usize = 3;
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], "admin/demo"), "main"],
    );
    for round in 0..ROUNDS {
        let leader = ring.leader_of("admin/demo", &nodes);
        let other = *nodes
            .iter()
            .find(|node| **node != leader)
            .expect("three nodes");
        ring.arm(leader, CUT_OFF);
        let tip = commit(&tree, &format!("round {round}"));
        git(
            &tree,
            &["push", "-q", &ring.url(other, "admin/demo"), "main"],
        );
        let asked = git_raw(
            &gits()[0],
            &tree,
            &[
                "ls-remote",
                &ring.url(leader, "admin/demo"),
                "refs/heads/main",
            ],
        );
        let shown = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert!(
            !asked.status.success() || shown.starts_with(&tip),
            "round {round}: {shown} is not {tip}"
        );
        ring.disarm(leader, CUT_OFF);
        ring.wait_ready(leader);
    }
    ring.wait_equal_hashes();
}
