//! `identity.toml`: the cluster and node of a data directory, and the stage of its life.

use std::path::Path;

use henge_cli::private_file::{self, PrivateFileError};
use henge_types::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
pub(crate) const IDENTITY_FILE: &str = "identity.toml";

/// The stage of a data directory's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Life {
    /// Never started: there is no log.
    #[default]
    New,
    /// The first start has begun: the log may be empty.
    Starting,
    /// It has started once: a missing log is lost, with the votes in it.
    Started,
}

/// The identity of a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) cluster_id: ClusterId,
    /// The node's number in the cluster.
    pub(crate) node_id: NodeId,
    /// The directory's own id; a wiped directory gets another one.
    pub(crate) incarnation: Incarnation,
    /// Written by the node itself.
    #[serde(default)]
    pub(crate) life: Life,
}

impl Identity {
    /// Reads it from a data directory; `Err` holds the message for the operator.
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

/// The DNS name of a node for other nodes: the only name in its certificate.
pub(crate) fn server_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.henge.internal")
}
