//! Proposing commands: on the leader, or from any node through it.

use std::time::Duration;

use henge_proto::cluster as pb;
use henge_types::{Command, GroupId, NodeId, Proposal, RequestBinding, RequestId, limits, stored};
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::vote::leader_id_std::CommittedLeaderId;
use thiserror::Error;

use crate::cluster::Cluster;
use crate::group::NoReplica;
use crate::levels::LevelError;
use crate::raft::{Applied, Proposed, REPLY, Raft};

/// The delay before the leader is looked up again.
const RETRY_PAUSE_MS: std::ops::Range<u64> = 15..60;

/// The reason why a proposal has no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Not proposed: another node leads, or none.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, where known.
        leader: Option<NodeId>,
    },
    /// The outcome is unknown: only a retry with the same request id is safe.
    #[error("the outcome is not known yet")]
    UnknownOutcome,
    /// Not proposed: no replica here.
    #[error(transparent)]
    NoReplica(#[from] NoReplica),
    /// Not proposed: a replica of the group does not answer, or its release does not understand the
    /// command.
    #[error("node {0} runs an older release, or does not answer")]
    OtherRelease(NodeId),
    /// Not proposed: the command exceeds the maximum size of an entry.
    #[error("a command of {bytes} bytes is larger than a log entry may be ({max})")]
    TooLarge {
        /// The encoded size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Not proposed: the group has used up its share of this node's log.
    #[error("{}", log_full(*.0))]
    LogFull(GroupId),
    /// The group has stopped on this node; the node's log has the reason. The outcome is unknown.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
}

/// The reason why a call through the leader has no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClusterError {
    /// Not executed: no leader with a quorum was found in time.
    #[error("no quorum for group {group}")]
    NoQuorum {
        /// The group.
        group: GroupId,
    },
    /// The outcome is unknown.
    #[error("group {group} did not answer in time: the outcome is unknown")]
    UnknownOutcome {
        /// The group.
        group: GroupId,
    },
    /// Not executed: the command needs a release level that not every node of the group has
    /// reported.
    #[error(
        "group {group} cannot do this yet: {message}: it begins when all its nodes run this release"
    )]
    OtherRelease {
        /// The group.
        group: GroupId,
        /// The node without the level.
        message: String,
    },
    /// Not executed: the command exceeds the maximum size of an entry.
    #[error("a command of {bytes} bytes is larger than a log entry may be")]
    TooLarge {
        /// The encoded size.
        bytes: usize,
    },
    /// Not executed: the group has used up its share of its leader's log.
    #[error("{}", log_full(*group))]
    LogFull {
        /// The group.
        group: GroupId,
    },
    /// This node holds no replica of the group and so cannot read it.
    #[error(transparent)]
    NoReplica(#[from] NoReplica),
}

/// The error message for an entry that is refused because the log is full.
pub(crate) fn log_full(group: GroupId) -> String {
    format!(
        "the write-ahead log of this node has no room for group {group} until it has taken a snapshot: \
         look at `henge cluster status` and at the node's log for what keeps it from that"
    )
}

/// The term of leadership in which an entry may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    /// Any term in which this node leads.
    Any,
    /// Only this term.
    Only(u64),
}

/// The outcome of one attempt through the leader.
#[derive(Debug)]
pub(crate) enum Try {
    /// It is applied.
    Applied(Box<Applied>),
    /// No leader accepted it.
    NothingDone,
    /// The leader's log has no space for it.
    LogFull,
    /// Unknown.
    Unknown,
}

impl Cluster {
    /// Proposes on this node, which must lead the group, and waits until the entry is applied here.
    /// If the command needs a higher release level, the group is raised to it first.
    ///
    /// # Errors
    /// See [`ProposeError`]: with every variant but `UnknownOutcome` and `Stopped`, the command was
    /// not proposed.
    pub async fn propose(
        &self,
        group: GroupId,
        command: Command,
        request: Option<RequestBinding>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        self.propose_at(group, Term::Any, command, request, deadline)
            .await
    }

    /// The same for a command that depends on promises to the leader of `term`. The entry is
    /// appended only in that term, also when this node lost the group and leads it again.
    ///
    /// # Errors
    /// As [`Cluster::propose`]; `NotLeader` when the term is over.
    pub async fn propose_in_term(
        &self,
        group: GroupId,
        term: u64,
        command: Command,
        request: Option<RequestBinding>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        self.propose_at(group, Term::Only(term), command, request, deadline)
            .await
    }

    async fn propose_at(
        &self,
        group: GroupId,
        term: Term,
        command: Command,
        request: Option<RequestBinding>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        self.groups().get(group)?;
        let until = self.clock().instant() + deadline;
        match self.raise_level(group, command.level(), deadline).await {
            Ok(()) => {}
            Err(LevelError::OtherRelease(node)) => return Err(ProposeError::OtherRelease(node)),
            // The outcome of the barrier does not matter: the command itself was not proposed.
            Err(LevelError::Propose(ProposeError::UnknownOutcome)) => {
                return Err(ProposeError::NotLeader { leader: None });
            }
            Err(LevelError::Propose(error)) => return Err(error),
        }
        self.keep_time(group, deadline).await;
        let left = until.saturating_duration_since(self.clock().instant());
        self.write_at(group, term, command, request, left).await
    }

    /// Proposes a command without a check of its release level.
    pub(crate) async fn write(
        &self,
        group: GroupId,
        command: Command,
        request: Option<RequestBinding>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        self.write_at(group, Term::Any, command, request, deadline)
            .await
    }

    async fn write_at(
        &self,
        group: GroupId,
        term: Term,
        command: Command,
        request: Option<RequestBinding>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        let replica = self.groups().get(group)?;
        if !command.uses_reserve() && !self.shared.wal.may_grow(group) {
            return Err(ProposeError::LogFull(group));
        }
        let name = command.name();
        // Without a stamp this node may not lead: another node will soon.
        let stamp = self.stamp(&replica).await;
        let proposed_at_ms = stamp.ok_or(ProposeError::NotLeader { leader: None })?;
        let proposal = Proposal {
            request,
            proposed_at_ms,
            seed: self.random().number(),
            command,
        };
        let bytes = proposal.encode();
        if bytes.len() > limits::ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge {
                bytes: bytes.len(),
                max: limits::ENTRY_BYTES_MAX,
            });
        }
        let started = self.clock().instant();
        let submitted = submit(&replica.raft, term, Proposed(bytes.into()));
        let submitted = tokio::time::timeout(deadline, self.groups().while_open(submitted)).await;
        let result = match submitted {
            // Out of time, or this node stops: the entry may still be committed.
            Err(_) | Ok(None) => Err(ProposeError::UnknownOutcome),
            Ok(Some(result)) => result,
        };
        if result.is_ok() {
            let seconds = self.clock().instant().duration_since(started).as_secs_f64();
            metrics::histogram!("henge_cluster_commit_seconds", "command" => name).record(seconds);
        }
        result
    }

    /// Proposes from any node through the leader. After each change of leader it retries with the
    /// same request id, until `deadline`. For small commands; a push goes to the leader as a whole.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn call(
        &self,
        group: GroupId,
        command: Command,
        request: RequestBinding,
        deadline: Duration,
    ) -> Result<Applied, ClusterError> {
        let until = self.clock().instant() + deadline;
        let (mut in_doubt, mut was_full) = (false, false);
        loop {
            let left = until.saturating_duration_since(self.clock().instant());
            if left.is_zero() {
                return Err(match (in_doubt, was_full) {
                    (true, _) => ClusterError::UnknownOutcome { group },
                    (false, true) => ClusterError::LogFull { group },
                    (false, false) => ClusterError::NoQuorum { group },
                });
            }
            match self
                .call_once(group, command.clone(), Some(request.clone()), left)
                .await?
            {
                Try::Applied(applied) => return Ok(*applied),
                Try::NothingDone => was_full = false,
                // The leader hands the group over.
                Try::LogFull => was_full = true,
                Try::Unknown => in_doubt = true,
            }
            self.pause(left).await;
        }
    }

    /// Proposes from any node, once. A command without a request id must be idempotent.
    pub(crate) async fn call_once(
        &self,
        group: GroupId,
        command: Command,
        request: Option<RequestBinding>,
        left: Duration,
    ) -> Result<Try, ClusterError> {
        let Some(leader) = self.leader(group).await else {
            return Ok(Try::NothingDone);
        };
        if leader != self.node() {
            return self
                .call_remote(leader, group, command, request, left)
                .await;
        }
        match self.propose(group, command, request, left).await {
            Ok(applied) => Ok(Try::Applied(Box::new(applied))),
            // A core that stops may have appended and replicated the entry before.
            Err(ProposeError::UnknownOutcome | ProposeError::Stopped(_)) => Ok(Try::Unknown),
            Err(ProposeError::TooLarge { bytes, .. }) => Err(ClusterError::TooLarge { bytes }),
            Err(ProposeError::LogFull(_)) => Ok(Try::LogFull),
            Err(error @ ProposeError::OtherRelease(_)) => Err(ClusterError::OtherRelease {
                group,
                message: error.to_string(),
            }),
            Err(ProposeError::NotLeader { .. } | ProposeError::NoReplica(_)) => {
                Ok(Try::NothingDone)
            }
        }
    }

    async fn call_remote(
        &self,
        leader: NodeId,
        group: GroupId,
        command: Command,
        request: Option<RequestBinding>,
        left: Duration,
    ) -> Result<Try, ClusterError> {
        use pb::call_reply::Result as Answer;
        let Ok(mut client) = self.peers().cluster(leader) else {
            return Ok(Try::NothingDone);
        };
        let proposal = Proposal {
            request,
            proposed_at_ms: 0,
            seed: 0,
            command,
        };
        let message = pb::CallRequest {
            group: group.get(),
            proposal: proposal.encode().into(),
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        };
        let reply = match tokio::time::timeout(left, client.call(message)).await {
            Err(_) => return Ok(Try::Unknown),
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                let message = status.message().to_owned();
                return Err(ClusterError::OtherRelease { group, message });
            }
            // An overloaded HTTP/2 server answers with the same code, but with another message.
            Ok(Err(status))
                if status.code() == tonic::Code::ResourceExhausted
                    && status.message() == log_full(group) =>
            {
                return Ok(Try::LogFull);
            }
            // The connection may have broken before or after the leader read the call.
            Ok(Err(status)) => {
                self.shared.starts.heard(&status);
                tracing::debug!(%group, %leader, %status, "call failed");
                return Ok(Try::Unknown);
            }
        };
        Ok(match reply.result {
            Some(Answer::Applied(applied)) => match stored::decode_v1(REPLY, &applied.reply) {
                Ok(reply) => Try::Applied(Box::new(Applied {
                    index: henge_types::LogIndex::new(applied.index),
                    reply,
                })),
                Err(error) => {
                    tracing::error!(%group, %leader, %error, "unreadable reply");
                    Try::Unknown
                }
            },
            Some(Answer::NotLeader(_)) => Try::NothingDone,
            Some(Answer::Unknown(_)) | None => Try::Unknown,
        })
    }

    /// A short pause with jitter before the next look-up of the leader, never past the deadline.
    pub(crate) async fn pause(&self, left: Duration) {
        let pause = Duration::from_millis(self.random().within(RETRY_PAUSE_MS));
        tokio::time::sleep(pause.min(left)).await;
    }

    /// A new request id of this node, for a request to this group.
    pub fn next_request_id(&self, group: GroupId) -> RequestId {
        let id = RequestId {
            made_at_ms: self.shared.clocks.corrected_ms(),
            incarnation: self.identity().incarnation,
            counter: self.next_count(),
        };
        match self.request_generation(group) {
            Some(generation) => id.in_generation(generation),
            None => id,
        }
    }
}

/// Appends a proposal and waits until it is applied.
async fn submit(raft: &Raft, term: Term, proposed: Proposed) -> Result<Applied, ProposeError> {
    let stopped = |fatal: &dyn std::fmt::Display| ProposeError::Stopped(fatal.to_string());
    match term {
        Term::Any => match raft.client_write(proposed).await {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(error)) => Err(refused(error)),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        },
        Term::Only(term) => {
            let (responder, outcome) = ProgressResponder::complete_only();
            // openraft compares the term when it appends, so the term cannot change in between.
            let write = raft
                .write(proposed)
                .with_leader(CommittedLeaderId::new(term));
            let sent = write.responder(responder).await;
            sent.map_err(|fatal| stopped(&fatal))?;
            match outcome.await {
                Ok(Ok(response)) => Ok(response.data),
                Ok(Err(error)) => Err(refused(error)),
                Err(dropped) => Err(stopped(&dropped)),
            }
        }
    }
}

fn refused(error: ClientWriteError<crate::raft::TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => ProposeError::NotLeader {
            leader: forward.leader_id.map(NodeId::new),
        },
        // The entry was appended here, then the leader changed: the next leader may still commit
        // it.
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::UnknownOutcome,
        other @ (ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_)) => ProposeError::Stopped(other.to_string()),
    }
}
