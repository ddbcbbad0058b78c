//! Check of an applied position against log and snapshots.

/// The treatment of a group's stored state at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Use it and continue from its position.
    Believe,
    /// It is ahead of all durable data: a node that adopts it would vote with a log that it does
    /// not have. Wipe the group and rebuild it.
    AheadOfLog,
    /// It is older than the snapshot, and the log in between may be purged. Wipe the group and
    /// rebuild it.
    BehindSnapshot,
}

/// The verdict on the applied position of a cleanly stopped store. Positions are log indexes, 0 for
/// none: `durable_log_index` of the last synced entry, `snapshot_index` of the newest installed
/// snapshot.
pub const fn believe(applied_index: u64, durable_log_index: u64, snapshot_index: u64) -> Verdict {
    if applied_index > durable_log_index && applied_index > snapshot_index {
        Verdict::AheadOfLog
    } else if applied_index < snapshot_index {
        Verdict::BehindSnapshot
    } else {
        Verdict::Believe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applied_fits_between_snapshot_and_log() {
        assert_eq!(believe(0, 0, 0), Verdict::Believe);
        assert_eq!(believe(7, 9, 5), Verdict::Believe);
        assert_eq!(believe(5, 5, 5), Verdict::Believe);
        assert_eq!(believe(9, 9, 0), Verdict::Believe);
    }

    #[test]
    fn applied_ahead_of_all_that_is_durable_is_not_believed() {
        assert_eq!(believe(10, 9, 5), Verdict::AheadOfLog);
        assert_eq!(believe(1, 0, 0), Verdict::AheadOfLog);
    }

    #[test]
    fn a_snapshot_ahead_of_the_log_carries_the_applied_position() {
        assert_eq!(believe(20, 9, 20), Verdict::Believe);
    }

    #[test]
    fn applied_behind_the_snapshot_is_rebuilt() {
        assert_eq!(believe(4, 9, 5), Verdict::BehindSnapshot);
    }
}
