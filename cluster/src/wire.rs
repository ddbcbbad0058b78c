//! Conversion between openraft's messages and the wire's. Entries travel in the stored form of the
//! log.

use henge_proto::cluster as pb;
use henge_types::GroupId;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, VoteRequest, VoteResponse};
use thiserror::Error;

use crate::raft::{self, LogId, TypeConfig, Vote, log_id, term_of};

/// A message without a required part, or with an unreadable entry.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    /// A required field is missing.
    #[error("the message lacks its {0}")]
    Missing(&'static str),
    /// An entry is unreadable.
    #[error("the message holds an unreadable entry: {0}")]
    Entry(#[from] henge_types::stored::DecodeError),
}

pub(crate) fn ballot(vote: &Vote) -> pb::Ballot {
    pb::Ballot {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote(ballot: Option<pb::Ballot>) -> Result<Vote, WireError> {
    let ballot = ballot.ok_or(WireError::Missing("ballot"))?;
    Ok(if ballot.committed {
        Vote::new_committed(ballot.term, ballot.node)
    } else {
        Vote::new(ballot.term, ballot.node)
    })
}

pub(crate) fn id_out(id: &LogId) -> pb::LogId {
    pb::LogId {
        term: term_of(id),
        index: id.index(),
    }
}

pub(crate) fn id_in(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn append_out(
    group: GroupId,
    request: &AppendEntriesRequest<TypeConfig>,
) -> pb::AppendRequest {
    pb::AppendRequest {
        group: group.get(),
        ballot: Some(ballot(&request.vote)),
        previous: request.prev_log_id.as_ref().map(id_out),
        entries: request.entries.iter().map(raft::encode_entry).collect(),
        committed: request.leader_commit.as_ref().map(id_out),
    }
}

pub(crate) fn append_in(
    request: &pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote(request.ballot)?,
        prev_log_id: request.previous.map(id_in),
        entries: request
            .entries
            .iter()
            .map(raft::decode_entry)
            .collect::<Result<_, _>>()?,
        leader_commit: request.committed.map(id_in),
    })
}

pub(crate) type AppendResult = Result<Option<LogId>, StreamAppendError<TypeConfig>>;

pub(crate) fn reply_out(result: &AppendResult) -> pb::AppendReply {
    use pb::append_reply::Result as Reply;
    let result = match result {
        Ok(upto) => Reply::Flushed(pb::Flushed {
            upto: upto.as_ref().map(id_out),
        }),
        Err(StreamAppendError::Conflict(id)) => Reply::Conflict(id_out(id)),
        Err(StreamAppendError::HigherVote(vote)) => Reply::Higher(ballot(vote)),
    };
    pb::AppendReply {
        result: Some(result),
    }
}

pub(crate) fn reply_in(reply: pb::AppendReply) -> Result<AppendResult, WireError> {
    use pb::append_reply::Result as Reply;
    Ok(match reply.result.ok_or(WireError::Missing("result"))? {
        Reply::Flushed(flushed) => Ok(flushed.upto.map(id_in)),
        Reply::Conflict(id) => Err(StreamAppendError::Conflict(id_in(id))),
        Reply::Higher(ballot) => Err(StreamAppendError::HigherVote(vote(Some(ballot))?)),
    })
}

/// Whether the caller only asks how the vote would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteKind {
    /// A vote that counts.
    Real,
    /// A pre-vote: nothing is stored.
    DryRun,
}

pub(crate) fn vote_out(
    group: GroupId,
    request: &VoteRequest<TypeConfig>,
    kind: VoteKind,
) -> pb::VoteRequest {
    pb::VoteRequest {
        group: group.get(),
        ballot: Some(ballot(&request.vote)),
        last: request.last_log_id.as_ref().map(id_out),
        transfer: request.leadership_transfer,
        dry_run: kind == VoteKind::DryRun,
    }
}

pub(crate) fn vote_in(
    request: pb::VoteRequest,
) -> Result<(VoteRequest<TypeConfig>, VoteKind), WireError> {
    let kind = if request.dry_run {
        VoteKind::DryRun
    } else {
        VoteKind::Real
    };
    let mut vote_request = VoteRequest::new(vote(request.ballot)?, request.last.map(id_in));
    vote_request.leadership_transfer = request.transfer;
    Ok((vote_request, kind))
}

pub(crate) fn voted_out(response: &VoteResponse<TypeConfig>) -> pb::VoteReply {
    pb::VoteReply {
        ballot: Some(ballot(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(id_out),
    }
}

pub(crate) fn voted_in(reply: pb::VoteReply) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse::new(
        vote(reply.ballot)?,
        reply.last.map(id_in),
        reply.granted,
    ))
}
