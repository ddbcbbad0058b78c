//! `identity.toml`: which node of which cluster a data directory is, and how far its life has come.

use std::path::Path;

use henge_cli::private_file::{self, PrivateFileError};
use henge_types::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
pub(crate) const IDENTITY_FILE: &str = "identity.toml";

/// How far a data directory's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Life {
    /// Never started: there is no log.
    #[default]
    New,
    /// Its first start began: the log may be empty.
    Starting,
    /// It has started once: a log that is missing is lost, with the votes in it.
    Started,
}

/// Who lives in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The cluster.
    pub(crate) cluster_id: ClusterId,
    /// The node's number in it.
    pub(crate) node_id: NodeId,
    /// The directory's own id: a wiped one is another.
    pub(crate) incarnation: Incarnation,
    /// How far it has come; written by the node itself.
    #[serde(default)]
    pub(crate) life: Life,
}

impl Identity {
    /// Reads it from a data directory; `Err` holds what to tell the operator.
    pub(crate) fn read(data_dir: &Path) -> Result<Self, String> {
        let path = data_dir.join(IDENTITY_FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{} is wrong: {error}", path.display()))
    }

    /// Replaces it in a data directory, fsynced.
    pub(crate) fn write(&self, data_dir: &Path) -> Result<(), PrivateFileError> {
        let text = toml::to_string(self).expect("invariant: plain fields with string keys");
        private_file::write(&data_dir.join(IDENTITY_FILE), text.as_bytes())
    }
}

/// The DNS name by which nodes know each other: the only name in a node's certificate.
pub(crate) fn server_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.henge.internal")
}
