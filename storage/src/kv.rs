//! The store of applied state: per group a position and key-value pairs.
//!
//! It is a cache: log and snapshots can rebuild all of it. Sled, its implementation, never calls
//! `fsync`, so the store is trusted only after a clean shutdown. Otherwise it is wiped before use
//! and rebuilt.

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

/// All stored data of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupImage {
    /// The applied position, opaque here.
    pub meta: Bytes,
    /// The pairs, in the order of their keys.
    pub pairs: Vec<(Bytes, Bytes)>,
}

/// Errors of the store. After any of them its contents must not be relied on.
#[derive(Debug, Error)]
pub enum KvError {
    /// Another process has the store open.
    #[error("another process has the state store open: stop it first")]
    Locked,
    /// An earlier call of sled failed or panicked.
    #[error("the state store is damaged: the next start builds it again")]
    Broken,
    /// The store was closed.
    #[error("the state store is closed")]
    Closed,
    /// An operation of the file system failed.
    #[error("state store: cannot {doing}: {source}")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The file system's error.
        #[source]
        source: io::Error,
    },
    /// An operation of sled failed.
    #[error("state store: cannot {doing}: {source}")]
    Sled {
        /// The operation that failed.
        doing: &'static str,
        /// Sled's error.
        #[source]
        source: ::sled::Error,
    },
}

/// Whether the existing store may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The last shutdown was clean: every byte was synced after the last change.
    Clean,
    /// The store was wiped: every group must be rebuilt from snapshot and log.
    Wiped {
        /// The reason.
        reason: WipeReason,
    },
}

/// The reason for a wipe of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WipeReason {
    /// There was no store.
    New,
    /// No clean-stop marker: the process was killed, or the power failed.
    NoMarker,
    /// The marker itself is damaged, or another release wrote it.
    BadMarker,
    /// The files differ from the marker's list in name, length or checksum.
    OtherFiles,
    /// Sled could not open it.
    WouldNotOpen,
}

/// A store of applied state. Every change of a group is one atomic commit.
pub trait Kv: Send + Sync + Debug {
    /// All stored data of a group; `None` before its first commit.
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
    /// Replaces all data of a group with the contents of a snapshot. Until it returns, [`Kv::load`]
    /// returns `None`.
    ///
    /// # Errors
    /// [`KvError`]; the group is then empty or partly filled, without a position.
    fn replace(
        &self,
        group: GroupId,
        meta: Bytes,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), KvError>;
    /// Removes all data of a group.
    ///
    /// # Errors
    /// [`KvError`].
    fn wipe(&self, group: GroupId) -> Result<(), KvError>;
    /// Makes all data durable, writes the clean-stop marker and closes the store.
    ///
    /// # Errors
    /// [`KvError`]; the next start then wipes the store.
    fn close_clean(&self) -> Result<(), KvError>;
}
