//! Failures of maintenance, as conditions in `cluster status`.

use henge_state::{MetaView, ShardView};
use henge_types::{ConditionKind, GroupId, NetworkId};

use super::lock;
use crate::repos::Inner;

/// Failed compactions in a row before a condition is raised: a change of leader ends one as well.
const FAILURES_MIN: u32 = 2;

impl Inner {
    /// A compaction failed; `is_defect` when a retry does not help.
    pub(super) fn compaction_failed(
        &self,
        group: GroupId,
        network: NetworkId,
        is_defect: bool,
        why: &str,
    ) {
        let failures = {
            let mut failing = lock(&self.maintenance.failing);
            let known = failing.entry(network).or_insert((group, 0));
            *known = (group, known.1.saturating_add(1));
            known.1
        };
        if is_defect || failures >= FAILURES_MIN {
            let detail = format!("{}: {why}", self.name_of(group, &network));
            self.cluster.conditions().raise(
                ConditionKind::CompactionFailing,
                subject(&network),
                detail,
            );
        }
    }

    /// A compaction succeeded, or there was nothing to do.
    pub(super) fn compaction_works(&self, network: &NetworkId) {
        if lock(&self.maintenance.failing).remove(network).is_some() {
            let conditions = self.cluster.conditions();
            conditions.clear(ConditionKind::CompactionFailing, &subject(network));
        }
    }

    /// A group is no longer led here: its failures are conditions of another node.
    pub(super) fn forget_failures(&self, led: GroupId) {
        let conditions = self.cluster.conditions();
        lock(&self.maintenance.failing).retain(|network, (group, _)| {
            if *group == led {
                conditions.clear(ConditionKind::CompactionFailing, &subject(network));
            }
            *group != led
        });
    }

    /// A check of a store ended; `unfinished` is the reason if it did not finish.
    pub(super) fn check_ended(
        &self,
        group: GroupId,
        network: &NetworkId,
        unfinished: Option<&str>,
    ) {
        let (conditions, kind) = (self.cluster.conditions(), ConditionKind::CheckUnfinished);
        // Removing the store also ends its check.
        let is_live = || {
            let view = self.cluster.view(group);
            view.is_some_and(|view| {
                view.with(|state, _| ShardView::new(state).network_is_live(network))
            })
        };
        if let Some(why) = unfinished
            && is_live()
        {
            let detail = format!("{}: {why}", self.name_of(group, network));
            conditions.raise(kind, subject(network), detail);
        }
        // Tested again: the store may have been removed after the first test, and its conditions
        // cleared before the one above was raised.
        if unfinished.is_none() || !is_live() {
            conditions.clear(kind, &subject(network));
        }
    }

    /// The store of a network was removed: clears its conditions.
    pub(crate) fn forget_findings(&self, network: &NetworkId) {
        self.compaction_works(network);
        let conditions = self.cluster.conditions();
        conditions.clear(ConditionKind::CheckUnfinished, &subject(network));
    }

    /// The path of a repository of the network, for people.
    fn name_of(&self, group: GroupId, network: &NetworkId) -> String {
        let shard = self.cluster.view(group);
        let repo =
            shard.and_then(|view| view.with(|state, _| ShardView::new(state).any_repo_of(network)));
        let meta = self.cluster.view(GroupId::META);
        let record = repo
            .zip(meta)
            .and_then(|(repo, meta)| meta.with(|state, _| MetaView::new(state).repo(&repo.repo)));
        record.map_or_else(
            || "a repository without a name".to_owned(),
            |record| record.path.to_string(),
        )
    }
}

fn subject(network: &NetworkId) -> String {
    format!("network {network}")
}
