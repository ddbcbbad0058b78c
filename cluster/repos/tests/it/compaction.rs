//! Compaction: few packs on every replica, the same on all, and no object lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use henge_state::{ShardView, version};
use henge_types::command::VERSION_KNOWN;
use henge_types::status::{CompactionDepth as Depth, CompactionState};
use henge_types::{
    Command, GroupId, InlinePack, NetworkId, ObjectId, PackId, PackRef, ReplacePacks, Reply,
    RepoPath, ShardCommand,
};
use sha1::{Digest, Sha1};

use crate::ring::{ADMIN, Ring, Work, eventually};

/// The most packs that many small pushes may leave.
const FEW: usize = 8;

pub(crate) async fn network(ring: &Ring, repo: &str) -> NetworkId {
    let path: RepoPath = repo.parse().unwrap();
    let node = ring.node(ring.live()[0]);
    node.repos.get(&path).await.unwrap().network
}

/// The manifest in a node's state.
pub(crate) fn manifest(
    ring: &Ring,
    node: usize,
    group: GroupId,
    network: &NetworkId,
) -> BTreeSet<PackId> {
    let at = ring.node(node).cluster.state(group).unwrap();
    let packs = ShardView::new(&at.state).packs(network);
    packs.map(|record| record.pack).collect()
}

pub(crate) fn on_disk(ring: &Ring, node: usize, network: &NetworkId) -> BTreeSet<PackId> {
    let packs = ring.node(node).objects.packs(network).unwrap();
    packs.into_iter().collect()
}

/// Waits until all running nodes have the same manifest of at most so many packs, and exactly these
/// packs on disk.
pub(crate) async fn settled(
    ring: &Ring,
    group: GroupId,
    network: &NetworkId,
    most: usize,
) -> BTreeSet<PackId> {
    eventually("every replica has the same few packs", async || {
        let packs = manifest(ring, ring.live()[0], group, network);
        let few = packs.len() <= most;
        let same = ring.live().into_iter().all(|node| {
            manifest(ring, node, group, network) == packs && on_disk(ring, node, network) == packs
        });
        (few && same).then_some(packs)
    })
    .await
}

/// Waits until all running nodes have the same state at the same index.
pub(crate) async fn agree(ring: &Ring, group: GroupId) {
    eventually("all replicas are at one index", async || {
        let states = ring.live().into_iter();
        let states: Vec<_> = states
            .map(|node| ring.node(node).cluster.state(group).unwrap())
            .collect();
        if states.iter().any(|at| at.applied != states[0].applied) {
            return None;
        }
        for at in &states {
            assert_eq!(
                at.state.hash(),
                states[0].state.hash(),
                "at {:?}",
                at.applied
            );
        }
        Some(())
    })
    .await;
}

pub(crate) async fn compact(ring: &Ring, repo: &str, depth: Depth) {
    let path: RepoPath = repo.parse().unwrap();
    let repos = &ring.node(ring.live()[0]).repos;
    let before = repos.compact(&ADMIN, &path, depth).await.unwrap();
    eventually("the compaction ends", async || {
        let now = repos.stats(&path).await.ok()?;
        let ended = now.compaction == CompactionState::Idle
            && now.last_compaction != before.last_compaction;
        ended.then(|| assert_eq!(now.last_compaction.unwrap().failed, None))
    })
    .await;
}

pub(crate) async fn clone_is_whole(ring: &Ring, node: usize, repo: &str, name: &str, work: &Work) {
    let clone = ring.clone(&ring.url(node, repo), name).await;
    clone.git(&["fsck", "--full", "--strict"]).await;
    assert_eq!(
        clone.now(&["rev-parse", "HEAD"]),
        work.now(&["rev-parse", "HEAD"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_pushes_leave_few_packs_on_every_replica_while_clones_run() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    let url = ring.url(1, "admin/many");
    work.commit("first", b"first\n");
    work.git(&["push", "-q", &url, "main"]).await;
    let network = network(&ring, "admin/many").await;
    let group = ring.shard("admin/many").await;
    let pushes = async {
        for number in 1..60 {
            work.commit(&format!("file-{number}"), format!("{number}\n").as_bytes());
            work.git(&["push", "-q", &url, "main"]).await;
        }
    };
    let clones = async {
        for number in 0..20 {
            let node = 1 + number % 3;
            let clone = ring
                .clone(&ring.url(node, "admin/many"), &format!("clone-{number}"))
                .await;
            clone.git(&["fsck", "--full", "--strict"]).await;
        }
    };
    tokio::join!(pushes, clones);
    settled(&ring, group, &network, FEW).await;
    agree(&ring, group).await;
    for node in ring.live() {
        assert_eq!(
            version(&ring.node(node).cluster.state(group).unwrap().state),
            VERSION_KNOWN
        );
        let name = format!("last-{node}");
        clone_is_whole(&ring, node, "admin/many", &name, &work).await;
        let objects = &ring.node(node).objects;
        assert_eq!(objects.verify_all(&network).unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_network_that_nobody_pushes_to_becomes_one_pack() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    let url = ring.url(1, "admin/rests");
    for number in 0..3 {
        work.commit(&format!("file-{number}"), b"some\n");
        work.git(&["push", "-q", &url, "main"]).await;
    }
    let network = network(&ring, "admin/rests").await;
    let group = ring.shard("admin/rests").await;
    assert_eq!(settled(&ring, group, &network, FEW).await.len(), 3);
    for node in ring.live() {
        let repos = &ring.node(node).repos;
        repos.settle_networks(Duration::from_millis(100));
    }
    settled(&ring, group, &network, 1).await;
    agree(&ring, group).await;
    clone_is_whole(&ring, 2, "admin/rests", "clone", &work).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_asks_for_what_is_done_at_once_sees_that_it_was_done() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("only", b"only\n");
    work.git(&["push", "-q", &ring.url(1, "admin/one"), "main"])
        .await;
    for _ in 0..30 {
        compact(&ring, "admin/one", Depth::Everything).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_was_away_gets_the_new_pack_and_loses_the_old_ones() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    for number in 0..4 {
        // Too large for an entry: these packs, and the merged one, are staged before their entries
        // are proposed.
        work.commit_large(&format!("large-{number}"));
        let url = ring.url(1, "admin/large");
        work.git(&["push", "-q", &url, "main"]).await;
    }
    let network = network(&ring, "admin/large").await;
    let group = ring.shard("admin/large").await;
    let leader = ring.leader(group).await;
    let before = settled(&ring, group, &network, 4).await;
    assert!(before.len() > 1, "packs to compact: {before:?}");
    // The first compaction of a group needs all nodes; later ones need only a majority.
    compact(&ring, "admin/large", Depth::Geometric).await;
    let away = 1 + leader % 3;
    ring.stop_node(away).await;
    work.commit_large("large-4");
    let url = ring.url(leader, "admin/large");
    work.git(&["push", "-q", &url, "main"]).await;
    compact(&ring, "admin/large", Depth::Everything).await;
    let after = settled(&ring, group, &network, 1).await;
    ring.start_node(away).await;
    ring.wait_until_ready(away).await;
    assert_eq!(settled(&ring, group, &network, 1).await, after);
    agree(&ring, group).await;
    clone_is_whole(&ring, away, "admin/large", "back", &work).await;
}

/// The pack files of a network on a node.
fn pack_dir(ring: &Ring, node: usize, network: &NetworkId) -> PathBuf {
    ring.node(node).objects.objects_dir(network).join("pack")
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_crash_left_goes_at_the_next_start() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    for number in 0..3 {
        work.commit("file", format!("{number}\n").as_bytes());
        let url = ring.url(2, "admin/left");
        work.git(&["push", "-q", &url, "main"]).await;
    }
    let network = network(&ring, "admin/left").await;
    let group = ring.shard("admin/left").await;
    let old = settled(&ring, group, &network, 3).await;
    let node = 3;
    let packs = pack_dir(&ring, node, &network);
    let saved = ring.data_dir(node).join("saved");
    copy_all(&packs, &saved);
    compact(&ring, "admin/left", Depth::Everything).await;
    let new = settled(&ring, group, &network, 1).await;
    assert!(old.is_disjoint(&new));
    ring.stop_node(node).await;
    copy_all(&saved, &packs);
    // An interrupted removal: the index is removed first.
    let pack = old.first().unwrap();
    fs::remove_file(packs.join(format!("pack-{pack}.idx"))).unwrap();
    ring.start_node(node).await;
    ring.wait_until_ready(node).await;
    assert_eq!(settled(&ring, group, &network, 1).await, new);
    clone_is_whole(&ring, node, "admin/left", "clone", &work).await;
}

/// An intact pack without objects.
fn empty_pack() -> PackRef {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
    let sum: [u8; 20] = Sha1::digest(&pack).into();
    pack.extend_from_slice(&sum);
    let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
    idx.resize(8 + 256 * 4, 0);
    idx.extend_from_slice(&sum);
    let idx_sum: [u8; 20] = Sha1::digest(&idx).into();
    idx.extend_from_slice(&idx_sum);
    PackRef {
        pack: PackId::new(ObjectId::Sha1(sum)),
        pack_bytes: pack.len() as u64,
        idx_bytes: idx.len() as u64,
        objects: 0,
        inline: Some(InlinePack {
            pack: Bytes::from(pack),
            idx: Bytes::from(idx),
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_new_pack_lacks_is_kept_on_every_replica() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    let url = ring.url(1, "admin/kept");
    work.commit("a", b"a\n");
    work.git(&["push", "-q", &url, "main"]).await;
    let network = network(&ring, "admin/kept").await;
    let group = ring.shard("admin/kept").await;
    let kept = settled(&ring, group, &network, 1).await;
    // No leader proposes this: it simulates a defect.
    let replace = Command::Shard(ShardCommand::ReplacePacks(ReplacePacks {
        network,
        old: kept.iter().copied().collect(),
        new: empty_pack(),
    }));
    let leader = ring.node(ring.leader(group).await);
    let wait = Duration::from_secs(10);
    let applied = leader.cluster.propose(group, replace, None, wait).await;
    assert_eq!(applied.unwrap().reply, Reply::Done);
    // When the next replaced packs are gone, this one has been judged.
    work.commit("b", b"b\n");
    work.git(&["push", "-q", &url, "main"]).await;
    compact(&ring, "admin/kept", Depth::Everything).await;
    for restarted in [None, Some(2)] {
        if let Some(node) = restarted {
            ring.stop_node(node).await;
            ring.start_node(node).await;
            ring.wait_until_ready(node).await;
        }
        for node in ring.live() {
            eventually("only what is needed is left", async || {
                let named = manifest(&ring, node, group, &network);
                let here = on_disk(&ring, node, &network);
                assert!(kept.is_subset(&here), "node {node} lost {kept:?}");
                (named.len() == 1 && here == named.union(&kept).copied().collect()).then_some(())
            })
            .await;
            let name = format!("clone-{node}-{}", restarted.is_some());
            clone_is_whole(&ring, node, "admin/kept", &name, &work).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_next_leader_goes_on_compacting() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    let url = ring.url(1, "admin/next");
    for file in ["first", "second"] {
        work.commit(file, file.as_bytes());
        work.git(&["push", "-q", &url, "main"]).await;
    }
    let network = network(&ring, "admin/next").await;
    let group = ring.shard("admin/next").await;
    // The first compaction of a group waits for all its replicas, later ones for a majority.
    compact(&ring, "admin/next", Depth::Everything).await;
    let first = ring.leader(group).await;
    let url = ring.url(1 + first % 3, "admin/next");
    for number in 0..12 {
        if number == 6 {
            ring.stop_node(first).await;
        }
        work.commit(&format!("file-{number}"), format!("{number}\n").as_bytes());
        work.git(&["push", "-q", &url, "main"]).await;
    }
    settled(&ring, group, &network, 6).await;
    ring.start_node(first).await;
    ring.wait_until_ready(first).await;
    settled(&ring, group, &network, 6).await;
    agree(&ring, group).await;
    clone_is_whole(&ring, first, "admin/next", "clone", &work).await;
}
