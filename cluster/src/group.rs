//! A group's replica on this node, and the registry of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use henge_types::status::{ReplicaStatus, Role};
use henge_types::{GroupId, NodeId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, ServerState};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::machine::View;
use crate::raft::{Raft, term_of};

/// This node holds no replica of the group (yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this node holds no replica of group {0}")]
pub struct NoReplica(pub GroupId);

/// A group's replica; clones share it.
#[derive(Debug, Clone)]
pub struct Group {
    /// The group.
    pub id: GroupId,
    /// openraft's handle.
    pub raft: Raft,
    /// The machine's state.
    pub view: View,
    /// Until then this replica grants no vote: it may have lost the record of a lease that it
    /// granted.
    pub quiet_until: Option<Instant>,
}

/// A group's leadership; present only while this node leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The term it leads in.
    pub term: u64,
    /// The voter sets in force: two while the membership changes.
    pub voters: Vec<BTreeSet<NodeId>>,
}

impl Group {
    /// The reason why the group's core has ended on this node; `None` while it runs.
    pub fn ended(&self) -> Option<String> {
        let mut receiver = self.raft.metrics();
        if let Err(fatal) = &receiver.borrow_watched().running_state {
            return Some(fatal.to_string());
        }
        // A core that panicked reports nothing: its end of the channel is closed. The receiver
        // reports that only after the values sent before, which a new receiver has not seen.
        for _ in 0..3 {
            match receiver.changed().now_or_never() {
                Some(Err(_)) => return Some("it panicked".to_owned()),
                Some(Ok(())) => {}
                None => break,
            }
        }
        None
    }

    /// The leader known to this replica; none after its core has ended, because the core's last
    /// report may be old.
    pub fn leader(&self) -> Option<NodeId> {
        if self.ended().is_some() {
            return None;
        }
        self.raft
            .server_metrics()
            .borrow_watched()
            .current_leader
            .map(NodeId::new)
    }

    /// The leader known to this replica. It is not this node itself while no quorum has confirmed
    /// it for longer than `lease`.
    pub fn leader_heard(&self, own: NodeId, lease: Duration) -> Option<NodeId> {
        let receiver = self.raft.server_metrics();
        let leader = receiver.borrow_watched().current_leader.map(NodeId::new)?;
        if self.ended().is_some() {
            return None;
        }
        (leader != own || self.quorum_heard(own, lease)).then_some(leader)
    }

    /// Whether a quorum confirms this leader.
    fn quorum_heard(&self, own: NodeId, lease: Duration) -> bool {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        let silent = metrics.last_quorum_acked.map(|acked| acked.elapsed());
        let voters = metrics.membership_config.voter_ids();
        is_confirmed(own, voters.map(NodeId::new), silent, lease)
    }

    /// The term of this replica.
    pub fn term(&self) -> u64 {
        self.raft
            .server_metrics()
            .borrow_watched()
            .vote
            .leader_id
            .term
    }

    /// The voters known to this replica.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        let voters = metrics.membership_config.voter_ids();
        voters.map(NodeId::new).collect()
    }

    /// Whether the replica runs. A replica with failed storage or after a shutdown gets no new
    /// entries.
    pub fn is_running(&self) -> bool {
        self.ended().is_none()
    }

    /// The term and voters, while `own` leads.
    pub fn leadership(&self, own: NodeId) -> Option<Leadership> {
        // The last metrics of a core that has ended remain here, and may say that it leads.
        if self.ended().is_some() {
            return None;
        }
        let receiver = self.raft.server_metrics();
        let metrics = receiver.borrow_watched();
        if metrics.state != ServerState::Leader || metrics.current_leader != Some(own.get()) {
            return None;
        }
        let set = |set: &BTreeSet<u64>| set.iter().copied().map(NodeId::new).collect();
        let voters = metrics
            .membership_config
            .membership()
            .get_joint_config()
            .iter()
            .map(set)
            .collect();
        Some(Leadership {
            term: metrics.vote.leader_id.term,
            voters,
        })
    }

    /// The status of the replica in `cluster status`.
    pub fn status(&self, own: NodeId, lease: Duration, parked: u32) -> ReplicaStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let (state_hash, applied) = self
            .view
            .with(|state, applied| (hex::encode(state.hash()), applied));
        let role = match (self.ended(), metrics.state) {
            (Some(_), _) | (None, ServerState::Shutdown) => Role::Stopped,
            (None, ServerState::Leader) => Role::Leader,
            (None, ServerState::Follower) => Role::Follower,
            (None, ServerState::Candidate) => Role::Candidate,
            (None, ServerState::Learner) => Role::Learner,
        };
        ReplicaStatus {
            group: self.id,
            role,
            term: metrics.current_term,
            leader: self.leader_heard(own, lease),
            last_index: metrics.last_log_index.unwrap_or(0),
            committed_index: metrics.local_committed.map_or(0, |id| id.index()),
            applied_index: applied.get(),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index()),
            state_hash,
            parked,
            request_generation: self
                .view
                .with(|state, _| henge_state::request_generation(state)),
            voters: metrics
                .membership_config
                .voter_ids()
                .map(NodeId::new)
                .collect(),
        }
    }

    /// The log id of the last snapshot, as (term, index).
    pub fn snapshot(&self) -> Option<(u64, u64)> {
        let snapshot = self.raft.metrics().borrow_watched().snapshot;
        snapshot.map(|id| (term_of(&id), id.index()))
    }
}

/// Whether the leader `own` is confirmed by a quorum that answered `silent` ago. A leader without
/// an answer has just been elected. openraft records answers of other voters only: the only voter
/// of a group is a quorum by itself.
fn is_confirmed(
    own: NodeId,
    voters: impl Iterator<Item = NodeId>,
    silent: Option<Duration>,
    lease: Duration,
) -> bool {
    silent.is_none_or(|silent| silent <= lease) || voters.eq([own])
}

/// The replicas of this node; clones share them.
///
/// At shutdown they are closed before openraft is: openraft reports every call on a stopped core as
/// an error, and a shutdown under load would cause many of them.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    replicas: Arc<RwLock<BTreeMap<GroupId, Group>>>,
    /// Replicas inserted so far.
    inserted: Arc<watch::Sender<u64>>,
    closing: CancellationToken,
    calls: TaskTracker,
}

impl Groups {
    /// The replica of `group`.
    ///
    /// # Errors
    /// When there is none here, or when the node stops.
    pub fn get(&self, group: GroupId) -> Result<Group, NoReplica> {
        if self.closing.is_cancelled() {
            return Err(NoReplica(group));
        }
        self.read().get(&group).cloned().ok_or(NoReplica(group))
    }

    /// All of them, meta first; none after the shutdown has begun.
    pub fn all(&self) -> Vec<Group> {
        if self.closing.is_cancelled() {
            return Vec::new();
        }
        self.read().values().cloned().collect()
    }

    /// Runs a call on a replica; `None` if the shutdown comes first. The outcome of the call is
    /// unknown then.
    pub(crate) async fn while_open<F: Future>(&self, call: F) -> Option<F::Output> {
        let _running = self.calls.token();
        tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            output = call => Some(output),
        }
    }

    /// Counts as a call until it is dropped.
    pub(crate) fn running(&self) -> TaskTrackerToken {
        self.calls.token()
    }

    /// Cancelled when the node stops.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Rejects new calls, cancels the waiting ones and returns the replicas. Calls that do not end
    /// by `deadline` are abandoned.
    pub(crate) async fn close(&self, deadline: Duration) -> Vec<Group> {
        let groups = self.all();
        self.closing.cancel();
        self.calls.close();
        if tokio::time::timeout(deadline, self.calls.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                calls = self.calls.len(),
                "calls on groups did not end in time"
            );
        }
        groups
    }

    /// Adds a replica.
    pub fn insert(&self, group: Group) {
        self.replicas
            .write()
            .expect("invariant: inserting does not panic")
            .insert(group.id, group);
        self.inserted.send_modify(|inserted| *inserted += 1);
    }

    /// Changes with every inserted replica, also with one that replaces another.
    pub(crate) fn inserted(&self) -> watch::Receiver<u64> {
        self.inserted.subscribe()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<GroupId, Group>> {
        self.replicas
            .read()
            .expect("invariant: inserting does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster of one node reported itself as failing, and `/readyz` answered 503, a few seconds
    /// after each start: the lease that both require was never renewed.
    #[test]
    fn the_only_voter_confirms_itself() {
        let lease = Duration::from_secs(1);
        let (own, other) = (NodeId::new(1), NodeId::new(2));
        let late = Some(lease * 9);
        assert!(is_confirmed(own, [own].into_iter(), late, lease));
        assert!(!is_confirmed(own, [other].into_iter(), late, lease));
        assert!(!is_confirmed(own, [own, other].into_iter(), late, lease));
        assert!(is_confirmed(
            own,
            [own, other].into_iter(),
            Some(lease),
            lease
        ));
        assert!(is_confirmed(own, [own, other].into_iter(), None, lease));
    }
}
