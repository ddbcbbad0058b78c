//! What goes wrong in the upkeep of object stores, as conditions that `cluster status` shows.

use henge_state::{MetaView, ShardView};
use henge_types::{ConditionKind, GroupId, NetworkId};

use super::lock;
use crate::repos::Inner;

/// Compactions that must fail one after another before it is a condition: a leader that changes ends one, too.
const FAILURES_MIN: u32 = 2;

impl Inner {
    /// A compaction failed; `is_defect` when trying again will not help.
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

    /// A compaction went well, or there was nothing to do.
    pub(super) fn compaction_works(&self, network: &NetworkId) {
        if lock(&self.maintenance.failing).remove(network).is_some() {
            let conditions = self.cluster.conditions();
            conditions.clear(ConditionKind::CompactionFailing, &subject(network));
        }
    }

    /// A group is not led here any more: what fails there is another node's finding.
    pub(super) fn forget_failures(&self, led: GroupId) {
        let conditions = self.cluster.conditions();
        lock(&self.maintenance.failing).retain(|network, (group, _)| {
            if *group == led {
                conditions.clear(ConditionKind::CompactionFailing, &subject(network));
            }
            *group != led
        });
    }

    /// How a check of a store ended: `unfinished` says why it did not come to its end.
    pub(super) fn check_ended(
        &self,
        group: GroupId,
        network: &NetworkId,
        unfinished: Option<&str>,
    ) {
        let (conditions, kind) = (self.cluster.conditions(), ConditionKind::CheckUnfinished);
        // The check of a store that goes ends for that reason.
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
        // Asked again: what went meanwhile may have been forgotten before.
        if unfinished.is_none() || !is_live() {
            conditions.clear(kind, &subject(network));
        }
    }

    /// The store of a network went: nothing in it can be mended any more.
    pub(crate) fn forget_findings(&self, network: &NetworkId) {
        self.compaction_works(network);
        let conditions = self.cluster.conditions();
        conditions.clear(ConditionKind::CheckUnfinished, &subject(network));
    }

    /// A repository of the network, for a person.
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
