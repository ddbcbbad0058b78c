//! The starts of a node: an old copy of a data directory is told from the directory by them.
//!
//! Each start of a process draws a random id, writes it to its data directory and names it in every call. The meta group
//! registers the starts of a node one after the other. A directory that was copied before a start knows nothing of it:
//! what it claims does not follow that start, and its calls are refused.

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, LogIndex, NodeId, StartId};

/// A start that the meta group has registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredStart {
    /// The start.
    pub start: StartId,
    /// The entry of the meta group that registered it.
    pub index: LogIndex,
}

/// What a process says of its start: the start itself and what its data directory knows of those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartClaim {
    /// The start.
    pub start: StartId,
    /// The last start of the directory that is known to be registered.
    pub last: Option<RegisteredStart>,
    /// Starts that the directory drew since then, before this one; at most
    /// [`crate::limits::STARTS_DRAWN_MAX`].
    pub drawn: Vec<StartId>,
}

/// A start of another node that a node knows, and where it stands among that node's starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStart {
    /// The start.
    pub start: StartId,
    /// Where it stands.
    pub place: StartPlace,
}

/// Where a start stands among the starts of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartPlace {
    /// It was registered by this entry of the meta group.
    At(LogIndex),
    /// It was heard of and is not known to be registered. Its directory knew this registration; 0 = none.
    After(LogIndex),
}

impl From<RegisteredStart> for KnownStart {
    fn from(registered: RegisteredStart) -> Self {
        Self {
            start: registered.start,
            place: StartPlace::At(registered.index),
        }
    }
}

impl StartClaim {
    /// Whether this start is the known one or comes after it. A directory that was copied before the known start can claim
    /// neither the start nor a registration behind it.
    pub fn follows(&self, known: &KnownStart) -> bool {
        let last = self.last.map_or(LogIndex::new(0), |last| last.index);
        let beyond = match known.place {
            StartPlace::At(index) => last >= index,
            StartPlace::After(index) => last > index,
        };
        self.start == known.start
            || self.drawn.contains(&known.start)
            || self.last.is_some_and(|last| last.start == known.start)
            || beyond
    }

    /// The start as another node remembers it.
    pub fn known(&self) -> KnownStart {
        let place = match self.last {
            Some(last) if last.start == self.start => StartPlace::At(last.index),
            Some(last) => StartPlace::After(last.index),
            None => StartPlace::After(LogIndex::new(0)),
        };
        KnownStart {
            start: self.start,
            place,
        }
    }
}

/// Registers a start of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterStart {
    /// The member.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// The start. Refused when it does not follow the one that is registered.
    pub claim: StartClaim,
}

/// The last registered start of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// The data directory that it is a start of.
    pub incarnation: Incarnation,
    /// The start and its entry.
    pub registered: RegisteredStart,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(number: u8) -> StartId {
        StartId::from_bytes([number; 16])
    }

    fn registered(number: u8, index: u64) -> RegisteredStart {
        RegisteredStart {
            start: start(number),
            index: LogIndex::new(index),
        }
    }

    fn claim(number: u8, last: Option<RegisteredStart>, drawn: &[u8]) -> StartClaim {
        StartClaim {
            start: start(number),
            last,
            drawn: drawn.iter().map(|number| start(*number)).collect(),
        }
    }

    #[test]
    fn a_start_follows_those_its_directory_knows() {
        let own = claim(9, Some(registered(5, 50)), &[6, 7]);
        for known in [
            registered(5, 50).into(),
            registered(6, 60).into(),
            registered(9, 70).into(),
            // A member that lags behind shows an earlier registration.
            registered(4, 40).into(),
            claim(7, Some(registered(5, 50)), &[6]).known(),
            claim(4, Some(registered(3, 30)), &[]).known(),
        ] {
            assert!(own.follows(&known), "{known:?}");
        }
    }

    #[test]
    fn a_copy_does_not_follow_what_came_after_it_was_made() {
        let copy = claim(9, Some(registered(5, 50)), &[6]);
        for known in [
            registered(8, 60).into(),
            claim(8, Some(registered(5, 50)), &[6]).known(),
            claim(8, Some(registered(7, 70)), &[]).known(),
        ] {
            assert!(!copy.follows(&known), "{known:?}");
        }
        let bare = claim(9, None, &[]);
        assert!(!bare.follows(&registered(5, 50).into()));
    }
}
