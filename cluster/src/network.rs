//! openraft's outgoing messages: one client per group and target, over the shared gRPC channels and
//! bulk streams.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use henge_proto::cluster::raft_client::RaftClient;
use henge_runtime::failpoint;
use henge_storage::snapshots::SnapshotFile;
use henge_types::{GroupId, Incarnation, NodeId};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::impls::EmptyNode;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::TransferLeaderError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Request;
use tonic::metadata::MetadataValue;

use crate::acknowledged::Followed;
use crate::raft::{LogId, Position, TypeConfig, decode_vote, encode_vote};
use crate::starts::{StartRefusal, Starts};
use crate::transport::CUT_OFF;
use crate::transport::bulk::Bulk;
use crate::transport::peers::{PeerChannel, Peers};
use crate::wire::{self, VoteKind};

/// Metadata of an append stream: its group, known before the first message.
pub(crate) const GROUP: &str = "henge-group";
/// The bulk service that receives a snapshot.
pub(crate) const SNAPSHOT_SERVICE: &str = "snapshot";
/// The least time-out of a peer's vote; openraft's own is a heartbeat, too short under load.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Time-out of the transfer and installation of a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

type Failure = RPCError<TypeConfig>;

/// The head of a snapshot stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    /// The group.
    pub group: GroupId,
    /// The leader's vote, stored form.
    pub vote: Bytes,
    /// The position the snapshot covers, stored form.
    pub position: Bytes,
}

/// Makes a group's clients.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    own: NodeId,
    group: GroupId,
    peers: Peers,
    bulk: Bulk,
    starts: Starts,
    followed: Followed,
}

impl Clients {
    /// Clients of `group` over the node's channels.
    pub(crate) fn new(
        own: NodeId,
        group: GroupId,
        (peers, bulk): (Peers, Bulk),
        (starts, followed): (Starts, Followed),
    ) -> Self {
        Self {
            own,
            group,
            peers,
            bulk,
            starts,
            followed,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Clients {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Client {
        Client {
            clients: self.clone(),
            target: NodeId::new(target),
        }
    }
}

/// One group's client to one node.
pub(crate) struct Client {
    clients: Clients,
    target: NodeId,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Client(group {}, node {})",
            self.clients.group, self.target
        )
    }
}

fn unreachable(error: impl fmt::Display) -> Failure {
    Unreachable::from_string(error).into()
}

fn broken(error: impl fmt::Display) -> Failure {
    NetworkError::from_string(error).into()
}

/// A follower's part of one append stream: the entries that it must have when each request reaches
/// it.
#[derive(Debug, Clone)]
struct Replica {
    node: NodeId,
    incarnation: Incarnation,
    group: GroupId,
    starts: Starts,
    followed: Followed,
    /// Its start was refused when the stream began, and its log is checked again.
    is_asked_again: bool,
    /// Term and last entry that the follower must have, for each request without a response.
    /// Responses arrive in the order of the requests.
    sent: Arc<Mutex<VecDeque<(u64, u64)>>>,
}

impl Replica {
    fn sent(&self, append: &AppendEntriesRequest<TypeConfig>) {
        let term = append.vote.leader_id.term;
        let committed = append.leader_commit.as_ref().map_or(0, LogId::index);
        let follower = (self.node, self.incarnation);
        let kept = self.followed.sent(follower, self.group, term, committed);
        self.lock().push_back((term, kept));
    }

    /// Handles a response. A follower is refused if it lacks an entry that it had acknowledged
    /// before the request was sent.
    fn answered(&self, answer: &wire::AppendResult) -> Result<(), StartRefusal> {
        let Some((term, kept)) = self.lock().pop_front() else {
            return Ok(());
        };
        match answer {
            Ok(upto) => {
                let index = upto.as_ref().map_or(0, LogId::index);
                let follower = (self.node, self.incarnation);
                self.followed.flushed(follower, self.group, term, index);
                if self.is_asked_again && index >= kept {
                    self.starts.shows_all(self.node, self.group);
                }
                Ok(())
            }
            Err(StreamAppendError::Conflict(id)) if id.index() <= kept && kept > 0 => {
                let refusal = StartRefusal::LogWentBack {
                    node: self.node,
                    group: self.group,
                    acknowledged: kept,
                    shown: id.index(),
                };
                self.starts.went_back(self.node, &refusal);
                Err(refusal)
            }
            Err(StreamAppendError::Conflict(_) | StreamAppendError::HigherVote(_)) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, u64)>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// openraft's error for a gRPC status: a peer that is down causes a backoff, any other failure a
/// retry.
fn failed(status: &tonic::Status) -> Failure {
    if status.code() == tonic::Code::Unavailable {
        unreachable(status)
    } else {
        broken(status)
    }
}

impl Client {
    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Failure {
        let (id, target) = (self.clients.own.get(), self.target.get());
        Timeout {
            action,
            id,
            target,
            timeout,
        }
        .into()
    }

    /// A client for the target, unless its start is refused: openraft then backs off as for a node
    /// that is down.
    fn client(&self) -> Result<RaftClient<PeerChannel>, Failure> {
        if let Some(refusal) = self.clients.starts.refused(self.target) {
            return Err(unreachable(refusal));
        }
        self.clients.peers.raft(self.target).map_err(unreachable)
    }

    /// The same for entries; the response of a follower shows its log.
    fn client_for_entries(&self) -> Result<RaftClient<PeerChannel>, Failure> {
        if let Some(refusal) = self.clients.starts.refused_entries(self.target) {
            return Err(unreachable(refusal));
        }
        self.clients.peers.raft(self.target).map_err(unreachable)
    }

    /// The record of the target's acknowledgements.
    fn followed(&self) -> Result<Replica, Failure> {
        let incarnation = self.clients.peers.incarnation(self.target);
        Ok(Replica {
            node: self.target,
            incarnation: incarnation.map_err(unreachable)?,
            group: self.clients.group,
            starts: self.clients.starts.clone(),
            followed: self.clients.followed.clone(),
            is_asked_again: self.clients.starts.refused(self.target).is_some(),
            sent: Arc::default(),
        })
    }

    async fn ask(
        &self,
        request: VoteRequest<TypeConfig>,
        kind: VoteKind,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let mut client = self.client()?;
        let message = wire::vote_out(self.clients.group, &request, kind);
        let deadline = option.hard_ttl().max(ANSWER_TIMEOUT_MIN);
        let reply = tokio::time::timeout(deadline, client.vote(message))
            .await
            .map_err(|_| self.timed_out(RPCTypes::Vote, deadline))?
            .map_err(|status| failed(&status))?;
        wire::voted_in(reply.into_inner()).map_err(broken)
    }

    async fn append_stream<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Failure>>, Failure>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // openraft's backoff is in the stream of requests. A client that dials before it takes the
        // first request never waits, and a dead peer then costs a whole processor.
        let Some(first) = input.next().await else {
            return Ok(futures::stream::empty().boxed());
        };
        let group = self.clients.group;
        let mut client = self.client_for_entries()?;
        let replica = self.followed()?;
        let connected = |_: &_| std::future::ready(!failpoint::is_armed(CUT_OFF));
        let requests = futures::stream::iter([first])
            .chain(input)
            .take_while(connected);
        let mut request = Request::new(requests.map({
            let replica = replica.clone();
            move |append| {
                replica.sent(&append);
                wire::append_out(group, &append)
            }
        }));
        request
            .metadata_mut()
            .insert(GROUP, MetadataValue::from(group.get()));
        let deadline = option.hard_ttl().max(ANSWER_TIMEOUT_MIN);
        let replies = tokio::time::timeout(deadline, client.append(request))
            .await
            .map_err(|_| self.timed_out(RPCTypes::AppendEntries, deadline))?
            .map_err(|status| failed(&status))?
            .into_inner();
        Ok(replies
            .map(move |reply| match reply {
                Ok(reply) => {
                    let reply = wire::reply_in(reply).map_err(broken)?;
                    replica.answered(&reply).map_err(unreachable)?;
                    Ok(reply)
                }
                Err(status) => Err(failed(&status)),
            })
            .boxed())
    }

    async fn send_snapshot(
        &self,
        head: Bytes,
        file: SnapshotFile,
    ) -> io::Result<VoteOf<TypeConfig>> {
        if let Some(refusal) = self.clients.starts.refused(self.target) {
            return Err(io::Error::other(refusal));
        }
        let opened = self
            .clients
            .bulk
            .open(self.target, SNAPSHOT_SERVICE, head, Duration::from_secs(5))
            .await;
        let mut stream = opened.map_err(io::Error::other)?;
        let mut source = tokio::fs::File::open(&file.path).await?;
        tokio::io::copy(&mut source, &mut stream).await?;
        stream.shutdown().await?;
        let mut vote = Vec::new();
        stream.take(4096).read_to_end(&mut vote).await?;
        decode_vote(&vote).map_err(io::Error::other)
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        let mut replies = self
            .append_stream(Box::pin(futures::stream::once(async { request })), option)
            .await?;
        match replies.next().await {
            Some(reply) => reply.map(AppendEntriesResponse::from),
            None => Err(broken("the peer closed the stream without an answer")),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Failure>>, Failure>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(self.append_stream(input, option))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask(request, VoteKind::Real, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask(request, VoteKind::DryRun, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let position = Position {
            applied: snapshot.meta.last_log_id,
            members: snapshot.meta.last_membership.clone(),
        };
        let head = SnapshotHead {
            group: self.clients.group,
            vote: encode_vote(&vote),
            position: position.encode(),
        };
        let head =
            postcard::to_stdvec(&head).expect("invariant: a head is representable in postcard");
        let send = tokio::time::timeout(
            SNAPSHOT_TIMEOUT,
            self.send_snapshot(head.into(), snapshot.snapshot),
        );
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => match sent {
                Ok(Ok(vote)) => Ok(SnapshotResponse::new(vote)),
                Ok(Err(error)) => Err(StreamingError::Network(NetworkError::new(&error))),
                Err(_) => Err(StreamingError::Network(NetworkError::from_string("the snapshot took too long"))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let mut client = self.client()?;
        let message = henge_proto::cluster::TransferLeaderRequest {
            group: self.clients.group.get(),
            ballot: Some(wire::ballot(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(wire::id_out),
        };
        let deadline = option.hard_ttl().max(ANSWER_TIMEOUT_MIN);
        let reply = tokio::time::timeout(deadline, client.transfer_leader(message))
            .await
            .map_err(|_| self.timed_out(RPCTypes::TransferLeader, deadline))?
            .map_err(|status| failed(&status))?;
        if reply.into_inner().accepted {
            return Ok(Ok(()));
        }
        let expected = *request.from_leader();
        Ok(Err(TransferLeaderError::VoteChanged {
            expected,
            actual: expected,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Vote, log_id};
    use henge_storage::disk::OsDisk;
    use henge_types::StartId;

    const FOLLOWER: NodeId = NodeId::new(2);
    const LIFE: Incarnation = Incarnation::from_bytes([2; 16]);

    fn replica(dir: &std::path::Path) -> Replica {
        let start = StartId::from_bytes([1; 16]);
        let place = (OsDisk::shared(), dir.to_owned());
        Replica {
            node: FOLLOWER,
            incarnation: LIFE,
            group: GroupId::META,
            starts: Starts::draw(NodeId::new(1), LIFE, place, start).expect("drawn"),
            followed: Followed::default(),
            is_asked_again: false,
            sent: Arc::default(),
        }
    }

    fn append(committed: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: Some(log_id(3, committed)),
        }
    }

    fn conflict(index: u64) -> wire::AppendResult {
        Err(StreamAppendError::Conflict(log_id(3, index)))
    }

    /// The leader probed the log of a follower with an old copy of its disk for ever.
    #[test]
    fn a_follower_that_lacks_what_it_acknowledged_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let replica = replica(dir.path());
        replica.sent(&append(8));
        assert_eq!(replica.answered(&Ok(Some(log_id(3, 10)))), Ok(()));
        replica.sent(&append(8));
        assert_eq!(replica.answered(&conflict(11)), Ok(()), "not acknowledged");
        replica.sent(&append(8));
        let refused = replica.answered(&conflict(9));
        assert!(
            matches!(
                refused,
                Err(StartRefusal::LogWentBack {
                    acknowledged: 10,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert!(replica.starts.refused(FOLLOWER).is_some());
        assert_eq!(
            replica.followed.kept((FOLLOWER, LIFE)),
            [(GroupId::META, 8)]
        );
    }

    /// A follower of an older release names no start. Its log shows whether it was restarted with
    /// the newest directory.
    #[test]
    fn a_refused_follower_without_starts_is_asked_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut replica = replica(dir.path());
        replica.sent(&append(8));
        assert_eq!(replica.answered(&Ok(Some(log_id(3, 10)))), Ok(()));
        replica.sent(&append(8));
        replica.answered(&conflict(9)).expect_err("it went back");
        assert_eq!(replica.starts.refused_entries(FOLLOWER), None);
        replica.is_asked_again = true;
        replica.sent(&append(8));
        replica.answered(&conflict(9)).expect_err("it still does");
        replica.sent(&append(8));
        assert_eq!(replica.answered(&Ok(Some(log_id(3, 10)))), Ok(()));
        assert_eq!(replica.starts.refused(FOLLOWER), None);
    }

    /// The response to a probe sent before the follower caught up does not count against its
    /// present log.
    #[test]
    fn a_conflict_counts_only_against_earlier_answers() {
        let dir = tempfile::tempdir().expect("a folder");
        let replica = replica(dir.path());
        replica.sent(&append(8));
        replica.sent(&append(8));
        assert_eq!(replica.answered(&Ok(Some(log_id(3, 10)))), Ok(()));
        assert_eq!(replica.answered(&conflict(7)), Ok(()));
    }
}
