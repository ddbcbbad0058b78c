//! Bundles: clones that begin with one, downloads resumed on another node, and access control.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use henge_git::BundleId;
use henge_git::http::{ByteRange, Caller, GitService};
use henge_repos::RepoEdit;
use henge_types::status::CompactionDepth as Depth;
use henge_types::{ErrorCode, Principal, RepoPath};

use crate::compaction::compact;
use crate::ring::{ADMIN, Ring, Work, eventually};

/// The least size of a bundle in the rings of these tests.
pub(crate) const BYTES_MIN: u64 = 100_000;

const REPO: &str = "admin/large";

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// Commits incompressible bytes, more than a bundle copies out of a pack.
fn commit_huge(work: &Work, file: &str) {
    let bytes: Vec<u8> = (0..320_000)
        .flat_map(|_| henge_runtime::random_bytes())
        .collect();
    work.commit(file, &bytes);
}

/// Whether a node advertises `bundle-uri` for a repository.
fn offers(ring: &Ring, node: usize, repo: &str) -> bool {
    let url = format!("{}/info/refs?service=git-upload-pack", ring.url(node, repo));
    let said = curl(&["-H", "Git-Protocol: version=2", &url]).1;
    String::from_utf8_lossy(&said).contains("bundle-uri\n")
}

/// Runs curl; the status and the body.
fn curl(arguments: &[&str]) -> (u16, Vec<u8>) {
    let output = Command::new("curl")
        .args(["-s", "-w", "%{stderr}%{http_code}"])
        .args(arguments)
        .output()
        .expect("curl runs: install curl to run these tests");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = said.trim().parse();
    (status.unwrap_or_else(|_| panic!("{said}")), output.stdout)
}

/// A node's response to `bundle-uri`, and the URLs of the bundle on each node.
fn bundle_of(ring: &Ring, node: usize, repo: &str) -> Option<(BundleId, Vec<String>)> {
    let said = ring.post(
        node,
        repo,
        "git-upload-pack",
        b"0017command=bundle-uri\n0000",
    );
    if said == "0000" {
        return None;
    }
    assert!(said.contains("bundle.version=1"), "{said}");
    assert!(said.contains("bundle.mode=all"), "{said}");
    let (_, uri) = said.split_once("bundle.refs.uri=").unwrap();
    let uri = uri.strip_suffix("0000").unwrap();
    let id = uri.strip_prefix("bundles/").unwrap();
    let id = id.strip_suffix(".bundle").unwrap().parse().unwrap();
    let nodes = ring.live().into_iter();
    let urls = nodes.map(|node| format!("{}/{uri}", ring.url(node, repo)));
    Some((id, urls.collect()))
}

/// A ring with a repository that is large enough for a bundle.
async fn with_repo(repo: &str) -> (Ring, Work) {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("small", b"small\n");
    commit_huge(&work, "huge");
    work.now(&["tag", "-a", "-m", "words", "v1"]);
    work.now(&["branch", "old", "HEAD~1"]);
    let url = ring.url(1, repo);
    work.git(&["push", "-q", &url, "main", "old", "v1"]).await;
    for node in ring.live() {
        eventually("bundles are offered", async || {
            offers(&ring, node, repo).then_some(())
        })
        .await;
    }
    (ring, work)
}

fn write(work: &Work, name: &str, bytes: &[u8]) -> PathBuf {
    let file = work.dir.join("..").join(name);
    fs::write(&file, bytes).unwrap();
    file
}

/// Clones from a bundle alone; returns all of its objects.
async fn objects_in(ring: &Ring, file: &Path, name: &str) -> String {
    let copy = ring.work_dir(name);
    let from = file.to_str().unwrap();
    copy.git(&["clone", "-q", "--bare", from, "copy"]).await;
    let dir = copy.dir.join("copy");
    let copy = Work { dir };
    copy.git(&["fsck", "--full", "--strict"]).await;
    copy.now(&["cat-file", "--batch-all-objects", "--batch-check"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_download_goes_on_on_another_node_and_after_a_compaction() {
    let (ring, work) = with_repo(REPO).await;
    let (id, urls) = bundle_of(&ring, 1, REPO).expect("a bundle");
    let (status, whole) = curl(&[&urls[0]]);
    assert_eq!(status, 200);
    let file = write(&work, "whole.bundle", &whole);
    work.git(&["bundle", "verify", "-q", file.to_str().unwrap()])
        .await;
    let clone = ring.clone(&ring.url(1, REPO), "plain").await;
    let everything = ["cat-file", "--batch-all-objects", "--batch-check"];
    let objects = objects_in(&ring, &file, "from-bundle").await;
    assert_eq!(objects, clone.now(&everything));

    // Interrupted in the middle, and each further piece from another node.
    let mut pieces = curl(&["-r", "0-99999", &urls[0]]).1;
    let next = format!("{}-3000000", pieces.len());
    let (status, piece) = curl(&["-r", &next, &urls[1]]);
    assert_eq!(status, 206);
    pieces.extend(piece);
    compact(&ring, REPO, Depth::Everything).await;
    let rest = format!("{}-", pieces.len());
    for url in &urls[1..] {
        let (status, piece) = curl(&["-r", &rest, url]);
        assert_eq!(status, 206);
        assert!([&pieces[..], &piece[..]].concat() == whole, "{url}");
    }

    // Range requests by RFC 9110.
    let tag = format!("\"{id}\"");
    let head = String::from_utf8(curl(&["-I", &urls[1]]).1)
        .unwrap()
        .to_lowercase();
    for line in [
        format!("content-length: {}\r\n", whole.len()),
        format!("etag: {tag}\r\n"),
        "accept-ranges: bytes\r\n".to_owned(),
    ] {
        assert!(head.contains(&line), "{head}");
    }
    let behind = format!("{}-", whole.len());
    for url in &urls {
        assert_eq!(curl(&["-r", &behind, url]).0, 416);
        let same = format!("If-Range: {tag}");
        assert_eq!(
            curl(&["-r", "5-9", "-H", &same, url]),
            (206, whole[5..10].to_vec())
        );
        let (status, other) = curl(&["-r", "5-9", "-H", "If-Range: \"x\"", url]);
        assert!(status == 200 && other == whole, "{status}");
        let (status, last) = curl(&["-r", "-20", url]);
        assert!(
            status == 206 && last == whole[whole.len() - 20..],
            "{status}"
        );
    }
    let unknown = urls[0].replace(&id.to_string(), &"0".repeat(64));
    assert_eq!(curl(&[&unknown]).0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clone_begins_with_the_bundle_and_fetches_what_came_since() {
    let (ring, work) = with_repo(REPO).await;
    let bundled = async |node: usize, name: &str| {
        let copy = ring.work_dir(name);
        let url = ring.url(node, REPO);
        let clone = ["-c", "transfer.bundleURI=true", "clone", "-q", &url, "copy"];
        let (cloned, said) = copy.try_git(&clone).await;
        assert!(cloned, "{said}");
        let dir = copy.dir.join("copy");
        let copy = Work { dir };
        copy.git(&["fsck", "--full", "--strict"]).await;
        let tip = |work: &Work| work.now(&["rev-parse", "HEAD"]);
        assert_eq!(tip(&copy), tip(&work));
        (copy.now(&["for-each-ref", "refs/bundles/"]), said)
    };
    for node in ring.live() {
        let (refs, said) = bundled(node, &format!("first-{node}")).await;
        assert!(!refs.is_empty(), "the bundle was not used");
        assert_eq!(said, "");
    }
    let (id, _) = bundle_of(&ring, 2, REPO).expect("a bundle");
    work.commit("later", b"later\n");
    work.git(&["push", "-q", &ring.url(3, REPO), "main"]).await;
    let (refs, said) = bundled(2, "later").await;
    assert!(!refs.is_empty() && said.is_empty(), "{said}");
    let same = bundle_of(&ring, 2, REPO).expect("a bundle").0;
    assert_eq!(id, same, "it is not made anew for one commit");

    // A forced push replaces the history that the bundle covers: the bundle disappears, and clones
    // work without one or with a new one.
    let url = ring.url(1, REPO);
    work.git(&["push", "-q", &url, ":old", ":v1"]).await;
    work.now(&["checkout", "-q", "--orphan", "other"]);
    commit_huge(&work, "huge");
    work.git(&["push", "-q", "-f", &url, "other:main"]).await;
    let (_, urls) = bundle_of(&ring, 2, REPO).expect("it may be given for a while");
    assert_eq!(curl(&["-r", "0-9", &urls[1]]).0, 206);
    ring.jump(Duration::from_secs(11 * 60)).await;
    assert_eq!(curl(&["-r", "0-9", &urls[1]]).0, 404);
    let now = bundle_of(&ring, 2, REPO).expect("another one").0;
    assert_ne!(now, id);
    bundled(2, "other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_may_not_fetch_gets_no_bundle() {
    let (ring, _work) = with_repo(REPO).await;
    let (id, urls) = bundle_of(&ring, 1, REPO).expect("a bundle");
    let repos = &ring.node(2).repos;
    let ask = async |name: Option<&str>, repo: &str| {
        let caller = Caller {
            principal: name.map_or(Principal::Anonymous, |name| name.parse().unwrap()),
            peer: None,
        };
        let asked = repos.bundle(caller, repo, id, ByteRange::Last(1));
        asked
            .await
            .map(|answer| answer.bytes)
            .map_err(|error| error.code)
    };
    let bytes = ask(Some("admin"), "admin/large.git").await.unwrap();
    let change = async |edit: RepoEdit, at: &str| {
        repos.edit(&ADMIN, &path(at), edit).await.unwrap();
    };
    let visible = |private| RepoEdit {
        private: Some(private),
        ..RepoEdit::default()
    };
    change(visible(true), REPO).await;
    assert_eq!(
        ask(None, "admin/large.git").await,
        Err(ErrorCode::Unauthenticated)
    );
    assert_eq!(
        ask(None, "admin/none.git").await,
        Err(ErrorCode::Unauthenticated)
    );
    assert_eq!(
        ask(Some("eve"), "admin/large.git").await,
        Err(ErrorCode::Forbidden)
    );
    change(visible(false), REPO).await;
    assert_eq!(ask(None, "admin/large.git").await, Ok(bytes));
    assert_eq!(ask(None, "admin/large").await, Ok(bytes));

    // Available under the former name as under the new one, and when archived; not after deletion.
    let renamed = RepoEdit {
        path: Some(path("admin/moved")),
        archived: Some(true),
        ..RepoEdit::default()
    };
    change(renamed, REPO).await;
    for at in ["admin/large.git", "admin/moved.git"] {
        assert_eq!(ask(None, at).await, Ok(bytes), "{at}");
    }
    assert_eq!(curl(&["-r", "0-9", &urls[2]]).0, 206);
    repos.delete(&ADMIN, &path("admin/moved")).await.unwrap();
    assert_eq!(
        ask(Some("admin"), "admin/moved.git").await,
        Err(ErrorCode::NotFound)
    );
    assert_eq!(curl(&[&urls[0]]).0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bundle_of_a_fork_holds_what_the_fork_has_and_nothing_else() {
    let (ring, work) = with_repo(REPO).await;
    let repos = &ring.node(1).repos;
    let fork = "admin/fork";
    repos
        .fork(&ADMIN, &path(REPO), path(fork), None)
        .await
        .unwrap();
    let push = async |repo: &str, file: &str| {
        work.now(&["checkout", "-q", "-B", file, "main"]);
        let commit = work.commit_large(file);
        work.git(&["push", "-q", &ring.url(1, repo), file]).await;
        commit
    };
    let of_parent = push(REPO, "parent").await;
    let of_fork = push(fork, "fork").await;
    compact(&ring, REPO, Depth::Everything).await;
    for (repo, own, foreign) in [(REPO, &of_parent, &of_fork), (fork, &of_fork, &of_parent)] {
        let (_, urls) = bundle_of(&ring, 2, repo).expect("a bundle");
        let (_, whole) = curl(&[&urls[0]]);
        let name = repo.replace('/', "-");
        let file = write(&work, &format!("{name}.bundle"), &whole);
        let objects = objects_in(&ring, &file, &name).await;
        assert!(
            objects.contains(own.as_str()) && !objects.contains(foreign.as_str()),
            "{repo}"
        );
        let clone = ring
            .clone(&ring.url(3, repo), &format!("{name}-plain"))
            .await;
        let everything = ["cat-file", "--batch-all-objects", "--batch-check"];
        assert_eq!(objects, clone.now(&everything), "{repo}");
        // The bundle of the other repository is not available here.
        let other = if repo == REPO { fork } else { REPO };
        let borrowed = urls[0].replace(repo, other);
        assert_eq!(curl(&[&borrowed]).0, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_repository_has_none_and_a_lost_node_s_is_not_missed() {
    let (mut ring, _work) = with_repo(REPO).await;
    let small = ring.work_dir("small");
    small.commit("a", b"a\n");
    small
        .git(&["push", "-q", &ring.url(1, "admin/small"), "main"])
        .await;
    assert!(!offers(&ring, 1, "admin/small"));
    assert!(bundle_of(&ring, 1, "admin/small").is_none());

    // Only the third node has the bundle, and stops.
    let (id, _) = bundle_of(&ring, 3, REPO).expect("a bundle");
    ring.stop_node(3).await;
    let url = |node| format!("{}/bundles/{id}.bundle", ring.url(node, REPO));
    for node in [1, 2] {
        let (status, _) = curl(&["-r", "0-9", &url(node)]);
        assert_eq!(status, 503, "it may come back");
        let copy = ring.work_dir(&format!("without-{node}"));
        let from = ring.url(node, REPO);
        let asked = format!("--bundle-uri={}", url(node));
        let (cloned, said) = copy.try_git(&["clone", "-q", &asked, &from, "copy"]).await;
        assert!(
            cloned && said.contains("failed to fetch objects from bundle"),
            "{said}"
        );
        let dir = copy.dir.join("copy");
        Work { dir }.git(&["fsck", "--full", "--strict"]).await;
    }
}
