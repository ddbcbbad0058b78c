//! Request ids of pushes that took long before they could be proposed.
//!
//! An id names the generation of request records before which it cannot have been executed. A push may be checked and
//! copied to the replicas for longer than a generation lasts, and its id would be too old to be executed by then. Where
//! its leader knows that it was never proposed, it names the current generation instead. That is safe, because the record
//! of an id is found by its maker and count alone: a retry under the generation it had at first finds the answer.
//!
//! A leader knows it of an id that it looked up in vain behind a barrier of the term it still leads in, and did not propose
//! in that term before: entries of earlier terms were all applied at the barrier.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use henge_types::{GroupId, Incarnation, RequestBinding, RequestId};

use crate::cluster::Cluster;

/// Ids that were proposed and not answered, at most: above it none is renewed.
const IN_DOUBT_MAX: usize = 4096;

type Key = (GroupId, Incarnation, u64);

/// Ids that this node proposed as a leader and whose outcome it does not know, with the term; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct InDoubt(Arc<Mutex<BTreeMap<Key, u64>>>);

impl InDoubt {
    fn ids(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.0
            .lock()
            .expect("invariant: noting an id does not panic")
    }

    /// Notes that an id is proposed now in this term. Whether it was not before.
    fn note(&self, key: Key, term: u64) -> bool {
        let mut ids = self.ids();
        if ids.len() >= IN_DOUBT_MAX {
            let group = key.0;
            ids.retain(|(of, ..), at| *of != group || *at >= term);
        }
        if ids.len() >= IN_DOUBT_MAX {
            return false;
        }
        ids.insert(key, term) != Some(term)
    }
}

/// A request as it is to be proposed.
#[derive(Debug)]
pub struct Renewed {
    /// The request.
    pub request: RequestBinding,
    key: Key,
}

impl Cluster {
    /// The request of a push that the leader of `term` proposes now for the first time, as far as it knows. It was looked
    /// up in vain behind a barrier of that term.
    pub fn renew(&self, group: GroupId, term: u64, request: RequestBinding) -> Renewed {
        let id = request.id;
        let key = (group, id.incarnation, id.counter);
        let is_first = self.shared.in_doubt.note(key, term);
        let still_leads = self
            .leadership(group)
            .is_some_and(|leadership| leadership.term == term);
        let generation = self.request_generation(group);
        let id = match generation.filter(|_| is_first && still_leads) {
            Some(generation) => later(id, generation),
            None => id,
        };
        Renewed {
            request: RequestBinding { id, ..request },
            key,
        }
    }

    /// The request was answered, or was not proposed.
    pub fn settle(&self, renewed: &Renewed) {
        self.shared.in_doubt.ids().remove(&renewed.key);
    }
}

/// The id with the later one of both generations.
fn later(id: RequestId, generation: u64) -> RequestId {
    match id.generation() {
        Some(named) if named >= generation => id,
        Some(_) | None => id.in_generation(generation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: u32, counter: u64) -> Key {
        (
            GroupId::new(group),
            Incarnation::from_bytes([1; 16]),
            counter,
        )
    }

    #[test]
    fn an_id_is_first_once_a_term() {
        let in_doubt = InDoubt::default();
        assert!(in_doubt.note(key(1, 1), 5));
        assert!(!in_doubt.note(key(1, 1), 5), "it may be in the log");
        assert!(
            in_doubt.note(key(1, 1), 6),
            "looked up again behind a barrier"
        );
        in_doubt.ids().remove(&key(1, 1));
        assert!(in_doubt.note(key(1, 1), 6));
    }

    #[test]
    fn ids_in_doubt_are_bounded_and_none_is_forgotten_in_its_term() {
        let in_doubt = InDoubt::default();
        let most = u64::try_from(IN_DOUBT_MAX).expect("few");
        for counter in 0..most {
            assert!(in_doubt.note(key(1, counter), 5));
        }
        assert!(!in_doubt.note(key(1, most), 5));
        assert!(!in_doubt.note(key(2, 0), 5));
        // Those of an earlier term go.
        assert!(in_doubt.note(key(1, most), 6));
        assert_eq!(in_doubt.ids().len(), 1);
    }

    #[test]
    fn an_id_never_names_an_earlier_generation_than_before() {
        let id = RequestId {
            made_at_ms: 7,
            incarnation: Incarnation::from_bytes([1; 16]),
            counter: 1,
        };
        assert_eq!(later(id, 3).generation(), Some(3));
        assert_eq!(later(id.in_generation(4), 3).generation(), Some(4));
        assert_eq!(later(id.in_generation(2), 3).generation(), Some(3));
    }
}
