//! What the layer above carries out for every replica: packs on disk.

use std::io;

use henge_state::{Effect, State};
use henge_types::{GroupId, LogIndex};

/// Carried out by every replica, leader or not. All calls block; they come from a group's apply task in
/// log order, one at a time per group.
pub trait Effects: Send + Sync + 'static {
    /// Carries out the effects of one entry. Returns when what became visible can be read here, or
    /// the repository is parked: it never fails, because applying never stops for a missing pack.
    fn apply(&self, group: GroupId, index: LogIndex, effects: &[Effect]);

    /// Makes every pack that `state` names and this replica holds durable.
    ///
    /// # Errors
    /// When an fsync fails: the snapshot must not be taken.
    fn before_snapshot(&self, group: GroupId, state: &State) -> io::Result<()>;

    /// A snapshot became this replica's state: packs it names may be missing here.
    ///
    /// # Errors
    /// When the list of missing packs cannot be made durable.
    fn snapshot_installed(&self, group: GroupId, state: &State) -> io::Result<()>;

    /// Repositories of the group whose packs are still missing here.
    fn parked(&self, group: GroupId) -> u32;

    /// Whether free space is below the watermark.
    fn low_space(&self) -> bool;
}
