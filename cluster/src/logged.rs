//! Single entries of this node's log, for the layer above: the log holds the bytes of small packs.

use std::io;

use henge_storage::wal::Wal;
use henge_types::{GroupId, LogIndex, Proposal};
use openraft::EntryPayload;

use crate::log_store::slot;
use crate::raft;

/// Reads entries by their index. Clones share the log. All calls block.
#[derive(Debug, Clone)]
pub struct LoggedEntries {
    wal: Wal,
}

impl LoggedEntries {
    pub(crate) const fn new(wal: Wal) -> Self {
        Self { wal }
    }

    /// The proposal in the entry `index` of a group. `None` when the log does not hold the entry
    /// (any more), or when the entry holds no proposal.
    ///
    /// # Errors
    /// When the log cannot be read or the entry cannot be decoded.
    pub fn proposal(&self, group: GroupId, index: LogIndex) -> io::Result<Option<Proposal>> {
        let slot = slot(index.get());
        let log = self.wal.group(group);
        let is_held = log.first_index.is_some_and(|first| first <= slot)
            && log.last_index.is_some_and(|last| slot <= last);
        if !is_held {
            return Ok(None);
        }
        let records = self.wal.read(group, slot..=slot, 1)?;
        let Some(record) = records.first().filter(|record| record.index == slot) else {
            return Ok(None);
        };
        let entry = raft::decode_entry(&record.payload).map_err(io::Error::other)?;
        match entry.payload {
            EntryPayload::Normal(proposed) => Proposal::decode(&proposed.0)
                .map(Some)
                .map_err(io::Error::other),
            EntryPayload::Blank | EntryPayload::Membership(_) => Ok(None),
        }
    }
}
