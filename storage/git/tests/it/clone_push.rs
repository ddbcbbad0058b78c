//! Valid clones, fetches and pushes.

use crate::{Git, Server, for_each_git_and_format};

#[test]
fn an_empty_repository_is_cloned_filled_and_cloned_again() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "team/demo.git");
        let work = server.path("work");
        git.ok(&["clone", "-q", &url, "work"], server.dir.path());
        assert_eq!(git.ok(&["symbolic-ref", "HEAD"], &work), "refs/heads/main");
        git.change(&work, 0);
        git.ok(&["push", "-q", "origin", "main"], &work);
        server.assert_clean(&bare);
        git.fsck(&bare);
        for protocol in ["0", "1", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let copy = format!("copy-{protocol}");
            git.ok(&["clone", "-q", &url, &copy], server.dir.path());
            git.fsck(&server.path(&copy));
            assert_eq!(git.objects(&server.path(&copy)), git.objects(&work));
        }
    });
}

#[test]
fn fetches_bring_what_is_new_in_every_protocol_version() {
    for_each_git_and_format(|server, git| {
        for protocol in ["0", "1", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let (bare, url) = server.repo(&git, &format!("inc-{protocol}.git"));
            let work = server.path(&format!("work-{protocol}"));
            git.work_tree(&work, 5);
            git.ok(&["push", "-q", &url, "main"], &work);
            let copy = format!("copy-{protocol}");
            git.ok(&["clone", "-q", &url, &copy], server.dir.path());
            let copy = server.path(&copy);
            for number in 5..9 {
                git.change(&work, number);
                git.ok(&["push", "-q", &url, "main"], &work);
                git.ok(&["fetch", "-q"], &copy);
                git.fsck(&copy);
                assert_eq!(
                    git.ok(&["rev-parse", "origin/main"], &copy),
                    git.ok(&["rev-parse", "main"], &work)
                );
            }
            git.ok(&["merge", "-q", "--ff-only", "origin/main"], &copy);
            assert_eq!(git.objects(&copy), git.objects(&work));
            git.fsck(&bare);
        }
    });
}

#[test]
fn diverged_histories_negotiate() {
    for_each_git_and_format(|server, git| {
        for protocol in ["0", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let (_, url) = server.repo(&git, &format!("div-{protocol}.git"));
            let work = server.path(&format!("work-{protocol}"));
            git.work_tree(&work, 30);
            git.ok(&["push", "-q", &url, "main"], &work);
            let copy = server.path(&format!("copy-{protocol}"));
            git.ok(
                &["clone", "-q", &url, copy.to_str().unwrap()],
                server.dir.path(),
            );
            // Many own commits of the client: the server does not have the first rounds of haves.
            for number in 100..160 {
                git.change(&copy, number);
            }
            git.change(&work, 30);
            git.ok(&["push", "-q", &url, "main"], &work);
            git.ok(&["fetch", "-q"], &copy);
            git.fsck(&copy);
            git.ok(&["merge", "-q", "-s", "ours", "origin/main"], &copy);
            git.ok(&["push", "-q", &url, "HEAD:main"], &copy);
            git.ok(&["pull", "-q", "--ff-only", &url, "main"], &work);
            git.fsck(&work);
            assert_eq!(git.objects(&copy), git.objects(&work));
        }
    });
}

#[test]
fn a_change_that_was_reverted_arrives_with_all_that_lay_beside_it() {
    for_each_git_and_format(|server, git| {
        let (_, url) = server.repo(git, "revert.git");
        let work = server.path("work");
        git.work_tree(&work, 1);
        git.ok(&["push", "-q", &url, "main"], &work);
        git.ok(&["clone", "-q", &url, "copy"], server.dir.path());
        let copy = server.path("copy");
        // A new folder; one of its files is changed, and changed back. The first and the last tree
        // are the same, each is compared with the one between, and the unchanged file is in all
        // three.
        std::fs::create_dir(work.join("d")).unwrap();
        std::fs::write(work.join("d/same"), "same\n").unwrap();
        for content in ["one\n", "two\n", "one\n"] {
            std::fs::write(work.join("d/file"), content).unwrap();
            git.ok(&["add", "-A"], &work);
            git.ok(&["commit", "-q", "-m", content], &work);
        }
        git.ok(&["push", "-q", &url, "main"], &work);
        git.ok(&["fetch", "-q"], &copy);
        git.fsck(&copy);
        git.ok(&["merge", "-q", "--ff-only", "origin/main"], &copy);
        assert_eq!(git.objects(&copy), git.objects(&work));
    });
}

#[test]
fn tags_travel_with_what_they_name() {
    for_each_git_and_format(|server, git| {
        let (_, url) = server.repo(git, "tags.git");
        let work = server.path("work");
        git.work_tree(&work, 2);
        git.ok(&["tag", "-a", "v1", "-m", "one", "HEAD~1"], &work);
        git.ok(&["tag", "-a", "v1-again", "-m", "nested", "v1"], &work);
        git.ok(&["tag", "light"], &work);
        let tree = git.ok(&["rev-parse", "HEAD^{tree}"], &work);
        git.ok(&["tag", "a-tree", &tree], &work);
        git.ok(&["push", "-q", &url, "main", "--tags"], &work);
        let copy = server.path("copy");
        git.ok(&["clone", "-q", &url, "copy"], server.dir.path());
        git.fsck(&copy);
        assert_eq!(git.objects(&copy), git.objects(&work));
        let listed = git.ok(&["ls-remote", &url], server.dir.path());
        assert!(listed.contains("refs/tags/v1^{}"), "{listed}");
        // include-tag: the tag of a fetched commit is included.
        git.change(&work, 2);
        git.ok(&["tag", "-a", "v2", "-m", "two"], &work);
        git.ok(&["push", "-q", &url, "main", "v2"], &work);
        git.ok(&["fetch", "-q"], &copy);
        assert_eq!(
            git.ok(&["rev-parse", "v2"], &copy),
            git.ok(&["rev-parse", "v2"], &work)
        );
        git.fsck(&copy);
    });
}

#[test]
fn deletes_and_forced_pushes_work_and_stale_ones_do_not() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "force.git");
        let work = server.path("work");
        git.work_tree(&work, 3);
        git.ok(&["push", "-q", &url, "main", "main:topic"], &work);
        git.ok(&["push", "-q", "--delete", &url, "topic"], &work);
        assert!(!git.ok(&["for-each-ref"], &bare).contains("topic"));
        let other = server.path("other");
        git.ok(&["clone", "-q", &url, "other"], server.dir.path());
        git.ok(&["reset", "-q", "--hard", "HEAD~1"], &work);
        git.change(&work, 50);
        let refused = git.fails(&["push", "-q", &url, "main"], &work);
        assert!(refused.contains("rejected"), "{refused}");
        git.ok(&["push", "-q", "--force", &url, "main"], &work);
        // The other clone still has the old value.
        let lease = git.ok(&["rev-parse", "origin/main"], &other);
        git.change(&other, 51);
        let stale = git.fails(
            &[
                "push",
                &format!("--force-with-lease=main:{lease}"),
                &url,
                "main",
            ],
            &other,
        );
        assert!(stale.contains("stale info"), "{stale}");
        git.ok(&["fetch", "-q"], &other);
        git.fsck(&other);
        git.fsck(&bare);
    });
}

#[test]
fn an_atomic_push_is_all_or_nothing() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "atomic.git");
        let work = server.path("work");
        git.work_tree(&work, 2);
        git.ok(&["push", "-q", "--atomic", &url, "main", "main:one"], &work);
        // "one/below" cannot exist beside "one".
        let refused = git.fails(
            &["push", "--atomic", &url, "main:two", "main:one/below"],
            &work,
        );
        assert!(refused.contains("atomic push failure"), "{refused}");
        assert!(refused.contains("conflict"), "{refused}");
        assert!(!git.ok(&["for-each-ref"], &bare).contains("two"));
        let mixed = git.fails(&["push", &url, "main:two", "main:one/below"], &work);
        assert!(mixed.contains("[new branch]"), "{mixed}");
        assert!(git.ok(&["for-each-ref"], &bare).contains("refs/heads/two"));
        server.assert_clean(&bare);
    });
}

#[test]
fn a_thousand_refs_are_pushed_listed_and_fetched() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "many.git");
        let work = server.path("work");
        git.work_tree(&work, 3);
        let head = git.ok(&["rev-parse", "HEAD"], &work);
        let refs: String = (0..1000)
            .map(|number| format!("{head} refs/heads/x/{number}\n"))
            .collect();
        std::fs::write(
            work.join(".git/packed-refs"),
            format!("# pack-refs with: sorted \n{}", {
                let mut lines: Vec<_> = refs.lines().collect();
                lines.sort_by_key(|line| &line[41..]);
                lines.join("\n") + "\n"
            }),
        )
        .unwrap();
        git.ok(
            &["push", "-q", "--atomic", &url, "refs/heads/*:refs/heads/*"],
            &work,
        );
        assert_eq!(git.ok(&["for-each-ref"], &bare).lines().count(), 1001);
        assert_eq!(
            git.ok(&["ls-remote", "--heads", &url], &work)
                .lines()
                .count(),
            1001
        );
        let copy = server.path("copy");
        git.ok(
            &["clone", "-q", "--mirror", &url, "copy"],
            server.dir.path(),
        );
        assert_eq!(
            git.ok(&["for-each-ref"], &copy),
            git.ok(&["for-each-ref"], &bare)
        );
        // Packed refs are deleted and changed too.
        git.ok(&["pack-refs", "--all"], &bare);
        git.ok(&["push", "-q", "--delete", &url, "x/7", "x/8"], &work);
        assert_eq!(git.ok(&["for-each-ref"], &bare).lines().count(), 999);
    });
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn big_push(server: &Server, git: &Git) {
    let (bare, url) = server.repo(git, "big.git");
    let work = server.path("work");
    git.work_tree(&work, 1);
    std::fs::write(work.join("noise.bin"), noise(3 * 1024 * 1024)).unwrap();
    git.change(&work, 1);
    // More than http.postBuffer: git probes, then sends the pack in chunks.
    git.ok(&["push", "-q", &url, "main"], &work);
    server.assert_clean(&bare);
    git.fsck(&bare);
    let copy = server.path("copy");
    git.ok(&["clone", "-q", &url, "copy"], server.dir.path());
    git.fsck(&copy);
    assert_eq!(git.objects(&copy), git.objects(&work));
}

#[test]
fn a_push_larger_than_the_post_buffer_is_chunked() {
    for_each_git_and_format(big_push);
}

#[test]
fn thin_packs_are_completed_and_pushed_packs_stand_alone() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "thin.git");
        let work = server.path("work");
        git.work_tree(&work, 1);
        std::fs::write(work.join("large.txt"), noise(40_000)).unwrap();
        git.change(&work, 1);
        git.ok(&["push", "-q", &url, "main"], &work);
        for number in 2..6 {
            let mut large = noise(40_000);
            large.extend_from_slice(format!("{number}").as_bytes());
            std::fs::write(work.join("large.txt"), large).unwrap();
            git.change(&work, number);
            git.ok(&["push", "-q", "--thin", &url, "main"], &work);
        }
        git.fsck(&bare);
        for pack in std::fs::read_dir(bare.join("objects/pack")).unwrap() {
            let pack = pack.unwrap().path();
            if pack.extension().is_some_and(|extension| extension == "idx") {
                git.ok(&["verify-pack", pack.to_str().unwrap()], &bare);
            }
        }
        let copy = server.path("copy");
        git.ok(&["clone", "-q", &url, "copy"], server.dir.path());
        git.fsck(&copy);
        assert_eq!(git.objects(&copy), git.objects(&work));
    });
}

#[test]
fn repositories_that_git_maintains_are_served() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "kept.git");
        let work = server.path("work");
        git.work_tree(&work, 12);
        git.ok(&["push", "-q", &url, "main"], &work);
        // Loose objects, deltas between packs, alternates.
        git.change(&work, 12);
        git.ok(&["push", "-q", bare.to_str().unwrap(), "main"], &work);
        for maintenance in [
            vec!["repack", "-adq"],
            vec!["repack", "-Adfq", "--depth=50", "--window=50"],
            vec!["unpack-objects"],
        ] {
            if maintenance[0] != "unpack-objects" {
                git.ok(&maintenance, &bare);
            }
            let copy = server.path("copy");
            git.ok(
                &["clone", "-q", "--mirror", &url, "copy"],
                server.dir.path(),
            );
            git.fsck(&copy);
            assert_eq!(git.objects(&copy), git.objects(&work));
            std::fs::remove_dir_all(&copy).unwrap();
        }
        let fork = server.path("repos/fork.git");
        git.ok(
            &[
                "clone",
                "-q",
                "--bare",
                "--shared",
                bare.to_str().unwrap(),
                fork.to_str().unwrap(),
            ],
            server.dir.path(),
        );
        let copy = server.path("forked");
        git.ok(
            &["clone", "-q", &format!("{}/fork.git", server.url), "forked"],
            server.dir.path(),
        );
        git.fsck(&copy);
        git.change(&copy, 99);
        git.ok(&["push", "-q", "origin", "main"], &copy);
        git.fsck(&fork);
    });
}

#[test]
fn racing_pushes_lose_nothing() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "race.git");
        let work = server.path("work");
        git.work_tree(&work, 3);
        git.ok(&["push", "-q", &url, "main"], &work);
        let copies: Vec<_> = (0..6)
            .map(|number| {
                let copy = server.path(&format!("racer-{number}"));
                git.ok(
                    &["clone", "-q", &url, copy.to_str().unwrap()],
                    server.dir.path(),
                );
                git.change(&copy, 100 + number);
                copy
            })
            .collect();
        let race = |refspec: &dyn Fn(usize) -> String| {
            let running: Vec<_> = copies
                .iter()
                .enumerate()
                .map(|(number, copy)| {
                    git.command(&["push", "-q", &url, &refspec(number)], copy)
                        .stderr(std::process::Stdio::piped())
                        .spawn()
                        .unwrap()
                })
                .collect();
            running
                .into_iter()
                .map(|child| child.wait_with_output().unwrap())
                .filter(|output| output.status.success())
                .count()
        };
        assert_eq!(
            race(&|number| format!("HEAD:refs/heads/own-{number}")),
            copies.len()
        );
        assert_eq!(race(&|_| "HEAD:refs/heads/main".to_owned()), 1);
        assert_eq!(
            git.ok(&["for-each-ref"], &bare).lines().count(),
            copies.len() + 1
        );
        git.fsck(&bare);
        server.assert_clean(&bare);
        let all = server.path("all");
        git.ok(&["clone", "-q", "--mirror", &url, "all"], server.dir.path());
        git.fsck(&all);
        assert_eq!(git.objects(&all), git.objects(&bare));
    });
}
