//! Commands: what is proposed to a group. Numbered, never reused; an unknown number stops the group.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, Generation, LogIndex, NetworkId, RepoId, RequestId};
use crate::names::{RefName, RepoPath};
use crate::object::{ObjectId, PackId};
use crate::records::{NodeRecord, ShardPlacement};
use crate::stored::{self, DecodeError, number};

/// The release level this build understands; a [`Command::VersionBarrier`] above it stops the group.
pub const VERSION_KNOWN: u32 = 2;
/// The release level from which [`ShardCommand::ReplacePacks`] is understood.
pub const VERSION_REPLACE_PACKS: u32 = 2;

/// A command as it rides in a log entry, with what `apply` may know of the world outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who asked for it; none for what a leader proposes by itself.
    pub request: Option<RequestBinding>,
    /// The proposer's clock: the only time that `apply` sees.
    pub proposed_at_ms: u64,
    /// The only chance that `apply` sees.
    pub seed: u64,
    /// What to do.
    pub command: Command,
}

/// Binds a request id to who made it and what it asked: the same id with other content is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestBinding {
    /// The id.
    pub id: RequestId,
    /// The principal's name.
    pub principal: String,
    /// The repository it is about, where there is one.
    pub repo: Option<RepoId>,
    /// SHA-256 of the commands as the client sent them.
    pub digest: [u8; 32],
}

/// A command of either kind of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Every replica must understand this release level, or stop here instead of guessing. Number 1.
    VersionBarrier {
        /// The level.
        version: u32,
    },
    /// For the meta group.
    Meta(MetaCommand),
    /// For a shard.
    Shard(ShardCommand),
}

/// Commands of the meta group (numbers 16 to 63).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaCommand {
    /// The first entry of a cluster: who is in it and where the shards live. Number 16.
    FormCluster {
        /// The cluster's id.
        cluster: ClusterId,
        /// Replicas per group.
        replication: u32,
        /// The initial members.
        nodes: Vec<NodeRecord>,
        /// One placement per shard, groups 1..=S in order.
        placements: Vec<ShardPlacement>,
    },
    /// A member says where it is reached now. Number 17.
    RegisterNode(NodeRecord),
    /// Takes a name and an id. Number 18.
    ReserveRepo(CreateRepo),
    /// The shard has made it. Number 19.
    MarkRepoReady {
        /// The repository.
        repo: RepoId,
    },
    /// Undoes a reservation whose shard never made it. Number 20.
    AbandonRepo {
        /// The repository.
        repo: RepoId,
    },
    /// The tombstone: from here on nobody finds it. Number 21.
    DeleteRepo {
        /// The repository.
        repo: RepoId,
    },
    /// The shard has dropped it. Number 22.
    MarkRepoDropped {
        /// The repository.
        repo: RepoId,
    },
}

/// What a repository starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRepo {
    /// Its id, drawn by the node that was asked.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// Its owner and name.
    pub path: RepoPath,
    /// What HEAD points at until a push says otherwise.
    pub default_branch: RefName,
    /// Whether only its owner sees it.
    pub private: bool,
    /// One line about it.
    pub description: String,
}

/// Commands of a shard (numbers 64 to 127).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardCommand {
    /// Makes the repository; again is answered `Done`. Number 64.
    CreateRepo {
        /// The repository.
        repo: RepoId,
        /// Its fork network.
        network: NetworkId,
        /// The life of its name.
        generation: Generation,
        /// What HEAD points at.
        head: RefName,
    },
    /// Drops it; again is answered `Done`. Number 65.
    DropRepo {
        /// The repository.
        repo: RepoId,
    },
    /// A push. Number 66.
    UpdateRefs(UpdateRefs),
    /// Points HEAD elsewhere. Number 67.
    SetHead {
        /// The repository.
        repo: RepoId,
        /// Must be the repository's.
        generation: Generation,
        /// The branch; it need not exist.
        head: RefName,
    },
    /// Compaction: one pack instead of several. Number 68; needs release level [`VERSION_REPLACE_PACKS`].
    ReplacePacks(ReplacePacks),
}

/// Packs of a network's manifest and the one that holds all their objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacePacks {
    /// Whose manifest.
    pub network: NetworkId,
    /// The packs that go. Every one must be in the manifest, and none twice.
    pub old: Vec<PackId>,
    /// The pack that comes. It is none of those that go.
    pub new: PackRef,
}

/// One push: packs and ref updates, checked again by apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRefs {
    /// The repository.
    pub repo: RepoId,
    /// Must be the repository's: a push resolved before a delete is refused.
    pub generation: Generation,
    /// The packs that the updates need. Named by the manifest if at least one update is accepted.
    pub packs: Vec<PackRef>,
    /// The updates, in the client's order. No ref twice.
    pub updates: Vec<RefUpdate>,
    /// All or nothing.
    pub atomic: bool,
    /// Who pushed.
    pub pusher: String,
    /// Push options, as sent.
    pub options: Vec<String>,
    /// The applied index at which the closure was checked.
    pub checked_at: LogIndex,
}

/// A pack that an entry names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRef {
    /// Its name.
    pub pack: PackId,
    /// Bytes of the completed pack file.
    pub pack_bytes: u64,
    /// Bytes of its index.
    pub idx_bytes: u64,
    /// Objects in it.
    pub objects: u32,
    /// The bytes themselves when small; else a quorum holds them durably already.
    pub inline: Option<InlinePack>,
}

/// A small pack that rides in the entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlinePack {
    /// The completed pack file.
    pub pack: Bytes,
    /// Its version 2 index.
    pub idx: Bytes,
}

impl std::fmt::Debug for InlinePack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "InlinePack({} + {} bytes)",
            self.pack.len(),
            self.idx.len()
        )
    }
}

/// What a ref's value must be for an update to be taken; mirrors gix's `PreviousValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreviousValue {
    /// Whatever it is, also nothing.
    Any,
    /// There must be none.
    MustNotExist,
    /// There must be one, whatever it is.
    MustExist,
    /// It must be this one.
    MustExistAndMatch(ObjectId),
}

/// One ref of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// The ref.
    pub name: RefName,
    /// What it must be now.
    pub expected: PreviousValue,
    /// What it becomes; `None` deletes it.
    pub new: Option<ObjectId>,
}

#[derive(Serialize, Deserialize)]
struct ProposalV1 {
    request: Option<RequestBinding>,
    proposed_at_ms: u64,
    seed: u64,
    command: Bytes,
}

impl Proposal {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let body = ProposalV1 {
            request: self.request.clone(),
            proposed_at_ms: self.proposed_at_ms,
            seed: self.seed,
            command: self.command.encode().into(),
        };
        stored::encode(number::PROPOSAL, 1, &body)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is broken or holds a command this release does not know: the group must stop, not skip it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body: ProposalV1 = stored::decode_v1(number::PROPOSAL, bytes)?;
        Ok(Self {
            request: body.request,
            proposed_at_ms: body.proposed_at_ms,
            seed: body.seed,
            command: Command::decode(&body.command)?,
        })
    }
}

const VERSION_BARRIER: u16 = 1;
const META: std::ops::RangeInclusive<u16> = 16..=63;
const SHARD: std::ops::RangeInclusive<u16> = 64..=127;

impl Command {
    /// Its number, for logs and metrics.
    pub const fn number(&self) -> u16 {
        match self {
            Self::VersionBarrier { .. } => VERSION_BARRIER,
            Self::Meta(command) => command.number(),
            Self::Shard(command) => command.number(),
        }
    }

    /// Its name, for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VersionBarrier { .. } => "version_barrier",
            Self::Meta(command) => command.name(),
            Self::Shard(command) => command.name(),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::VersionBarrier { version } => stored::encode(VERSION_BARRIER, 1, version),
            Self::Meta(command) => command.encode(),
            Self::Shard(command) => command.encode(),
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the number or version is unknown or the body is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (number, version, body) = stored::open(bytes)?;
        if version != 1 {
            return Err(DecodeError::Version {
                number,
                version,
                known: 1,
            });
        }
        if number == VERSION_BARRIER {
            return stored::body(number, version, body)
                .map(|version| Self::VersionBarrier { version });
        }
        if META.contains(&number) {
            return MetaCommand::decode(number, version, body).map(Self::Meta);
        }
        if SHARD.contains(&number) {
            return ShardCommand::decode(number, version, body).map(Self::Shard);
        }
        Err(DecodeError::Number {
            expected: VERSION_BARRIER,
            found: number,
        })
    }
}

impl MetaCommand {
    const fn number(&self) -> u16 {
        match self {
            Self::FormCluster { .. } => 16,
            Self::RegisterNode(_) => 17,
            Self::ReserveRepo(_) => 18,
            Self::MarkRepoReady { .. } => 19,
            Self::AbandonRepo { .. } => 20,
            Self::DeleteRepo { .. } => 21,
            Self::MarkRepoDropped { .. } => 22,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::FormCluster { .. } => "form_cluster",
            Self::RegisterNode(_) => "register_node",
            Self::ReserveRepo(_) => "reserve_repo",
            Self::MarkRepoReady { .. } => "mark_repo_ready",
            Self::AbandonRepo { .. } => "abandon_repo",
            Self::DeleteRepo { .. } => "delete_repo",
            Self::MarkRepoDropped { .. } => "mark_repo_dropped",
        }
    }

    fn encode(&self) -> Vec<u8> {
        let number = self.number();
        match self {
            Self::FormCluster {
                cluster,
                replication,
                nodes,
                placements,
            } => stored::encode(number, 1, &(cluster, replication, nodes, placements)),
            Self::RegisterNode(node) => stored::encode(number, 1, node),
            Self::ReserveRepo(create) => stored::encode(number, 1, create),
            Self::MarkRepoReady { repo }
            | Self::AbandonRepo { repo }
            | Self::DeleteRepo { repo }
            | Self::MarkRepoDropped { repo } => stored::encode(number, 1, repo),
        }
    }

    fn decode(number: u16, version: u16, bytes: &[u8]) -> Result<Self, DecodeError> {
        match number {
            16 => stored::body(number, version, bytes).map(
                |(cluster, replication, nodes, placements)| Self::FormCluster {
                    cluster,
                    replication,
                    nodes,
                    placements,
                },
            ),
            17 => stored::body(number, version, bytes).map(Self::RegisterNode),
            18 => stored::body(number, version, bytes).map(Self::ReserveRepo),
            19 => stored::body(number, version, bytes).map(|repo| Self::MarkRepoReady { repo }),
            20 => stored::body(number, version, bytes).map(|repo| Self::AbandonRepo { repo }),
            21 => stored::body(number, version, bytes).map(|repo| Self::DeleteRepo { repo }),
            22 => stored::body(number, version, bytes).map(|repo| Self::MarkRepoDropped { repo }),
            _ => Err(DecodeError::Number {
                expected: *META.start(),
                found: number,
            }),
        }
    }
}

impl ShardCommand {
    const fn number(&self) -> u16 {
        match self {
            Self::CreateRepo { .. } => 64,
            Self::DropRepo { .. } => 65,
            Self::UpdateRefs(_) => 66,
            Self::SetHead { .. } => 67,
            Self::ReplacePacks(_) => 68,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::CreateRepo { .. } => "create_repo",
            Self::DropRepo { .. } => "drop_repo",
            Self::UpdateRefs(_) => "update_refs",
            Self::SetHead { .. } => "set_head",
            Self::ReplacePacks(_) => "replace_packs",
        }
    }

    fn encode(&self) -> Vec<u8> {
        let number = self.number();
        match self {
            Self::CreateRepo {
                repo,
                network,
                generation,
                head,
            } => stored::encode(number, 1, &(repo, network, generation, head)),
            Self::DropRepo { repo } => stored::encode(number, 1, repo),
            Self::UpdateRefs(update) => stored::encode(number, 1, update),
            Self::SetHead {
                repo,
                generation,
                head,
            } => stored::encode(number, 1, &(repo, generation, head)),
            Self::ReplacePacks(replace) => stored::encode(number, 1, replace),
        }
    }

    fn decode(number: u16, version: u16, bytes: &[u8]) -> Result<Self, DecodeError> {
        match number {
            64 => stored::body(number, version, bytes).map(|(repo, network, generation, head)| {
                Self::CreateRepo {
                    repo,
                    network,
                    generation,
                    head,
                }
            }),
            65 => stored::body(number, version, bytes).map(|repo| Self::DropRepo { repo }),
            66 => stored::body(number, version, bytes).map(Self::UpdateRefs),
            67 => {
                stored::body(number, version, bytes).map(|(repo, generation, head)| Self::SetHead {
                    repo,
                    generation,
                    head,
                })
            }
            68 => stored::body(number, version, bytes).map(Self::ReplacePacks),
            _ => Err(DecodeError::Number {
                expected: *SHARD.start(),
                found: number,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_number_is_an_error_and_names_itself() {
        let bytes = stored::encode(9999, 1, &0_u8);
        assert_eq!(
            Command::decode(&bytes),
            Err(DecodeError::Number {
                expected: 1,
                found: 9999
            })
        );
    }

    #[test]
    fn a_newer_version_asks_for_an_upgrade() {
        let bytes = stored::encode(66, 2, &0_u8);
        assert_eq!(
            Command::decode(&bytes),
            Err(DecodeError::Version {
                number: 66,
                version: 2,
                known: 1
            })
        );
    }
}
