//! Mirrors: a repository that follows another one, or is copied to another one, on a schedule.
//!
//! A shard keeps them beside the repository. Its leader runs the due ones. [`BeginMirror`] claims
//! one due time for one run. Each later report of the run must name the run's fence.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, LogIndex, MirrorId, RepoId};
use crate::limits::{
    MIRROR_INTERVAL_MS_MAX, MIRROR_INTERVAL_MS_MIN, MIRROR_LEASE_MS_MAX, MIRROR_SECRET_BYTES_MAX,
    MIRROR_URL_BYTES_MAX,
};

/// The prefix of a pull mirror's pusher name, before its id and fence. No account's name has a
/// slash.
pub(crate) const PUSHER: &str = "mirror/";

/// The direction of a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorKind {
    /// The repository becomes a copy of the other one. It takes no pushes from users.
    Pull,
    /// The other repository becomes a copy of this one.
    Push,
}

/// The credentials for the other side: HTTP Basic. Neither `Debug` nor any answer shows them; the
/// state of the shard holds them in plain text.
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

/// The settings of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorSettings {
    /// The direction.
    pub kind: MirrorKind,
    /// The other repository's `http://` or `https://` URL, without credentials.
    pub url: String,
    /// The credentials for it.
    pub secret: Option<MirrorSecret>,
    /// Milliseconds from one due time to the next.
    pub interval_ms: u64,
    /// Whether each change of a ref makes it due as well; only for [`MirrorKind::Push`].
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
    /// Its settings.
    pub settings: MirrorSettings,
    /// The time of its creation, milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// The next due time, milliseconds since the Unix epoch. While a run is under way: the due time
    /// that it claimed.
    pub next_due_ms: u64,
    /// The entry that began the last run, or made the mirror: it only grows.
    pub fence: LogIndex,
    /// The run that is under way, or that lost its leader.
    pub run: Option<MirrorRun>,
    /// Failed runs since the last successful one.
    pub failures: u32,
    /// The end of the last run.
    pub last: Option<MirrorLast>,
}

/// A run under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRun {
    /// The time of its begin, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// The end of its lease, milliseconds since the Unix epoch. From then on another run may
    /// replace it.
    pub until_ms: u64,
}

impl MirrorRun {
    /// Whether another run may replace it, in a group that keeps its own time: see
    /// [`Mirror::is_due_in_group`].
    pub const fn is_over_in_group(&self, now_ms: u64) -> bool {
        let left_ms = self.until_ms.saturating_sub(now_ms);
        left_ms == 0 || left_ms > MIRROR_LEASE_MS_MAX
    }
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorLast {
    /// The due time that it claimed, milliseconds since the Unix epoch.
    pub scheduled_at_ms: u64,
    /// The time of its end.
    pub ended_ms: u64,
    /// Its outcome.
    pub outcome: MirrorOutcome,
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorOutcome {
    /// Both sides are equal.
    Done {
        /// Refs that were created, updated or deleted.
        changed: u64,
        /// Bytes of transferred packs.
        pack_bytes: u64,
    },
    /// The run failed.
    Failed {
        /// The reason, without credentials.
        why: String,
    },
}

impl Mirror {
    /// Whether a run may begin at this time: the due time has come, and no other run holds a lease.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_due_ms && self.run.is_none_or(|run| now_ms >= run.until_ms)
    }

    /// The same in a group that keeps its own time. Two values come from a clock with another time:
    /// a due time further ahead than the mirror's interval, and a lease longer than any that is
    /// granted. Neither delays the mirror.
    pub fn is_due_in_group(&self, now_ms: u64) -> bool {
        let ahead_ms = self.next_due_ms.saturating_sub(now_ms);
        let fires = ahead_ms == 0 || ahead_ms > self.settings.interval_ms;
        fires && self.run.is_none_or(|run| run.is_over_in_group(now_ms))
    }
}

/// The removals that a mirror's runs may make on the side that they write to, where the usual bound
/// of half of its refs does not hold.
///
/// A removal is a ref that the other side does not have. While no removals are allowed, a replaced
/// value counts as well: the refs from before the mirror are not the mirror's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorRemoval {
    /// None: no run has compared the two sides yet, and no user allowed a loss.
    Nothing,
    /// Any number: a user allowed it.
    Everything,
}

/// The allowed removals of a mirror's runs, in its shard beside the mirror. Without this record: at
/// most half of the refs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRemovalRecord {
    /// The allowance.
    pub removal: MirrorRemoval,
    /// The entry that set it. A run that began under an earlier allowance does not use this one up.
    pub since: LogIndex,
}

/// Makes a mirror, or changes the settings of one. A new one is due at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMirror {
    /// The repository.
    pub repo: RepoId,
    /// The repository's generation.
    pub generation: Generation,
    /// The mirror; a new id makes one.
    pub mirror: MirrorId,
    /// Its settings.
    pub settings: MirrorSettings,
    /// The removals that its runs may make until one has completed; `None` leaves the allowance
    /// unchanged.
    pub removal: Option<MirrorRemoval>,
}

/// Changes the settings of a mirror. A field that is `None` stays; the direction always stays. The
/// mirror is due at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditMirror {
    /// The repository.
    pub repo: RepoId,
    /// The repository's generation.
    pub generation: Generation,
    /// The mirror.
    pub mirror: MirrorId,
    /// The other repository's URL. Credentials must not be sent to another URL than theirs, so an
    /// edit with a URL also has a change in `secret`.
    pub url: Option<String>,
    /// The credentials.
    pub secret: SecretEdit,
    /// Milliseconds from one due time to the next.
    pub interval_ms: Option<u64>,
    /// Whether each change of a ref makes it due.
    pub on_push: Option<bool>,
    /// The removals that its runs may make until one has completed.
    pub removal: Option<MirrorRemoval>,
}

/// A change of a mirror's credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretEdit {
    /// No change.
    #[default]
    Keep,
    /// Replaces them.
    Set(MirrorSecret),
    /// Removes them.
    Remove,
}

/// Changes the schedule of a mirror, or removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMirror {
    /// The repository.
    pub repo: RepoId,
    /// The repository's generation.
    pub generation: Generation,
    /// The mirror.
    pub mirror: MirrorId,
    /// The change.
    pub change: MirrorChange,
}

/// A change of a mirror's schedule, or its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorChange {
    /// The mirror is removed. A run under way has no effect.
    Remove,
    /// It is due now. No change while a run is under way.
    Due,
    /// It is due now, and its next run may remove every ref that the other side does not have.
    /// Needs release level [`crate::command::VERSION_MIRROR_REMOVALS`].
    DueWhateverItRemoves,
}

/// Begins a run. Done if the due time is still unclaimed; the index of the entry is the run's
/// fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginMirror {
    /// The repository.
    pub repo: RepoId,
    /// The mirror.
    pub mirror: MirrorId,
    /// The due time that it claims.
    pub scheduled_at_ms: u64,
    /// The lease of the run until its first heartbeat, milliseconds.
    pub lease_ms: u64,
}

/// A heartbeat or a completion report of a run. Refused when its fence is no longer the mirror's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordMirror {
    /// The repository.
    pub repo: RepoId,
    /// The mirror.
    pub mirror: MirrorId,
    /// The run's fence.
    pub fence: LogIndex,
    /// The report.
    pub word: MirrorWord,
}

/// A report of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorWord {
    /// A heartbeat: the run goes on.
    Working {
        /// Its lease from here on, milliseconds.
        lease_ms: u64,
    },
    /// The run ended.
    Ended(MirrorOutcome),
    /// The run has compared the two sides and has made the allowed removals: from here on runs
    /// remove at most half of the refs. Needs release level
    /// [`crate::command::VERSION_MIRROR_REMOVALS`].
    CameThrough {
        /// The entry that allowed them: see [`MirrorRemovalRecord::since`].
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

/// The pusher name of a pull mirror's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorPusher {
    /// The mirror.
    pub mirror: MirrorId,
    /// The run's fence.
    pub fence: LogIndex,
}

impl MirrorPusher {
    /// Parses the name of a pusher; `None` for all other pushers.
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
