//! The row of a stored thing: its number and the properties derived from it.

use crate::reply::ReplyKind;

/// The row of a stored thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The first two bytes of the envelope. A number is never used for something else later.
    pub number: u16,
    /// The name. Metrics and logs show the name of a command.
    pub name: &'static str,
    /// The release level from which each version is written, version 1 first.
    pub levels: &'static [u32],
    /// The place of the bytes.
    pub location: Location,
}

/// The place of a stored thing, which determines its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In a proposal: it is a command, and its reply is of this kind when it is accepted.
    Proposal(ReplyKind),
    /// In a group's state, behind a key whose first byte is the tag of the kind of pair.
    State,
    /// In the write-ahead log, in a snapshot's head or beside the applied state: the data of a
    /// group's replication.
    Raft,
    /// In a file of its own on one node.
    File,
    /// In a message between nodes, and on no disk.
    Message,
    /// The number is reserved, and no release writes it.
    Nowhere,
}

impl Row {
    /// The release level from which version 1 is written.
    ///
    /// # Panics
    /// When the row has no version; the test of the tables refuses such a row.
    pub const fn since(&self) -> u32 {
        let [first, ..] = self.levels else {
            panic!("invariant: a row has at least one version");
        };
        *first
    }

    /// The highest version that this release reads.
    ///
    /// # Panics
    /// When the row has more versions than a version number can count.
    pub fn known(&self) -> u16 {
        u16::try_from(self.levels.len()).expect("invariant: a row has few versions")
    }
}
