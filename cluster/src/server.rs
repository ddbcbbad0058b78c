//! What other nodes ask of this one over gRPC. Every call is admitted first: certificate, cluster,
//! number and incarnation, before openraft sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use henge_proto::cluster as pb;
use henge_proto::cluster::cluster_server::Cluster as ClusterService;
use henge_proto::cluster::raft_server::Raft as RaftService;
use henge_runtime::{Clock, failpoint};
use henge_types::stored;
use henge_types::{GroupId, NodeId, Proposal};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use tonic::{Request, Response, Status, Streaming};

use crate::clocks::{ClockState, Clocks};
use crate::cluster::Cluster;
use crate::group::{Group, Groups};
use crate::network::GROUP;
use crate::proposals::ProposeError;
use crate::raft::{REPLY, TypeConfig};
use crate::starts::headers::{self, StartHeader};
use crate::starts::{StartRefusal, Starts};
use crate::transport::CUT_OFF;
use crate::transport::listener::Peer;
use crate::transport::members::{Identity, Members, Stranger};
use crate::transport::peers::introduced;
use crate::wire::{self, VoteKind};

/// A call on behalf of another node waits no longer than this, whatever it asks for.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Serves Raft for the groups of this node.
#[derive(Debug, Clone)]
pub(crate) struct RaftServer {
    members: Members,
    starts: Starts,
    groups: Groups,
    clock: Arc<dyn Clock>,
    clocks: Clocks,
}

impl RaftServer {
    /// Serves `groups` to `members`.
    pub(crate) fn new(
        (members, starts): (Members, Starts),
        groups: Groups,
        clock: Arc<dyn Clock>,
        clocks: Clocks,
    ) -> Self {
        Self {
            members,
            starts,
            groups,
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

    /// A replica that restarted has forgotten the lease it may have granted: it votes for nobody until
    /// every such lease has run out.
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

/// Who calls, and what the call says of starts.
#[derive(Debug, Clone)]
struct Caller {
    said: Identity,
    header: Option<StartHeader>,
}

impl Caller {
    /// Whether the caller follows what is known of it by now.
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

/// The request in a message; nothing ends the stream, which openraft takes for a lost connection.
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
            // A stream outlives what was known when it opened.
            caller.admit_start(&starts).ok()?;
            read_append(number, message)
        });
        let input = input.take_until(self.groups.closing().clone().cancelled_owned());
        // The call runs until its last answer was taken or the stream is dropped.
        let running = self.groups.running();
        let replies = group.raft.stream_append(input).map(move |reply| {
            let _running = &running;
            match reply {
                Ok(result) => Ok(wire::reply_out(&result)),
                Err(fatal) => Err(Status::unavailable(fatal.to_string())),
            }
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

/// Serves what nodes ask each other above Raft.
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

/// When a replica that starts now may vote again; `None` for one that never voted.
pub(crate) fn quiet_until(
    clock: &dyn Clock,
    had_log: bool,
    election_max: Duration,
) -> Option<Instant> {
    // A quarter more than the longest lease: clocks of two machines drift apart.
    had_log.then(|| clock.instant() + election_max + election_max / 4)
}
