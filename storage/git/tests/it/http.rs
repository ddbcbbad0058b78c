//! Guarantees of the HTTP layer.

use crate::raw::{post, request};
use crate::{for_each_git, raw};

#[test]
fn paths_lead_nowhere_but_to_repositories() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "in/side.git");
        let outside = server.path("outside.git");
        git.ok(
            &["init", "-q", "--bare", outside.to_str().unwrap()],
            server.dir.path(),
        );
        std::os::unix::fs::symlink(&outside, server.path("repos/link.git")).unwrap();
        std::os::unix::fs::symlink(&bare, server.path("repos/alias.git")).unwrap();
        let status = |path: &str| {
            let url = format!("{}/{path}/info/refs?service=git-upload-pack", server.url);
            request("GET", &url, &[], b"").status
        };
        assert_eq!(status("in/side.git"), 200);
        assert_eq!(status("in/side"), 200);
        assert_eq!(status("alias.git"), 200);
        for path in [
            "link.git",
            "in",
            "missing.git",
            "in/../../outside.git",
            "in/%2e%2e/%2e%2e/outside.git",
            "%2fetc",
            "in/side.git/objects",
            "in/side.git%00",
            ".",
        ] {
            assert_eq!(status(path), 404, "{path}");
        }
        let answer = request(
            "GET",
            &format!("{url}/info/refs?service=git-upload-pack"),
            &[],
            b"",
        );
        assert!(
            answer.head.contains("cache-control: no-cache"),
            "{}",
            answer.head
        );
        assert!(
            answer
                .head
                .contains("content-type: application/x-git-upload-pack-advertisement"),
            "{}",
            answer.head
        );
        assert!(
            answer
                .text()
                .starts_with("001e# service=git-upload-pack\n0000")
        );
    });
}

#[test]
fn wrong_requests_are_answered_clearly() {
    for_each_git(|server, git| {
        let (_, url) = server.repo(git, "clear.git");
        let dumb = request("GET", &format!("{url}/info/refs"), &[], b"");
        assert_eq!(dumb.status, 403, "{}", dumb.text());
        let kind = request(
            "POST",
            &format!("{url}/git-upload-pack"),
            &[("Content-Type", "text/plain")],
            b"0000",
        );
        assert_eq!(kind.status, 415);
        assert!(
            kind.text()
                .contains("application/x-git-upload-pack-request"),
            "{}",
            kind.text()
        );
        let encoding = request(
            "POST",
            &format!("{url}/git-upload-pack"),
            &[
                ("Content-Type", "application/x-git-upload-pack-request"),
                ("Content-Encoding", "br"),
            ],
            b"0000",
        );
        assert_eq!(encoding.status, 400, "{}", encoding.text());
        let probe = post(&url, "receive-pack", "", b"0000");
        assert_eq!((probe.status, probe.body.len()), (200, 0));
        assert_eq!(
            request("GET", &format!("{}/x", server.url), &[], b"").status,
            404
        );
        let bad = post(
            &url,
            "upload-pack",
            "version=2",
            &raw::line("command=dance\n"),
        );
        assert!(bad.text().contains("ERR "), "{}", bad.text());
    });
}

#[test]
fn gzipped_requests_are_inflated() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "gzip.git");
        let work = server.path("work");
        git.work_tree(&work, 2);
        let names: Vec<String> = (0..200)
            .map(|number| format!("main:refs/heads/b{number}"))
            .collect();
        let mut push = vec!["push", "-q", &url, "main"];
        push.extend(names.iter().map(String::as_str));
        git.ok(&push, &work);
        assert_eq!(git.ok(&["for-each-ref"], &bare).lines().count(), 201);
        // 200 wants: git compresses requests above a kilobyte.
        let copy = server.path("copy");
        git.ok(
            &["clone", "-q", "--mirror", &url, "copy"],
            server.dir.path(),
        );
        for number in 0..60 {
            git.change(&work, number + 100);
        }
        git.ok(&["push", "-q", &url, "main"], &work);
        git.ok(&["fetch", "-q"], &copy);
        git.fsck(&copy);
    });
}

#[test]
fn expecting_100_continue_is_answered() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "expect.git");
        let work = server.path("work");
        git.work_tree(&work, 2);
        git.with("http.expectContinue=true")
            .with("http.postBuffer=1024")
            .ok(&["push", "-q", &url, "main"], &work);
        git.fsck(&bare);
    });
}
