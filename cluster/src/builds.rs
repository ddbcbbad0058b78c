//! The latest snapshot build of each group on this node, failed builds included.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use henge_types::GroupId;

/// The state of a group's latest snapshot build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Build {
    /// It was requested.
    Asked {
        /// The snapshot will cover the log at least up to this index.
        index: u64,
    },
    /// It was built.
    Taken {
        /// The snapshot covers the log up to this index.
        index: u64,
    },
    /// It failed.
    Failed {
        /// Consecutive failures.
        times: u32,
        /// The reason of the last failure.
        reason: String,
    },
}

/// The states of the groups' latest snapshot builds; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Builds(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    builds: Mutex<BTreeMap<GroupId, (Build, u32)>>,
    written_bytes: AtomicU64,
}

impl Builds {
    /// The state of a group's latest snapshot build; `None` when none was requested in this run.
    pub(crate) fn of(&self, group: GroupId) -> Option<Build> {
        self.lock().get(&group).map(|(build, _)| build.clone())
    }

    /// The groups whose latest snapshot failed, and the reasons.
    pub(crate) fn failed(&self) -> Vec<(GroupId, String)> {
        let builds = self.lock();
        let failed = builds.iter().filter_map(|(group, (build, _))| match build {
            Build::Failed { reason, .. } => Some((*group, reason.clone())),
            Build::Asked { .. } | Build::Taken { .. } => None,
        });
        failed.collect()
    }

    pub(crate) fn ask(&self, group: GroupId, index: u64) {
        let mut builds = self.lock();
        let times = builds.get(&group).map_or(0, |(_, times)| *times);
        builds.insert(group, (Build::Asked { index }, times));
    }

    pub(crate) fn fail(&self, group: GroupId, reason: String) {
        let mut builds = self.lock();
        let times = builds.get(&group).map_or(0, |(_, times)| *times) + 1;
        builds.insert(group, (Build::Failed { times, reason }, times));
    }

    pub(crate) fn take(&self, group: GroupId, index: u64, bytes: u64) {
        self.lock().insert(group, (Build::Taken { index }, 0));
        self.0.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The requested snapshot was not built.
    pub(crate) fn forget(&self, group: GroupId) {
        self.lock().remove(&group);
    }

    /// Bytes of all snapshots written since the start.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.0.written_bytes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, (Build, u32)>> {
        self.0.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_until_one_is_taken() {
        let (builds, group) = (Builds::default(), GroupId::new(1));
        for times in 1..=3 {
            builds.ask(group, 7);
            assert_eq!(builds.of(group), Some(Build::Asked { index: 7 }));
            builds.fail(group, "full".to_owned());
            let reason = "full".to_owned();
            assert_eq!(builds.of(group), Some(Build::Failed { times, reason }));
        }
        assert_eq!(builds.failed(), [(group, "full".to_owned())]);
        builds.take(group, 8, 100);
        assert_eq!(builds.of(group), Some(Build::Taken { index: 8 }));
        assert_eq!((builds.failed(), builds.written_bytes()), (Vec::new(), 100));
        builds.fail(group, "full".to_owned());
        let reason = "full".to_owned();
        assert_eq!(builds.of(group), Some(Build::Failed { times: 1, reason }));
    }
}
