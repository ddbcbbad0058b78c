//! The log entries that each follower has acknowledged to this node as leader. No follower may
//! report less later.
//!
//! A follower acknowledges an append only after it has flushed its log. A follower that later lacks
//! an acknowledged entry has lost its disk or runs on an old copy of it. openraft would still count
//! it, or would probe its log for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use henge_types::{GroupId, Incarnation, NodeId};

/// The acknowledgements of one follower in one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The term in which the follower acknowledged `index`.
    term: u64,
    /// The last acknowledged entry of that term's leader: no other leader can have truncated it
    /// while the term lasts.
    index: u64,
    /// The last entry known to be committed.
    committed: u64,
    /// The last acknowledged entry that is committed: it can never be truncated.
    kept: u64,
}

impl Acknowledged {
    /// A request goes out in this term, with this commit index. Returns the entry that the follower
    /// must have.
    ///
    /// A request of an earlier term, in which this node led before, changes nothing. A follower
    /// that knows the later term refuses it, and the acknowledgements of the later term must be
    /// kept.
    fn sent(&mut self, term: u64, committed: u64) -> u64 {
        if term < self.term {
            return self.kept;
        }
        if term > self.term {
            self.term = term;
            self.index = 0;
        }
        self.committed = self.committed.max(committed);
        self.kept = self.kept.max(self.index.min(self.committed));
        self.index.max(self.kept)
    }

    /// The follower has flushed everything up to `index`, sent by the leader of this term.
    fn flushed(&mut self, term: u64, index: u64) {
        if term == self.term {
            self.index = self.index.max(index);
            self.kept = self.kept.max(self.index.min(self.committed));
        }
    }
}

type Followers = BTreeMap<(NodeId, Incarnation), BTreeMap<GroupId, Acknowledged>>;

/// The acknowledgements of all followers; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followed(Arc<Mutex<Followers>>);

impl Followed {
    /// A request to a follower: see [`Acknowledged::sent`].
    pub(crate) fn sent(
        &self,
        follower: (NodeId, Incarnation),
        group: GroupId,
        term: u64,
        committed: u64,
    ) -> u64 {
        let mut all = self.lock();
        let groups = all.entry(follower).or_default();
        groups.entry(group).or_default().sent(term, committed)
    }

    /// A response of a follower: everything up to `index` is flushed there.
    pub(crate) fn flushed(
        &self,
        follower: (NodeId, Incarnation),
        group: GroupId,
        term: u64,
        index: u64,
    ) {
        let mut all = self.lock();
        let groups = all.entry(follower).or_default();
        groups.entry(group).or_default().flushed(term, index);
    }

    /// For each group, the last entry that a follower has acknowledged and that can never be
    /// truncated.
    pub(crate) fn kept(&self, follower: (NodeId, Incarnation)) -> Vec<(GroupId, u64)> {
        let all = self.lock();
        let groups = all.get(&follower).into_iter().flatten();
        groups
            .filter(|(_, acknowledged)| acknowledged.kept > 0)
            .map(|(group, acknowledged)| (*group, acknowledged.kept))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Followers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_must_have_what_it_acknowledged_in_the_term() {
        let mut one = Acknowledged::default();
        assert_eq!(one.sent(3, 0), 0);
        one.flushed(3, 10);
        assert_eq!(one.sent(3, 8), 10);
        assert_eq!(one.kept, 8);
        // A response to an earlier term of this node does not count in this one.
        one.flushed(2, 99);
        assert_eq!(one.sent(3, 8), 10);
    }

    /// A late request of an earlier term, in which this node had led, erased the follower's later
    /// acknowledgements.
    #[test]
    fn a_late_request_of_an_earlier_term_changes_nothing() {
        let mut one = Acknowledged::default();
        one.sent(5, 4);
        one.flushed(5, 10);
        assert_eq!(one.sent(3, 99), 4, "what can never go");
        one.flushed(3, 99);
        assert_eq!(one.sent(5, 4), 10);
        assert_eq!(one.kept, 4);
    }

    /// Another leader may have truncated the uncommitted entries.
    #[test]
    fn only_committed_entries_are_kept_over_terms() {
        let mut one = Acknowledged::default();
        one.sent(3, 0);
        one.flushed(3, 10);
        one.sent(3, 6);
        assert_eq!(one.sent(5, 6), 6);
        one.flushed(5, 7);
        assert_eq!(one.sent(5, 30), 7);
        assert_eq!(one.kept, 7);
    }
}
