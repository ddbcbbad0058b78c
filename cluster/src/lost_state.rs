//! A group whose log begins after every state on this disk: its snapshot is damaged or gone, and
//! the kv is not trusted after a kill. openraft must not start then: it would vote and lead with an
//! empty state.
//!
//! The log and the vote are whole, so no acknowledgement of this replica is lost. It takes the
//! state from another replica's snapshot ([`crate::snapshot_copies`]), which consists of committed
//! entries, and continues from there.

use std::fmt;
use std::io;
use std::path::PathBuf;

use henge_storage::snapshots::{SnapshotFile, SnapshotStore};
use henge_storage::wal::Wal;
use henge_types::GroupId;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage};

use crate::log_store::{LogStore, slot};
use crate::raft::{LogId, Position};

/// The entries of a group that are missing on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The last entry that was purged from the log.
    pub(crate) purged: u64,
    /// The last entry that the state or a snapshot covers; `None` without either.
    reached: Option<u64>,
    /// The damaged snapshot.
    damaged: Option<PathBuf>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its log begins behind entry {}, and ", self.purged)?;
        match (&self.damaged, self.reached) {
            (Some(path), None) => write!(
                f,
                "its snapshot {} is damaged: the bytes do not match their checksum",
                path.display()
            ),
            (Some(path), Some(reached)) => write!(
                f,
                "its snapshot {} is damaged (the bytes do not match their checksum), and an older one ends at entry {reached}",
                path.display()
            ),
            (None, Some(reached)) => write!(f, "its newest snapshot ends at entry {reached}"),
            (None, None) => f.write_str("it has no snapshot"),
        }
    }
}

/// The gap of a group whose state is at `position`; `None` if the state or the latest snapshot
/// reaches the log. Blocking.
///
/// # Errors
/// When snapshots cannot be read.
pub(crate) fn gap(
    group: GroupId,
    wal: &Wal,
    snapshots: &SnapshotStore,
    position: &Position,
) -> io::Result<Option<Gap>> {
    let Some(purged) = wal.group(group).purged else {
        return Ok(None);
    };
    let applied = position.applied.as_ref().map(LogId::index);
    let latest = snapshots.latest(group).map_err(io::Error::other)?;
    let covered = match latest {
        Some(file) => {
            let position = Position::decode(&file.meta).map_err(io::Error::other)?;
            position.applied.as_ref().map(LogId::index)
        }
        None => None,
    };
    let reached = applied.max(covered);
    if reached.map(slot) >= Some(purged.index) {
        return Ok(None);
    }
    Ok(Some(Gap {
        purged: purged.index.saturating_sub(slot(0)),
        reached,
        damaged: snapshots.damaged(group),
    }))
}

/// Makes another replica's snapshot this replica's own, if it closes the gap. Entries of the log
/// that contradict it are truncated: they were never committed.
///
/// # Errors
/// When it covers too little, contradicts an entry of a later term's leader in this log, or the
/// disk fails.
pub(crate) async fn adopt(
    gap: &Gap,
    wal: &Wal,
    (snapshots, group): (SnapshotStore, GroupId),
    file: SnapshotFile,
    scope: &henge_runtime::Scope,
) -> io::Result<LogId> {
    let position = Position::decode(&file.meta).map_err(io::Error::other)?;
    let covered = position.applied.filter(|id| id.index() >= gap.purged);
    let covered = covered.ok_or_else(|| {
        io::Error::other(format!(
            "its snapshot ends at entry {}, before the log",
            position.index()
        ))
    })?;
    let mut log = LogStore::new(group, wal.clone());
    let at = covered.index();
    let own = log.try_get_log_entries(at..=at).await?;
    if let Some(own) = own
        .first()
        .map(RaftEntry::log_id)
        .filter(|own| *own != covered)
    {
        if own > covered {
            return Err(io::Error::other(format!(
                "its snapshot says that entry {at} is {covered}, and this log has {own}: keep both data directories and report this"
            )));
        }
        tracing::warn!(%group, index = at, "entries of the log were never committed: cut");
        let kept = log.try_get_log_entries(at.saturating_sub(1)..at).await?;
        let state = log.get_log_state().await?;
        let last = kept.first().map(RaftEntry::log_id);
        log.truncate_after(last.or(state.last_purged_log_id))
            .await?;
    }
    let naming = scope.blocking("name snapshot", move || {
        snapshots.name(group, &file).map_err(io::Error::other)
    });
    naming.await??;
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use henge_runtime::{Scope, SystemClock};
    use henge_storage::disk::OsDisk;

    use super::*;
    use crate::lone_replica::{GROUP, LoneReplica, position, run, wal_config};
    use crate::raft::Vote;
    use crate::snapshot_file;

    /// A peer's snapshot that covers up to entry `index` of `term`.
    fn of_peer(dir: &Path, term: u64, index: u64) -> SnapshotFile {
        let dir = dir.join(format!("peer-{term}-{index}"));
        let store = SnapshotStore::open(&dir, snapshot_file::index_of).expect("opens");
        let state = henge_state::State::empty();
        let written = snapshot_file::write(&store, GROUP, &position(term, index), &state);
        written.expect("writes")
    }

    /// The log and snapshots on the disk of a killed replica, opened as at a start.
    struct Found {
        wal: Wal,
        snapshots: SnapshotStore,
        scope: Scope,
    }

    impl Found {
        fn open(dir: &Path) -> Self {
            let wal = Wal::open(OsDisk::shared(), SystemClock::shared(), wal_config(dir));
            let snapshots = SnapshotStore::open(&dir.join("snapshots"), snapshot_file::index_of);
            Self {
                wal: wal.expect("opens"),
                snapshots: snapshots.expect("opens"),
                scope: Scope::root("found", tokio::runtime::Handle::current(), 2),
            }
        }

        fn gap(&self) -> Option<Gap> {
            gap(GROUP, &self.wal, &self.snapshots, &Position::default()).expect("looks")
        }

        async fn adopt(&self, gap: &Gap, file: SnapshotFile) -> io::Result<LogId> {
            let snapshots = (self.snapshots.clone(), GROUP);
            adopt(gap, &self.wal, snapshots, file, &self.scope).await
        }

        fn close(self) {
            self.wal.close().expect("closes");
            self.scope.cancel();
        }
    }

    /// A replica that was killed after its snapshot was damaged. Its log holds entries up to 30,
    /// those up to `committed` committed.
    async fn damaged(dir: &Path, committed: u64) -> Found {
        let replica = LoneReplica::start(dir).await.expect("starts");
        let leader = Vote::new_committed(2, 2);
        replica.lead(&leader, 0, 27).await;
        replica.take_snapshot(27).await;
        replica.purge(27).await;
        replica.lead(&leader, 28, 28).await;
        replica.append(&leader, (29, 30), committed).await;
        let latest = replica.snapshots.latest(GROUP).expect("looks");
        let path = latest.expect("is there").path;
        replica.killed().await.expect("ends");
        let mut bytes = std::fs::read(&path).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        Found::open(dir)
    }

    /// After a damaged snapshot and a kill, the group never started again, over all restarts. The
    /// error named entries of the log and no file.
    #[test]
    fn a_state_lost_with_its_snapshot_is_taken_from_a_peer() {
        run(async {
            let dir = tempfile::tempdir().expect("a directory");
            let own = dir.path().join("own");
            let found = damaged(&own, 30).await;
            let gap = found.gap().expect("nothing reaches the log");
            let words = gap.to_string();
            assert!(words.contains("begins behind entry 27"), "{words}");
            assert!(words.contains(".snap is damaged"), "{words}");
            let vote = found.wal.group(GROUP).vote;

            let short = of_peer(dir.path(), 2, 14);
            let refused = found.adopt(&gap, short).await;
            refused.expect_err("covers too little");
            assert_eq!(found.gap().as_ref(), Some(&gap), "nothing was replaced");
            let covered = found.adopt(&gap, of_peer(dir.path(), 2, 29)).await;
            assert_eq!(covered.expect("is taken").index(), 29);
            assert_eq!(found.gap(), None);
            assert_eq!(found.wal.group(GROUP).vote, vote, "its promises stay");
            assert_eq!(found.wal.group(GROUP).last_index, Some(slot(30)));
            found.close();
            let replica = LoneReplica::start(&own).await.expect("starts again");
            assert_eq!(replica.view.now().applied.get(), 30);
            replica.lead(&Vote::new_committed(2, 2), 31, 33).await;
        });
    }

    #[test]
    fn uncommitted_entries_that_a_taken_state_contradicts_are_cut() {
        run(async {
            let dir = tempfile::tempdir().expect("a directory");
            let own = dir.path().join("own");
            let found = damaged(&own, 28).await;
            let gap = found.gap().expect("nothing reaches the log");
            let refused = found.adopt(&gap, of_peer(dir.path(), 1, 29)).await;
            refused.expect_err("no committed entry is of an earlier term than the log's");
            let covered = found.adopt(&gap, of_peer(dir.path(), 3, 29)).await;
            covered.expect("is taken");
            assert_eq!(found.wal.group(GROUP).last_index, Some(slot(28)));
            found.close();
            let replica = LoneReplica::start(&own).await.expect("starts again");
            assert_eq!(replica.view.now().applied.get(), 29);
            replica.lead(&Vote::new_committed(3, 3), 30, 31).await;
        });
    }
}
