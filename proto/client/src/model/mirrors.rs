//! Mirrors of a repository.

use std::fmt;

use henge_types::{MirrorId, MirrorKind};
use serde::{Deserialize, Serialize};

/// Whether the next run of a mirror may remove more than half of the refs of the side that it
/// writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Force {
    /// It fails instead, and says what it would remove.
    #[default]
    No,
    /// It may.
    Yes,
}

/// Asks for a mirror.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMirror {
    /// Which way.
    pub kind: MirrorKind,
    /// The other repository; a node takes credentials out of it.
    pub url: String,
    /// The user to ask as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Seconds from one firing to the next.
    pub interval_s: u64,
    /// Whether it is due whenever a ref changed; only for one that pushes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_push: bool,
    /// Whether its first run may take from the side that it writes to what the other one does not
    /// have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Asks for a mirror to be changed; what is `None` stays, but a new URL comes with its own
/// credentials or none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorEdit {
    /// The other repository; a node takes credentials out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The user to ask as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Seconds from one firing to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u64>,
    /// Whether it is due whenever a ref changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_push: Option<bool>,
    /// Whether the first run at a new URL may take what the other side does not have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Nothing that may be secret is shown, the URL included.
impl fmt::Debug for NewMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMirror")
            .field("kind", &self.kind)
            .field("interval_s", &self.interval_s)
            .field("on_push", &self.on_push)
            .finish_non_exhaustive()
    }
}

/// Nothing that may be secret is shown, the URL included.
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
    /// Which way.
    pub kind: MirrorKind,
    /// The other repository.
    pub url: String,
    /// The user it is asked as.
    #[serde(default)]
    pub user: Option<String>,
    /// Seconds from one firing to the next.
    pub interval_s: u64,
    /// Whether it is due whenever a ref changed.
    #[serde(default)]
    pub on_push: bool,
    /// Whether it runs now.
    pub running: bool,
    /// When it is due next, RFC 3339.
    pub next_due_at: String,
    /// Runs that failed since the last one that did not.
    pub failures: u32,
    /// How the last run ended.
    pub last: Option<MirrorRun>,
}

/// A run of a mirror that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRun {
    /// The firing, RFC 3339.
    pub scheduled_at: String,
    /// When it ended.
    pub ended_at: String,
    /// `done` or `failed`.
    pub outcome: String,
    /// Refs that were changed.
    pub changed: u64,
    /// Bytes of packs that travelled.
    pub pack_bytes: u64,
    /// Why it failed, if it did.
    #[serde(default)]
    pub error: Option<String>,
}
