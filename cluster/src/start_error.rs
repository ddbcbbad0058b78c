//! Why a node's part in the cluster did not start, and what to do.

use std::io;

use henge_types::GroupId;
use thiserror::Error;

use crate::transport::tls::TlsError;

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its log.
    #[error("cannot open the write-ahead log: {0}")]
    Wal(#[from] henge_storage::wal::WalError),
    /// Its kv.
    #[error("cannot open the kv: {0}")]
    Kv(#[from] henge_storage::kv::KvError),
    /// Its snapshots.
    #[error("cannot use the snapshots: {0}")]
    Snapshots(#[from] henge_storage::snapshots::SnapshotError),
    /// Its timings.
    #[error("the timings do not fit together: {0}")]
    Timings(#[from] openraft::ConfigError),
    /// A group.
    #[error("group {group} cannot start: {reason}")]
    Group {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// A group whose log begins behind everything that this disk has of its state.
    #[error(
        "group {group} has no state on this node: {gap}. {asked}. Start the other nodes of the group: this node takes the \
         state from them by itself; without them restore the file from a copy, or get out what this disk and theirs still \
         have with `henge node export --offline`"
    )]
    StateLost {
        /// The group.
        group: GroupId,
        /// What is missing, with the file.
        gap: String,
        /// What the other replicas said.
        asked: String,
    },
    /// A file or socket.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
