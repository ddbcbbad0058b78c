//! Shallow clones and what follows them.

use crate::for_each_git_and_format;

#[test]
fn a_clone_of_depth_one_is_fetched_deepened_and_made_whole() {
    for_each_git_and_format(|server, git| {
        for protocol in ["0", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let (_, url) = server.repo(&git, &format!("deep-{protocol}.git"));
            let work = server.path(&format!("work-{protocol}"));
            git.work_tree(&work, 10);
            git.ok(&["push", "-q", &url, "main"], &work);
            let copy = server.path(&format!("copy-{protocol}"));
            git.ok(
                &["clone", "-q", "--depth", "1", &url, copy.to_str().unwrap()],
                server.dir.path(),
            );
            let count = || git.ok(&["rev-list", "--count", "origin/main"], &copy);
            assert_eq!(count(), "1");
            git.fsck(&copy);
            // New commits on top of a shallow clone.
            git.change(&work, 10);
            git.change(&work, 11);
            git.ok(&["push", "-q", &url, "main"], &work);
            git.ok(&["fetch", "-q"], &copy);
            assert_eq!(count(), "3");
            git.fsck(&copy);
            git.ok(&["fetch", "-q", "--depth", "5"], &copy);
            assert_eq!(count(), "5");
            git.fsck(&copy);
            git.ok(&["fetch", "-q", "--depth", "2"], &copy);
            assert_eq!(count(), "2");
            // A push from a shallow clone.
            git.ok(&["reset", "-q", "--hard", "origin/main"], &copy);
            git.change(&copy, 12);
            git.ok(&["push", "-q", "origin", "main"], &copy);
            git.ok(&["fetch", "-q", "--unshallow"], &copy);
            assert_eq!(count(), "13");
            git.fsck(&copy);
            assert!(!copy.join(".git/shallow").is_file());
        }
    });
}

#[test]
fn history_is_cut_relative_by_date_and_by_ref() {
    for_each_git_and_format(|server, git| {
        let (_, url) = server.repo(git, "cut.git");
        let work = server.path("work");
        git.work_tree(&work, 10);
        git.ok(&["tag", "old", "HEAD~6"], &work);
        git.ok(&["push", "-q", &url, "main", "old"], &work);
        let clone = |name: &str, option: &str| {
            git.ok(
                &[
                    "clone",
                    "-q",
                    "--no-tags",
                    "--single-branch",
                    option,
                    &url,
                    name,
                ],
                server.dir.path(),
            );
            git.fsck(&server.path(name));
            git.ok(&["rev-list", "--count", "HEAD"], &server.path(name))
        };
        assert_eq!(clone("three", "--depth=3"), "3");
        // Commit n has the date 1700000000 + 60 n.
        assert_eq!(clone("since", "--shallow-since=@1700000299 +0000"), "5");
        assert_eq!(clone("not", "--shallow-exclude=old"), "6");
        git.ok(&["fetch", "-q", "--deepen=2"], &server.path("three"));
        assert_eq!(
            git.ok(&["rev-list", "--count", "HEAD"], &server.path("three")),
            "5"
        );
        git.fsck(&server.path("three"));
    });
}

#[test]
fn a_shallow_clone_of_merged_branches_is_whole() {
    for_each_git_and_format(|server, git| {
        let (_, url) = server.repo(git, "merge.git");
        let work = server.path("work");
        git.work_tree(&work, 4);
        git.ok(&["checkout", "-q", "-b", "side", "HEAD~2"], &work);
        for number in 20..24 {
            git.change(&work, number);
        }
        git.ok(&["checkout", "-q", "main"], &work);
        git.ok(&["merge", "-q", "-s", "ours", "-m", "merge", "side"], &work);
        git.ok(&["push", "-q", &url, "main"], &work);
        for depth in 1..6 {
            let name = format!("depth-{depth}");
            git.ok(
                &["clone", "-q", &format!("--depth={depth}"), &url, &name],
                server.dir.path(),
            );
            git.fsck(&server.path(&name));
            git.ok(&["fetch", "-q", "--unshallow"], &server.path(&name));
            git.fsck(&server.path(&name));
            assert_eq!(
                git.ok(&["rev-list", "--count", "HEAD"], &server.path(&name)),
                "9"
            );
        }
    });
}
