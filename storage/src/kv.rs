//! The store of applied state: per group a position and key-value pairs.
//!
//! It is a cache of what log and snapshots can rebuild. Sled, which is behind it, never calls `fsync`, so
//! after anything but a clean stop it is not believed: it is wiped before use and built again.

use std::fmt::Debug;
use std::io;

use bytes::Bytes;
use henge_types::GroupId;
use thiserror::Error;

mod believe;
mod guard;
mod marker;
mod memory;
mod sled;

pub use self::sled::SledKv;
pub use believe::{Verdict, believe};
pub use memory::MemoryKv;

/// Everything that the store holds of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupImage {
    /// The applied position, opaque here.
    pub meta: Bytes,
    /// The pairs, in the order of their keys.
    pub pairs: Vec<(Bytes, Bytes)>,
}

/// Why the store refused. After any of these its contents must not be relied on.
#[derive(Debug, Error)]
pub enum KvError {
    /// Another process has the store open.
    #[error("another process has the state store open: stop it first")]
    Locked,
    /// Sled failed before, or panicked.
    #[error("the state store is damaged: the next start builds it again")]
    Broken,
    /// The store was closed.
    #[error("the state store is closed")]
    Closed,
    /// The file system refused.
    #[error("state store: cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// Sled refused.
    #[error("state store: cannot {doing}: {source}")]
    Sled {
        /// What was being done.
        doing: &'static str,
        /// What sled said.
        #[source]
        source: ::sled::Error,
    },
}

/// Whether the store may be used as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It was stopped cleanly: every byte was synced after the last change.
    Clean,
    /// It was wiped: rebuild every group from snapshot and log.
    Wiped {
        /// Why.
        reason: WipeReason,
    },
}

/// Why the store was wiped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WipeReason {
    /// There was none.
    New,
    /// No clean-stop marker: the process was killed, or the power went.
    NoMarker,
    /// The marker itself is damaged or of another release.
    BadMarker,
    /// The files are not those that the marker names: by name, length or checksum.
    OtherFiles,
    /// Sled could not open it.
    WouldNotOpen,
}

/// A store of applied state. Every change of a group is one atomic commit.
pub trait Kv: Send + Sync + Debug {
    /// Everything of a group; `None` when nothing was ever committed.
    ///
    /// # Errors
    /// [`KvError`].
    fn load(&self, group: GroupId) -> Result<Option<GroupImage>, KvError>;
    /// Writes pairs (`None` removes the key) and the applied position, all or nothing.
    ///
    /// # Errors
    /// [`KvError`].
    fn commit(
        &self,
        group: GroupId,
        meta: Bytes,
        writes: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), KvError>;
    /// Replaces everything of a group by the contents of a snapshot. Until it returns, [`Kv::load`] finds
    /// nothing.
    ///
    /// # Errors
    /// [`KvError`]; the group is then empty or partly filled, without a position.
    fn replace(
        &self,
        group: GroupId,
        meta: Bytes,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), KvError>;
    /// Removes everything of a group.
    ///
    /// # Errors
    /// [`KvError`].
    fn wipe(&self, group: GroupId) -> Result<(), KvError>;
    /// Makes everything durable, says so on disk and closes the store.
    ///
    /// # Errors
    /// [`KvError`]; the store will be wiped at the next start.
    fn close_clean(&self) -> Result<(), KvError>;
}
