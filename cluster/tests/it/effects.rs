//! The layer above the cluster, without packs.

use std::io;

use henge_cluster::{AppliedEntry, Effects, LoggedEntries, StartedFrom};
use henge_state::{Effect, State};
use henge_types::{GroupId, LogIndex};

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
