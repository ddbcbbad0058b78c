//! The reasons why a node's part in the cluster did not start, and their remedies.

use std::io;

use henge_types::GroupId;
use thiserror::Error;

use crate::transport::tls::TlsError;

/// The reason why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its certificates are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its log is unusable.
    #[error("cannot open the write-ahead log: {0}")]
    Wal(#[from] henge_storage::wal::WalError),
    /// Its kv is unusable.
    #[error("cannot open the kv: {0}")]
    Kv(#[from] henge_storage::kv::KvError),
    /// Its snapshots are unusable.
    #[error("cannot use the snapshots: {0}")]
    Snapshots(#[from] henge_storage::snapshots::SnapshotError),
    /// Its timings are inconsistent.
    #[error("the timings do not fit together: {0}")]
    Timings(#[from] openraft::ConfigError),
    /// A group cannot start.
    #[error("group {group} cannot start: {reason}")]
    Group {
        /// The group.
        group: GroupId,
        /// The reason.
        reason: String,
    },
    /// A group whose log begins after every state on this disk.
    #[error(
        "group {group} has no state on this node: {gap}. {asked}. Start the other nodes of the group: this node takes the \
         state from them by itself; without them restore the file from a copy, or get out what this disk and theirs still \
         have with `henge node export --offline`"
    )]
    StateLost {
        /// The group.
        group: GroupId,
        /// The missing entries, with the file.
        gap: String,
        /// The responses of the other replicas.
        asked: String,
    },
    /// A file or socket failed.
    #[error("{what}: {source}")]
    Io {
        /// The failed operation.
        what: String,
        /// The cause.
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
