//! The starts of a node: they distinguish an old copy of a data directory from the directory.
//!
//! Each start of a process draws a random id, writes it to its data directory and names it in every
//! call. The meta group registers the starts of a node one after the other. A directory that was
//! copied before a start lacks that start: its claim does not follow the start, and its calls are
//! refused.

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

/// The claim of a process about its start: the start itself and the earlier starts in its data
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartClaim {
    /// The start.
    pub start: StartId,
    /// The last registered start in the directory.
    pub last: Option<RegisteredStart>,
    /// Starts that the directory drew since then, before this one; at most
    /// [`crate::limits::STARTS_DRAWN_MAX`].
    pub drawn: Vec<StartId>,
}

/// The start of another node, and its position among that node's starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStart {
    /// The start.
    pub start: StartId,
    /// Its position.
    pub place: StartPlace,
}

/// The position of a start among the starts of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartPlace {
    /// It was registered by this entry of the meta group.
    At(LogIndex),
    /// A start from a call, without a known registration. Its directory had this registration; 0 =
    /// none.
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
    /// Whether this start is the known one or a later one. A directory that was copied before the
    /// known start can claim neither the start nor a registration behind it.
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
    /// The start. Refused when it does not follow the registered one.
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
            // A member that lags shows an earlier registration.
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
