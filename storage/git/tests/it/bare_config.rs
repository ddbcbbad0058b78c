//! The settings of a bare repository's own config have the same effect as with git's own server.

use std::path::Path;

use crate::raw::{fetch, post};
use crate::{Git, Server, for_each_git};

const SECRET: &str = "refs/hidden/secret";

/// A repository with `main`, `topic` and a hidden ref to a commit of its own; returns that commit
/// too.
fn repository(server: &Server, git: &Git, name: &str) -> (std::path::PathBuf, String, String) {
    let (bare, url) = server.repo(git, name);
    let work = server.path(&format!("{name}-work"));
    git.work_tree(&work, 3);
    git.ok(
        &["push", "-q", &url, "main", "main~1:refs/heads/topic"],
        &work,
    );
    git.change(&work, 7);
    let secret = git.ok(&["rev-parse", "HEAD"], &work);
    git.ok(&["push", "-q", &url, &format!("HEAD:{SECRET}")], &work);
    git.ok(&["reset", "-q", "--hard", "HEAD~1"], &work);
    (bare, url, secret)
}

fn set(git: &Git, bare: &Path, settings: &[(&str, &str)]) {
    for (key, value) in settings {
        git.ok(&["config", "--add", key, value], bare);
    }
}

#[test]
fn hidden_refs_are_neither_shown_nor_given_nor_taken() {
    for_each_git(|server, git| {
        let (bare, url, secret) = repository(server, git, "hidden");
        let work = server.path("hidden-work");
        set(git, &bare, &[("transfer.hideRefs", "refs/hidden")]);
        for protocol in ["0", "1", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let listed = git.ok(&["ls-remote", &url], server.dir.path());
            assert!(!listed.contains("hidden"), "{listed}");
            assert!(listed.contains("refs/heads/topic"), "{listed}");
            let copy = server.path(&format!("thief-{protocol}"));
            git.ok(&["init", "-q", copy.to_str().unwrap()], server.dir.path());
            let refused = git.fails(&["fetch", &url, &secret], &copy);
            assert!(
                refused.contains("not our ref") || refused.contains("unadvertised"),
                "{refused}"
            );
        }
        let answer = post(&url, "upload-pack", "version=2", &fetch(&secret));
        let answer = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.contains("not our ref"), "{answer}");
        for (arguments, says) in [
            (
                vec!["push", &url, "main:refs/hidden/new"],
                "deny updating a hidden ref",
            ),
            (vec!["push", &url, ":refs/hidden/secret"], "nothing to do"),
        ] {
            let refused = git.fails(&arguments, &work);
            assert!(refused.contains(says), "{refused}");
        }
        // An object that only a hidden ref reaches counts as absent, also for a push.
        let empty_pack = [
            crate::raw::push_head(crate::raw::ZERO, &secret, "refs/heads/stolen"),
            crate::raw::EMPTY_PACK.to_vec(),
        ]
        .concat();
        let report = post(&url, "receive-pack", "", &empty_pack);
        let report = String::from_utf8_lossy(&report.body).into_owned();
        assert!(report.contains("missing necessary objects"), "{report}");
        // A later pattern overrides an earlier one; the order is that of the file, across sections.
        let mut config = std::fs::read_to_string(bare.join("config")).unwrap();
        config.push_str("[uploadpack]\n\thideRefs = !refs/hidden/secret\n");
        std::fs::write(bare.join("config"), config).unwrap();
        let listed = git.ok(&["ls-remote", &url], server.dir.path());
        assert!(listed.contains(SECRET), "{listed}");
        assert_eq!(
            listed,
            git.ok(&["ls-remote", bare.to_str().unwrap()], server.dir.path()),
            "git's own server shows something else"
        );
    });
}

#[test]
fn tips_of_hidden_refs_are_given_where_the_configuration_says_so() {
    for_each_git(|server, git| {
        let (bare, url, secret) = repository(server, git, "tips");
        set(
            git,
            &bare,
            &[
                ("uploadpack.hideRefs", "refs/hidden"),
                ("uploadpack.allowTipSHA1InWant", "true"),
            ],
        );
        for protocol in ["0", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let copy = server.path(&format!("tips-{protocol}"));
            git.ok(&["init", "-q", copy.to_str().unwrap()], server.dir.path());
            git.ok(&["fetch", "-q", &url, &secret], &copy);
            assert_eq!(git.ok(&["rev-parse", "FETCH_HEAD"], &copy), secret);
            let listed = git.ok(&["ls-remote", &url], server.dir.path());
            assert!(!listed.contains("hidden"), "{listed}");
        }
    });
}

/// Each refusal is compared with that of git's own receive-pack: same words.
#[test]
fn pushes_are_refused_in_gits_words() {
    for_each_git(|server, git| {
        let (bare, url, _) = repository(server, git, "deny");
        let work = server.path("deny-work");
        git.ok(&["checkout", "-q", "-b", "aside", "HEAD~1"], &work);
        git.change(&work, 30);
        set(
            git,
            &bare,
            &[
                ("receive.denyNonFastForwards", "true"),
                ("receive.hideRefs", "refs/hidden"),
            ],
        );
        let local = bare.to_str().unwrap();
        let both = |arguments: &[&str], says: &str| {
            let mut said = Vec::new();
            for target in [url.as_str(), local] {
                let arguments: Vec<_> = std::iter::once("push")
                    .chain(arguments.iter().map(|word| match *word {
                        "URL" => target,
                        word => word,
                    }))
                    .collect();
                let output = git.fails(&arguments, &work);
                let reason: Vec<_> = output
                    .lines()
                    .filter(|line| line.contains("[remote rejected]"))
                    .map(str::to_owned)
                    .collect();
                assert!(output.contains(says), "{target}: {output}");
                said.push(reason);
            }
            assert_eq!(said[0], said[1], "git's own server says it differently");
        };
        both(
            &["--delete", "URL", "main"],
            "deletion of the current branch prohibited",
        );
        both(&["--force", "URL", "aside:main"], "non-fast-forward");
        both(
            &["URL", "aside:refs/hidden/x"],
            "deny updating a hidden ref",
        );
        both(
            &["--atomic", "--force", "URL", "aside:main", "aside:new"],
            "atomic push failure",
        );
        set(git, &bare, &[("receive.denyDeletes", "true")]);
        both(&["--delete", "URL", "topic"], "deletion prohibited");
        // Other pushes are still allowed.
        git.ok(
            &["push", "-q", &url, "aside:new", "HEAD:refs/tags/t"],
            &work,
        );
        git.ok(&["push", "-q", "--delete", &url, "refs/tags/t"], &work);
        git.ok(&["checkout", "-q", "main"], &work);
        git.change(&work, 31);
        git.ok(&["push", "-q", &url, "main"], &work);
        set(git, &bare, &[("receive.denyDeleteCurrent", "ignore")]);
        git.ok(&["config", "receive.denyDeletes", "false"], &bare);
        git.ok(&["push", "-q", "--delete", &url, "main"], &work);
        server.assert_clean(&bare);
        git.fsck(&bare);
    });
}

#[test]
fn branches_that_are_checked_out_are_left_alone() {
    for_each_git(|server, git| {
        let (bare, url, _) = repository(server, git, "linked");
        let work = server.path("linked-work");
        let tree = server.path("linked-tree");
        git.ok(
            &["worktree", "add", "-q", tree.to_str().unwrap(), "topic"],
            &bare,
        );
        let refused = git.fails(&["push", &url, "main:topic"], &work);
        assert!(
            refused.contains("branch is currently checked out"),
            "{refused}"
        );
        set(git, &bare, &[("receive.denyCurrentBranch", "ignore")]);
        git.ok(&["push", "-q", &url, "main:topic"], &work);
    });
}

#[test]
fn services_are_switched_on_and_off_per_repository() {
    for_each_git(|server, git| {
        let (bare, url, _) = repository(server, git, "services");
        let work = server.path("services-work");
        git.change(&work, 40);
        set(git, &bare, &[("http.receivepack", "false")]);
        let refused = git.fails(&["push", &url, "main"], &work);
        assert!(refused.contains("403"), "{refused}");
        git.ok(&["config", "http.uploadpack", "false"], &bare);
        let refused = git.fails(&["ls-remote", &url], &work);
        assert!(refused.contains("403"), "{refused}");
        // The other service is not affected.
        git.ok(&["config", "http.receivepack", "true"], &bare);
        git.ok(&["push", "-q", &url, "main"], &work);
        let offered = |url: &str| {
            let url = format!("{url}/info/refs?service=git-receive-pack");
            let answer = crate::raw::request("GET", &url, &[], b"");
            String::from_utf8_lossy(&answer.body).into_owned()
        };
        let first = offered(&url);
        assert!(first.contains(" atomic "), "{first}");
        assert!(!first.contains("push-options"), "{first}");
        git.ok(&["config", "receive.advertisePushOptions", "true"], &bare);
        git.ok(&["config", "receive.advertiseAtomic", "false"], &bare);
        let second = offered(&url);
        assert!(
            !second.contains(" atomic ") && second.contains(" push-options "),
            "{second}"
        );
    });
}

#[test]
fn what_may_be_wanted_and_left_out_is_the_repositorys_own_affair() {
    for_each_git(|server, git| {
        let (bare, url, secret) = repository(server, git, "wants");
        let offers_filters = || {
            let url = format!("{url}/info/refs?service=git-upload-pack");
            let answer = crate::raw::request("GET", &url, &[("Git-Protocol", "version=2")], b"");
            let answer = answer.text();
            answer
                .lines()
                .any(|line| line.contains("fetch=") && line.contains(" filter"))
        };
        assert!(offers_filters());
        git.ok(&["config", "uploadpack.allowFilter", "false"], &bare);
        assert!(!offers_filters());
        git.ok(&["update-ref", "-d", SECRET], &bare);
        let refused = post(&url, "upload-pack", "version=2", &fetch(&secret)).text();
        assert!(refused.contains("not our ref"), "{refused}");
        set(git, &bare, &[("uploadpack.allowAnySHA1InWant", "true")]);
        let given = post(&url, "upload-pack", "version=2", &fetch(&secret)).text();
        assert!(given.contains("packfile"), "{given}");
    });
}

#[test]
fn a_pack_above_the_repositorys_own_bound_is_refused() {
    for_each_git(|server, git| {
        let (bare, url, _) = repository(server, git, "bound");
        let work = server.path("bound-work");
        set(git, &bare, &[("receive.maxInputSize", "2k")]);
        git.change(&work, 50);
        git.ok(&["push", "-q", &url, "main"], &work);
        let noise: Vec<u8> = (0_u32..5000)
            .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
            .collect();
        std::fs::write(work.join("noise"), noise).unwrap();
        git.change(&work, 51);
        let refused = git.fails(&["push", &url, "main"], &work);
        assert!(refused.contains("larger than"), "{refused}");
        server.assert_clean(&bare);
    });
}

#[test]
fn repositories_that_are_not_understood_are_refused_and_the_log_says_why() {
    for_each_git(|server, git| {
        let (bare, url, _) = repository(server, git, "format");
        let status = || {
            let url = format!("{url}/info/refs?service=git-upload-pack");
            crate::raw::request("GET", &url, &[], b"").status
        };
        assert_eq!(status(), 200);
        git.ok(&["config", "core.repositoryformatversion", "1"], &bare);
        assert_eq!(status(), 200);
        git.ok(&["config", "extensions.future", "1"], &bare);
        assert_eq!(status(), 400);
        let file = bare.join("config");
        let unset = ["--unset", "extensions.future"];
        let arguments = [&["config", "--file", file.to_str().unwrap()], &unset[..]].concat();
        git.ok(&arguments, server.dir.path());
        std::fs::write(bare.join("shallow"), "0".repeat(40)).unwrap();
        assert_eq!(status(), 400);
    });
}

#[cfg(unix)]
#[test]
fn links_inside_the_root_are_followed_and_those_that_leave_it_are_not() {
    use std::os::unix::fs::symlink;
    for_each_git(|server, git| {
        let (_, url, _) = repository(server, git, "real.git");
        let repos = server.dir.path().join("repos");
        let outside = server.path("outside.git");
        git.ok(
            &["clone", "-q", "--bare", &url, outside.to_str().unwrap()],
            server.dir.path(),
        );
        symlink(repos.join("real.git"), repos.join("alias.git")).unwrap();
        symlink("real.git", repos.join("relative")).unwrap();
        symlink(&outside, repos.join("leaves.git")).unwrap();
        symlink(server.dir.path(), repos.join("up")).unwrap();
        let list = |name: &str| {
            let url = format!("{}/{name}", server.url);
            git.run(&["ls-remote", &url], server.dir.path())
        };
        for name in ["alias.git", "alias", "relative"] {
            assert!(list(name).status.success(), "{name}");
        }
        for name in [
            "leaves.git",
            "leaves",
            "up/outside.git",
            "up/repos/real.git",
        ] {
            let output = list(name);
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            // A path that leaves the root and returns is allowed: only its end counts.
            let ends_inside = name == "up/repos/real.git";
            assert_eq!(output.status.success(), ends_inside, "{name}: {errors}");
            assert!(ends_inside || errors.contains("not found"), "{errors}");
        }
    });
}

/// Alternates are followed to any path, as in git.
#[test]
fn alternates_outside_the_root_are_read() {
    for_each_git(|server, git| {
        let work = server.path("borrowed");
        git.work_tree(&work, 4);
        let bare = server.dir.path().join("repos/borrower.git");
        let clone = ["clone", "-q", "--bare", "--shared"];
        let arguments = [
            &clone[..],
            &[work.to_str().unwrap(), bare.to_str().unwrap()],
        ]
        .concat();
        git.ok(&arguments, server.dir.path());
        let url = format!("{}/borrower", server.url);
        git.ok(&["clone", "-q", &url, "copy"], server.dir.path());
        git.fsck(&server.path("copy"));
        git.change(&work, 9);
        git.ok(&["push", "-q", &url, "main"], &work);
        git.fsck(&bare);
    });
}

#[test]
fn the_dumb_protocol_is_refused_with_a_reason() {
    for_each_git(|server, git| {
        let (_, url, _) = repository(server, git, "dumb");
        for path in ["info/refs", "HEAD", "objects/info/packs"] {
            let answer = crate::raw::request("GET", &format!("{url}/{path}"), &[], b"");
            assert!([403, 404].contains(&answer.status), "{path}");
        }
        let answer = crate::raw::request("GET", &format!("{url}/info/refs"), &[], b"");
        assert_eq!(answer.status, 403);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains("smart HTTP"), "{body}");
    });
}
