//! Repositories with object format SHA-256.

use henge_repos::CreateOptions;
use henge_types::status::{CompactionDepth, CompactionState};
use henge_types::{ErrorCode, ObjectFormat, RepoPath};

use crate::ring::{ADMIN, Ring, eventually};

/// Creates a repository of this format; the first one of a group waits for its release level.
pub(crate) async fn create(ring: &Ring, node: usize, repo: &str, format: ObjectFormat) {
    let path: RepoPath = repo.parse().unwrap();
    eventually("the repository is made", async || {
        let options = CreateOptions {
            object_format: format,
            ..CreateOptions::default()
        };
        let repos = &ring.node(node).repos;
        match repos.create(&ADMIN, path.clone(), options).await {
            Ok(record) => Some(record),
            Err(error) if error.code == ErrorCode::AlreadyExists => repos.get(&path).await.ok(),
            Err(_) => None,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_pushed_cloned_and_compacted_through_every_node() {
    let ring = Ring::start().await;
    create(&ring, 1, "admin/long", ObjectFormat::Sha256).await;
    let path: RepoPath = "admin/long".parse().unwrap();
    let work = ring.work_dir_of("work", ObjectFormat::Sha256);
    for node in ring.live() {
        let url = ring.url(node, "admin/long");
        work.commit(&format!("small-{node}"), b"hello\n");
        work.git(&["push", "-q", &url, "main"]).await;
        work.commit_large(&format!("large-{node}"));
        work.git(&["push", "-q", &url, "main"]).await;
        let record = ring.node(node).repos.get(&path).await.unwrap();
        assert_eq!(record.object_format, ObjectFormat::Sha256);
    }
    let head = work.now(&["rev-parse", "HEAD"]);
    assert_eq!(head.len(), 64);
    let repos = &ring.node(1).repos;
    let network = repos.get(&path).await.unwrap().network;
    let before = repos
        .compact(&ADMIN, &path, CompactionDepth::Everything)
        .await
        .unwrap();
    eventually("the compaction ends", async || {
        let now = repos.stats(&path).await.ok()?;
        let ended = now.compaction == CompactionState::Idle
            && now.last_compaction != before.last_compaction;
        ended.then(|| assert_eq!(now.last_compaction.unwrap().failed, None))
    })
    .await;
    for node in ring.live() {
        let objects = &ring.node(node).objects;
        let pack = eventually("one pack is left", async || {
            let packs = objects.packs(&network).unwrap();
            (packs.len() == 1).then(|| packs[0])
        })
        .await;
        assert_eq!(pack.checksum().format(), ObjectFormat::Sha256);
        assert_eq!(objects.verify_all(&network).unwrap(), []);
        // Stock git reads the store directly.
        let store = objects.network_dir(&network);
        let store = store.to_str().unwrap();
        work.now(&["--git-dir", store, "fsck", "--full"]);
        let kind = work.now(&["--git-dir", store, "cat-file", "-t", &head]);
        assert_eq!(kind, "commit");
        for protocol in ["0", "2"] {
            let clone = ring.work_dir(&format!("clone-{node}-{protocol}"));
            let version = format!("protocol.version={protocol}");
            let url = ring.url(node, "admin/long");
            clone
                .git(&["-c", &version, "clone", "-q", &url, "here"])
                .await;
            clone.now(&["-C", "here", "fsck", "--full", "--strict"]);
            assert_eq!(clone.now(&["-C", "here", "rev-parse", "HEAD"]), head);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_formats_do_not_mix() {
    let ring = Ring::start().await;
    let short = ring.work_dir("short");
    short.commit("a", b"a\n");
    let long = ring.work_dir_of("long", ObjectFormat::Sha256);
    long.commit("a", b"a\n");
    create(&ring, 1, "admin/long", ObjectFormat::Sha256).await;
    let url = ring.url(1, "admin/long");
    long.git(&["push", "-q", &url, "main"]).await;
    let other = "the receiving end does not support this repository's hash algorithm";
    let (pushed, said) = short.try_git(&["push", &url, "main:x"]).await;
    assert!(!pushed && said.contains(other), "{said}");
    let (fetched, said) = short.try_git(&["fetch", &url, "main"]).await;
    let mismatched = "mismatched algorithms: client sha1; server sha256";
    assert!(!fetched && said.contains(mismatched), "{said}");
    // A missing repository is advertised with object format SHA-1.
    let missing = ring.url(2, "admin/missing");
    let (pushed, said) = long.try_git(&["push", &missing, "main"]).await;
    assert!(!pushed && said.contains(other), "{said}");
    short.git(&["push", "-q", &missing, "main"]).await;
    // The next repository of this name has the other format, on every node.
    let path: RepoPath = "admin/long".parse().unwrap();
    ring.node(2).repos.delete(&ADMIN, &path).await.unwrap();
    create(&ring, 3, "admin/long", ObjectFormat::Sha1).await;
    for node in ring.live() {
        let url = ring.url(node, "admin/long");
        short.commit(&format!("again-{node}"), b"again\n");
        short.git(&["push", "-q", &url, "main"]).await;
        let clone = ring.clone(&url, &format!("again-{node}")).await;
        assert_eq!(
            clone.now(&["rev-parse", "HEAD"]),
            short.now(&["rev-parse", "HEAD"])
        );
    }
}
