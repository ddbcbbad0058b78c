//! Pushes that are refused as a whole: git prints why.

use crate::{Git, Server, for_each_git};

/// Refs that one push may update.
const REFS_MAX: usize = 10_000;

/// What git printed of a push that failed.
#[track_caller]
fn refused(git: &Git, arguments: &[&str], dir: &std::path::Path, why: &str) {
    let said = git.fails(arguments, dir);
    assert!(said.contains(why), "{said}");
    assert!(!said.contains("Everything up-to-date"), "{said}");
    assert!(!said.contains("Broken pipe"), "{said}");
}

/// All refs of a project, its pull requests included: git printed "HTTP 400" and "Everything up-to-date".
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

/// The disk failed behind the first ref of a push that was moved: all refs were told as refused, and the one that was moved
/// was pushed again from an older place.
#[test]
fn a_ref_that_may_have_moved_is_neither_ok_nor_refused() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "partly");
        let work = server.path("partly-work");
        git.work_tree(&work, 1);
        let head = git.ok(&["rev-parse", "HEAD"], &work);
        // A ref cannot be renamed over a directory that is not empty. Other locks cannot be had.
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
