//! The JSON bodies of the API, for both ends.
//!
//! Unknown fields of an answer are skipped: a newer node may have more. Unknown fields of a request
//! are refused. Requests hold text where the node's answer explains a field's error. Bodies of
//! Gitea's dialect are here as far as the client uses them.
//!
//! Bodies that other parts of the product use anyway are types of `henge_types`: `status` and
//! `tasks` of a cluster, `RepoLimits`, `PushRules`.

mod certificates;
mod fsck;
mod mirrors;
mod packs;
mod refs;
mod repos;
mod settings;

pub use certificates::*;
pub use fsck::*;
pub use mirrors::*;
pub use packs::*;
pub use refs::*;
pub use repos::*;
pub use settings::*;

use henge_types::ErrorCode;
use serde::{Deserialize, Serialize};

/// An error, in Gitea's shape and with the product's code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure, for people.
    #[serde(default)]
    pub message: String,
    /// A page about errors. Clients do not read it.
    #[serde(default, skip_deserializing)]
    pub url: String,
    /// The failure, for programs. A proxy has no code.
    #[serde(default)]
    pub code: Option<ErrorCode>,
}

/// The release of a node.
#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub(crate) version: String,
}
