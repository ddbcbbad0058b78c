//! Interactions of repositories with two object formats.

use henge_types::ObjectFormat;

use crate::raw::{ZERO, line, post, push_head, request};
use crate::{Git, for_each_git};

fn format_of(git: &Git, repository: &std::path::Path) -> String {
    git.ok(&["rev-parse", "--show-object-format"], repository)
}

#[test]
fn a_clone_of_an_empty_repository_has_its_format() {
    for_each_git(|server, git| {
        let sha256 = git.of_format(ObjectFormat::Sha256);
        let (bare, url) = server.repo(&sha256, "empty.git");
        assert_eq!(format_of(git, &bare), "sha256");
        // The client's own default is another format. Git 2.39 keeps it, whichever server has the
        // empty repository.
        let by_git = format!("file://{}", bare.display());
        git.ok(&["clone", "-q", &by_git, "by-git"], server.dir.path());
        let expected = format_of(git, &server.path("by-git"));
        for protocol in ["0", "1", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let name = format!("copy-{protocol}");
            let copy = server.path(&name);
            git.ok(&["clone", "-q", &url, &name], server.dir.path());
            assert_eq!(format_of(&git, &copy), expected, "protocol {protocol}");
        }
        let copy = server.path("copy-2");
        assert_eq!(git.ok(&["symbolic-ref", "HEAD"], &copy), "refs/heads/main");
        if expected == "sha256" {
            git.change(&copy, 1);
            git.ok(&["push", "-q", "origin", "main"], &copy);
        } else {
            let work = server.path("work");
            sha256.work_tree(&work, 2);
            git.ok(&["push", "-q", &url, "main"], &work);
        }
        for protocol in ["0", "1", "2"] {
            let git = git.with(&format!("protocol.version={protocol}"));
            let name = format!("full-{protocol}");
            git.ok(&["clone", "-q", &url, &name], server.dir.path());
            git.fsck(&server.path(&name));
            assert_eq!(git.objects(&server.path(&name)), git.objects(&bare));
            // Outside of any repository the server's format is used.
            let listed = git.ok(&["ls-remote", &url, "main"], server.dir.path());
            let tip = git.ok(&["rev-parse", "main"], &bare);
            assert_eq!(listed, format!("{tip}\trefs/heads/main"));
        }
    });
}

#[test]
fn repositories_of_two_formats_do_not_mix() {
    for_each_git(|server, git| {
        let formats = [ObjectFormat::Sha1, ObjectFormat::Sha256];
        for (ours, theirs) in [(formats[0], formats[1]), (formats[1], formats[0])] {
            let (bare, url) = server.repo(&git.of_format(ours), &format!("{ours}.git"));
            let work = server.path(&format!("work-{theirs}"));
            git.of_format(theirs).work_tree(&work, 2);
            let source = server.path(&format!("source-{ours}"));
            git.of_format(ours).work_tree(&source, 2);
            git.ok(&["push", "-q", &url, "main"], &source);
            let before = git.ok(&["for-each-ref"], &bare);
            let refused = git.fails(&["push", &url, "main:other"], &work);
            let says = "the receiving end does not support this repository's hash algorithm";
            assert!(refused.contains(says), "{refused}");
            let refused = git.fails(&["fetch", &url, "main"], &work);
            let says = format!("mismatched algorithms: client {theirs}; server {ours}");
            assert!(refused.contains(&says), "{refused}");
            let old = git.with("protocol.version=0");
            let refused = old.fails(&["fetch", &url, "main"], &work);
            assert!(refused.contains("fatal"), "{refused}");
            assert_eq!(git.ok(&["for-each-ref"], &bare), before);
            server.assert_clean(&bare);
        }
    });
}

#[test]
fn a_client_that_does_not_ask_is_told_by_the_server() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(&git.of_format(ObjectFormat::Sha256), "asked.git");
        let work = server.path("work");
        git.of_format(ObjectFormat::Sha256).work_tree(&work, 1);
        git.ok(&["push", "-q", &url, "main"], &work);
        let (short, long) = ("1".repeat(40), git.ok(&["rev-parse", "main"], &bare));
        let fetch = |head: &[&str], want: &str| {
            let mut body = Vec::new();
            for text in head {
                body.extend(line(text));
            }
            body.extend_from_slice(b"0001");
            body.extend(line(&format!("want {want}")));
            body.extend(line("done"));
            body.extend_from_slice(b"0000");
            post(&url, "upload-pack", "version=2", &body).text()
        };
        let mismatched = "ERR mismatched object format: server sha256; client sha1";
        for head in [
            &["command=fetch"][..],
            &["command=fetch", "object-format=sha1"],
        ] {
            for want in [&short, &long] {
                let answer = fetch(head, want);
                assert!(answer.contains(mismatched), "{head:?}: {answer}");
            }
        }
        let head = ["object-format=sha256", "command=fetch"];
        let answer = fetch(&head, &short);
        assert!(answer.contains("not understood"), "{answer}");
        let answer = fetch(&head, &git.of_format(ObjectFormat::Sha256).absent());
        assert!(answer.contains("not our ref"), "{answer}");
        assert!(fetch(&head, &long).contains("packfile"));
        // A fetch in protocol v0 does not name the format: the length of the ids determines it.
        let mut body = line(&format!("want {short} agent=x"));
        body.extend_from_slice(b"0000");
        body.extend(line("done"));
        let answer = post(&url, "upload-pack", "", &body).text();
        assert!(answer.contains("ERR"), "{answer}");
        let mut body = push_head(ZERO, &short, "refs/heads/x");
        body.extend_from_slice(b"PACK");
        let answer = post(&url, "receive-pack", "", &body);
        assert_eq!(answer.status, 400);
        assert!(
            answer.text().contains("unsupported object format 'sha1'"),
            "{}",
            answer.text()
        );
        for service in ["git-upload-pack", "git-receive-pack"] {
            let url = format!("{url}/info/refs?service={service}");
            let listing = request("GET", &url, &[], b"").text();
            assert!(listing.contains("object-format=sha256"), "{listing}");
        }
        assert!(!git.ok(&["for-each-ref"], &bare).contains("refs/heads/x"));
    });
}

#[test]
fn a_repository_made_again_in_another_format_is_read_anew() {
    for_each_git(|server, git| {
        for format in [ObjectFormat::Sha1, ObjectFormat::Sha256, ObjectFormat::Sha1] {
            let git = git.of_format(format);
            let (bare, url) = server.repo(&git, "again.git");
            let work = server.path("work");
            git.work_tree(&work, 2);
            git.ok(&["push", "-q", &url, "main"], &work);
            git.ok(&["clone", "-q", &url, "copy"], server.dir.path());
            git.fsck(&server.path("copy"));
            for path in [&bare, &work, &server.path("copy")] {
                std::fs::remove_dir_all(path).unwrap();
            }
        }
    });
}
