//! Request ids of pushes that took long before they could be proposed.
//!
//! An id names the generation of request records before which it cannot have been executed. The
//! check of a push and its transfer to the replicas may last longer than a generation, and its id
//! would then be too old to be executed. If its leader knows that the id was never proposed, it
//! names the current generation instead. That is safe, because the record of an id is found by its
//! maker and count alone: a retry under the first generation finds the answer.
//!
//! A leader knows this of an id under two conditions. Its look-up behind a barrier of the present
//! term found no record: entries of earlier terms were all applied at the barrier. And this leader
//! has not proposed the id in that term since.
//!
//! Two handlers of one request may run on one leader: a push is sent again when its stream breaks,
//! and the first handler goes on. The look-ups of both may find no record. One handler may then
//! finish, and its record may expire, before the other has checked its objects: a check may take
//! hours, a generation of records seconds where much is written. So a handler registers before it
//! looks the id up ([`Cluster::handle`]). The proposals of an id in the term are kept until no
//! handler of that time is left, answered or not. A later handler finds the record, or finds that
//! its id is too old to have one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use henge_types::{GroupId, Incarnation, RequestBinding, RequestId};

use crate::cluster::Cluster;

/// The most ids that were proposed and not answered; above it none is renewed.
const IN_DOUBT_MAX: usize = 4096;

type Key = (GroupId, Incarnation, u64);

/// The handlers and proposals of an id.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The term of its last proposal.
    proposed_in: Option<u64>,
    /// Its outcome is unknown.
    in_doubt: bool,
    /// Running handlers of it.
    handlers: u32,
}

impl Known {
    const fn is_over(&self) -> bool {
        !self.in_doubt && self.handlers == 0
    }
}

#[derive(Debug, Default)]
struct Ids {
    known: BTreeMap<Key, Known>,
    /// The term in which a group exceeded the bound of ids in doubt: none is renewed in it.
    overflowed: BTreeMap<GroupId, u64>,
}

/// The ids that this node handles, and the ids that it proposed as a leader without a known
/// outcome; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct InDoubt(Arc<Mutex<Ids>>);

impl InDoubt {
    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.0
            .lock()
            .expect("invariant: noting an id does not panic")
    }

    /// A handler of an id begins, before it looks the id up.
    fn handle(&self, key: Key) -> Handling {
        self.ids().known.entry(key).or_default().handlers += 1;
        Handling {
            in_doubt: self.clone(),
            key,
        }
    }

    /// Records that an id is proposed now in this term. Returns whether that is known to be its
    /// first proposal in the term.
    fn note(&self, key: Key, term: u64) -> bool {
        let mut ids = self.ids();
        let group = key.0;
        if ids.known.len() >= IN_DOUBT_MAX {
            ids.known.retain(|(of, ..), known| {
                *of != group || known.handlers > 0 || known.proposed_in >= Some(term)
            });
        }
        if ids.known.len() >= IN_DOUBT_MAX {
            ids.overflowed.insert(group, term);
        }
        if ids.overflowed.get(&group) == Some(&term) {
            return false;
        }
        let known = ids.known.entry(key).or_default();
        known.in_doubt = true;
        known.proposed_in.replace(term) != Some(term)
    }

    /// The id was answered.
    fn settle(&self, key: &Key) {
        self.change(key, |known| known.in_doubt = false);
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Known)) {
        let known = &mut self.ids().known;
        if let Some(of) = known.get_mut(key) {
            change(of);
            if of.is_over() {
                known.remove(key);
            }
        }
    }
}

/// Marks a running handler of a request, until it is dropped.
#[derive(Debug)]
pub struct Handling {
    in_doubt: InDoubt,
    key: Key,
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.in_doubt.change(&self.key, |known| {
            known.handlers = known.handlers.saturating_sub(1);
        });
    }
}

/// A request in the form in which it is proposed.
#[derive(Debug)]
pub struct Renewed {
    /// The request.
    pub request: RequestBinding,
    key: Key,
}

impl Cluster {
    /// A handler of a request begins. Call this before the look-up of the id, and keep the result
    /// until the request is answered.
    pub fn handle(&self, group: GroupId, id: &RequestId) -> Handling {
        self.shared.in_doubt.handle(key_of(group, id))
    }

    /// The request of a push for a proposal by the leader of `term`. If this is known to be its
    /// first proposal, it gets the current generation. The running handler must have looked the id
    /// up behind a barrier of that term, without a result.
    pub fn renew(&self, group: GroupId, term: u64, request: RequestBinding) -> Renewed {
        let id = request.id;
        let key = key_of(group, &id);
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
        self.shared.in_doubt.settle(&renewed.key);
    }
}

const fn key_of(group: GroupId, id: &RequestId) -> Key {
    (group, id.incarnation, id.counter)
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
        in_doubt.settle(&key(1, 1));
        assert!(in_doubt.note(key(1, 1), 6));
    }

    /// A push was sent again while its first handler went on. One of the two finished and its
    /// record expired before the other one proposed: it took the current generation, and the
    /// request would have been executed twice.
    #[test]
    fn an_overlapping_handler_is_not_first() {
        let in_doubt = InDoubt::default();
        let first = in_doubt.handle(key(1, 1));
        let second = in_doubt.handle(key(1, 1));
        assert!(in_doubt.note(key(1, 1), 5));
        in_doubt.settle(&key(1, 1));
        drop(first);
        assert!(!in_doubt.note(key(1, 1), 5), "looked up before the answer");
        in_doubt.settle(&key(1, 1));
        drop(second);
        assert!(in_doubt.ids().known.is_empty());
        let _later = in_doubt.handle(key(1, 1));
        assert!(in_doubt.note(key(1, 1), 5), "looked up after the answer");
    }

    /// Ids in doubt up to the bound do not displace an id with a handler.
    #[test]
    fn an_id_that_is_handled_is_not_forgotten() {
        let in_doubt = InDoubt::default();
        let _handling = in_doubt.handle(key(1, 0));
        assert!(in_doubt.note(key(1, 0), 6));
        in_doubt.settle(&key(1, 0));
        let most = u64::try_from(IN_DOUBT_MAX).expect("few");
        for counter in 1..most {
            assert!(in_doubt.note(key(1, counter), 6));
        }
        assert!(
            in_doubt.note(key(1, most), 7),
            "those of an earlier term go"
        );
        assert!(!in_doubt.note(key(1, 0), 6));
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
        // Ids of an earlier term are removed.
        assert!(in_doubt.note(key(1, most), 6));
        assert_eq!(in_doubt.ids().known.len(), 1);
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
