//! Pushes whose small packs could not be written: only the logs have them until they can be.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use henge_cluster::{Effects, ProposeError};
use henge_repos::CreateOptions;
use henge_types::{
    Command, ConditionKind, GroupId, NetworkId, NodeId, ObjectFormat, PackId, RepoPath,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::compaction::{compact, manifest, network, settled};
use crate::ring::{ADMIN, Ring, Work, eventually};
use henge_types::status::CompactionDepth as Depth;

const TWIN: &str = "admin/twin";
const BLOCKED: &str = "admin/blocked";

/// A push to the twin creates the same pack that the blocked repository will get.
async fn pack_of_twin(ring: &Ring, work: &Work) -> PackId {
    work.git(&["push", "-q", &ring.url(1, TWIN), "main"]).await;
    let twin = network(ring, TWIN).await;
    let group = ring.shard(TWIN).await;
    let packs: BTreeSet<_> = manifest(ring, ring.leader(group).await, group, &twin);
    assert_eq!(packs.len(), 1);
    *packs.first().unwrap()
}

/// A non-empty folder in the place of a file: no process can replace it, not even as root.
fn block(ring: &Ring, node: usize, network: &NetworkId, pack: &PackId) {
    let objects = &ring.node(node).objects;
    objects.ensure_network(network, ObjectFormat::Sha1).unwrap();
    let packs = objects.objects_dir(network).join("pack");
    fs::create_dir_all(packs.join(format!("pack-{pack}.pack/in the way"))).unwrap();
}

fn unblock(ring: &Ring, node: usize, network: &NetworkId, pack: &PackId) {
    let packs = ring.node(node).objects.objects_dir(network).join("pack");
    fs::remove_dir_all(packs.join(format!("pack-{pack}.pack"))).unwrap();
}

/// The repository whose pack cannot be written, before a push.
async fn created(ring: &Ring) -> NetworkId {
    let path: RepoPath = BLOCKED.parse().unwrap();
    let repos = &ring.node(1).repos;
    let created = repos.create(&ADMIN, path, CreateOptions::default()).await;
    created.unwrap().network
}

/// Pushes the commits: the push is acknowledged although no replica has put its pack in place.
async fn push_blocked(ring: &Ring, work: &Work) -> (GroupId, NetworkId, PackId) {
    let pack = pack_of_twin(ring, work).await;
    let network = created(ring).await;
    for node in ring.live() {
        block(ring, node, &network, &pack);
    }
    work.git(&["push", "-q", &ring.url(1, BLOCKED), "main"])
        .await;
    let group = ring.shard(BLOCKED).await;
    for node in ring.live() {
        eventually("the push is applied everywhere", async || {
            manifest(ring, node, group, &network)
                .contains(&pack)
                .then_some(())
        })
        .await;
        assert!(!ring.node(node).objects.has_pack(&network, &pack));
        assert_eq!(ring.node(node).effects.parked(group), 1);
    }
    (group, network, pack)
}

/// [`push_blocked`] for a small push: its pack is in the logs only.
async fn push_unwritten(ring: &Ring, work: &Work) -> (GroupId, NetworkId, PackId) {
    work.commit("only", b"only\n");
    let (group, network, pack) = push_blocked(ring, work).await;
    for node in ring.live() {
        assert_eq!(ring.node(node).effects.in_log_only(group), 1);
    }
    (group, network, pack)
}

async fn is_written(ring: &Ring, node: usize, network: &NetworkId, pack: &PackId) {
    eventually("the pack is written from the log", async || {
        let objects = &ring.node(node).objects;
        objects.has_pack(network, pack).then_some(())
    })
    .await;
}

fn may_snapshot(ring: &Ring, node: usize, group: GroupId) -> bool {
    let node = ring.node(node);
    let at = node.cluster.state(group).unwrap();
    node.effects.before_snapshot(group, &at.state).is_ok()
}

fn shows_unwritten(ring: &Ring, node: usize) -> bool {
    let listed = ring.node(node).effects.conditions().list();
    let mut conditions = listed.conditions.iter();
    conditions.any(|condition| condition.kind == ConditionKind::PacksUnwritten)
}

/// The pack of a push could not be written on any of three nodes, and the push was acknowledged.
/// All nodes were then stopped with SIGTERM. The start assumed that other replicas had the pack,
/// the next snapshot was taken, the logs dropped the entry, and the push was lost on all nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unwritten_pack_survives_clean_stops() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    let (group, network, pack) = push_unwritten(&ring, &work).await;
    for node in [1, 2, 3] {
        ring.stop_node(node).await;
    }
    for node in [1, 2, 3] {
        ring.start_node(node).await;
    }
    for node in [1, 2, 3] {
        ring.wait_until_ready(node).await;
        assert_eq!(ring.node(node).effects.in_log_only(group), 1);
        assert!(
            !may_snapshot(&ring, node, group),
            "the log is the only copy"
        );
        eventually("the operator is shown", async || {
            shows_unwritten(&ring, node).then_some(())
        })
        .await;
    }
    for node in [1, 2, 3] {
        unblock(&ring, node, &network, &pack);
        is_written(&ring, node, &network, &pack).await;
    }
    for node in [1, 2, 3] {
        let (url, name) = (ring.url(node, BLOCKED), format!("clone-{node}"));
        let clone = ring.clone(&url, &name).await;
        clone.git(&["fsck", "--full", "--strict"]).await;
        assert_eq!(clone.read("only"), work.read("only"));
        assert!(may_snapshot(&ring, node, group));
        assert_eq!(ring.node(node).objects.dirty_packs(&network), []);
        eventually("the condition is over", async || {
            (!shows_unwritten(&ring, node)).then_some(())
        })
        .await;
    }
}

/// The pack folder of one repository could not be written on the leader of its shard. The
/// repository accepted no push through any node until an operator repaired it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_cannot_write_hands_over() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("first", b"first\n");
    let pack = pack_of_twin(&ring, &work).await;
    let network = created(&ring).await;
    let group = ring.shard(BLOCKED).await;
    let sick = ring.leader(group).await;
    block(&ring, sick, &network, &pack);
    let url = ring.url(sick, BLOCKED);
    work.git(&["push", "-q", &url, "main"]).await;
    let lacks = async || (ring.node(sick).effects.parked(group) == 1).then_some(());
    eventually("the leader lacks the pack", lacks).await;
    let tip = work.commit("second", b"second\n");
    work.git(&["push", "-q", &url, "main"]).await;
    assert_ne!(ring.leader(group).await, sick);
    let clone = ring.clone(&url, "clone").await;
    assert_eq!(clone.now(&["rev-parse", "HEAD"]), tip);
    assert!(!ring.node(sick).objects.has_pack(&network, &pack));
}

/// One folder that the leader of a shard needs for large pushes could not be written there. Each
/// large push to the shard was refused through any node, until an operator repaired it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_cannot_store_a_push_hands_over() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    for folder in ["quarantine", "staged"] {
        let path = format!("admin/{folder}");
        work.commit_large("first");
        work.git(&["push", "-q", &ring.url(1, &path), "main"]).await;
        let group = ring.shard(&path).await;
        let sick = ring.leader(group).await;
        // No folder can be created below a file, not even as root.
        let (dir, aside) = (
            ring.data_dir(sick).join(folder),
            ring.data_dir(sick).join("aside"),
        );
        fs::rename(&dir, &aside).unwrap();
        fs::write(&dir, b"in the way").unwrap();
        let tip = work.commit_large("second");
        let url = ring.url(sick, &path);
        work.git(&["push", "-q", &url, "main"]).await;
        assert_ne!(ring.leader(group).await, sick);
        fs::remove_file(&dir).unwrap();
        fs::rename(&aside, &dir).unwrap();
        let clone = ring.clone(&url, &format!("clone-{folder}")).await;
        assert_eq!(clone.now(&["rev-parse", "HEAD"]), tip);
    }
}

/// A single node has no other replica to ask: one transient failure was enough to lose the push.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_node_writes_a_pack_from_its_log() {
    let ring = Ring::of(1, 1).await;
    let work = ring.work_dir("work");
    let (_, network, pack) = push_unwritten(&ring, &work).await;
    unblock(&ring, 1, &network, &pack);
    is_written(&ring, 1, &network, &pack).await;
    let clone = ring.clone(&ring.url(1, BLOCKED), "clone").await;
    assert_eq!(clone.read("only"), work.read("only"));
}

/// A pack was found damaged on a running node and could not be written again. The next snapshot was
/// taken nevertheless, the log dropped its entry, and with it the last copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_pack_holds_the_log_that_has_it() {
    let ring = Ring::of(1, 1).await;
    let work = ring.work_dir("work");
    work.commit("only", b"only\n");
    let pack = pack_of_twin(&ring, &work).await;
    let (group, network) = (ring.shard(TWIN).await, network(&ring, TWIN).await);
    assert!(may_snapshot(&ring, 1, group));
    let file = ring.node(1).objects.side_file(&network, &pack, "pack");
    fs::remove_file(file).unwrap();
    block(&ring, 1, &network, &pack);
    let found = async || (ring.node(1).effects.parked(group) == 1).then_some(());
    eventually("the damage is found", found).await;
    assert_eq!(ring.node(1).effects.in_log_only(group), 1);
    assert!(!may_snapshot(&ring, 1, group), "the log is the only copy");
    unblock(&ring, 1, &network, &pack);
    is_written(&ring, 1, &network, &pack).await;
    let clone = ring.clone(&ring.url(1, TWIN), "clone").await;
    assert_eq!(clone.read("only"), work.read("only"));
    assert!(may_snapshot(&ring, 1, group));
}

/// A large pack was durable in `staged/` on every replica and could not be moved into a store.
/// Replicas searched each other's stores only, and the next term's sweep removed the staged packs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_staged_pack_that_cannot_be_moved_survives_a_restart() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit_large("only");
    let (_, network, pack) = push_blocked(&ring, &work).await;
    for node in [1, 2, 3] {
        ring.stop_node(node).await;
    }
    for node in [1, 2, 3] {
        ring.start_node(node).await;
    }
    for node in [1, 2, 3] {
        ring.wait_until_ready(node).await;
    }
    for node in [1, 2, 3] {
        unblock(&ring, node, &network, &pack);
        is_written(&ring, node, &network, &pack).await;
        let (url, name) = (ring.url(node, BLOCKED), format!("clone-{node}"));
        let clone = ring.clone(&url, &name).await;
        assert_eq!(clone.read("only"), work.read("only"));
    }
}

/// Head of a stream that asks for a pack, field by field: nodes of two releases must agree on it.
#[derive(Serialize)]
struct Head {
    network: NetworkId,
    pack: PackId,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
enum Answer {
    Here { pack_bytes: u64, idx_bytes: u64 },
    Missing,
}

/// A replica without the entry in its log can get the pack from a replica that has only the entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn others_get_an_unwritten_pack_from_the_log() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    let (_, network, pack) = push_unwritten(&ring, &work).await;
    let twin = crate::compaction::network(&ring, TWIN).await;
    let written = ring.node(2).objects.open_pack(&twin, &pack).unwrap();
    let head = postcard::to_stdvec(&Head { network, pack }).unwrap();
    let bulk = ring.node(1).cluster.bulk();
    let wait = Duration::from_secs(10);
    let opened = bulk.open(NodeId::new(2), "pack", head.into(), wait).await;
    let mut stream = opened.unwrap();
    let length = stream.read_u32().await.unwrap();
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut frame).await.unwrap();
    let Answer::Here { pack_bytes, .. } = postcard::from_bytes(&frame).unwrap() else {
        panic!("the log has it")
    };
    let mut bytes = vec![0; usize::try_from(pack_bytes).unwrap()];
    stream.read_exact(&mut bytes).await.unwrap();
    let expected = std::io::Read::bytes(written).map(Result::unwrap);
    assert_eq!(bytes, expected.collect::<Vec<_>>());
}

/// The packs of the last pushes were unflushed when a node was stopped cleanly, and the list of
/// them was lost: a power cut after that left empty files under their names, which no start
/// checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clean_stop_leaves_no_unflushed_pack() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    for number in 0..3 {
        work.commit("file", format!("{number}\n").as_bytes());
        let url = ring.url(1, "admin/flushed");
        work.git(&["push", "-q", &url, "main"]).await;
    }
    let network = network(&ring, "admin/flushed").await;
    for node in [1, 2, 3] {
        let objects = ring.node(node).objects.clone();
        let packs = async || (!objects.dirty_packs(&network).is_empty()).then_some(());
        eventually("pushes leave packs to flush", packs).await;
        ring.stop_node(node).await;
        assert_eq!(objects.dirty_packs(&network), [], "node {node}");
    }
}

/// A restart after kill -9 wrote every pack of the log again, also those that had been compacted
/// long ago: 51,200 pushes took it 129 s. Now the replay leaves the folder unchanged: named packs
/// are compared with the log, replaced ones are not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replay_writes_no_replaced_pack() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    let url = ring.url(1, "admin/replayed");
    for number in 0..6 {
        work.commit("file", format!("{number}\n").as_bytes());
        work.git(&["push", "-q", &url, "main"]).await;
    }
    compact(&ring, "admin/replayed", Depth::Everything).await;
    work.commit("last", b"last\n");
    work.git(&["push", "-q", &url, "main"]).await;
    let network = network(&ring, "admin/replayed").await;
    let group = ring.shard("admin/replayed").await;
    let named = settled(&ring, group, &network, 2).await;
    let node = 3;
    let packs = ring.node(node).objects.objects_dir(&network).join("pack");
    ring.kill_node(node).await;
    let changed = || fs::metadata(&packs).unwrap().modified().unwrap();
    let before = changed();
    // A file that a power cut left empty is written again; its name proves nothing.
    let torn = named.first().unwrap();
    fs::write(packs.join(format!("pack-{torn}.pack")), b"").unwrap();
    ring.start_node(node).await;
    ring.wait_until_ready(node).await;
    assert_eq!(settled(&ring, group, &network, 2).await, named);
    assert_eq!(ring.node(node).objects.verify_all(&network).unwrap(), []);
    assert!(changed() > before, "one pack was written");
    ring.kill_node(node).await;
    let before = changed();
    ring.start_node(node).await;
    ring.wait_until_ready(node).await;
    assert_eq!(settled(&ring, group, &network, 2).await, named);
    assert_eq!(changed(), before, "nothing was written");
}

/// The leader of one term lost the group and led it again. Staged packs that had been promised to
/// the first term may be gone: an entry that depends on them must not be appended in the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_entry_of_another_term_is_not_appended() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("only", b"only\n");
    work.git(&["push", "-q", &ring.url(1, "admin/term"), "main"])
        .await;
    let group = ring.shard("admin/term").await;
    let leader = &ring.node(ring.leader(group).await).cluster;
    let term = leader.leadership(group).unwrap().term;
    let barrier = || Command::VersionBarrier { version: 1 };
    let wait = Duration::from_secs(10);
    let before = leader.read_barrier(group, wait).await.unwrap();
    for other in [term - 1, term + 1] {
        let refused = leader.propose_in_term(group, other, barrier(), None, wait);
        let refused = refused.await;
        assert!(
            matches!(refused, Err(ProposeError::NotLeader { .. })),
            "{refused:?}"
        );
    }
    let appended = leader.propose_in_term(group, term, barrier(), None, wait);
    let appended = appended.await.unwrap();
    assert_eq!(appended.index.get(), before.get() + 1, "nothing in between");
}

/// A node whose compaction had failed lost its shard, and reported itself as degraded for as long
/// as it worked on another network.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_compaction_that_fails_is_a_finding_of_the_leader_only() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    for file in ["first", "second", "third"] {
        work.commit(file, b"small\n");
        work.git(&["push", "-q", &ring.url(1, TWIN), "main"]).await;
    }
    let (group, twin) = (ring.shard(TWIN).await, network(&ring, TWIN).await);
    let sick = ring.leader(group).await;
    let quarantine = ring.data_dir(sick).join("quarantine");
    fs::remove_dir_all(&quarantine).unwrap();
    fs::write(&quarantine, b"in the way").unwrap();
    let path: RepoPath = TWIN.parse().unwrap();
    let is_shown = || {
        let conditions = ring.node(sick).cluster.conditions();
        let subject = format!("network {twin}");
        conditions.since_ms(ConditionKind::CompactionFailing, &subject)
    };
    eventually("the compaction fails again and again", async || {
        let repos = &ring.node(sick).repos;
        drop(repos.compact(&ADMIN, &path, Depth::Everything).await);
        is_shown()
    })
    .await;
    eventually("another node leads", async || {
        let others = [1, 2, 3].map(NodeId::new).into_iter();
        let others: BTreeSet<_> = others
            .filter(|node| node.get() != u64::try_from(sick).unwrap())
            .collect();
        let cluster = &ring.node(sick).cluster;
        cluster.yield_leadership(group, &others).await;
        (ring.leader(group).await != sick).then_some(())
    })
    .await;
    eventually("it is no finding any more", async || {
        is_shown().is_none().then_some(())
    })
    .await;
    compact(&ring, TWIN, Depth::Everything).await;
}
