//! Mirrors: a repository that follows another one, or is copied to another one, on a schedule.
//!
//! A shard keeps them beside the repository. Its leader runs those that are due; [`BeginMirror`] gives one firing to
//! one run, whose fence every later word of it must name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, LogIndex, MirrorId, RepoId};
use crate::limits::{
    MIRROR_INTERVAL_MS_MAX, MIRROR_INTERVAL_MS_MIN, MIRROR_LEASE_MS_MAX, MIRROR_SECRET_BYTES_MAX,
    MIRROR_URL_BYTES_MAX,
};

/// What a run of a pull mirror pushes as, before its id and fence. No account's name holds a slash.
pub(crate) const PUSHER: &str = "mirror/";

/// Which way a mirror goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorKind {
    /// The repository becomes what the other one is. It takes no pushes of its own.
    Pull,
    /// The other one becomes what the repository is.
    Push,
}

/// With what the other side is asked: HTTP Basic. Neither `Debug` nor any answer shows it; the state of the shard
/// holds it as it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorSecret {
    /// The user.
    pub user: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for MirrorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MirrorSecret(…)")
    }
}

/// What a mirror is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorSettings {
    /// Which way.
    pub kind: MirrorKind,
    /// The other repository's `http://` or `https://` URL, without credentials.
    pub url: String,
    /// The credentials for it.
    pub secret: Option<MirrorSecret>,
    /// Milliseconds from one firing to the next.
    pub interval_ms: u64,
    /// Whether it is due as well whenever a ref changed; only for [`MirrorKind::Push`].
    pub on_push: bool,
}

impl MirrorSettings {
    /// Whether every part keeps its limit.
    pub fn is_well_formed(&self) -> bool {
        let secret_fits = self.secret.as_ref().is_none_or(|secret| {
            secret.user.len().saturating_add(secret.password.len()) <= MIRROR_SECRET_BYTES_MAX
        });
        (1..=MIRROR_URL_BYTES_MAX).contains(&self.url.len())
            && (MIRROR_INTERVAL_MS_MIN..=MIRROR_INTERVAL_MS_MAX).contains(&self.interval_ms)
            && (self.kind == MirrorKind::Push || !self.on_push)
            && secret_fits
    }
}

/// A mirror in the shard of its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its id.
    pub id: MirrorId,
    /// Its repository.
    pub repo: RepoId,
    /// What it is told to do.
    pub settings: MirrorSettings,
    /// When it was made, milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// The next firing, milliseconds since the Unix epoch. While a run is under way: the one it was begun for.
    pub next_due_ms: u64,
    /// The entry that began the last run, or made the mirror: it only grows.
    pub fence: LogIndex,
    /// The run that is under way, or whose leader was lost.
    pub run: Option<MirrorRun>,
    /// Runs that failed since the last one that did not.
    pub failures: u32,
    /// How the last run ended.
    pub last: Option<MirrorLast>,
}

/// A run under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRun {
    /// When it began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// If it was not heard of until then, another one may take its place.
    pub until_ms: u64,
}

impl MirrorRun {
    /// Whether another one may take its place, in a group that keeps its own time: see [`Mirror::is_due_in_group`].
    pub const fn is_over_in_group(&self, now_ms: u64) -> bool {
        let left_ms = self.until_ms.saturating_sub(now_ms);
        left_ms == 0 || left_ms > MIRROR_LEASE_MS_MAX
    }
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorLast {
    /// The firing it was begun for, milliseconds since the Unix epoch.
    pub scheduled_at_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// How.
    pub outcome: MirrorOutcome,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorOutcome {
    /// Both sides are the same.
    Done {
        /// Refs that were created, updated or deleted.
        changed: u64,
        /// Bytes of packs that travelled.
        pack_bytes: u64,
    },
    /// It failed.
    Failed {
        /// Why; without credentials.
        why: String,
    },
}

impl Mirror {
    /// Whether a run may begin at this time: a firing has come, and no other run is heard of.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_due_ms && self.run.is_none_or(|run| now_ms >= run.until_ms)
    }

    /// The same in a group that keeps its own time. A firing further ahead than the mirror's interval, or a run that may
    /// go unheard for longer than any lease, was set by a clock that pointed to another time: neither holds the mirror up.
    pub fn is_due_in_group(&self, now_ms: u64) -> bool {
        let ahead_ms = self.next_due_ms.saturating_sub(now_ms);
        let fires = ahead_ms == 0 || ahead_ms > self.settings.interval_ms;
        fires && self.run.is_none_or(|run| run.is_over_in_group(now_ms))
    }
}

/// What runs of a mirror may remove from the side that they write to, where that is not the usual half of its refs.
///
/// Removed is a ref that the other side does not have. While nothing may be removed, a value that would be replaced counts as
/// well: what was there before the mirror was made is not the mirror's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorRemoval {
    /// Nothing: no run has compared the two sides yet, and nobody agreed to a loss.
    Nothing,
    /// Everything: somebody agreed to it.
    Everything,
}

/// What runs of a mirror may remove, in its shard beside the mirror. Without it: at most half of the refs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRemovalRecord {
    /// How much.
    pub removal: MirrorRemoval,
    /// The entry that said so: what is said while a run goes by something else is for the next one.
    pub since: LogIndex,
}

/// Makes a mirror, or changes what one is told to do. A new one is due at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMirror {
    /// The repository.
    pub repo: RepoId,
    /// The repository's life.
    pub generation: Generation,
    /// The mirror; a new id makes one.
    pub mirror: MirrorId,
    /// What it is told to do.
    pub settings: MirrorSettings,
    /// What its runs may remove until one has come through; `None` leaves that as it is.
    pub removal: Option<MirrorRemoval>,
}

/// Changes what a mirror is told to do. What is `None` stays; its way stays always. It is due at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditMirror {
    /// The repository.
    pub repo: RepoId,
    /// The repository's life.
    pub generation: Generation,
    /// The mirror.
    pub mirror: MirrorId,
    /// The other repository's URL. Credentials for another one must not be sent there: with it, `secret` says something.
    pub url: Option<String>,
    /// The credentials.
    pub secret: SecretEdit,
    /// Milliseconds from one firing to the next.
    pub interval_ms: Option<u64>,
    /// Whether it is due whenever a ref changed.
    pub on_push: Option<bool>,
    /// What its runs may remove until one has come through.
    pub removal: Option<MirrorRemoval>,
}

/// A change of a mirror's credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretEdit {
    /// None.
    #[default]
    Keep,
    /// These instead.
    Set(MirrorSecret),
    /// No credentials.
    Remove,
}

/// Changes where a mirror stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMirror {
    /// The repository.
    pub repo: RepoId,
    /// The repository's life.
    pub generation: Generation,
    /// The mirror.
    pub mirror: MirrorId,
    /// How.
    pub change: MirrorChange,
}

/// How a mirror is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorChange {
    /// It is no more. A run under way comes to nothing.
    Remove,
    /// It is due now. While a run is under way nothing changes.
    Due,
    /// It is due now, and its next run may remove everything that the other side does not have. Needs release level
    /// [`crate::command::VERSION_MIRROR_REMOVALS`].
    DueWhateverItRemoves,
}

/// Begins a run. Done if the firing is still to be had; the index of the entry is the run's fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginMirror {
    /// The repository.
    pub repo: RepoId,
    /// The mirror.
    pub mirror: MirrorId,
    /// The firing.
    pub scheduled_at_ms: u64,
    /// For how long the run is believed in without a word, milliseconds.
    pub lease_ms: u64,
}

/// A word of a run. Refused when its fence is not the mirror's any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordMirror {
    /// The repository.
    pub repo: RepoId,
    /// The mirror.
    pub mirror: MirrorId,
    /// The run's fence.
    pub fence: LogIndex,
    /// What it says.
    pub word: MirrorWord,
}

/// What a run says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorWord {
    /// It is still at work.
    Working {
        /// For how long it is believed in from here on, milliseconds.
        lease_ms: u64,
    },
    /// It ended.
    Ended(MirrorOutcome),
    /// It has compared the two sides and has removed what it was allowed to: from here on runs remove at most half of the
    /// refs. Needs release level [`crate::command::VERSION_MIRROR_REMOVALS`].
    CameThrough {
        /// The entry that allowed it: see [`MirrorRemovalRecord::since`].
        since: LogIndex,
    },
}

impl MirrorWord {
    /// Whether it keeps its limits.
    pub const fn is_well_formed(&self) -> bool {
        match self {
            Self::Working { lease_ms } => *lease_ms <= MIRROR_LEASE_MS_MAX,
            Self::Ended(_) | Self::CameThrough { .. } => true,
        }
    }
}

/// As whom a run of a pull mirror pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorPusher {
    /// The mirror.
    pub mirror: MirrorId,
    /// The run's fence.
    pub fence: LogIndex,
}

impl MirrorPusher {
    /// From the name of who pushes; `None` for everybody else.
    pub fn parse(pusher: &str) -> Option<Self> {
        let (mirror, fence) = pusher.strip_prefix(PUSHER)?.split_once('/')?;
        Some(Self {
            mirror: mirror.parse().ok()?,
            fence: LogIndex::new(fence.parse().ok()?),
        })
    }
}

impl fmt::Display for MirrorPusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUSHER}{}/{}", self.mirror, self.fence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushers_are_read_as_they_are_written_and_nobody_else_is_one() {
        let pusher = MirrorPusher {
            mirror: MirrorId::from_bytes([7; 16]),
            fence: LogIndex::new(12),
        };
        assert_eq!(MirrorPusher::parse(&pusher.to_string()), Some(pusher));
        for name in ["admin", "mirror", "mirror/", "mirror/x/1", "mirror/0707/1"] {
            assert_eq!(MirrorPusher::parse(name), None, "{name}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = MirrorSecret {
            user: "me".to_owned(),
            password: "hunter2".to_owned(),
        };
        assert_eq!(format!("{secret:?}"), "MirrorSecret(…)");
    }
}
