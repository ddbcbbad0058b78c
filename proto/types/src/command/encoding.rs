//! The stored form of commands: number, version, body.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Command, CreateRepo, MetaCommand, Proposal, RequestBinding, ShardCommand, mirrors};
use crate::ids::{NetworkId, RepoId};
use crate::names::{RefName, RepoPath};
use crate::object::ObjectFormat;
use crate::stored::{self, DecodeError, number};

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
const MOVE_TIME: u16 = 3;
const META: std::ops::RangeInclusive<u16> = 16..=63;
const SHARD: std::ops::RangeInclusive<u16> = 64..=127;

impl Command {
    /// Its number, for logs and metrics.
    pub const fn number(&self) -> u16 {
        match self {
            Self::VersionBarrier { .. } => VERSION_BARRIER,
            Self::MoveTime { .. } => MOVE_TIME,
            Self::Meta(command) => command.number(),
            Self::Shard(command) => command.number(),
        }
    }

    /// Its name, for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VersionBarrier { .. } => "version_barrier",
            Self::MoveTime { .. } => "move_time",
            Self::Meta(command) => command.name(),
            Self::Shard(command) => command.name(),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::VersionBarrier { version } => stored::encode(VERSION_BARRIER, 1, version),
            Self::MoveTime { clocks } => stored::encode(MOVE_TIME, 1, clocks),
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
        if number == MOVE_TIME {
            return stored::body(number, version, body).map(|clocks| Self::MoveTime { clocks });
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

/// The body of number 18, and the first part of number 23.
#[derive(Serialize, Deserialize)]
struct ReserveV1 {
    repo: RepoId,
    network: NetworkId,
    path: RepoPath,
    default_branch: RefName,
    private: bool,
    description: String,
}

impl From<&CreateRepo> for ReserveV1 {
    fn from(create: &CreateRepo) -> Self {
        Self {
            repo: create.repo,
            network: create.network,
            path: create.path.clone(),
            default_branch: create.default_branch.clone(),
            private: create.private,
            description: create.description.clone(),
        }
    }
}

impl ReserveV1 {
    fn with(self, object_format: ObjectFormat, forked_from: Option<RepoId>) -> CreateRepo {
        CreateRepo {
            repo: self.repo,
            network: self.network,
            path: self.path,
            default_branch: self.default_branch,
            private: self.private,
            description: self.description,
            object_format,
            forked_from,
        }
    }
}

impl MetaCommand {
    const fn number(&self) -> u16 {
        match self {
            Self::FormCluster { .. } => 16,
            Self::RegisterNode(_) => 17,
            Self::ReserveRepo(create) if create.is_of_level_1() => 18,
            Self::ReserveRepo(_) => 23,
            Self::MarkRepoReady { .. } => 19,
            Self::AbandonRepo { .. } => 20,
            Self::DeleteRepo { .. } => 21,
            Self::MarkRepoDropped { .. } => 22,
            Self::EditRepo(_) => 24,
            Self::MarkRepoTold { .. } => 25,
            Self::RegisterStart(_) => 38,
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
            Self::EditRepo(_) => "edit_repo",
            Self::MarkRepoTold { .. } => "mark_repo_told",
            Self::RegisterStart(_) => "register_start",
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
            Self::ReserveRepo(create) if create.is_of_level_1() => {
                stored::encode(number, 1, &ReserveV1::from(create))
            }
            Self::ReserveRepo(create) => {
                let more = (create.object_format, create.forked_from);
                stored::encode(number, 1, &(ReserveV1::from(create), more))
            }
            Self::MarkRepoReady { repo }
            | Self::AbandonRepo { repo }
            | Self::DeleteRepo { repo }
            | Self::MarkRepoDropped { repo } => stored::encode(number, 1, repo),
            Self::EditRepo(edit) => stored::encode(number, 1, edit),
            Self::MarkRepoTold { repo, revision } => stored::encode(number, 1, &(repo, revision)),
            Self::RegisterStart(register) => stored::encode(number, 1, register),
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
            18 => stored::body(number, version, bytes)
                .map(|first: ReserveV1| Self::ReserveRepo(first.with(ObjectFormat::Sha1, None))),
            19 => stored::body(number, version, bytes).map(|repo| Self::MarkRepoReady { repo }),
            20 => stored::body(number, version, bytes).map(|repo| Self::AbandonRepo { repo }),
            21 => stored::body(number, version, bytes).map(|repo| Self::DeleteRepo { repo }),
            22 => stored::body(number, version, bytes).map(|repo| Self::MarkRepoDropped { repo }),
            23 => stored::body(number, version, bytes).map(
                |(first, (object_format, forked_from)): (ReserveV1, _)| {
                    Self::ReserveRepo(first.with(object_format, forked_from))
                },
            ),
            24 => stored::body(number, version, bytes).map(Self::EditRepo),
            25 => stored::body(number, version, bytes)
                .map(|(repo, revision)| Self::MarkRepoTold { repo, revision }),
            38 => stored::body(number, version, bytes).map(Self::RegisterStart),
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
            Self::CreateRepo {
                object_format: ObjectFormat::Sha1,
                ..
            } => 64,
            Self::CreateRepo { .. } => 69,
            Self::DropRepo { .. } => 65,
            Self::UpdateRefs(_) => 66,
            Self::SetHead { .. } => 67,
            Self::ReplacePacks(_) => 68,
            Self::MarkUnreachable { .. } => 84,
            Self::PrunePacks(_) => 85,
            Self::ForkRepo(_) => 86,
            Self::SetLimits { .. } => 87,
            Self::ConfigureRepo(_) => 70,
            Self::ProtectRefs { .. } => 71,
            Self::UnprotectRefs { .. } => 72,
            Self::SetMirror(set) => set.number(),
            Self::ChangeMirror(change) => change.number(),
            Self::BeginMirror(_) => 78,
            Self::RecordMirror(record) => record.number(),
            Self::UpdateSignedRefs(_) => 88,
            Self::SetNonceSeed(_) => 89,
            Self::EditMirror(edit) => edit.number(),
            Self::SetPushRules { .. } => 93,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::CreateRepo { .. } => "create_repo",
            Self::DropRepo { .. } => "drop_repo",
            Self::UpdateRefs(_) => "update_refs",
            Self::SetHead { .. } => "set_head",
            Self::ReplacePacks(_) => "replace_packs",
            Self::MarkUnreachable { .. } => "mark_unreachable",
            Self::PrunePacks(_) => "prune_packs",
            Self::ForkRepo(_) => "fork_repo",
            Self::SetLimits { .. } => "set_limits",
            Self::ConfigureRepo(_) => "configure_repo",
            Self::ProtectRefs { .. } => "protect_refs",
            Self::UnprotectRefs { .. } => "unprotect_refs",
            Self::SetMirror(_) => "set_mirror",
            Self::ChangeMirror(_) => "change_mirror",
            Self::BeginMirror(_) => "begin_mirror",
            Self::RecordMirror(_) => "record_mirror",
            Self::UpdateSignedRefs(_) => "update_signed_refs",
            Self::SetNonceSeed(_) => "set_nonce_seed",
            Self::EditMirror(_) => "edit_mirror",
            Self::SetPushRules { .. } => "set_push_rules",
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
                object_format,
            } => match object_format {
                ObjectFormat::Sha1 => stored::encode(number, 1, &(repo, network, generation, head)),
                ObjectFormat::Sha256 => {
                    let body = (repo, network, generation, head, object_format);
                    stored::encode(number, 1, &body)
                }
            },
            Self::DropRepo { repo } => stored::encode(number, 1, repo),
            Self::UpdateRefs(update) => stored::encode(number, 1, update),
            Self::SetHead {
                repo,
                generation,
                head,
            } => stored::encode(number, 1, &(repo, generation, head)),
            Self::ReplacePacks(replace) => stored::encode(number, 1, replace),
            Self::MarkUnreachable {
                network,
                instead_of,
                found,
            } => stored::encode(number, 1, &(network, instead_of, found)),
            Self::PrunePacks(prune) => stored::encode(number, 1, prune),
            Self::ForkRepo(fork) => stored::encode(number, 1, fork),
            Self::SetLimits {
                repo,
                generation,
                limits,
            } => stored::encode(number, 1, &(repo, generation, limits)),
            Self::ConfigureRepo(settings) => stored::encode(number, 1, settings),
            Self::ProtectRefs {
                repo,
                generation,
                pattern,
            }
            | Self::UnprotectRefs {
                repo,
                generation,
                pattern,
            } => stored::encode(number, 1, &(repo, generation, pattern)),
            Self::SetMirror(set) => set.encode(),
            Self::ChangeMirror(change) => change.encode(),
            Self::BeginMirror(begin) => stored::encode(number, 1, begin),
            Self::RecordMirror(record) => record.encode(),
            Self::UpdateSignedRefs(signed) => stored::encode(number, 1, signed),
            Self::SetNonceSeed(seed) => stored::encode(number, 1, seed),
            Self::EditMirror(edit) => edit.encode(),
            Self::SetPushRules {
                repo,
                generation,
                rules,
            } => stored::encode(number, 1, &(repo, generation, rules)),
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
                    object_format: ObjectFormat::Sha1,
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
            69 => stored::body(number, version, bytes).map(
                |(repo, network, generation, head, object_format)| Self::CreateRepo {
                    repo,
                    network,
                    generation,
                    head,
                    object_format,
                },
            ),
            84 => stored::body(number, version, bytes).map(|(network, instead_of, found)| {
                Self::MarkUnreachable {
                    network,
                    instead_of,
                    found,
                }
            }),
            85 => stored::body(number, version, bytes).map(Self::PrunePacks),
            86 => stored::body(number, version, bytes).map(Self::ForkRepo),
            70 => stored::body(number, version, bytes).map(Self::ConfigureRepo),
            88 => stored::body(number, version, bytes).map(Self::UpdateSignedRefs),
            89 => stored::body(number, version, bytes).map(Self::SetNonceSeed),
            71 | 72 | 87 | 93 => decode_rules(number, version, bytes),
            mirror if mirrors::are(mirror) => mirrors::decode(mirror, version, bytes),
            _ => Err(unknown(number)),
        }
    }
}

/// What is asked of pushes to one repository.
fn decode_rules(number: u16, version: u16, bytes: &[u8]) -> Result<ShardCommand, DecodeError> {
    match number {
        71 => stored::body(number, version, bytes).map(|(repo, generation, pattern)| {
            ShardCommand::ProtectRefs {
                repo,
                generation,
                pattern,
            }
        }),
        72 => stored::body(number, version, bytes).map(|(repo, generation, pattern)| {
            ShardCommand::UnprotectRefs {
                repo,
                generation,
                pattern,
            }
        }),
        87 => stored::body(number, version, bytes).map(|(repo, generation, limits)| {
            ShardCommand::SetLimits {
                repo,
                generation,
                limits,
            }
        }),
        93 => stored::body(number, version, bytes).map(|(repo, generation, rules)| {
            ShardCommand::SetPushRules {
                repo,
                generation,
                rules,
            }
        }),
        _ => Err(unknown(number)),
    }
}

const fn unknown(number: u16) -> DecodeError {
    DecodeError::Number {
        expected: *SHARD.start(),
        found: number,
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
