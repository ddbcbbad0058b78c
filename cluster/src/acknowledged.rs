//! What followers have acknowledged, as this node remembers it from leading: none may show less later.
//!
//! A follower answers an append only after its log is flushed. One that later lacks an entry it acknowledged has lost its
//! disk, or runs on an old copy of it. openraft would count it all the same, or probe its log for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use henge_types::{GroupId, Incarnation, NodeId};

/// What one follower has acknowledged of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The term that `index` was acknowledged in.
    term: u64,
    /// The last acknowledged entry of that term's leader: no other leader can have cut it while the term lasts.
    index: u64,
    /// The last entry known to be committed.
    committed: u64,
    /// The last acknowledged entry that is committed: it can never go.
    kept: u64,
}

impl Acknowledged {
    /// A request goes out in this term, with this commit index. Returns the entry that the follower must have.
    ///
    /// One of an earlier term, which this node led in before, changes nothing: it is refused where the follower knows the
    /// later one, and what was acknowledged in that must not be forgotten for it.
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

    /// The follower has flushed everything up to `index`, which the leader of this term sent.
    fn flushed(&mut self, term: u64, index: u64) {
        if term == self.term {
            self.index = self.index.max(index);
            self.kept = self.kept.max(self.index.min(self.committed));
        }
    }
}

type Followers = BTreeMap<(NodeId, Incarnation), BTreeMap<GroupId, Acknowledged>>;

/// What all followers have acknowledged; clones share it.
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

    /// An answer of a follower: everything up to `index` is flushed there.
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

    /// For each group the last entry that a follower has acknowledged and that can never go.
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
        // An answer from an earlier term of this node says nothing of this one.
        one.flushed(2, 99);
        assert_eq!(one.sent(3, 8), 10);
    }

    /// A request of a term that this node led in before came late, and what the follower had acknowledged since was
    /// forgotten for it.
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

    /// Another leader may have cut what was not committed.
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
