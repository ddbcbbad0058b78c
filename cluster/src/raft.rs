//! openraft's types as configured for Henge, and the stored form of a log entry.
//!
//! One leader per term (`leader_id_std`), node ids without addresses (the meta group has those),
//! and application data that stays encoded until it is applied: replication only copies bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
pub(crate) use henge_types::stored::number::REPLY;
use henge_types::stored::number::{LOG_ENTRY, LOG_ID, POSITION, VOTE};
use henge_types::stored::{self, DecodeError};
use henge_types::{LogIndex, Reply};
use openraft::entry::RaftEntry;
use openraft::impls::EmptyNode;
use openraft::{EntryPayload, Membership, StoredMembership};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// A proposal in its stored form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed(pub Bytes);

impl fmt::Debug for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposed({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The result of an applied entry for its proposer; none for blank and membership entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The index of the entry.
    pub index: LogIndex,
    /// The machine's reply.
    pub reply: Reply,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "applied at {}", self.index)
    }
}

openraft::declare_raft_types!(
    /// The types of every group.
    pub TypeConfig:
        D = Proposed,
        R = Applied,
        NodeId = u64,
        Node = EmptyNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Members = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

#[derive(Serialize, Deserialize)]
enum PayloadV1 {
    Blank,
    Normal(Bytes),
    Membership {
        configs: Vec<BTreeSet<u64>>,
        nodes: BTreeSet<u64>,
    },
}

#[derive(Serialize, Deserialize)]
struct EntryV1 {
    term: u64,
    index: u64,
    payload: PayloadV1,
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(
        openraft::vote::leader_id_std::CommittedLeaderId::new(term),
        index,
    )
}

pub(crate) fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

/// The stored form of `entry`.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let id = entry.log_id();
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadV1::Blank,
        EntryPayload::Normal(proposed) => PayloadV1::Normal(proposed.0.clone()),
        EntryPayload::Membership(membership) => PayloadV1::Membership {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(node, _)| *node).collect(),
        },
    };
    stored::encode(
        LOG_ENTRY,
        1,
        &EntryV1 {
            term: term_of(&id),
            index: id.index(),
            payload,
        },
    )
    .into()
}

/// Reads the stored form of an entry.
///
/// # Errors
/// When the bytes are not a stored entry.
pub(crate) fn decode_entry(bytes: &Bytes) -> Result<Entry, DecodeError> {
    let entry: EntryV1 = stored::decode_v1(LOG_ENTRY, bytes)?;
    let id = log_id(entry.term, entry.index);
    let payload = match entry.payload {
        PayloadV1::Blank => EntryPayload::Blank,
        PayloadV1::Normal(proposal) => EntryPayload::Normal(Proposed(proposal)),
        PayloadV1::Membership { configs, nodes } => {
            EntryPayload::Membership(membership(configs, nodes))
        }
    };
    Ok(Entry {
        log_id: id,
        payload,
    })
}

pub(crate) fn membership(
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeSet<u64>,
) -> Membership<u64, EmptyNode> {
    let nodes: BTreeMap<u64, EmptyNode> =
        nodes.into_iter().map(|node| (node, EmptyNode {})).collect();
    Membership::new_with_defaults(configs, nodes.into_keys())
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    stored::encode(
        VOTE,
        1,
        &(
            vote.leader_id.term,
            vote.leader_id.voted_for,
            vote.committed,
        ),
    )
    .into()
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let (term, node, committed): (u64, u64, bool) = stored::decode_v1(VOTE, bytes)?;
    Ok(if committed {
        Vote::new_committed(term, node)
    } else {
        Vote::new(term, node)
    })
}

pub(crate) fn encode_log_id(id: &LogId) -> Bytes {
    stored::encode(LOG_ID, 1, &(term_of(id), id.index())).into()
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<LogId, DecodeError> {
    let (term, index): (u64, u64) = stored::decode_v1(LOG_ID, bytes)?;
    Ok(log_id(term, index))
}

/// The last applied entry of a replica, and the membership at that entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// The last membership up to it.
    pub members: Members,
}

#[derive(Serialize, Deserialize)]
struct PositionV1 {
    applied: Option<(u64, u64)>,
    members_at: Option<(u64, u64)>,
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeSet<u64>,
}

impl Position {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let pair = |id: &LogId| (term_of(id), id.index());
        let membership = self.members.membership();
        let body = PositionV1 {
            applied: self.applied.as_ref().map(pair),
            members_at: self.members.log_id().as_ref().map(pair),
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(node, _)| *node).collect(),
        };
        stored::encode(POSITION, 1, &body).into()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the bytes are not a stored position.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body: PositionV1 = stored::decode_v1(POSITION, bytes)?;
        let id = |(term, index): (u64, u64)| log_id(term, index);
        Ok(Self {
            applied: body.applied.map(id),
            members: StoredMembership::new(
                body.members_at.map(id),
                membership(body.configs, body.nodes),
            ),
        })
    }

    /// The index of the last applied entry; 0 before the first.
    pub fn index(&self) -> u64 {
        self.applied.as_ref().map_or(0, LogId::index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../tests/golden/raft.hex");

    fn entry(payload: EntryPayload<Proposed, u64, EmptyNode>) -> Bytes {
        encode_entry(&Entry {
            log_id: log_id(2, 300),
            payload,
        })
    }

    fn lines() -> Vec<(&'static str, Bytes)> {
        let nodes = BTreeSet::from([1, 2, 3]);
        let members = membership(vec![nodes.clone()], nodes);
        let position = Position {
            applied: Some(log_id(2, 300)),
            members: StoredMembership::new(Some(log_id(1, 1)), members.clone()),
        };
        let proposed = Proposed(Bytes::from_static(&[0xab, 0xcd]));
        vec![
            ("log_entry", entry(EntryPayload::Blank)),
            ("log_entry", entry(EntryPayload::Normal(proposed))),
            ("log_entry", entry(EntryPayload::Membership(members))),
            ("vote", encode_vote(&Vote::new(3, 2))),
            ("vote", encode_vote(&Vote::new_committed(2, 1))),
            ("log_id", encode_log_id(&log_id(2, 300))),
            ("position", position.encode()),
            ("reply", stored::encode(REPLY, 1, &Reply::Done).into()),
        ]
    }

    /// These bytes are in logs and snapshots of running clusters: lines may only be added.
    #[test]
    fn the_bytes_of_replication_are_fixed() {
        let lines: String = lines()
            .iter()
            .map(|(name, bytes)| format!("{name} {}\n", hex::encode(bytes)))
            .collect();
        assert_eq!(lines, GOLDEN);
    }

    #[test]
    fn the_bytes_of_replication_are_read_as_they_were_written() {
        for (name, bytes) in lines() {
            let again = match name {
                "log_entry" => encode_entry(&decode_entry(&bytes).unwrap()),
                "vote" => encode_vote(&decode_vote(&bytes).unwrap()),
                "log_id" => encode_log_id(&decode_log_id(&bytes).unwrap()),
                "position" => Position::decode(&bytes).unwrap().encode(),
                _ => continue,
            };
            assert_eq!(again, bytes, "{name}");
        }
    }
}
