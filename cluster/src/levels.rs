//! Release levels: a command of a newer level is proposed only where every replica of its group
//! understands it.
//!
//! A group at level N has a [`Command::VersionBarrier`] N in its log: at that entry a replica that
//! does not know N stops instead of guessing. So the leader proposes the barrier only after every
//! node of the group has reported that it knows the level; a silent node may be an older one.
//! Leaders raise their groups by themselves as soon as all nodes have reported, and once more right
//! before the first command that needs the level.
//!
//! The meta group's level holds for all groups. Every member has a replica of it, so all of them
//! reported the level before it was raised, and an older release does not start over it. A shard
//! therefore rises to it without another request to the members, also while a node is down. Only
//! the leader of the meta group asks the members by itself; the shards follow it. A cluster whose
//! founders all report this release is at its level from its first entry on.

use std::collections::BTreeSet;
use std::time::Duration;

use henge_types::command::{VERSION_KNOWN, VERSION_STARTS_AND_TIME};
use henge_types::{Command, GroupId, NodeId};
use thiserror::Error;

use crate::clocks::ClockState;
use crate::cluster::Cluster;
use crate::leader::{LeaderTask, LeaderTerm, Next, Step, TaskGroups, Wakes};
use crate::machine::View;
use crate::proposals::ProposeError;

/// Between two attempts to raise a group while a member is not known to run this release.
const RAISE_EVERY: Duration = Duration::from_secs(2);
/// The same during the formation of the cluster, or while the group is behind the meta group.
const RAISE_EVERY_AT_FIRST: Duration = Duration::from_millis(100);
/// Time-out of a group's version barrier.
const RAISE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a group stays at its level.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LevelError {
    /// A replica does not know the level, or has not reported that it does. Nothing was proposed.
    #[error(
        "node {0} runs an older release, or does not answer: what is new in this release begins when every node of the group has it"
    )]
    OtherRelease(NodeId),
    /// The barrier has no reply.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl Cluster {
    /// The release level of a group in this replica; `None` without a replica.
    pub fn level(&self, group: GroupId) -> Option<u32> {
        let view = self.view(group)?;
        Some(view.with(|state, _| henge_state::version(state)))
    }

    /// Raises a group that this node leads to a release level; proposes nothing if the group has
    /// reached it.
    ///
    /// # Errors
    /// See [`LevelError`].
    pub async fn raise_level(
        &self,
        group: GroupId,
        level: u32,
        deadline: Duration,
    ) -> Result<(), LevelError> {
        if self.level(group).is_some_and(|now| now >= level) {
            return Ok(());
        }
        let Some(leadership) = self.leadership(group) else {
            let leader = self.leader_here(group);
            return Err(ProposeError::NotLeader { leader }.into());
        };
        if !self.all_have_said(level) {
            let voters = leadership.voters.into_iter().flatten();
            let nodes: BTreeSet<_> = voters.chain(self.replicas(group)).collect();
            if let Some(node) = self.not_knowing(&nodes, level).await {
                return Err(LevelError::OtherRelease(node));
            }
        }
        self.propose_level(group, level, deadline).await
    }

    /// Whether all members are known to know a level: the meta group is at it.
    pub fn all_have_said(&self, level: u32) -> bool {
        self.level(GroupId::META).is_some_and(|meta| meta >= level)
    }

    async fn propose_level(
        &self,
        group: GroupId,
        version: u32,
        deadline: Duration,
    ) -> Result<(), LevelError> {
        // The barrier sets the group's time, so it needs a clock that is known to be right.
        if version >= VERSION_STARTS_AND_TIME && self.clock_state() != ClockState::Right {
            return Err(ProposeError::NotLeader { leader: None }.into());
        }
        let barrier = Command::VersionBarrier { version };
        self.write(group, barrier, None, deadline).await?;
        tracing::info!(%group, level = version, "every replica understands this release level from here on");
        Ok(())
    }

    /// One of these nodes that has not reported the level.
    async fn not_knowing(&self, nodes: &BTreeSet<NodeId>, level: u32) -> Option<NodeId> {
        let asked = nodes.iter().map(|node| self.ask_report(*node));
        let reports = futures::future::join_all(asked).await;
        let mut answers = nodes.iter().zip(reports);
        let knows = |report: Option<_>| report.is_some_and(|known: u32| known >= level);
        answers
            .find(|(_, report)| !knows(report.as_ref().map(|report| report.level)))
            .map(|(node, _)| *node)
    }

    /// Raises a group that this node leads to the level of this release, if all members know it
    /// too. Returns whether the group has reached it.
    async fn raise_to_known(&self, group: GroupId) -> bool {
        if self.level(group).is_some_and(|now| now >= VERSION_KNOWN) {
            return true;
        }
        // The formation raises the meta group.
        if !self.is_formed() {
            return false;
        }
        if !self.all_have_said(VERSION_KNOWN) {
            // The leader of the meta group asks all members, and the shards follow.
            let members: BTreeSet<_> = self.members().all().iter().map(|node| node.node).collect();
            if !group.is_meta() || self.not_knowing(&members, VERSION_KNOWN).await.is_some() {
                return false;
            }
        }
        let raised = self
            .propose_level(group, VERSION_KNOWN, RAISE_TIMEOUT)
            .await;
        if let Err(error) = &raised {
            tracing::debug!(%group, %error, "the group stays at its release level for now");
        }
        raised.is_ok()
    }

    /// Whether the cluster is not formed, or the group is behind the meta group.
    fn is_behind_meta(&self, group: GroupId) -> bool {
        !self.is_formed() || self.level(group) < self.level(GroupId::META)
    }
}

/// Raises the groups that this node leads.
pub(crate) fn start(cluster: &Cluster) {
    let task = ReleaseLevels(cluster.clone());
    cluster.lead(task, Wakes::default(), &cluster.shared.scope);
}

/// Raises a group to the release level that all members know.
struct ReleaseLevels(Cluster);

impl LeaderTask for ReleaseLevels {
    const NAME: &'static str = "release levels";
    const GROUPS: TaskGroups = TaskGroups::All;
    type State = ();

    fn begin(&self, _term: LeaderTerm, _view: &View) {}

    async fn step(&self, step: Step<'_>, (): &mut ()) -> Next {
        let group = step.term.group;
        if self.0.raise_to_known(group).await {
            return Next::notified();
        }
        Next::after(match self.0.is_behind_meta(group) {
            true => RAISE_EVERY_AT_FIRST,
            false => RAISE_EVERY,
        })
    }
}
