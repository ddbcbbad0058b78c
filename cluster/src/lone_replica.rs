//! One replica whose peers are played by the test: the real log, machine and snapshots in a
//! directory, and a network without peers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use henge_runtime::{Scope, SystemClock};
use henge_state::State;
use henge_storage::disk::{Disk, OsDisk};
use henge_storage::kv::MemoryKv;
use henge_storage::snapshots::{SnapshotFile, SnapshotStore};
use henge_storage::wal::{Wal, WalConfig};
use henge_types::GroupId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::EmptyNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{EntryPayload, OptionalSend, RaftMetrics, StoredMembership};
use tokio::runtime::Handle;

use crate::builds::Builds;
use crate::config::{Timings, raft_config};
use crate::group::Group;
use crate::kv_writer::KvWriter;
use crate::log_store::LogStore;
use crate::machine::{Machine, MachineDeps, View};
use crate::raft::{Entry, Position, Raft, TypeConfig, Vote, log_id, membership};
use crate::snapshot_file;
use crate::suite::NoPacks;

/// The replica's group.
pub(crate) const GROUP: GroupId = GroupId::new(1);
/// Time-out of a condition.
const PATIENCE: Duration = Duration::from_secs(20);

/// The replica of node 1 in a group of nodes 1 to 3.
pub(crate) struct LoneReplica {
    pub(crate) raft: Raft,
    pub(crate) view: View,
    pub(crate) wal: Wal,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) deps: MachineDeps,
    pub(crate) scope: Scope,
    dir: PathBuf,
    _closing: CloseOnDrop,
}

/// Ends the log's threads when a test ends: a log ends the process if its directory is removed
/// under it.
struct CloseOnDrop(Wal);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

impl LoneReplica {
    /// Starts the replica in `dir` as after a kill: with its log and snapshots; the kv is wiped.
    pub(crate) async fn start(dir: &Path) -> Result<Self, String> {
        Self::start_on(OsDisk::shared(), wal_config(dir), dir).await
    }

    /// The same, with the log on `disk`.
    pub(crate) async fn start_on(
        disk: Arc<dyn Disk>,
        wal: WalConfig,
        dir: &Path,
    ) -> Result<Self, String> {
        let scope = Scope::root("replica", Handle::current(), 8);
        let said = |error: &dyn std::error::Error| error.to_string();
        let wal = Wal::open(disk, SystemClock::shared(), wal).map_err(|error| said(&error))?;
        let snapshots = SnapshotStore::open(&dir.join("snapshots"), snapshot_file::index_of);
        let snapshots = snapshots.map_err(|error| said(&error))?;
        let deps = MachineDeps {
            effects: Arc::new(NoPacks),
            kv: KvWriter::start(Arc::new(MemoryKv::default()), scope.clone())
                .map_err(|error| said(&error))?,
            snapshots: snapshots.clone(),
            builds: Builds::default(),
        };
        let (machine, view) =
            Machine::new(GROUP, State::empty(), Position::default(), deps.clone());
        let raft = Self::core(&wal, machine).await?;
        Ok(Self {
            raft,
            view,
            _closing: CloseOnDrop(wal.clone()),
            wal,
            snapshots,
            deps,
            scope,
            dir: dir.to_owned(),
        })
    }

    /// openraft on `machine`.
    pub(crate) async fn core(wal: &Wal, machine: Machine) -> Result<Raft, String> {
        let said = |error: &dyn std::error::Error| error.to_string();
        let timings = Timings {
            heartbeat_ms: 1_000,
            election_ms_min: 60_000,
            election_ms_max: 120_000,
        };
        let config = raft_config(&timings).map_err(|error| said(&error))?;
        let store = LogStore::new(GROUP, wal.clone());
        let raft = Raft::new(1, config, Nowhere, store, machine).await;
        raft.map_err(|error| said(&error))
    }

    /// The replica's entry in the node's registry.
    pub(crate) fn group(&self) -> Group {
        Group {
            id: GROUP,
            raft: self.raft.clone(),
            view: self.view.clone(),
            quiet_until: None,
        }
    }

    /// Ends it without a clean shutdown, and starts it again.
    pub(crate) async fn killed_and_started(self) -> Result<Self, String> {
        let dir = self.killed().await?;
        Self::start(&dir).await
    }

    /// Ends it without a clean shutdown. Returns its directory.
    pub(crate) async fn killed(self) -> Result<PathBuf, String> {
        let Self {
            raft,
            wal,
            scope,
            dir,
            ..
        } = self;
        raft.shutdown().await.map_err(|error| error.to_string())?;
        drop(raft);
        scope.cancel();
        wal.close().map_err(|error| error.to_string())?;
        Ok(dir)
    }

    /// As `vote`'s leader: appends blank entries `from..=to`, after the membership as entry 0, and
    /// commits them.
    pub(crate) async fn lead(&self, vote: &Vote, from: u64, to: u64) {
        self.append(vote, (from, to), to).await;
        self.until("the entries are applied", |metrics| {
            metrics.last_applied.is_some_and(|id| id.index() >= to)
        })
        .await;
    }

    /// As `vote`'s leader: appends blank entries `from..=to`, and commits those up to `committed`.
    pub(crate) async fn append(&self, vote: &Vote, (from, to): (u64, u64), committed: u64) {
        let term = vote.leader_id.term;
        let previous = from.checked_sub(1).map(|index| log_id(term, index));
        let entries = (from..=to).map(|index| entry(term, index)).collect();
        let request = AppendEntriesRequest {
            vote: *vote,
            prev_log_id: previous,
            entries,
            leader_commit: Some(log_id(term, committed)),
        };
        let answer = self.raft.append_entries(request).await;
        let answer = answer.expect("the replica runs");
        assert!(
            matches!(answer, AppendEntriesResponse::Success),
            "the entries follow: {answer:?}"
        );
    }

    /// Purges the log up to entry `index`, and waits for it.
    pub(crate) async fn purge(&self, index: u64) {
        let purging = self.raft.trigger().purge_log(index).await;
        purging.expect("it runs");
        self.until("the log is purged", |metrics| {
            metrics.purged.is_some_and(|id| id.index() == index)
        })
        .await;
    }

    /// Takes a snapshot now, and waits until it covers `index`.
    pub(crate) async fn take_snapshot(&self, index: u64) {
        self.raft.trigger().snapshot().await.expect("it runs");
        self.until("the snapshot is taken", |metrics| {
            metrics.snapshot.is_some_and(|id| id.index() >= index)
        })
        .await;
    }

    /// Waits until the metrics satisfy `holds`.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&RaftMetrics<TypeConfig>) -> bool) {
        let mut receiver = self.raft.metrics();
        let waiting = async {
            while !holds(&receiver.borrow_watched()) {
                receiver.changed().await.expect("the replica runs");
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "in time {what}");
    }
}

/// Runs a test of a replica.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test);
}

/// A small log in `dir`.
pub(crate) fn wal_config(dir: &Path) -> WalConfig {
    WalConfig {
        dir: dir.join("wal"),
        segment_bytes: 64 * 1024,
        bytes_max: 16 * 64 * 1024,
        tail_bytes_max: 1024 * 1024,
    }
}

/// Entry 0 is the membership; the others are blank.
fn entry(term: u64, index: u64) -> Entry {
    let payload = match index {
        0 => EntryPayload::Membership(members(term).membership().clone()),
        _ => EntryPayload::Blank,
    };
    Entry {
        log_id: log_id(term, index),
        payload,
    }
}

fn members(term: u64) -> crate::raft::Members {
    let voters = [1, 2, 3].into();
    let all = [1, 2, 3].into();
    StoredMembership::new(Some(log_id(term, 0)), membership(vec![voters], all))
}

/// The position of a replica of the group after entry `index` of `term`.
pub(crate) fn position(term: u64, index: u64) -> Position {
    Position {
        applied: Some(log_id(term, index)),
        members: members(term),
    }
}

/// A network without peers.
#[derive(Debug, Clone, Copy)]
struct Nowhere;

impl RaftNetworkFactory<TypeConfig> for Nowhere {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &EmptyNode) -> Self {
        Self
    }
}

type Failure = RPCError<TypeConfig>;

fn nowhere() -> Failure {
    Unreachable::from_string("there are no peers").into()
}

impl RaftNetworkV2<TypeConfig> for Nowhere {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        Err(nowhere())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        _input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Failure>>, Failure>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async { Err(nowhere()) })
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        Err(nowhere())
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<TypeConfig>,
        _snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(Unreachable::from_string("there are no peers").into())
    }

    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        Err(nowhere())
    }
}
