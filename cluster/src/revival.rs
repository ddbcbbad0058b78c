//! Restarts a group that ended on this node, without an effect on the other groups and the process.
//!
//! openraft ends a group's core when its storage fails, and does not restart it. The cause may be
//! gone: a snapshot that did not fit on a full disk, a release that did not know an entry. The
//! machine keeps its state, the core reads its log again, and the replica stays quiet as after any
//! start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_types::{GroupId, limits};

use crate::formation::Formation;
use crate::group::Group;

/// Between two checks for groups that have ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the end of a core and its machine may take.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);

/// The restarts of a group that ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Starts {
    count: u32,
    last: Option<Instant>,
}

impl Starts {
    /// Whether the next restart is due; the backoff doubles.
    fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now >= last + self.pause())
    }

    fn pause(&self) -> Duration {
        let least = Duration::from_millis(limits::GROUP_RESTART_MS_MIN);
        let most = Duration::from_millis(limits::GROUP_RESTART_MS_MAX);
        let doubled = 1_u32
            .checked_shl(self.count.saturating_sub(1))
            .unwrap_or(u32::MAX);
        least.saturating_mul(doubled).min(most)
    }

    fn begin(&mut self, now: Instant) {
        self.count += 1;
        self.last = Some(now);
    }

    /// Whether the group has run for so long that its next end counts as the first.
    fn is_over(&self, now: Instant) -> bool {
        let most = Duration::from_millis(limits::GROUP_RESTART_MS_MAX);
        self.last.is_none_or(|last| now >= last + 2 * most)
    }
}

impl Formation {
    /// Checks for groups that have ended, and restarts them, until the node stops.
    pub(crate) async fn revive(self: Arc<Self>) {
        let mut starts: BTreeMap<GroupId, Starts> = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let cluster = self.cluster();
            for group in cluster.groups().all() {
                let now = cluster.clock().instant();
                if cluster.groups().closing().is_cancelled() {
                    return;
                }
                let known = starts.get(&group.id).copied();
                match group.ended() {
                    None if known.is_some_and(|known| known.is_over(now)) => {
                        starts.remove(&group.id);
                    }
                    Some(reason) if known.unwrap_or_default().is_due(now) => {
                        starts.entry(group.id).or_default().begin(now);
                        tracing::error!(group = %group.id, reason, "the group has ended on this node: it is started again");
                        self.start_again(&group).await;
                    }
                    None | Some(_) => {}
                }
            }
        }
    }

    async fn start_again(&self, ended: &Group) {
        // The core of a group that ended is gone or about to go; its machine may still be working.
        let stopped = tokio::time::timeout(GONE_TIMEOUT, ended.raft.shutdown()).await;
        if stopped.is_err() {
            tracing::error!(group = %ended.id, "its core does not end: tried again later");
            return;
        }
        let deps = self.cluster().shared.deps.clone();
        // A snapshot requested from the ended core will not be built.
        deps.builds.forget(ended.id);
        let machine = ended.view.next_machine(ended.id, deps);
        let Ok(machine) = tokio::time::timeout(GONE_TIMEOUT, machine).await else {
            tracing::error!(group = %ended.id, "its machine is still at work: tried again later");
            return;
        };
        match self
            .run_core(ended.id, (machine, ended.view.clone()), true, None)
            .await
        {
            Ok(group) => {
                let raft = group.raft.clone();
                self.cluster().groups().insert(group);
                tracing::info!(group = %ended.id, "the group runs again");
                // A shutdown that began meanwhile has not stopped this core.
                if self.cluster().groups().closing().is_cancelled() {
                    raft.shutdown().await.ok();
                }
            }
            Err(error) => {
                tracing::error!(group = %ended.id, %error, "the group does not start: tried again later");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use henge_storage::snapshots::SnapshotStore;
    use openraft::storage::Snapshot;

    use super::*;
    use crate::lone_replica::{GROUP, LoneReplica, position, run};
    use crate::machine::meta_of;
    use crate::raft::Vote;
    use crate::snapshot_file;

    #[test]
    fn pauses_between_starts_double_up_to_a_bound() {
        let begin = instant();
        let mut starts = Starts::default();
        assert!(starts.is_due(begin), "the first is due at once");
        let mut pauses = Vec::new();
        for _ in 0..8 {
            starts.begin(begin);
            let pause = starts.pause();
            assert!(!starts.is_due(begin + pause - Duration::from_millis(1)));
            assert!(starts.is_due(begin + pause));
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(!starts.is_over(begin + Duration::from_secs(599)));
        assert!(starts.is_over(begin + Duration::from_secs(600)));
    }

    /// A snapshot that could not be installed (its file was gone, its disk full) ended the group on
    /// that node until the process was restarted.
    #[test]
    fn an_ended_group_goes_on_with_another_core() {
        run(async {
            let dir = tempfile::tempdir().expect("a directory");
            let replica = LoneReplica::start(&dir.path().join("own")).await;
            let mut replica = replica.expect("starts");
            let leader = Vote::new_committed(2, 2);
            replica.lead(&leader, 0, 9).await;
            let peer = SnapshotStore::open(&dir.path().join("peer"), snapshot_file::index_of);
            let written = snapshot_file::write(
                &peer.expect("opens"),
                GROUP,
                &position(2, 20),
                &henge_state::State::empty(),
            );
            let gone = written.expect("writes");
            std::fs::remove_file(&gone.path).expect("removes");
            let snapshot = Snapshot {
                meta: meta_of(&position(2, 20)),
                snapshot: gone,
            };
            let installed = replica.raft.install_full_snapshot(leader, snapshot).await;
            installed.expect_err("it ends");
            let ended = replica.group();
            let deadline = instant() + Duration::from_secs(20);
            while ended.ended().is_none() {
                assert!(instant() < deadline, "the end is seen");
                tokio::task::yield_now().await;
            }
            assert_eq!(ended.leader(), None, "its last word is not believed");
            assert_eq!(ended.leadership(henge_types::NodeId::new(1)), None);

            let mut applied = replica.view.applied();
            ended.raft.shutdown().await.expect("it is gone");
            let machine = replica.view.next_machine(GROUP, replica.deps.clone()).await;
            let core = LoneReplica::core(&replica.wal, machine).await;
            replica.raft = core.expect("starts again");
            assert_eq!(replica.view.now().applied.get(), 9, "with what it had");
            replica.lead(&leader, 10, 15).await;
            let seen = applied.wait_for(|applied| *applied == 15).await;
            seen.expect("a reader of before sees it");
            assert_eq!(replica.group().ended(), None);
        });
    }

    fn instant() -> Instant {
        henge_runtime::Clock::instant(&henge_runtime::SystemClock)
    }
}
