//! The release level and the time of a group.

use henge_types::command::{VERSION_FIRST, VERSION_STARTS_AND_TIME};
use henge_types::limits::{TIME_KEPT_MS, TIME_STEP_MS_MAX};
use henge_types::{LogIndex, Refusal, VoterClock};

/// The index and the time of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelEntry {
    pub(super) index: LogIndex,
    pub(super) now_ms: u64,
    /// Whether the time is the group's own.
    pub(super) time_is_replicated: bool,
}

#[derive(Debug, Clone)]
pub(super) struct GroupModel {
    /// Entries so far.
    entries: u64,
    pub(super) version: u32,
    /// The group's own time, from the barrier of its level on.
    pub(super) time_ms: Option<u64>,
}

impl GroupModel {
    pub(super) const fn new() -> Self {
        Self {
            entries: 0,
            version: VERSION_FIRST,
            time_ms: None,
        }
    }

    /// The time of an entry at this clock of its proposer: never back, and at most an hour further.
    pub(super) fn now_ms(&self, clock_ms: u64) -> u64 {
        self.time_ms.map_or(clock_ms, |last| {
            clock_ms.clamp(last, last.saturating_add(TIME_STEP_MS_MAX))
        })
    }

    /// Begins an entry. The time is stored to a second.
    pub(super) fn enter(&mut self, clock_ms: u64) -> ModelEntry {
        self.entries += 1;
        let entry = ModelEntry {
            index: LogIndex::new(self.entries),
            now_ms: self.now_ms(clock_ms),
            time_is_replicated: self.time_ms.is_some(),
        };
        if let Some(last) = &mut self.time_ms
            && entry.now_ms - *last >= TIME_KEPT_MS
        {
            *last = entry.now_ms;
        }
        entry
    }

    /// A barrier: the level never falls.
    pub(super) fn raise(&mut self, version: u32, entry: ModelEntry) {
        self.version = self.version.max(version);
        if version >= VERSION_STARTS_AND_TIME && self.time_ms.is_none() {
            self.time_ms = Some(entry.now_ms);
        }
    }

    /// A step to the smallest clock, forward or back.
    pub(super) fn move_time(&mut self, clocks: &[VoterClock]) -> Result<(), Refusal> {
        let smallest = clocks.iter().map(|clock| clock.unix_ms).min();
        let (Some(smallest), Some(last)) = (smallest, &mut self.time_ms) else {
            return Err(Refusal::Invalid);
        };
        *last = smallest;
        Ok(())
    }
}
