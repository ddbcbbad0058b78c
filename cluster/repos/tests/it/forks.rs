//! Forks: one store; a reader of one fork sees no object of a sibling. And quotas.

use henge_types::{ErrorCode, RepoLimits, RepoPath};

use crate::compaction::{agree, clone_is_whole, compact};
use crate::ring::{ADMIN, Ring, Work};
use henge_types::status::CompactionDepth as Depth;

const ROOT: &str = "admin/root";
const FORK: &str = "admin/fork";
/// A commit that does not exist.
const NOBODY: &str = "0123456789012345678901234567890123456789";

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// A repository, its fork, and a commit that only the fork has.
async fn fork_with_secret(ring: &Ring) -> (Work, String) {
    let work = ring.work_dir("work");
    work.commit("first", b"first\n");
    work.git(&["push", "-q", &ring.url(1, ROOT), "main"]).await;
    let repos = &ring.node(2).repos;
    let made = repos.fork(&ADMIN, &path(ROOT), path(FORK), None).await;
    let made = made.unwrap();
    let root = repos.get(&path(ROOT)).await.unwrap();
    assert_eq!(
        (made.network, made.forked_from),
        (root.network, Some(root.repo))
    );
    work.now(&["switch", "-q", "-c", "secret"]);
    let secret = work.commit("secret", b"only the fork has this\n");
    work.git(&["push", "-q", &ring.url(3, FORK), "secret"])
        .await;
    work.now(&["switch", "-q", "main"]);
    (work, secret)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fork_is_cloned_from_every_node_and_outlives_its_root() {
    let ring = Ring::start().await;
    let (work, secret) = fork_with_secret(&ring).await;
    let group = ring.shard(ROOT).await;
    assert_eq!(ring.shard(FORK).await, group);
    for node in ring.live() {
        let clone = ring
            .clone(&ring.url(node, FORK), &format!("clone-{node}"))
            .await;
        assert_eq!(clone.now(&["rev-parse", "origin/secret"]), secret);
        clone_is_whole(&ring, node, ROOT, &format!("root-{node}"), &work).await;
    }
    let repos = &ring.node(1).repos;
    let taken = repos.fork(&ADMIN, &path(ROOT), path(FORK), None).await;
    assert_eq!(taken.unwrap_err().code, ErrorCode::AlreadyExists);
    compact(&ring, ROOT, Depth::Everything).await;
    repos.delete(&ADMIN, &path(ROOT)).await.unwrap();
    let gone = repos
        .fork(&ADMIN, &path(ROOT), path("admin/late"), None)
        .await;
    assert_eq!(gone.unwrap_err().code, ErrorCode::NotFound);
    agree(&ring, group).await;
    work.commit("later", b"later\n");
    work.git(&["push", "-q", &ring.url(2, FORK), "main"]).await;
    for node in ring.live() {
        clone_is_whole(&ring, node, FORK, &format!("last-{node}"), &work).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fork_is_as_private_as_its_source() {
    let ring = Ring::start().await;
    let repos = &ring.node(1).repos;
    let usual = henge_repos::CreateOptions::default();
    assert!(usual.private, "nobody said that everybody may see it");
    let public = henge_repos::CreateOptions {
        private: false,
        ..usual.clone()
    };
    for (name, options) in [("usual", usual), ("public", public)] {
        let (root, fork) = (format!("admin/{name}"), format!("team/{name}"));
        let private = options.private;
        let made = repos.create(&ADMIN, path(&root), options).await.unwrap();
        let forked = repos.fork(&ADMIN, &path(&root), path(&fork), None).await;
        assert_eq!((made.private, forked.unwrap().private), (private, private));
    }
}

/// One pkt-line of git's protocol.
fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_only_a_sibling_has_is_neither_given_nor_acknowledged_nor_built_on() {
    let ring = Ring::start().await;
    let (work, secret) = fork_with_secret(&ring).await;
    let main = work.now(&["rev-parse", "main"]);
    let blob = work.now(&["rev-parse", "secret:secret"]);
    for (number, node) in ring.live().into_iter().enumerate() {
        if number == 2 {
            // All objects are in one pack, with deltas between those of the siblings.
            compact(&ring, ROOT, Depth::Everything).await;
        }
        let url = ring.url(node, ROOT);
        let thief = ring.work_dir(&format!("thief-{node}"));
        for object in [&secret, &blob] {
            for version in ["0", "2"] {
                let protocol = format!("protocol.version={version}");
                let (given, said) = thief
                    .try_git(&["-c", &protocol, "fetch", "-q", &url, object])
                    .await;
                assert!(!given, "{object} was given: {said}");
                assert!(said.contains("not our ref"), "{said}");
            }
        }
        // Negotiation treats an unknown have and a sibling's alike.
        for (have, is_common) in [(main.as_str(), true), (&secret, false), (NOBODY, false)] {
            let v2 = [
                packet("command=fetch\n"),
                "0001".to_owned(),
                packet(&format!("want {main}\n")),
                packet(&format!("have {have}\n")),
                "0000".to_owned(),
            ];
            let answer = ring.post(node, ROOT, "git-upload-pack", v2.concat().as_bytes());
            let acknowledged = answer.contains(&format!("ACK {have}"));
            assert_eq!(acknowledged, is_common, "{answer}");
            assert_eq!(answer.contains("NAK"), !is_common, "{answer}");
        }
        // A commit pushed without its parent, which only the sibling has.
        let clone = ring
            .clone(&ring.url(node, FORK), &format!("fork-{node}"))
            .await;
        clone.now(&["switch", "-q", "secret"]);
        let built = clone.commit(&format!("on-top-{node}"), b"more\n");
        let without = format!("^{secret}");
        clone.now(&["bundle", "create", "-q", "bundle", &without, "HEAD"]);
        let bundle = clone.read("bundle");
        let pack = bundle
            .windows(5)
            .position(|bytes| bytes == b"\nPACK")
            .unwrap();
        let zero = "0".repeat(40);
        let command = format!("{zero} {built} refs/heads/stolen-{node}\0 report-status");
        let head = packet(&command) + "0000";
        let push = [head.as_bytes(), &bundle[pack + 1..]].concat();
        let said = ring.post(node, ROOT, "git-receive-pack", &push);
        assert!(
            said.contains(&format!("ng refs/heads/stolen-{node}")),
            "built on: {said}"
        );
        let said = ring.post(node, FORK, "git-receive-pack", &push);
        assert!(
            said.contains(&format!("ok refs/heads/stolen-{node}")),
            "its own: {said}"
        );
        let (known, _) = thief
            .try_git(&["ls-remote", "--exit-code", &url, "refs/heads/stolen-*"])
            .await;
        assert!(!known, "nothing was made");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_beyond_the_limits_of_a_repository_are_refused_and_say_why() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    let url = ring.url(1, ROOT);
    work.commit("first", b"first\n");
    work.git(&["push", "-q", &url, "main"]).await;
    let repos = &ring.node(3).repos;
    let set = async |limits: RepoLimits| {
        repos.set_limits(&ADMIN, &path(ROOT), limits).await.unwrap();
        for node in ring.live() {
            let known = ring.node(node).repos.limits(&path(ROOT)).await.unwrap();
            assert_eq!(known, limits);
        }
    };
    let refused = async |args: &[&str], why: &str| {
        let (taken, said) = work.try_git(&[&["push", "-q", &url], args].concat()).await;
        assert!(!taken, "{said}");
        assert!(said.contains(why), "{said}");
    };
    set(RepoLimits {
        refs_max: Some(2),
        ..RepoLimits::default()
    })
    .await;
    work.git(&["push", "-q", &url, "main:two"]).await;
    refused(&["main:three"], "the repository may hold 2 refs").await;
    work.git(&["push", "-q", &url, ":two"]).await;
    work.git(&["push", "-q", &url, "main:three"]).await;
    work.commit_large("large");
    set(RepoLimits {
        network_bytes_max: Some(100_000),
        ..RepoLimits::default()
    })
    .await;
    refused(&["main"], "the repository may hold 100000 bytes of packs").await;
    set(RepoLimits {
        object_bytes_max: Some(10_000),
        ..RepoLimits::default()
    })
    .await;
    refused(&["main"], "unpack").await;
    set(RepoLimits {
        push_objects_max: Some(2),
        ..RepoLimits::default()
    })
    .await;
    refused(&["main"], "the pack holds 3 objects, 2 are allowed").await;
    set(RepoLimits {
        push_bytes_max: Some(20_000),
        ..RepoLimits::default()
    })
    .await;
    refused(&["main"], "unpack").await;
    set(RepoLimits::default()).await;
    work.git(&["push", "-q", &url, "main"]).await;
    clone_is_whole(&ring, 2, ROOT, "clone", &work).await;
}
