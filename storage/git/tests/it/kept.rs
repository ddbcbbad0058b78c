//! The response cache, and parts of packs that are sent unchanged from disk.

use std::path::Path;

use crate::{Git, Server, for_each_git_and_format};

/// Clones and checks that the clone is intact and contains exactly the reachable objects.
#[track_caller]
fn clone_is_equal(
    server: &Server,
    git: &Git,
    name: &str,
    options: &[&str],
    url: &str,
    origin: &Path,
) {
    let copy = server.path(name);
    let mut arguments = vec!["clone", "-q", "--mirror"];
    arguments.extend(options);
    arguments.extend([url, copy.to_str().unwrap()]);
    git.ok(&arguments, server.dir.path());
    git.fsck(&copy);
    assert_eq!(git.objects(&copy), git.objects(origin), "{name}");
}

#[test]
fn the_same_clone_again_shows_what_came_since() {
    for_each_git_and_format(|server, git| {
        let (repo, url) = server.repo(git, "again.git");
        let work = server.path("work");
        git.work_tree(&work, 8);
        git.ok(&["push", "-q", &url, "main"], &work);
        for round in 0..3 {
            clone_is_equal(server, git, &format!("same-{round}"), &[], &url, &repo);
        }
        // An annotated tag on a commit that was cloned before: the same wants, another answer.
        let single = |name: &str| {
            let copy = server.path(name);
            git.ok(
                &[
                    "clone",
                    "-q",
                    "--single-branch",
                    &url,
                    copy.to_str().unwrap(),
                ],
                server.dir.path(),
            );
            git.ok(&["tag", "--list"], &copy)
        };
        assert_eq!(single("without"), "");
        git.ok(&["tag", "-a", "-m", "words", "v1", "HEAD~2"], &work);
        git.ok(&["push", "-q", &url, "v1"], &work);
        assert_eq!(single("with"), "v1");
        // Packs that cached responses refer to are removed.
        git.ok(&["repack", "-q", "-a", "-d"], &repo);
        clone_is_equal(server, git, "repacked", &[], &url, &repo);
        clone_is_equal(server, git, "repacked-again", &[], &url, &repo);
    });
}

#[test]
fn packs_are_sent_whole_in_part_and_together() {
    for_each_git_and_format(|server, git| {
        let (repo, url) = server.repo(git, "parts.git");
        let work = server.path("work");
        git.work_tree(&work, 40);
        git.ok(&["push", "-q", &url, "main"], &work);
        git.ok(&["checkout", "-q", "-b", "side", "main~20"], &work);
        for number in 100..140 {
            git.change(&work, number);
        }
        git.ok(&["push", "-q", &url, "side"], &work);
        clone_is_equal(server, git, "two-packs", &[], &url, &repo);
        git.ok(&["repack", "-q", "-a", "-d", "-f", "--depth=50"], &repo);
        clone_is_equal(server, git, "whole", &[], &url, &repo);
        // Half of the only pack is wanted: ends of entries, gaps, bases on the other side of a gap.
        for branch in ["main", "side"] {
            let copy = server.path(&format!("only-{branch}"));
            let options = [
                "clone",
                "-q",
                "--bare",
                "--single-branch",
                "--branch",
                branch,
            ];
            git.ok(
                &[&options[..], &[&url, copy.to_str().unwrap()]].concat(),
                server.dir.path(),
            );
            git.fsck(&copy);
            let listed = git.ok(&["rev-list", "--objects", branch], &repo);
            assert_eq!(git.objects(&copy).len(), listed.lines().count(), "{branch}");
        }
        // Ref-deltas may refer forwards.
        git.ok(
            &[
                "-c",
                "repack.useDeltaBaseOffset=false",
                "repack",
                "-q",
                "-a",
                "-d",
                "-f",
            ],
            &repo,
        );
        clone_is_equal(server, git, "by-id", &[], &url, &repo);
        git.ok(&["update-ref", "-d", "refs/heads/side"], &repo);
        clone_is_equal(server, git, "by-id-with-gaps", &[], &url, &repo);
    });
}

#[test]
fn sixteen_equal_clones_at_once_are_equal() {
    for_each_git_and_format(|server, git| {
        let (repo, url) = server.repo(git, "crowd.git");
        let work = server.path("work");
        git.work_tree(&work, 12);
        git.ok(&["push", "-q", &url, "main"], &work);
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (repo, url) = (&repo, &url);
                scope.spawn(move || {
                    let name = format!("crowd-{number}");
                    clone_is_equal(server, git, &name, &[], url, repo);
                });
            }
        });
    });
}
