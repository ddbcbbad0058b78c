//! The version barrier: from here on every replica must understand a release level.

use std::fmt;

use henge_types::command::VERSION_KNOWN;
use henge_types::{GroupId, Reply};

use crate::changes::Changes;
use crate::meta::MetaView;
use crate::outcome::Outcome;
use crate::view::View;
use crate::{keys, view};

/// The level of a group without a barrier.
pub(crate) const VERSION_FIRST: u32 = 1;

/// The release level that the group's replicas must understand.
pub fn version(view: &impl View) -> u32 {
    let key = keys::version();
    view.get(&key).map_or(VERSION_FIRST, |bytes| {
        let version = view::decode_u64(&key, &bytes);
        u32::try_from(version)
            .unwrap_or_else(|_| panic!("version {version} is no u32: state damaged"))
    })
}

/// A state that a newer release wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerRelease {
    /// The level of the group.
    pub level: u32,
}

impl fmt::Display for NewerRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level;
        write!(
            f,
            "the group is at release level {level}, this release knows {VERSION_KNOWN}: upgrade this node"
        )
    }
}

impl std::error::Error for NewerRelease {}

/// Whether this release understands every record of a state from a snapshot or a disk.
///
/// # Errors
/// When the state's level is above the levels that this release knows.
pub fn check_version(view: &impl View) -> Result<(), NewerRelease> {
    let level = version(view);
    if level <= VERSION_KNOWN {
        Ok(())
    } else {
        Err(NewerRelease { level })
    }
}

/// Records the level. A lower one than recorded changes nothing.
///
/// # Panics
/// When this release does not know the level: the group stops here instead of guessing the later
/// entries.
pub(crate) fn raise(changes: &mut Changes<'_, impl View>, group: GroupId, version: u32) -> Outcome {
    assert!(
        version <= VERSION_KNOWN,
        "group {group} stops: it needs release level {version}, this release knows {VERSION_KNOWN}; upgrade this node",
    );
    if version > self::version(changes.before()) {
        changes.put(keys::version(), u64::from(version).to_be_bytes().to_vec());
    }
    if let Some(mut cluster) = MetaView::new(changes.before()).cluster()
        && cluster.version < version
    {
        cluster.version = version;
        changes.put_record(keys::cluster(), &cluster);
    }
    Outcome::reply(Reply::Done)
}
