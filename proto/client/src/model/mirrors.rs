//! Mirrors of a repository.

use std::fmt;

use henge_types::{MirrorId, MirrorKind};
use serde::{Deserialize, Serialize};

/// Whether the next run of a mirror may remove more than half of the refs of the side that it
/// writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Force {
    /// The run fails instead, and its error lists the removals.
    #[default]
    No,
    /// It may remove them.
    Yes,
}

/// A request for a mirror.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMirror {
    /// The direction.
    pub kind: MirrorKind,
    /// The other repository; a node takes credentials out of it.
    pub url: String,
    /// The user name for the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Seconds from one due time to the next.
    pub interval_s: u64,
    /// Whether each change of a ref makes it due; only for one that pushes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_push: bool,
    /// Whether its first run may remove refs from the side that it writes to if the other one does
    /// not have them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// A request for a change of a mirror. A field that is `None` stays, except that a new URL comes
/// with its own credentials or none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorEdit {
    /// The other repository; a node takes credentials out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The user name for the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Seconds from one due time to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u64>,
    /// Whether each change of a ref makes it due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_push: Option<bool>,
    /// Whether the first run at a new URL may remove refs that the other side does not have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Shows no field that may be secret, so no URL either.
impl fmt::Debug for NewMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMirror")
            .field("kind", &self.kind)
            .field("interval_s", &self.interval_s)
            .field("on_push", &self.on_push)
            .finish_non_exhaustive()
    }
}

/// Shows no field that may be secret, so no URL either.
impl fmt::Debug for MirrorEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorEdit")
            .field("interval_s", &self.interval_s)
            .field("on_push", &self.on_push)
            .finish_non_exhaustive()
    }
}

/// A mirror. Its password is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its id.
    pub id: MirrorId,
    /// The direction.
    pub kind: MirrorKind,
    /// The other repository.
    pub url: String,
    /// The user name for the other side.
    #[serde(default)]
    pub user: Option<String>,
    /// Seconds from one due time to the next.
    pub interval_s: u64,
    /// Whether each change of a ref makes it due.
    #[serde(default)]
    pub on_push: bool,
    /// Whether it runs now.
    pub running: bool,
    /// The next due time, RFC 3339.
    pub next_due_at: String,
    /// Failed runs since the last successful one.
    pub failures: u32,
    /// The end of the last run.
    pub last: Option<MirrorRun>,
}

/// A run of a mirror that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRun {
    /// The due time that it claimed, RFC 3339.
    pub scheduled_at: String,
    /// The time of its end.
    pub ended_at: String,
    /// `done` or `failed`.
    pub outcome: String,
    /// Refs that were changed.
    pub changed: u64,
    /// Bytes of transferred packs.
    pub pack_bytes: u64,
    /// The reason of its failure.
    #[serde(default)]
    pub error: Option<String>,
}
