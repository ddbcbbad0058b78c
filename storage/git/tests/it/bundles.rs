//! Bundles: their contents, and the bundles in the config of a plain repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_git::{BareRepository, Bundle, Bundles, NoBundle, Stop};
use henge_runtime::SystemClock;
use henge_types::ObjectFormat;

use crate::raw::{line, post, request};
use crate::{Git, Server, for_each_git, for_each_git_and_format, objects_of};

/// Writes a repository's bundle, with the refs visible to fetches, to a file of this name beside
/// the served directory. It is also read in parts whose boundaries are unrelated to its contents.
fn bundle_file(server: &Server, bare: &Path, name: &str) -> PathBuf {
    let repository = BareRepository::open(bare).unwrap();
    let objects = objects_of(bare);
    let stop = Stop::default();
    let refs = repository.for_fetches();
    let bundle = Bundle::make(&refs, &objects, server.dir.path(), 0, &stop).unwrap();
    let bundle = Arc::new(bundle);
    let open = bundle.open(&objects).unwrap();
    let total = bundle.bytes();
    let mut whole = Vec::new();
    open.write(0..total, &mut whole).unwrap();
    let mut parts = Vec::new();
    let edges = [0, 1, 40, 4096, total / 3, total / 2, total - 20, total];
    let mut edges: Vec<u64> = edges.into_iter().map(|edge| edge.min(total)).collect();
    edges.sort_unstable();
    for pair in edges.windows(2) {
        open.write(pair[0]..pair[1], &mut parts).unwrap();
    }
    assert!(whole == parts, "parts of {total} bytes");
    assert_eq!(whole.len() as u64, total);
    let path = server.path(name);
    std::fs::write(&path, whole).unwrap();
    path
}

fn clone(git: &Git, server: &Server, from: &str, name: &str, options: &[&str]) -> PathBuf {
    let copy = server.path(name);
    let target = copy.to_str().unwrap();
    let arguments = [&["clone", "-q"], options, &[from, target]].concat();
    git.ok(&arguments, server.dir.path());
    copy
}

/// A repository with branches, tags and a branch that its configuration hides.
fn repository(server: &Server, git: &Git, name: &str) -> (PathBuf, String) {
    let (bare, url) = server.repo(git, name);
    let work = server.path(&format!("work-{name}"));
    git.work_tree(&work, 12);
    git.ok(&["tag", "light", "HEAD~3"], &work);
    git.ok(&["tag", "-a", "-m", "words", "v1", "HEAD~2"], &work);
    git.ok(
        &[
            "push",
            "-q",
            &url,
            "main",
            "main~4:refs/heads/old",
            "--tags",
        ],
        &work,
    );
    git.ok(&["checkout", "-q", "-b", "secret"], &work);
    git.change(&work, 70);
    git.ok(&["push", "-q", &url, "secret"], &work);
    git.ok(
        &["config", "uploadpack.hideRefs", "refs/heads/secret"],
        &bare,
    );
    (bare, url)
}

#[test]
fn a_bundle_is_what_a_clone_gets() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = repository(server, git, "origin.git");
        for round in ["several", "one"] {
            let file = bundle_file(server, &bare, &format!("{round}.bundle"));
            let from = file.to_str().unwrap();
            let mirror = clone(git, server, &url, &format!("{round}-mirror"), &["--mirror"]);
            git.ok(&["bundle", "verify", "-q", from], &mirror);
            let heads = git.ok(&["bundle", "list-heads", from], &mirror);
            let listed = git.ok(&["ls-remote", &url], &mirror);
            let listed: Vec<_> = listed.lines().map(|line| line.replace('\t', " ")).collect();
            let listed: Vec<_> = listed
                .iter()
                .filter(|line| !line.ends_with("^{}"))
                .collect();
            assert_eq!(heads.lines().collect::<Vec<_>>(), listed, "{round}");
            let copy = clone(git, server, from, &format!("{round}-copy"), &["--bare"]);
            git.fsck(&copy);
            let everything = ["cat-file", "--batch-all-objects", "--batch-check"];
            let (copied, cloned) = (git.ok(&everything, &copy), git.ok(&everything, &mirror));
            assert_eq!(copied, cloned, "{round}");
            let work = clone(git, server, from, &format!("{round}-work"), &[]);
            assert_eq!(git.ok(&["branch", "--show-current"], &work), "main");
            // The second round: one pack, which contains hidden objects too.
            git.ok(&["repack", "-q", "-a", "-d"], &bare);
        }
    });
}

#[test]
fn what_has_no_bundle_says_why() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "none.git");
        let objects = objects_of(&bare);
        let make = |bytes_min| {
            let repository = BareRepository::open(&bare).unwrap();
            let stop = Stop::default();
            Bundle::make(&repository, &objects, server.dir.path(), bytes_min, &stop)
        };
        assert!(matches!(make(0), Err(NoBundle::Empty)));
        let work = server.path("work");
        git.work_tree(&work, 2);
        git.ok(&["push", "-q", &url, "main"], &work);
        let small = make(1_000_000).unwrap_err().to_string();
        assert!(small.contains("is offered from 1000000 on"), "{small}");
        assert!(make(100).is_ok());
    });
}

/// A bundle is offered as long as a fetch could want its objects, and no longer.
#[test]
fn a_bundle_goes_with_what_it_covers() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "going.git");
        let work = server.path("work");
        git.work_tree(&work, 3);
        git.ok(&["push", "-q", &url, "main"], &work);
        let objects = objects_of(&bare);
        let stop = Stop::default();
        let bundles = Bundles::new(server.dir.path(), 0, SystemClock::shared());
        let open = || BareRepository::open(&bare).unwrap();
        let making = bundles.begin(b"this").unwrap();
        assert!(bundles.begin(b"this").is_none(), "one at a time");
        let id = making.make(&open(), &objects, &stop).unwrap().id();
        let is_there = |name: &[u8]| bundles.find(name, id, &open(), &objects, &stop).is_some();
        assert!(is_there(b"this") && !is_there(b"that"));
        let offer = bundles.offer(b"this", &open(), &objects, &stop);
        assert_eq!(offer.bundle.map(|bundle| bundle.id()), Some(id));
        assert!(!offer.is_due);
        // More history on top, and its pack is replaced.
        git.change(&work, 10);
        git.ok(&["push", "-q", &url, "main"], &work);
        git.ok(&["repack", "-q", "-a", "-d"], &bare);
        assert!(is_there(b"this"));
        // Other history in its place.
        git.ok(&["checkout", "-q", "-b", "other", "HEAD~2"], &work);
        git.change(&work, 20);
        git.ok(&["push", "-q", "-f", &url, "other:main"], &work);
        assert!(!is_there(b"this"));
        let offer = bundles.offer(b"this", &open(), &objects, &stop);
        assert!(offer.bundle.is_none() && offer.is_due);
        // Restored: the bundle stays dropped.
        git.ok(&["push", "-q", "-f", &url, "main"], &work);
        assert!(!is_there(b"this"));
    });
}

/// The request for the list of bundles, with these arguments.
fn bundle_uri(format: ObjectFormat, arguments: &[&str]) -> Vec<u8> {
    let mut body = line("command=bundle-uri\n");
    body.extend(line(&format!("object-format={format}\n")));
    if !arguments.is_empty() {
        body.extend_from_slice(b"0001");
    }
    for argument in arguments {
        body.extend(line(argument));
    }
    body.extend_from_slice(b"0000");
    body
}

#[test]
fn a_plain_repository_lists_the_bundles_of_its_configuration_as_git_does() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = repository(server, git, "listed.git");
        let info = || {
            let url = format!("{url}/info/refs?service=git-upload-pack");
            request("GET", &url, &[("Git-Protocol", "version=2")], b"").text()
        };
        let ask = |arguments: &[&str]| {
            let body = bundle_uri(git.format, arguments);
            post(&url, "upload-pack", "version=2", &body).text()
        };
        let config = "[bundle]\n\tversion = 1\n[Bundle \"Of.This\"]\n\tURI = a b\n\turi = \"c # d\"\n\
             \tempty =\n\tnothing\n[bundle]\n\tMode = all\n[bundle \"x\"]\n\tcreationToken = 7\n";
        let own = std::fs::read_to_string(bare.join("config")).unwrap();
        std::fs::write(bare.join("config"), format!("{own}{config}")).unwrap();
        assert!(!info().contains("bundle-uri"));
        let refused = ask(&[]);
        assert!(refused.contains("ERR "), "{refused}");
        git.ok(&["config", "uploadpack.advertiseBundleURIs", "true"], &bare);
        assert!(info().contains("bundle-uri\n"));
        let request_file = server.path("request");
        std::fs::write(&request_file, bundle_uri(git.format, &[])).unwrap();
        let mut stock = git.command(&["upload-pack", "--stateless-rpc", "."], &bare);
        stock.env("GIT_PROTOCOL", "version=2");
        stock.stdin(std::fs::File::open(&request_file).unwrap());
        let stock = stock.output().unwrap();
        if stock.status.success() {
            // Clients treat an entry without a value as an error, and newer versions of git leave
            // it out.
            let stock = String::from_utf8_lossy(&stock.stdout).into_owned();
            let stock = stock.replace("0019bundle.Of.This.empty=", "");
            let stock = stock.replace("0021bundle.Of.This.nothing=(null)", "");
            assert_eq!(ask(&[]), stock);
        } else {
            // git supports it since 2.40.
            assert!(git.ok(&["version"], &bare).contains("2.39"), "{stock:?}");
        }
        let refused = ask(&["more\n"]);
        let words = "ERR bundle-uri: unexpected argument: 'more'";
        assert!(refused.contains(words), "{refused}");
    });
}

#[test]
fn a_clone_takes_the_bundle_that_a_plain_repository_names() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = repository(server, git, "named.git");
        let file = bundle_file(server, &bare, "named.bundle");
        let uri = format!("file://{}", file.display());
        for (key, value) in [
            ("uploadpack.advertiseBundleURIs", "true"),
            ("bundle.version", "1"),
            ("bundle.mode", "all"),
            ("bundle.refs.uri", uri.as_str()),
        ] {
            git.ok(&["config", key, value], &bare);
        }
        let with = git.with("transfer.bundleURI=true");
        let copy = clone(&with, server, &url, "with", &[]);
        let without = clone(git, server, &url, "without", &[]);
        git.fsck(&copy);
        assert_eq!(git.objects(&copy), git.objects(&without));
        let bundled = git.ok(&["for-each-ref", "refs/bundles/"], &copy);
        let is_old = git.ok(&["version"], &bare).contains("2.39");
        assert_eq!(bundled.is_empty(), is_old, "{bundled}");
        let copy = clone(
            git,
            server,
            &url,
            "asked",
            &[&format!("--bundle-uri={uri}")],
        );
        git.fsck(&copy);
        assert_ne!(git.ok(&["for-each-ref", "refs/bundles/"], &copy), "");
        // A bundle that no longer exists.
        std::fs::remove_file(&file).unwrap();
        let copy = clone(&with, server, &url, "gone", &[]);
        assert_eq!(git.objects(&copy), git.objects(&without));
    });
}

#[test]
fn wants_by_name_are_taken_where_the_configuration_says_so() {
    for_each_git(|server, git| {
        let (bare, url) = repository(server, git, "by-name.git");
        let info = || {
            let url = format!("{url}/info/refs?service=git-upload-pack");
            request("GET", &url, &[("Git-Protocol", "version=2")], b"").text()
        };
        let ask = || {
            let mut body = line("command=fetch\n");
            body.extend_from_slice(b"0001");
            body.extend(line("want-ref refs/heads/main\n"));
            body.extend(line("done\n"));
            body.extend_from_slice(b"0000");
            post(&url, "upload-pack", "version=2", &body).text()
        };
        let features = "fetch=shallow wait-for-done filter";
        assert!(
            info().contains(&format!("{features} sideband-all\n")),
            "{}",
            info()
        );
        let refused = ask();
        let words = "ERR unexpected line: 'want-ref refs/heads/main'";
        assert!(refused.contains(words), "{refused}");
        git.ok(&["config", "uploadpack.allowRefInWant", "true"], &bare);
        assert!(info().contains(&format!("{features} ref-in-want sideband-all\n")));
        let taken = ask();
        assert!(
            taken.contains("wanted-refs") && taken.contains("packfile"),
            "{taken}"
        );
        git.ok(&["config", "uploadpack.allowRefInWant", "false"], &bare);
        assert!(
            ask().contains(words),
            "an answer that was kept is not given any more"
        );
    });
}
