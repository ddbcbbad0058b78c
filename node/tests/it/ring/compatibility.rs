//! Everyday git, through every node, with every git of the machine.

use super::harness::{
    Ring, clone_checked, commit, contents, git, git_raw, git_with, gits, work_tree,
};

#[test]
fn everyday_git_through_every_node() {
    let ring = Ring::start(4);
    let nodes = ring.nodes();
    for (number, program) in gits().iter().enumerate() {
        let repo = format!("admin/daily{number}");
        let tree = work_tree(ring.dir.path(), &format!("tree{number}"));
        for (step, node) in nodes.iter().enumerate() {
            let url = ring.url(*node, &repo);
            commit(&tree, &format!("step {step}"));
            git_with(program, &tree, &["push", "-q", &url, "main"]);
            git_with(
                program,
                &tree,
                &["tag", "-a", "-m", "annotated", &format!("v{step}")],
            );
            git_with(program, &tree, &["tag", &format!("light{step}")]);
            git_with(program, &tree, &["push", "-q", &url, "--tags"]);
            git_with(
                program,
                &tree,
                &[
                    "push",
                    "-q",
                    "--atomic",
                    &url,
                    "main:refs/heads/a",
                    "main:refs/heads/b",
                ],
            );
            git_with(program, &tree, &["push", "-q", &url, "--delete", "a"]);
            let shallow = format!("shallow{number}-{step}");
            git_with(
                program,
                ring.dir.path(),
                &["clone", "-q", "--depth", "1", &url, &shallow],
            );
            let shallow = ring.dir.path().join(shallow);
            assert_eq!(git(&shallow, &["rev-list", "--count", "HEAD"]), "1");
            git_with(program, &shallow, &["fetch", "-q", "--unshallow"]);
            assert_eq!(
                git(&shallow, &["rev-parse", "HEAD"]),
                git(&tree, &["rev-parse", "HEAD"])
            );
            let full = format!("full{number}-{step}");
            git_with(program, ring.dir.path(), &["clone", "-q", &url, &full]);
            commit(&tree, &format!("for the fetch {step}"));
            git_with(program, &tree, &["push", "-q", &url, "main"]);
            let full = ring.dir.path().join(full);
            git_with(program, &full, &["pull", "-q"]);
            assert_eq!(
                git(&full, &["rev-parse", "HEAD"]),
                git(&tree, &["rev-parse", "HEAD"])
            );
            git(&full, &["fsck", "--full", "--strict"]);
        }
        let clones: Vec<String> = nodes
            .iter()
            .map(|node| {
                contents(&clone_checked(
                    &ring,
                    *node,
                    &repo,
                    &format!("mirror{number}-{node}"),
                ))
            })
            .collect();
        assert!(
            clones.windows(2).all(|pair| pair[0] == pair[1]),
            "clones of the three nodes differ"
        );
    }
}

#[test]
fn an_empty_repository_clones_and_takes_its_first_branch_as_head() {
    let ring = Ring::start(1);
    let node = ring.nodes()[0];
    let (status, body) = ring
        .request(node, "POST", "/api/v1/user/repos", r#"{"name":"fresh"}"#)
        .expect("an answer");
    assert_eq!(status, 201, "{body}");
    git(
        ring.dir.path(),
        &["clone", "-q", &ring.url(node, "admin/fresh"), "empty"],
    );
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &[
            "push",
            "-q",
            &ring.url(node, "admin/fresh"),
            "main:refs/heads/trunk",
        ],
    );
    git(
        ring.dir.path(),
        &["clone", "-q", &ring.url(node, "admin/fresh"), "full"],
    );
    assert_eq!(
        git(&ring.dir.path().join("full"), &["symbolic-ref", "HEAD"]),
        "refs/heads/trunk"
    );
}

/// Two clients push different commits to one branch through different nodes: one wins, every time.
#[test]
fn two_racing_pushers_have_exactly_one_winner() {
    const ROUNDS: usize = 200;
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let first = work_tree(ring.dir.path(), "first");
    git(
        &first,
        &["push", "-q", &ring.url(nodes[0], "admin/race"), "main"],
    );
    git(
        ring.dir.path(),
        &["clone", "-q", &ring.url(nodes[0], "admin/race"), "second"],
    );
    let second = ring.dir.path().join("second");
    for round in 0..ROUNDS {
        let tips = [
            commit(&first, &format!("first {round}")),
            commit(&second, &format!("second {round}")),
        ];
        let urls = [
            ring.url(nodes[round % 3], "admin/race"),
            ring.url(nodes[(round + 1) % 3], "admin/race"),
        ];
        let push = |tree: &std::path::Path, url: &str| {
            git_raw(&gits()[0], tree, &["push", "-q", url, "HEAD:main"])
        };
        let (a, b) = std::thread::scope(|scope| {
            let a = scope.spawn(|| push(&first, &urls[0]));
            let b = scope.spawn(|| push(&second, &urls[1]));
            (a.join().expect("runs"), b.join().expect("runs"))
        });
        let won = [a.status.success(), b.status.success()];
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&a.stderr),
            String::from_utf8_lossy(&b.stderr)
        );
        assert_eq!(
            won.iter().filter(|won| **won).count(),
            1,
            "round {round}: {won:?}\n{said}"
        );
        let winner = if won[0] { &tips[0] } else { &tips[1] };
        let line = git(
            &first,
            &[
                "ls-remote",
                &ring.url(nodes[(round + 2) % 3], "admin/race"),
                "refs/heads/main",
            ],
        );
        assert!(line.starts_with(winner.as_str()), "round {round}: {line}");
        for tree in [&first, &second] {
            git(tree, &["fetch", "-q", &urls[0], "main"]);
            git(tree, &["reset", "-q", "--hard", "FETCH_HEAD"]);
        }
    }
}
