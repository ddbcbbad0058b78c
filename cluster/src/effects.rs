//! The effects that the layer above carries out on every replica: packs on disk.

use std::io;

use henge_state::{Effect, State};
use henge_types::{GroupId, LogIndex, RequestId};

use crate::logged::LoggedEntries;

/// The entry that caused a list of effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedEntry {
    /// The group whose log holds the entry.
    pub group: GroupId,
    /// Its index in that log.
    pub index: LogIndex,
    /// The request that proposed it; none for a leader's own proposals.
    pub request: Option<RequestId>,
}

/// The position of a group's replica at the end of its replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedFrom {
    /// The last entry in the state.
    pub applied: LogIndex,
    /// The last entry that the replica's newest snapshot covers; 0 without one. Every entry above
    /// it is in the log.
    pub snapshot: LogIndex,
}

/// The effects of applied entries, carried out on every replica, leader or not. All calls block. A
/// group's apply task makes them in log order, one at a time per group.
pub trait Effects: Send + Sync + 'static {
    /// A replica of the group starts: entries of its log are applied again until
    /// [`Effects::started`]. Packs named in these entries may be installed then, all at once: most
    /// of them were replaced long ago.
    fn replay_begins(&self, group: GroupId, log: LoggedEntries);

    /// The replay is over and `state` is the replica's. From now on its packs are here, or their
    /// repository is parked.
    fn started(&self, group: GroupId, state: &State, from: StartedFrom);

    /// Carries out the effects of one entry. Returns when its visible refs can be read here, or
    /// when the repository is parked. It never fails, because applying never stops for a missing
    /// pack.
    fn apply(&self, entry: &AppliedEntry, effects: &[Effect]);

    /// Packs of applied entries whose only copy on this node is the group's log: the log must keep
    /// those entries.
    fn in_log_only(&self, group: GroupId) -> usize;

    /// Makes every pack that `state` names and this replica holds durable.
    ///
    /// # Errors
    /// When an fsync fails, or a pack is in the log only: the snapshot must not be taken then.
    fn before_snapshot(&self, group: GroupId, state: &State) -> io::Result<()>;

    /// A leader's snapshot is about to become this replica's state and to get its name. The log
    /// then drops the entries that the snapshot covers. Packs named in the snapshot may be missing
    /// here; those that are here are durable when this returns. `applied` is the last entry that
    /// this replica applied itself.
    ///
    /// # Errors
    /// When a pack that is here cannot be made durable: the snapshot must not be named then.
    fn before_install(&self, group: GroupId, applied: LogIndex, state: &State) -> io::Result<()>;

    /// Makes every pack on this node durable, after the last entry has been applied.
    ///
    /// # Errors
    /// When a pack is in the log only or cannot be made durable. The shutdown must then not count
    /// as clean: the next start replays the log from the snapshots.
    fn before_clean_stop(&self) -> io::Result<()>;

    /// Repositories of the group whose packs are still missing here.
    fn parked(&self, group: GroupId) -> u32;

    /// Whether free space is below the watermark.
    fn low_space(&self) -> bool;
}
