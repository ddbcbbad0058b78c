//! Linearizable reads: on the leader by its lease, elsewhere by the leader's read index. The
//! replica then waits until it has applied up to that index.

use std::time::Duration;

use henge_proto::cluster as pb;
use henge_types::{GroupId, LogIndex, NodeId};
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use thiserror::Error;

use crate::cluster::Cluster;
use crate::group::NoReplica;
use crate::proposals::ClusterError;

/// Time-out of one request to a leader: a partitioned leader must not hold a read up.
const ASK_TIMEOUT: Duration = Duration::from_millis(1500);

/// The reason why this node has no read index.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoReadIndex {
    /// Another node leads, or none.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, where known.
        leader: Option<NodeId>,
    },
    /// This node leads, but no quorum confirms it.
    #[error("no quorum confirms this leader")]
    NoQuorum,
    /// No replica here, or it has stopped.
    #[error("the group does not run here: {0}")]
    NotHere(String),
}

impl From<NoReplica> for NoReadIndex {
    fn from(error: NoReplica) -> Self {
        Self::NotHere(error.to_string())
    }
}

impl Cluster {
    /// Waits until this replica's state includes every write acknowledged before the call.
    ///
    /// # Errors
    /// [`ClusterError::NoQuorum`] when no leader is confirmed by `deadline`;
    /// [`ClusterError::NoReplica`] when there is no running replica here.
    pub async fn read_barrier(
        &self,
        group: GroupId,
        deadline: Duration,
    ) -> Result<LogIndex, ClusterError> {
        let replica = self.groups().get(group)?;
        let until = self.clock().instant() + deadline;
        loop {
            let left = until.saturating_duration_since(self.clock().instant());
            // The state of a stopped replica gets stale: another node answers.
            if !replica.is_running() {
                return Err(ClusterError::NoReplica(NoReplica(group)));
            }
            if left.is_zero() {
                return Err(ClusterError::NoQuorum { group });
            }
            if let Some(index) = self.read_index(group, left).await {
                let mut applied = replica.view.applied();
                let caught_up = applied.wait_for(|applied| *applied >= index.get());
                return match tokio::time::timeout(left, caught_up).await {
                    Ok(Ok(_)) => Ok(index),
                    Ok(Err(_)) | Err(_) => Err(ClusterError::NoQuorum { group }),
                };
            }
            self.pause(left).await;
        }
    }

    /// Asks the leader, once.
    async fn read_index(&self, group: GroupId, left: Duration) -> Option<LogIndex> {
        let leader = self.leader(group).await?;
        let wait = left.min(ASK_TIMEOUT);
        if leader == self.node() {
            return tokio::time::timeout(wait, self.leader_read_index(group))
                .await
                .ok()?
                .ok();
        }
        let mut client = self.peers().cluster(leader).ok()?;
        let reply = tokio::time::timeout(
            wait,
            client.read_index(pb::ReadIndexRequest { group: group.get() }),
        );
        match reply.await {
            Ok(Ok(reply)) => Some(LogIndex::new(reply.into_inner().index)),
            Ok(Err(status)) => {
                tracing::debug!(%group, %leader, %status, "no read index");
                None
            }
            Err(_) => None,
        }
    }

    /// The index up to which a linearizable read must have applied, if this node leads: by its
    /// lease while that runs, else confirmed by a quorum.
    ///
    /// # Errors
    /// See [`NoReadIndex`].
    pub(crate) async fn leader_read_index(&self, group: GroupId) -> Result<LogIndex, NoReadIndex> {
        let replica = self.groups().get(group)?;
        let stopping = || NoReadIndex::NotHere("this node is stopping".to_owned());
        let groups = self.groups();
        let lease = replica.raft.get_read_linearizer(ReadPolicy::LeaseRead);
        let mut result = groups.while_open(lease).await.ok_or_else(stopping)?;
        if matches!(
            &result,
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(
                _
            )))
        ) {
            let confirmed = replica.raft.get_read_linearizer(ReadPolicy::ReadIndex);
            result = groups.while_open(confirmed).await.ok_or_else(stopping)?;
        }
        match result {
            Ok(linearizer) => Ok(LogIndex::new(linearizer.read_log_id().index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(NoReadIndex::NotLeader {
                    leader: forward.leader_id.map(NodeId::new),
                })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(NoReadIndex::NoQuorum)
            }
            Err(RaftError::Fatal(fatal)) => Err(NoReadIndex::NotHere(fatal.to_string())),
        }
    }
}
