//! The gRPC services for the other nodes. Every call is admitted before openraft sees it: by
//! certificate, cluster, number, incarnation and start.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use henge_proto::cluster as pb;
use henge_proto::cluster::cluster_server::Cluster as ClusterService;
use henge_proto::cluster::raft_server::Raft as RaftService;
use henge_runtime::{Clock, failpoint};
use henge_storage::wal::Wal;
use henge_types::stored;
use henge_types::{GroupId, NodeId, Proposal};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use tonic::{Request, Response, Status, Streaming};

use crate::clocks::{ClockState, Clocks};
use crate::cluster::Cluster;
use crate::group::{Group, Groups};
use crate::network::GROUP;
use crate::proposals::{ProposeError, log_full};
use crate::raft::{Entry, REPLY, TypeConfig};
use crate::starts::headers::{self, StartHeader};
use crate::starts::{StartRefusal, Starts};
use crate::transport::CUT_OFF;
use crate::transport::listener::Peer;
use crate::transport::members::{Identity, Members, Stranger};
use crate::transport::peers::introduced;
use crate::wire::{self, VoteKind};

/// The longest wait of a call on behalf of another node, of any kind.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Serves Raft for the groups of this node.
#[derive(Debug, Clone)]
pub(crate) struct RaftServer {
    members: Members,
    starts: Starts,
    groups: Groups,
    wal: Wal,
    clock: Arc<dyn Clock>,
    clocks: Clocks,
}

impl RaftServer {
    /// Serves `groups`, whose log is `wal`, to `members`.
    pub(crate) fn new(
        (members, starts): (Members, Starts),
        groups: Groups,
        wal: Wal,
        clock: Arc<dyn Clock>,
        clocks: Clocks,
    ) -> Self {
        Self {
            members,
            starts,
            groups,
            wal,
            clock,
            clocks,
        }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = admit(&self.members, &self.starts, request)?;
        self.starts
            .may_take_part()
            .map_err(|refusal| Status::unavailable(refusal.to_string()))?;
        Ok(caller)
    }

    fn group(&self, group: u32) -> Result<Group, Status> {
        self.groups
            .get(GroupId::new(group))
            .map_err(|error| Status::unavailable(error.to_string()))
    }

    /// A restarted replica has lost the record of the lease that it may have granted: it grants no
    /// vote until every such lease has expired.
    fn refuse_while_quiet(&self, group: &Group) -> Result<(), Status> {
        match group.quiet_until {
            Some(until) if self.clock.instant() < until => Err(Status::unavailable(
                "this node has just started: no vote until old leases have run out",
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[allow(
    clippy::result_large_err,
    reason = "tonic's Status is what a gRPC service answers"
)]
fn admit<T>(members: &Members, starts: &Starts, request: &Request<T>) -> Result<Caller, Status> {
    if failpoint::is_armed(CUT_OFF) {
        return Err(Status::unavailable("cut off"));
    }
    let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    let said = introduced(request.metadata()).ok_or(Stranger::Silent);
    let admitted = said.and_then(|said| members.admit(&said, certificate).map(|_| said));
    let said = admitted.map_err(|stranger| {
        tracing::warn!(%stranger, "call refused");
        metrics::counter!("henge_cluster_calls_refused_total").increment(1);
        Status::permission_denied(stranger.to_string())
    })?;
    let header = StartHeader::of(request.metadata());
    let caller = Caller { said, header };
    caller.admit_start(starts).map_err(|refusal| {
        tracing::warn!(%refusal, "call refused");
        metrics::counter!("henge_cluster_calls_refused_total").increment(1);
        match refusal {
            StartRefusal::LaterStart { .. } | StartRefusal::LogWentBack { .. } => {
                headers::refusal(&refusal.to_string())
            }
            StartRefusal::Missing(_) => Status::permission_denied(refusal.to_string()),
            StartRefusal::SelfRefused | StartRefusal::Moved => {
                Status::unavailable(refusal.to_string())
            }
        }
    })?;
    Ok(caller)
}

/// The identity of the caller, and the start header of its call.
#[derive(Debug, Clone)]
struct Caller {
    said: Identity,
    header: Option<StartHeader>,
}

impl Caller {
    /// Whether the caller's claim follows its starts known here by now.
    fn admit_start(&self, starts: &Starts) -> Result<(), StartRefusal> {
        let claim = self.header.as_ref().map(|header| &header.claim);
        let known = self
            .header
            .as_ref()
            .and_then(|header| header.known.as_ref());
        starts.admit(self.said.node, self.said.incarnation, claim, known)
    }
}

fn stopping() -> Status {
    Status::unavailable("this node is stopping")
}

/// The request in a message; `None` ends the stream, and openraft treats that as a lost connection.
fn read_append(
    group: u32,
    message: Result<pb::AppendRequest, Status>,
) -> Option<AppendEntriesRequest<TypeConfig>> {
    let message = match message {
        Ok(message) => message,
        Err(status) => {
            tracing::debug!(group, %status, "append stream broke");
            return None;
        }
    };
    match wire::append_in(&message) {
        Ok(append) => Some(append),
        Err(error) => {
            tracing::error!(group, %error, "unreadable append request");
            None
        }
    }
}

/// A replica's responses to appended entries. If the entries of a request must wait for space in
/// the log, the stream ends with an error before openraft sees the request: its leader retries
/// later, and sends heartbeats meanwhile.
fn answer<S>(
    group: &Group,
    wal: Wal,
    requests: S,
) -> impl Stream<Item = Result<pb::AppendReply, Status>> + Send + use<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
{
    let id = group.id;
    let held_back = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&held_back);
    let input = tokio_stream::StreamExt::map_while(requests, move |append| {
        // A request with an entry that may not wait is accepted as a whole: the leader had space
        // for the entries before it.
        let must_wait =
            !wal.may_grow(id) && !append.entries.is_empty() && append.entries.iter().all(can_wait);
        noted.store(must_wait, Ordering::Relaxed);
        (!must_wait).then_some(append)
    });
    let replies = group.raft.stream_append(input).map(|reply| match reply {
        Ok(result) => Ok(wire::reply_out(&result)),
        Err(fatal) => Err(Status::unavailable(fatal.to_string())),
    });
    let replies: BoxStream<'static, _> = replies.boxed();
    let end = futures::stream::iter([()]).filter_map(move |()| {
        let held_back = held_back.load(Ordering::Relaxed);
        std::future::ready(held_back.then(|| Err(Status::unavailable(log_full(id)))))
    });
    replies.chain(end)
}

/// Whether an entry may not use the log's reserve.
fn can_wait(entry: &Entry) -> bool {
    match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => false,
        EntryPayload::Normal(proposed) => {
            Proposal::decode(&proposed.0).map_or(true, |proposal| !proposal.command.uses_reserve())
        }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<pb::AppendReply, Status>> + Send>>;

#[tonic::async_trait]
impl RaftService for RaftServer {
    type AppendStream = Replies;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let caller = self.admit(&request)?;
        let number = request
            .metadata()
            .get(GROUP)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let number: u32 =
            number.ok_or_else(|| Status::invalid_argument("the stream names no group"))?;
        let group = self.group(number)?;
        let starts = self.starts.clone();
        let input = tokio_stream::StreamExt::map_while(request.into_inner(), move |message| {
            // The known starts may change while the stream is open.
            caller.admit_start(&starts).ok()?;
            read_append(number, message)
        });
        let input = input.take_until(self.groups.closing().clone().cancelled_owned());
        // The call counts as running until its last response is taken or the stream is dropped.
        let running = self.groups.running();
        let replies = answer(&group, self.wal.clone(), input).inspect(move |_| {
            let _running = &running;
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        self.admit(&request)?;
        let message = request.into_inner();
        let group = self.group(message.group)?;
        self.refuse_while_quiet(&group)?;
        let (request, kind) =
            wire::vote_in(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let response = self.groups.while_open(async {
            match kind {
                VoteKind::Real => group.raft.vote(request).await,
                VoteKind::DryRun => group.raft.pre_vote(request).await,
            }
        });
        let response = response.await.ok_or_else(stopping)?;
        let response = response.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(wire::voted_out(&response)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        self.admit(&request)?;
        let message = request.into_inner();
        let group = self.group(message.group)?;
        self.refuse_while_quiet(&group)?;
        if let (ClockState::Wrong { .. }, _) = self.clocks.judge() {
            return Err(Status::unavailable(
                "this node's clock is wrong: it leads nothing",
            ));
        }
        let from = wire::vote(message.ballot)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let request = TransferLeaderRequest::new(from, message.to, message.last.map(wire::id_in));
        let answer = group.raft.handle_transfer_leader(request);
        let answer = self.groups.while_open(answer).await.ok_or_else(stopping)?;
        let answer = answer.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        Ok(Response::new(pb::TransferLeaderReply {
            accepted: answer.is_ok(),
        }))
    }
}

/// Serves the requests between nodes above Raft.
#[derive(Debug, Clone)]
pub(crate) struct ClusterServer {
    cluster: Cluster,
}

impl ClusterServer {
    /// Serves for `cluster`.
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        admit(self.cluster.members(), &self.cluster.shared.starts, request)
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterServer {
    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        self.admit(&request)?;
        let group = GroupId::new(request.into_inner().group);
        let index = self.cluster.leader_read_index(group).await;
        let index = index.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(pb::ReadIndexReply { index: index.get() }))
    }

    async fn call(
        &self,
        request: Request<pb::CallRequest>,
    ) -> Result<Response<pb::CallReply>, Status> {
        use pb::call_reply::Result as Answer;
        self.admit(&request)?;
        let message = request.into_inner();
        let proposal = Proposal::decode(&message.proposal)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let deadline = Duration::from_millis(message.deadline_ms).min(CALL_TIMEOUT_MAX);
        let group = GroupId::new(message.group);
        let answer = match self
            .cluster
            .propose(group, proposal.command, proposal.request, deadline)
            .await
        {
            Ok(applied) => Answer::Applied(pb::Applied {
                index: applied.index.get(),
                reply: Bytes::from(stored::encode(REPLY, 1, &applied.reply)),
            }),
            Err(ProposeError::NotLeader { leader }) => {
                Answer::NotLeader(leader.map_or(0, NodeId::get))
            }
            Err(ProposeError::UnknownOutcome) => {
                Answer::Unknown("the leader cannot tell yet".to_owned())
            }
            Err(error @ ProposeError::OtherRelease(_)) => {
                return Err(Status::failed_precondition(error.to_string()));
            }
            Err(error @ ProposeError::TooLarge { .. }) => {
                return Err(Status::invalid_argument(error.to_string()));
            }
            Err(error @ ProposeError::LogFull(_)) => {
                return Err(Status::resource_exhausted(error.to_string()));
            }
            Err(error @ (ProposeError::NoReplica(_) | ProposeError::Stopped(_))) => {
                return Err(Status::unavailable(error.to_string()));
            }
        };
        Ok(Response::new(pb::CallReply {
            result: Some(answer),
        }))
    }

    async fn start(
        &self,
        request: Request<pb::StartRequest>,
    ) -> Result<Response<pb::StartReply>, Status> {
        let caller = self.admit(&request)?;
        Ok(Response::new(self.cluster.answer_for(caller.said.node)))
    }

    async fn report(
        &self,
        request: Request<pb::ReportRequest>,
    ) -> Result<Response<pb::ReportReply>, Status> {
        self.admit(&request)?;
        if self.cluster.groups().closing().is_cancelled() {
            return Err(stopping());
        }
        let report = serde_json::to_vec(&self.cluster.report())
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::ReportReply {
            report: report.into(),
        }))
    }
}

/// When a replica that starts now may vote again; `None` for one without a log and a stored vote.
pub(crate) fn quiet_until(
    clock: &dyn Clock,
    had_log: bool,
    election_max: Duration,
) -> Option<Instant> {
    // A quarter more than the longest lease, because the clocks of two machines drift apart.
    had_log.then(|| clock.instant() + election_max + election_max / 4)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use henge_storage::wal::Record;
    use henge_types::{Command, MetaCommand, ShardCommand};

    use super::*;
    use crate::lone_replica::{GROUP, LoneReplica, run};
    use crate::raft::{Proposed, Vote, log_id};

    const OTHER: GroupId = GroupId::new(2);

    fn proposal(command: Command) -> EntryPayload<Proposed, u64, openraft::impls::EmptyNode> {
        let proposal = Proposal {
            request: None,
            proposed_at_ms: 1,
            seed: 0,
            command,
        };
        EntryPayload::Normal(Proposed(proposal.encode().into()))
    }

    /// Fills the log with entries of another group that are not purged.
    async fn fill(replica: &LoneReplica) {
        let mut index = 0;
        while replica.wal.may_grow(GROUP) {
            index += 1;
            let record = Record {
                index,
                payload: Bytes::from(vec![0; 8 * 1024]),
            };
            let (sender, done) = tokio::sync::oneshot::channel();
            let told = Box::new(move |result| {
                sender.send(result).ok();
            });
            let appended = replica.wal.append(OTHER, vec![record], told);
            appended.await.expect("never fails for want of space");
            done.await.expect("is told").expect("is durable");
        }
    }

    /// Sends one request as a leader does. Returns the responses until the stream ends.
    async fn sent(
        replica: &LoneReplica,
        previous: u64,
        payloads: Vec<EntryPayload<Proposed, u64, openraft::impls::EmptyNode>>,
    ) -> Vec<Result<pb::AppendReply, Status>> {
        let entries = payloads.into_iter().zip(previous + 1..);
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(1, 2),
            prev_log_id: Some(log_id(1, previous)),
            entries: entries
                .map(|(payload, index)| Entry {
                    log_id: log_id(1, index),
                    payload,
                })
                .collect(),
            leader_commit: Some(log_id(1, previous)),
        };
        let requests = futures::stream::iter([request]);
        answer(&replica.group(), replica.wal.clone(), requests)
            .collect()
            .await
    }

    /// At the cap of a follower's log an append failed, and openraft ended the group there
    /// permanently.
    #[test]
    fn a_full_log_holds_entries_back_and_nothing_else() {
        run(async {
            let dir = tempfile::tempdir().expect("a directory");
            let replica = LoneReplica::start(dir.path()).await.expect("starts");
            let leader = Vote::new_committed(1, 2);
            replica.lead(&leader, 0, 5).await;
            fill(&replica).await;

            let drop = Command::Shard(ShardCommand::DropRepo {
                repo: henge_types::RepoId::from_bytes([1; 16]),
            });
            let set = Command::Shard(ShardCommand::UnprotectRefs {
                repo: henge_types::RepoId::from_bytes([1; 16]),
                generation: henge_types::Generation::new(1),
                pattern: "refs/heads/*".parse().expect("a pattern"),
            });
            let held = sent(&replica, 5, vec![proposal(set.clone())]).await;
            let [Err(status)] = held.as_slice() else {
                panic!("held back: {held:?}");
            };
            assert_eq!(status.code(), tonic::Code::Unavailable);
            assert!(status.message().contains("no room for group 1"), "{status}");
            assert_eq!(replica.group().ended(), None, "the group goes on");

            // A heartbeat, a new leader's first entry, and a command that frees space.
            for payloads in [Vec::new(), vec![EntryPayload::Blank, proposal(drop)]] {
                let taken = sent(&replica, 5, payloads).await;
                assert!(matches!(taken.as_slice(), [Ok(_)]), "{taken:?}");
            }
            assert_eq!(replica.wal.group(GROUP).last_index, Some(8));

            let upto = henge_storage::wal::Purged {
                index: replica.wal.group(OTHER).last_index.expect("entries"),
                id: Bytes::from_static(b"id"),
            };
            let (sender, done) = tokio::sync::oneshot::channel();
            let told = Box::new(move |result| {
                sender.send(result).ok();
            });
            replica.wal.purge(OTHER, upto, told).await.expect("queued");
            done.await.expect("is told").expect("is durable");
            // The writer frees one segment per turn; a vote of the other group causes a turn.
            while !replica.wal.may_grow(GROUP) {
                let (sender, done) = tokio::sync::oneshot::channel();
                let told = Box::new(move |result| {
                    sender.send(result).ok();
                });
                let vote = replica.wal.save_vote(OTHER, Bytes::from_static(b"v"), told);
                vote.await.expect("queued");
                done.await.expect("is told").expect("is durable");
            }
            let taken = sent(&replica, 7, vec![proposal(set)]).await;
            assert!(matches!(taken.as_slice(), [Ok(_)]), "{taken:?}");
        });
    }

    #[test]
    fn what_heals_may_use_the_reserve() {
        let version = Command::VersionBarrier { version: 1 };
        assert!(version.uses_reserve());
        let told = MetaCommand::MarkRepoDropped {
            repo: henge_types::RepoId::from_bytes([1; 16]),
        };
        assert!(Command::Meta(told).uses_reserve());
    }
}
