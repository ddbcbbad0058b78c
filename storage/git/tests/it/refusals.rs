//! Pushes that are refused as a whole: git prints the reason.

use crate::raw::{ZERO, line, post};
use crate::{Git, Server, for_each_git};

/// Maximum number of refs in one push.
const REFS_MAX: usize = 10_000;

/// Checks the output of git for a failed push.
#[track_caller]
fn refused(git: &Git, arguments: &[&str], dir: &std::path::Path, why: &str) {
    let said = git.fails(arguments, dir);
    assert!(said.contains(why), "{said}");
    assert!(!said.contains("Everything up-to-date"), "{said}");
    assert!(!said.contains("Broken pipe"), "{said}");
}

/// A push of all refs of a project, pull requests included: git printed "HTTP 400" and "Everything
/// up-to-date".
#[test]
fn a_push_of_too_many_refs_says_so() {
    for_each_git(|server: &Server, git| {
        let (bare, url) = server.repo(git, "many");
        let work = server.path("many-work");
        git.work_tree(&work, 1);
        let head = git.ok(&["rev-parse", "HEAD"], &work);
        let mut packed = String::new();
        let mut names: Vec<_> = (0..=REFS_MAX)
            .map(|number| format!("refs/pull/{number}/head"))
            .collect();
        names.sort();
        for name in names {
            packed.push_str(&format!("{head} {name}\n"));
        }
        std::fs::write(work.join(".git/packed-refs"), packed).unwrap();
        let why = format!("a push may update {REFS_MAX} refs: push them in smaller steps");
        refused(git, &["push", "--mirror", &url], &work, &why);
        assert_eq!(git.ok(&["for-each-ref"], &bare), "");
        server.assert_clean(&bare);
    });
}

#[test]
fn a_push_above_the_bound_in_bytes_names_it() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "large");
        git.ok(&["config", "receive.maxInputSize", "2000"], &bare);
        let work = server.path("large-work");
        git.work_tree(&work, 1);
        let noise: Vec<u8> = (0_u32..50_000)
            .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
            .collect();
        std::fs::write(work.join("noise"), noise).unwrap();
        git.change(&work, 1);
        let why =
            "the push is larger than 2000 bytes, the most that is taken: push in smaller steps";
        refused(git, &["push", &url, "main"], &work, why);
        server.assert_clean(&bare);
    });
}

/// The disk failed after the first ref of a push was moved: all refs were reported as refused, and
/// the moved one was pushed again from an older value.
#[test]
fn a_ref_that_may_have_moved_is_neither_ok_nor_refused() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "partly");
        let work = server.path("partly-work");
        git.work_tree(&work, 1);
        let head = git.ok(&["rev-parse", "HEAD"], &work);
        // A ref file cannot be renamed over a directory that is not empty. Other locks are taken.
        std::fs::create_dir_all(bare.join("refs/heads/b/deep")).unwrap();
        std::fs::write(bare.join("refs/heads/b/deep/x.lock"), "").unwrap();
        std::fs::write(bare.join("refs/heads/c.lock"), "").unwrap();
        let said = git.fails(
            &["push", &url, "main:a", "main:b", "main:c", "main:d"],
            &work,
        );
        assert!(said.contains("main -> a\n"), "{said}");
        assert!(said.contains("main -> d\n"), "{said}");
        assert!(
            said.contains("main -> b (remote failed to report status)"),
            "{said}"
        );
        assert!(
            said.contains("refs/heads/b may or may not have been updated"),
            "{said}"
        );
        assert!(
            said.contains("main -> c (it could not be stored: "),
            "{said}"
        );
        for moved in ["a", "d"] {
            assert_eq!(git.ok(&["rev-parse", moved], &bare), head);
        }
        let said = git.fails(&["push", "--atomic", &url, "main:e", "main:b"], &work);
        assert!(!said.contains("[new branch]"), "{said}");
        assert!(said.contains("look before pushing again"), "{said}");
    });
}

/// Each of these was answered with status 400: git printed "Everything up-to-date", or a broken
/// pipe.
#[test]
fn every_limit_of_the_commands_is_told() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "limits");
        git.ok(&["config", "receive.advertisePushOptions", "true"], &bare);
        let work = server.path("limits-work");
        git.work_tree(&work, 1);

        let options: Vec<_> = (0..=256).map(|number| format!("-oo{number}")).collect();
        let mut push = vec!["push"];
        push.extend(options.iter().map(String::as_str));
        push.extend([url.as_str(), "main"]);
        let why = "a push may carry 256 options: send fewer (git push -o, push.pushOption)";
        refused(git, &push, &work, why);

        let long = format!("main:refs/heads/{}", "n/".repeat(2048) + "n");
        let why = "a ref name may have 1024 bytes: rename the ref, or leave it out";
        refused(git, &["push", &url, &long], &work, why);
        assert_eq!(git.ok(&["for-each-ref"], &bare), "");

        // A name in Latin-1 causes a refusal of that ref only.
        let head = git.ok(&["rev-parse", "HEAD"], &work);
        let mut packed = format!("{head} refs/heads/").into_bytes();
        packed.extend_from_slice(b"caf\xe9\n");
        std::fs::write(work.join(".git/packed-refs"), packed).unwrap();
        let why = "this server takes names of refs in UTF-8 only: rename it";
        refused(git, &["push", "--mirror", &url], &work, why);
        assert_eq!(git.ok(&["rev-parse", "main"], &bare), head);
        server.assert_clean(&bare);
    });
}

/// A shallow clone sends its shallow boundary first: its git received no refusal.
#[test]
fn a_shallow_clone_is_told_why() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "shallow");
        let work = server.path("shallow-work");
        git.work_tree(&work, 3);
        git.ok(&["push", "-q", &url, "main"], &work);
        let copy = server.path("shallow-copy");
        git.ok(
            &["clone", "-q", "--depth=1", &url, copy.to_str().unwrap()],
            server.dir.path(),
        );
        let long = format!("main:refs/heads/{}", "n/".repeat(2048) + "n");
        refused(git, &["push", &url, &long], &copy, "a ref name may have");
        server.assert_clean(&bare);
    });
}

/// Input that git would need minutes to make: a shallow boundary and a certificate above the
/// limits.
#[test]
fn what_stands_around_the_commands_is_bounded_and_told() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "around");
        let id = git.absent();
        let command = |words: &str| format!("{ZERO} {id} refs/heads/b{words}\n");
        let ends = (0..100_001).map(|number| line(&format!("shallow {number:040x}")));
        let ends = [
            ends.collect::<Vec<_>>().concat(),
            line(&command("\0report-status")),
        ];
        let text = format!("{}\n", "x".repeat(60_000));
        let certificate = [
            line("push-cert\0report-status\n"),
            line("certificate version 0.1\n"),
            line(&command("")),
            line(&text).repeat(300),
            line("push-cert-end\n"),
        ];
        for (body, why) in [
            (
                ends.concat(),
                "a push may name 100000 shallow commits: fetch more history first",
            ),
            (
                certificate.concat(),
                "a push certificate may have 16777216 bytes: push fewer refs at once, or without --signed",
            ),
        ] {
            let body = [&body[..], b"0000"].concat();
            let answer = post(&url, "receive-pack", "", &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let told = answer.text();
            assert!(told.contains(&format!("unpack {why}\n")), "{told}");
            assert!(told.contains(&format!("ng refs/heads/b {why}\n")), "{told}");
        }
        server.assert_clean(&bare);
    });
}
