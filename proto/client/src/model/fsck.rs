//! Checks of a repository's stores. Their state is a [`RepoCheck`](henge_types::status::RepoCheck).

use henge_types::NodeId;
use serde::{Deserialize, Serialize};

/// A request for checks of stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fsck {
    /// The nodes whose replicas are checked; all replicas when it is empty.
    #[serde(default)]
    pub nodes: Vec<NodeId>,
    /// Whether damaged packs are fetched again.
    #[serde(default)]
    pub repair: bool,
}
