//! openraft's own storage suite, run over the write-ahead log, the machine and the snapshots.

use std::io;
use std::sync::Arc;

use henge_runtime::{Scope, SystemClock};
use henge_state::{Effect, State};
use henge_storage::disk::OsDisk;
use henge_storage::kv::MemoryKv;
use henge_storage::snapshots::SnapshotStore;
use henge_storage::wal::{Wal, WalConfig};
use henge_types::{GroupId, LogIndex};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::runtime::Handle;

use crate::builds::Builds;
use crate::effects::{AppliedEntry, Effects, StartedFrom};
use crate::kv_writer::KvWriter;
use crate::log_store::LogStore;
use crate::logged::LoggedEntries;
use crate::machine::{Machine, MachineDeps};
use crate::raft::{Position, TypeConfig};
use crate::snapshot_file;

/// No effects at all.
pub(crate) struct NoPacks;

impl Effects for NoPacks {
    fn replay_begins(&self, _group: GroupId, _log: LoggedEntries) {}

    fn started(&self, _group: GroupId, _state: &State, _from: StartedFrom) {}

    fn apply(&self, _entry: &AppliedEntry, _effects: &[Effect]) {}

    fn in_log_only(&self, _group: GroupId) -> usize {
        0
    }

    fn before_snapshot(&self, _group: GroupId, _state: &State) -> io::Result<()> {
        Ok(())
    }

    fn before_install(
        &self,
        _group: GroupId,
        _applied: LogIndex,
        _state: &State,
    ) -> io::Result<()> {
        Ok(())
    }

    fn before_clean_stop(&self) -> io::Result<()> {
        Ok(())
    }

    fn parked(&self, _group: GroupId) -> u32 {
        0
    }

    fn low_space(&self) -> bool {
        false
    }
}

/// A case's disk; the log is closed before its directory is removed.
struct Disk {
    wal: Wal,
    _dir: tempfile::TempDir,
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.wal.close().expect("the log closes");
    }
}

struct Builder {
    scope: Scope,
}

impl StoreBuilder<TypeConfig, LogStore, Machine, Disk> for Builder {
    async fn build(&self) -> Result<(Disk, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = WalConfig {
            dir: dir.path().join("wal"),
            segment_bytes: 1024 * 1024,
            bytes_max: 16 * 1024 * 1024,
            tail_bytes_max: 1024 * 1024,
        };
        let wal =
            Wal::open(Arc::new(OsDisk), SystemClock::shared(), config).expect("an empty log opens");
        let deps = MachineDeps {
            effects: Arc::new(NoPacks),
            kv: KvWriter::start(Arc::new(MemoryKv::default()), self.scope.clone())
                .expect("a thread"),
            snapshots: SnapshotStore::open(&dir.path().join("snapshots"), snapshot_file::index_of)
                .expect("an empty store opens"),
            builds: Builds::default(),
        };
        let group = GroupId::new(1);
        let (machine, _view) = Machine::new(group, State::empty(), Position::default(), deps);
        let disk = Disk {
            wal: wal.clone(),
            _dir: dir,
        };
        Ok((disk, LogStore::new(group, wal), machine))
    }
}

#[test]
fn openraft_s_storage_suite_passes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let scope = Scope::root("suite", Handle::current(), 8);
        Suite::test_all(Builder { scope })
            .await
            .expect("every case of the suite");
    });
}
