//! Tests of received snapshots.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use henge_state::State;
use henge_storage::snapshots::{SnapshotFile, SnapshotStore};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::group::Groups;
use crate::lone_replica::{GROUP, LoneReplica, position, run};
use crate::machine::meta_of;
use crate::network::SnapshotHead;
use crate::raft::{Vote, decode_vote, encode_vote};
use crate::snapshot_copies::{CopyHead, SnapshotCopies, receive};
use crate::snapshot_file;
use crate::snapshot_service::SnapshotService;
use crate::suite::NoPacks;
use crate::transport::bulk::{BulkHandler, BulkStream};

/// A peer's snapshot that covers up to entry `index` of `term`.
fn peers_snapshot(dir: &Path, term: u64, index: u64) -> SnapshotFile {
    let store = SnapshotStore::open(dir, snapshot_file::index_of).expect("opens");
    snapshot_file::write(&store, GROUP, &position(term, index), &State::empty()).expect("writes")
}

/// Sends a snapshot as a peer does. Returns the vote in the replica's response.
async fn send(replica: &LoneReplica, vote: &Vote, file: &SnapshotFile) -> Vote {
    let groups = Groups::default();
    groups.insert(replica.group());
    let service = SnapshotService::new(
        groups,
        replica.snapshots.clone(),
        Arc::new(NoPacks),
        replica.scope.clone(),
    );
    let head = SnapshotHead {
        group: GROUP,
        vote: encode_vote(vote),
        position: file.meta.clone(),
    };
    let head = Bytes::from(postcard::to_stdvec(&head).expect("encodes"));
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (read, write) = tokio::io::split(theirs);
    let serving = service.handle(
        henge_types::NodeId::new(vote.leader_id.voted_for),
        head,
        BulkStream::join(read, write),
    );
    let bytes = std::fs::read(&file.path).expect("reads");
    let asking = async {
        let (mut read, mut write) = tokio::io::split(ours);
        write.write_all(&bytes).await.expect("writes");
        write.shutdown().await.expect("ends");
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.expect("reads");
        decode_vote(&answer).expect("a vote")
    };
    let (served, answer) = tokio::join!(serving, asking);
    served.expect("the snapshot is taken or refused");
    answer
}

/// A follower had its own snapshot at 2745 and had purged its log up to there. A deposed leader
/// still sent its own, at 1386: it was named, and the follower's removed, before openraft refused
/// it for its old vote. Killed after that, the replica found a snapshot at 1386 and a log from
/// 2746, and never started again.
#[test]
fn a_deposed_leader_s_snapshot_replaces_nothing() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let deposed = peers_snapshot(&dir.path().join("peer"), 1, 14);
        let own = dir.path().join("own");
        let replica = LoneReplica::start(&own).await.expect("starts");
        let leader = Vote::new_committed(2, 2);
        replica.lead(&leader, 0, 27).await;
        replica.take_snapshot(27).await;
        replica.purge(27).await;

        let answer = send(&replica, &Vote::new_committed(1, 3), &deposed).await;
        assert_eq!(answer, leader, "refused, and told by whom it is led");
        let replica = replica.killed_and_started().await.expect("starts again");
        assert_eq!(replica.view.now().applied.get(), 27);
        replica.lead(&leader, 28, 30).await;
    });
}

/// A leader's newer snapshot arrived and was named during the build of another. The build returned
/// the newer one: openraft then knew a snapshot at its index and skipped the installation. The
/// replica continued with a state that lacked the entries in the purged part of the log.
#[test]
fn a_build_never_returns_a_received_snapshot() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let sent = peers_snapshot(&dir.path().join("peer"), 2, 80);
        let replica = LoneReplica::start(&dir.path().join("own")).await;
        let replica = replica.expect("starts");
        let leader = Vote::new_committed(2, 2);
        replica.lead(&leader, 0, 40).await;

        let mut receiver = replica.snapshots.receiver(GROUP).expect("starts");
        let mut source = std::fs::File::open(&sent.path).expect("opens");
        std::io::copy(&mut source, &mut receiver).expect("copies");
        let received = receiver.finish().expect("is whole");
        replica.take_snapshot(40).await;
        let built = replica.raft.metrics().borrow_watched().snapshot;
        assert_eq!(built.map(|id| id.index()), Some(40), "what it has applied");

        let snapshot = Snapshot {
            meta: meta_of(&position(2, 80)),
            snapshot: received,
        };
        let installed = replica.raft.install_full_snapshot(leader, snapshot).await;
        installed.expect("it runs");
        assert_eq!(replica.view.now().applied.get(), 80, "it is installed");
        let replica = replica.killed_and_started().await.expect("starts again");
        assert_eq!(replica.view.now().applied.get(), 80);
    });
}

#[test]
fn a_build_overtaken_by_an_installation_returns_nothing() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let sent = peers_snapshot(&dir.path().join("peer"), 2, 80);
        let replica = LoneReplica::start(&dir.path().join("own")).await;
        let replica = replica.expect("starts");
        let leader = Vote::new_committed(2, 2);
        replica.lead(&leader, 0, 40).await;
        // On the core's own machine: builder first, then the installation, then the build.
        let snapshots = replica.snapshots.clone();
        let built = replica.raft.with_state_machine(move |machine| {
            Box::pin(async move {
                let builder = machine.try_create_snapshot_builder(false).await;
                let mut builder = builder.expect("always");
                let meta = meta_of(&position(2, 80));
                machine
                    .install_snapshot(&meta, sent)
                    .await
                    .expect("installs");
                builder.build_snapshot().await.expect("writes").meta
            })
        });
        let meta = built.await.expect("it runs");
        assert_eq!(meta.last_log_id, None, "openraft ignores it");
        let latest = snapshots.latest(GROUP).expect("looks").expect("is there");
        assert_eq!(snapshot_file::index_of(&latest.meta), Some(80));
    });
}

/// A snapshot was compared with its checksum only once per process. A later damage was detected by
/// the next start, when the log before it had been purged and a kill had cost the kv: the group
/// never started again.
#[test]
fn a_snapshot_damaged_at_rest_is_taken_anew() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let replica = LoneReplica::start(&dir.path().join("own")).await;
        let replica = replica.expect("starts");
        replica.lead(&Vote::new_committed(2, 2), 0, 27).await;
        replica.take_snapshot(27).await;
        replica.purge(27).await;
        let latest = replica.snapshots.latest(GROUP).expect("looks");
        let path = latest.expect("is there").path;
        flip(&path);
        let checked = replica.snapshots.check(GROUP);
        checked.expect("is read");
        assert_eq!(replica.snapshots.damaged(GROUP), Some(path));

        replica.raft.trigger().snapshot().await.expect("it runs");
        while replica.snapshots.damaged(GROUP).is_some() {
            tokio::task::yield_now().await;
        }
        let replica = replica.killed_and_started().await.expect("starts again");
        assert_eq!(replica.view.now().applied.get(), 27);
    });
}

#[test]
fn a_copy_is_handed_out_where_it_covers_enough() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let replica = LoneReplica::start(&dir.path().join("own")).await;
        let replica = replica.expect("starts");
        replica.lead(&Vote::new_committed(2, 2), 0, 27).await;
        replica.take_snapshot(27).await;
        let asker = SnapshotStore::open(&dir.path().join("asker"), snapshot_file::index_of);
        let asker = asker.expect("opens");
        let file = ask(&replica, &asker, 20).await.expect("is handed out");
        assert_eq!(snapshot_file::index_of(&file.meta), Some(27));
        assert_eq!(asker.latest(GROUP).expect("looks"), None, "no name yet");

        let own = replica.snapshots.latest(GROUP).expect("looks");
        flip(&own.expect("is there").path);
        replica.snapshots.check(GROUP).expect("is read");
        let refused = ask(&replica, &asker, 20).await.expect_err("damaged");
        assert!(refused.to_string().contains("ask again"), "{refused}");
        while ask(&replica, &asker, 20).await.is_err() {
            tokio::task::yield_now().await;
        }
        let refused = ask(&replica, &asker, 28).await;
        refused.expect_err("covers too little");
    });
}

/// Requests a snapshot from a replica as another replica does.
async fn ask(
    replica: &LoneReplica,
    asker: &SnapshotStore,
    least: u64,
) -> std::io::Result<SnapshotFile> {
    let groups = Groups::default();
    groups.insert(replica.group());
    let service = SnapshotCopies::new(groups, replica.snapshots.clone(), replica.scope.clone());
    let group = GROUP;
    let head = CopyHead { group, least }.encode();
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (read, write) = tokio::io::split(theirs);
    let serving = service.handle(
        henge_types::NodeId::new(2),
        head,
        BulkStream::join(read, write),
    );
    let receiving = receive(ours, (asker.clone(), GROUP), &replica.scope);
    let (served, received) = tokio::join!(serving, receiving);
    served.expect("it answers");
    received
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("writes");
}
