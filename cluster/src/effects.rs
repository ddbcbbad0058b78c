//! What the layer above carries out for every replica: packs on disk.

use std::io;

use henge_state::{Effect, State};
use henge_types::{GroupId, LogIndex, RequestId};

use crate::logged::LoggedEntries;

/// The entry that effects are those of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Whose log it is in.
    pub group: GroupId,
    /// Where.
    pub index: LogIndex,
    /// The request that it answers; none for what a leader proposes by itself.
    pub request: Option<RequestId>,
}

/// Where a group's replica stands when its replay is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedFrom {
    /// The last entry in the state.
    pub applied: LogIndex,
    /// The last entry that the replica's newest snapshot covers; 0 without one. Every entry above it is in the log.
    pub snapshot: LogIndex,
}

/// Carried out by every replica, leader or not. All calls block; they come from a group's apply task in
/// log order, one at a time per group.
pub trait Effects: Send + Sync + 'static {
    /// A replica of the group starts: entries of its log are applied again until [`Effects::started`]. What they
    /// name may be installed then, all at once: most of it was replaced long ago.
    fn replay_begins(&self, group: GroupId, log: LoggedEntries);

    /// The replay is over and `state` is the replica's: what it names is here from now on, or its repository is
    /// parked.
    fn started(&self, group: GroupId, state: &State, from: StartedFrom);

    /// Carries out the effects of one entry. Returns when what became visible can be read here, or
    /// the repository is parked: it never fails, because applying never stops for a missing pack.
    fn apply(&self, entry: &AppliedEntry, effects: &[Effect]);

    /// Packs of applied entries whose only copy on this node is the group's log: the log must keep those entries.
    fn in_log_only(&self, group: GroupId) -> usize;

    /// Makes every pack that `state` names and this replica holds durable.
    ///
    /// # Errors
    /// When an fsync fails, or a pack is in the log only: the snapshot must not be taken.
    fn before_snapshot(&self, group: GroupId, state: &State) -> io::Result<()>;

    /// A leader's snapshot is about to become this replica's state and to get its name, after which the log forgets
    /// what it covers. Packs it names may be missing here; those that are here are durable when this returns.
    /// `applied` is the last entry that this replica applied itself.
    ///
    /// # Errors
    /// When a pack that is here cannot be made durable: the snapshot must not be named.
    fn before_install(&self, group: GroupId, applied: LogIndex, state: &State) -> io::Result<()>;

    /// Makes every pack on this node durable: nothing is applied any more.
    ///
    /// # Errors
    /// When a pack is in the log only or cannot be made durable. The stop must then not count as a clean one: the
    /// next start replays the log from the snapshots.
    fn before_clean_stop(&self) -> io::Result<()>;

    /// Repositories of the group whose packs are still missing here.
    fn parked(&self, group: GroupId) -> u32;

    /// Whether free space is below the watermark.
    fn low_space(&self) -> bool;
}
