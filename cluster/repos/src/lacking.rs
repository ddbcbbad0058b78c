//! Detection of lost packs.
//!
//! A replica that lacks a pack may be about to get it: it has not applied the entry yet, or is
//! receiving the pack. So one round of answers proves nothing. A pack is reported as lost when for
//! a minute, in every round, every replica answered that it has the pack neither in its store, nor
//! staged, nor in its log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::parking::Missing;

/// How long every answer must have been negative.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// Interval between two log messages about the same lost pack.
const SAID_EVERY: Duration = Duration::from_secs(60 * 60);

/// Since when every replica lacks a pack, and when this was logged last.
#[derive(Debug, Clone, Copy)]
struct Lacked {
    since: Instant,
    said_at: Option<Instant>,
}

/// The packs that every replica lacked in the last rounds of the fetcher.
#[derive(Debug, Default)]
pub(crate) struct Lacking(BTreeMap<Missing, Lacked>);

/// The lost packs after a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// All of them.
    pub(crate) packs: Vec<Missing>,
    /// Those to be logged now.
    pub(crate) to_say: Vec<Missing>,
}

impl Lacking {
    /// Records a round: the packs of which every replica answered that it lacks them.
    pub(crate) fn round(&mut self, lacked: &BTreeSet<Missing>, now: Instant) -> Lost {
        self.0.retain(|missing, _| lacked.contains(missing));
        let mut lost = Lost::default();
        for missing in lacked {
            let known = self.0.entry(*missing).or_insert(Lacked {
                since: now,
                said_at: None,
            });
            if now.saturating_duration_since(known.since) < LOST_AFTER {
                continue;
            }
            lost.packs.push(*missing);
            let is_due = |at| now.saturating_duration_since(at) >= SAID_EVERY;
            if known.said_at.is_none_or(is_due) {
                known.said_at = Some(now);
                lost.to_say.push(*missing);
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_runtime::{Clock, SystemClock};
    use henge_types::{GroupId, NetworkId, ObjectId, PackId};

    fn missing(pack: u8) -> Missing {
        Missing {
            group: GroupId::new(1),
            network: NetworkId::from_bytes([1; 16]),
            pack: PackId::new(ObjectId::Sha1([pack; 20])),
        }
    }

    /// `a pack is lost: restore it from a copy` was logged ten times in 27 minutes of normal
    /// pushes, about packs that were about to arrive.
    #[test]
    fn a_pack_is_lost_when_all_answers_were_no_for_a_minute() {
        let start = SystemClock.instant();
        let mut lacking = Lacking::default();
        let both = BTreeSet::from([missing(1), missing(2)]);
        let mut at = |seconds, lacked: &BTreeSet<Missing>| {
            lacking.round(lacked, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, &both), Lost::default());
        // Pack 2 arrived, or a replica did not answer.
        let one = BTreeSet::from([missing(1)]);
        assert_eq!(at(30, &one), Lost::default());
        assert_eq!(at(59, &both), Lost::default());
        let lost = at(60, &both);
        assert_eq!((lost.packs.len(), lost.to_say), (1, vec![missing(1)]));
        let lost = at(70, &both);
        assert_eq!((lost.packs.len(), lost.to_say), (1, vec![]), "said once");
        let lost = at(119, &both);
        assert_eq!((lost.packs.len(), lost.to_say), (2, vec![missing(2)]));
        let lost = at(60 + 3600, &both);
        assert_eq!((lost.packs.len(), lost.to_say), (2, vec![missing(1)]));
    }
}
