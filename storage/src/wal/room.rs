//! The fill level of the log, admission of new entries, and the treatment of the oldest segment.

use henge_types::{GroupId, limits};

use super::segments::Table;

/// The fill level of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room<'a> {
    /// The segments in use.
    pub(super) table: &'a Table,
    /// Maximum number of segments.
    pub(super) segments_max: usize,
    /// Bytes for records in a segment.
    pub(super) usable_bytes: u64,
}

/// The treatment of the oldest segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing.
    Wait,
    /// Request a snapshot from its largest group.
    Ask,
    /// Rewrite its live entries at the tail.
    Move,
    /// Both.
    MoveAndAsk,
}

impl Room<'_> {
    /// Segments reserved for records that cannot be deferred, and for moving entries.
    fn reserve(&self) -> usize {
        (self.segments_max / 8).clamp(1, limits::WAL_RESERVE_SEGMENTS_MAX)
    }

    /// Whether only the reserve is left.
    pub(super) fn is_short(&self) -> bool {
        self.table.len() + self.reserve() >= self.segments_max
    }

    /// Whether a group may add deferrable entries: its live bytes must be less than the free bytes.
    pub(super) fn may_grow(&self, group: GroupId) -> bool {
        let segments = self.segments_max.saturating_sub(self.reserve()) as u64;
        let free = (segments * self.usable_bytes).saturating_sub(self.table.live_bytes());
        !self.is_short() && self.table.live_bytes_of(group) < free
    }

    /// The treatment of the oldest segment. Entries are moved while that gains space: a few early,
    /// more when the log gets full. All entries of a segment are moved (a group may never take its
    /// snapshot) while an eighth of the used bytes is dead.
    pub(super) fn plan(&self) -> Plan {
        let (used, max) = (self.table.len(), self.segments_max);
        let live = match self.table.oldest() {
            None | Some((_, 0)) => return Plan::Wait,
            Some((_, live)) => live,
        };
        let full = used as u64 * self.usable_bytes;
        let dead = full.saturating_sub(self.usable_bytes + self.table.live_bytes());
        if used * 2 < max {
            Plan::Wait
        } else if used * 4 < max * 3 {
            match live <= self.usable_bytes / 4 {
                true => Plan::Move,
                false => Plan::Ask,
            }
        } else if live <= self.usable_bytes / 2 || dead >= full / 8 {
            Plan::MoveAndAsk
        } else {
            Plan::Ask
        }
    }
}
