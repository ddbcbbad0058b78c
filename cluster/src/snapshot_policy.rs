//! The policy of snapshots: which group of a node takes its next one, and when.
//!
//! The log of all groups since their snapshots is read again at a restart and cannot be purged. Its
//! bound holds for the whole node, not for each of its groups: with 64 MiB each, 64 groups filled
//! the whole log before the first snapshot was taken. The bound is at least half of the snapshots'
//! own size, so that a large state is not written over and over: a byte of log costs at most three
//! bytes of snapshot.

use henge_types::{GroupId, limits};

/// The least size that a snapshot counts with: a file costs more than its bytes.
const SNAPSHOT_BYTES_LEAST: u64 = 64 * 1024;

/// Whether a group can take a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It can take one.
    Free,
    /// It takes one; its log counts from that snapshot.
    Taking,
    /// Its last one failed: its retry comes later, and its log does not count for the others.
    Waiting,
}

/// The last check result of a group's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Soundness {
    /// Intact, or there is none.
    Intact,
    /// Damaged: only this process has the state, until another snapshot is taken.
    Damaged,
}

/// A group's log and snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupLog {
    /// The group.
    pub(crate) group: GroupId,
    /// Bytes of its log since its snapshot.
    pub(crate) log_bytes: u64,
    /// Entries in that log.
    pub(crate) log_entries: u64,
    /// Bytes of its snapshot.
    pub(crate) snapshot_bytes: u64,
    /// Whether its snapshot is intact, according to the last check.
    pub(crate) snapshot: Soundness,
    /// Whether it can take one.
    pub(crate) turn: Turn,
    /// Whether it takes one independently of the other groups' logs: its last one failed, or its
    /// entries wait for space in the log.
    pub(crate) is_pressing: bool,
}

/// The bound of the log of all groups since their snapshots, bytes.
pub(crate) fn bound(groups: &[GroupLog]) -> u64 {
    let snapshots: u64 = groups.iter().map(|group| group.snapshot_bytes).sum();
    limits::LOG_SINCE_SNAPSHOTS_BYTES.max(snapshots / 2)
}

/// The group that takes a snapshot now. From seven eighths of the bound on, that is the one with
/// the most log per byte of snapshot. A group with a damaged snapshot comes before all others. A
/// group that is pressing or has very many entries takes one at any size of the log.
pub(crate) fn next(groups: &[GroupLog]) -> Option<GroupId> {
    let taking = groups.iter().filter(|group| group.turn == Turn::Taking);
    if taking.count() >= limits::SNAPSHOTS_AT_ONCE {
        return None;
    }
    let damaged = groups
        .iter()
        .find(|group| group.turn == Turn::Free && group.snapshot == Soundness::Damaged);
    if let Some(group) = damaged {
        return Some(group.group);
    }
    let free = || {
        let free = groups.iter().filter(|group| group.turn == Turn::Free);
        free.filter(|group| group.log_bytes > 0)
    };
    let many = |group: &&GroupLog| group.log_entries >= limits::SNAPSHOT_LOG_ENTRIES;
    let pressing = free().filter(|group| group.is_pressing);
    let pressing = pressing.max_by_key(|group| group.log_bytes);
    if let Some(group) = pressing.or_else(|| free().find(many)) {
        return Some(group.group);
    }
    let counted = groups.iter().filter(|group| group.turn != Turn::Waiting);
    let log: u64 = counted.map(|group| group.log_bytes).sum();
    if log < bound(groups) / 8 * 7 {
        return None;
    }
    let most = free().max_by(|one, other| {
        let weight = |log: &GroupLog, other: &GroupLog| {
            u128::from(log.log_bytes) * u128::from(other.snapshot_bytes.max(SNAPSHOT_BYTES_LEAST))
        };
        weight(one, other).cmp(&weight(other, one))
    });
    most.map(|group| group.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn log(group: u32, log_mib: u64, snapshot_mib: u64) -> GroupLog {
        GroupLog {
            group: GroupId::new(group),
            log_bytes: log_mib * MIB,
            log_entries: 1,
            snapshot_bytes: snapshot_mib * MIB,
            snapshot: Soundness::Intact,
            is_pressing: false,
            turn: Turn::Free,
        }
    }

    #[test]
    fn all_groups_share_one_bound() {
        let quiet: Vec<_> = (1..=64).map(|group| log(group, 0, 0)).collect();
        assert_eq!(bound(&quiet), 64 * MIB);
        assert_eq!(next(&quiet), None);
        let mut written = quiet;
        for (group, mib) in [(3, 10), (7, 25), (9, 20)] {
            written[group].log_bytes = mib * MIB;
        }
        assert_eq!(next(&written), None, "55 MiB");
        written[9].log_bytes += MIB;
        assert_eq!(next(&written), Some(GroupId::new(8)), "the most of 56 MiB");
        let large = [log(1, 100, 300), log(2, 0, 100)];
        assert_eq!(bound(&large), 200 * MIB);
        assert_eq!(next(&large), None);
    }

    #[test]
    fn most_log_per_byte_of_snapshot_comes_first() {
        let logs = [log(1, 90, 300), log(2, 30, 50), log(3, 31, 60)];
        assert_eq!(next(&logs[..1]), None);
        assert_eq!(next(&logs), None, "151 of 179 MiB");
        let logs = [log(1, 119, 300), log(2, 30, 50), log(3, 31, 60)];
        assert_eq!(next(&logs), Some(GroupId::new(2)));
    }

    #[test]
    fn a_group_that_fails_does_not_make_others_write() {
        let mut stuck = log(1, 500, 1);
        assert_eq!(next(&[stuck, log(2, 1, 1)]), Some(GroupId::new(1)));
        stuck.turn = Turn::Waiting;
        assert_eq!(next(&[stuck, log(2, 1, 1)]), None);
        assert_eq!(next(&[stuck, log(2, 60, 1)]), Some(GroupId::new(2)));
    }

    /// A folder was unwritable for a while: one snapshot failed, and no other was taken, because
    /// the log was below the bound. The group accepted no entries for as long as the process ran.
    #[test]
    fn a_snapshot_that_failed_is_tried_again_whatever_the_log_has() {
        let mut failed = log(1, 2, 1);
        assert_eq!(next(&[failed, log(2, 1, 1)]), None);
        failed.is_pressing = true;
        assert_eq!(next(&[failed, log(2, 1, 1)]), Some(GroupId::new(1)));
        failed.turn = Turn::Waiting;
        assert_eq!(next(&[failed, log(2, 1, 1)]), None, "not before its turn");
    }

    #[test]
    fn few_snapshots_are_taken_at_once() {
        let taking = |group| GroupLog {
            turn: Turn::Taking,
            ..log(group, 0, 1)
        };
        let mut logs = vec![log(1, 100, 1), taking(2)];
        assert_eq!(next(&logs), Some(GroupId::new(1)));
        logs.extend((3..).take(limits::SNAPSHOTS_AT_ONCE).map(taking));
        assert_eq!(next(&logs), None);
    }

    #[test]
    fn very_many_entries_are_a_reason_of_their_own() {
        let mut small = log(1, 1, 1);
        small.log_entries = limits::SNAPSHOT_LOG_ENTRIES;
        assert_eq!(next(&[small, log(2, 2, 1)]), Some(GroupId::new(1)));
    }

    #[test]
    fn a_damaged_snapshot_is_taken_anew_at_once() {
        let mut damaged = log(2, 0, 1);
        damaged.snapshot = Soundness::Damaged;
        assert_eq!(next(&[log(1, 1, 1), damaged]), Some(GroupId::new(2)));
        damaged.turn = Turn::Waiting;
        assert_eq!(next(&[log(1, 1, 1), damaged]), None);
    }

    /// Seeded random numbers (splitmix64).
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % sides
        }
    }

    /// A simulated node: the bytes written, and the results.
    struct Node {
        groups: Vec<GroupLog>,
        /// Group, log covered by its snapshot, steps left.
        taking: Vec<(usize, u64, u32)>,
        /// Share of the log that stays in the state, percent.
        kept: u64,
        log_written: u64,
        snapshots_written: u64,
        /// Largest ratio of the log since the snapshots to its bound, percent.
        worst: u64,
    }

    impl Node {
        fn new(shards: u32, kept: u64) -> Self {
            Self {
                kept,
                groups: (0..=shards).map(|group| log(group, 0, 0)).collect(),
                taking: Vec::new(),
                log_written: 0,
                snapshots_written: 0,
                worst: 0,
            }
        }

        /// An entry of `bytes`; every snapshot takes four steps.
        fn step(&mut self, group: usize, bytes: u64) {
            self.log_written += bytes;
            self.groups[group].log_bytes += bytes;
            self.groups[group].log_entries += 1;
            for (_, _, steps) in &mut self.taking {
                *steps -= 1;
            }
            let (done, taking): (Vec<_>, Vec<_>) =
                self.taking.drain(..).partition(|(_, _, steps)| *steps == 0);
            self.taking = taking;
            for (at, covered, _) in done {
                let of = &mut self.groups[at];
                of.snapshot_bytes += covered * self.kept / 100;
                of.turn = Turn::Free;
                self.snapshots_written += of.snapshot_bytes;
            }
            while let Some(next) = next(&self.groups) {
                let at = usize::try_from(next.get()).expect("fits");
                let of = &mut self.groups[at];
                let covered = of.log_bytes;
                (of.log_bytes, of.log_entries, of.turn) = (0, 0, Turn::Taking);
                self.taking.push((at, covered, 4));
            }
            let log: u64 = self.groups.iter().map(|group| group.log_bytes).sum();
            let covered: u64 = self.taking.iter().map(|(_, covered, _)| *covered).sum();
            let log = log + covered;
            self.worst = self.worst.max(log * 100 / bound(&self.groups));
        }
    }

    /// With 64 shards and a bound for each of them, 4 GiB were in the log before the first
    /// snapshot.
    #[test]
    fn sixty_four_shards_stay_within_one_bound() {
        // Writes to all groups, to a few or to one; each with a little, much or all of the log kept
        // in the state.
        for (busy, kept) in [(65, 5), (65, 100), (4, 5), (4, 60), (1, 5), (1, 60)] {
            let (mut node, mut dice) = (Node::new(64, kept), Dice(busy * 1000 + kept));
            for _ in 0..40_000 {
                let group = usize::try_from(dice.roll(busy)).expect("fits");
                node.step(group, 1 + dice.roll(256 * 1024));
            }
            assert!(
                node.worst <= 100,
                "{busy} busy, {kept} % kept: {} %",
                node.worst
            );
            let ratio = node.snapshots_written * 100 / node.log_written;
            assert!(ratio <= 300, "{busy} busy, {kept} % kept: {ratio} %");
        }
    }
}
