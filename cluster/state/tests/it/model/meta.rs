//! A naive model of the meta group: the cluster, its nodes and their starts.

use std::collections::{BTreeMap, BTreeSet};

use henge_types::limits::STARTS_DRAWN_MAX;
use henge_types::{
    ClusterRecord, Command, Generation, GroupId, MetaCommand, NodeId, NodeRecord, Refusal,
    RegisterStart, RegisteredStart, RepoId, RepoRecord, RepoState, ShardPlacement, StartClaim,
    StartRecord, UntoldRecord,
};

use super::Answer;
use super::group::{GroupModel, ModelEntry};

#[derive(Debug, Clone)]
pub(crate) struct MetaModel {
    pub(super) group: GroupModel,
    pub(super) cluster: Option<ClusterRecord>,
    pub(super) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(super) placements: BTreeMap<GroupId, ShardPlacement>,
    pub(super) starts: BTreeMap<NodeId, StartRecord>,
    /// Including deleted ones.
    pub(super) repos: BTreeMap<RepoId, RepoRecord>,
    /// Lower-case name to its highest generation so far.
    pub(super) generations: BTreeMap<String, Generation>,
    pub(super) untold: BTreeMap<RepoId, UntoldRecord>,
}

impl MetaModel {
    pub(crate) const fn new() -> Self {
        Self {
            group: GroupModel::new(),
            cluster: None,
            nodes: BTreeMap::new(),
            placements: BTreeMap::new(),
            starts: BTreeMap::new(),
            repos: BTreeMap::new(),
            generations: BTreeMap::new(),
            untold: BTreeMap::new(),
        }
    }

    /// The next entry, at this clock of its proposer.
    pub(crate) fn run(&mut self, command: &Command, clock_ms: u64) -> Answer {
        let entry = self.group.enter(clock_ms);
        match command {
            Command::VersionBarrier { version } => {
                self.group.raise(*version, entry);
                if let Some(cluster) = &mut self.cluster {
                    cluster.version = cluster.version.max(*version);
                }
                Answer::done(Ok(()))
            }
            Command::MoveTime { clocks } => Answer::done(self.group.move_time(clocks)),
            Command::Meta(command) => self.execute(command, entry),
            Command::Shard(_) => Answer::done(Err(Refusal::Invalid)),
        }
    }

    fn execute(&mut self, command: &MetaCommand, entry: ModelEntry) -> Answer {
        match command {
            MetaCommand::FormCluster {
                cluster,
                replication,
                nodes,
                placements,
            } => {
                let formed = ClusterRecord {
                    cluster: *cluster,
                    shards: u32::try_from(placements.len()).expect("a few shards"),
                    replication: *replication,
                    formed_at_ms: entry.now_ms,
                    version: self.group.version,
                };
                Answer::done(self.form(formed, nodes, placements))
            }
            MetaCommand::RegisterNode(node) => Answer::done(self.register_node(node)),
            MetaCommand::ReserveRepo(create) => Answer::repo(self.reserve(create, entry)),
            MetaCommand::MarkRepoReady { repo } => {
                Answer::done(self.move_on(repo, |state| match state {
                    RepoState::Reserved | RepoState::Ready => Some(RepoState::Ready),
                    RepoState::Deleting | RepoState::Deleted => None,
                }))
            }
            MetaCommand::AbandonRepo { repo } => {
                Answer::done(self.move_on(repo, |state| match state {
                    RepoState::Reserved | RepoState::Deleted => Some(RepoState::Deleted),
                    RepoState::Ready | RepoState::Deleting => None,
                }))
            }
            MetaCommand::DeleteRepo { repo } => {
                Answer::done(self.move_on(repo, |state| match state {
                    RepoState::Reserved | RepoState::Ready | RepoState::Deleting => {
                        Some(RepoState::Deleting)
                    }
                    RepoState::Deleted => Some(RepoState::Deleted),
                }))
            }
            MetaCommand::MarkRepoDropped { repo } => {
                Answer::done(self.move_on(repo, |state| match state {
                    RepoState::Deleting | RepoState::Deleted => Some(RepoState::Deleted),
                    RepoState::Reserved | RepoState::Ready => None,
                }))
            }
            MetaCommand::EditRepo(edit) => Answer::repo(self.edit(edit, entry)),
            MetaCommand::MarkRepoTold { repo, revision } => {
                self.untold
                    .retain(|known, mark| known != repo || mark.revision > *revision);
                Answer::done(Ok(()))
            }
            MetaCommand::RegisterStart(register) => {
                Answer::done(self.register_start(register, entry))
            }
        }
    }

    fn form(
        &mut self,
        formed: ClusterRecord,
        nodes: &[NodeRecord],
        placements: &[ShardPlacement],
    ) -> Result<(), Refusal> {
        if self.cluster.is_some() {
            return Err(Refusal::AlreadyFormed);
        }
        if formed.replication == 0 || !is_whole(nodes, placements) {
            return Err(Refusal::Invalid);
        }
        self.cluster = Some(formed);
        let nodes = nodes.iter().map(|node| (node.node, node.clone()));
        self.nodes = nodes.collect();
        let placements = placements.iter();
        let placements = placements.map(|placement| (placement.group, placement.clone()));
        self.placements = placements.collect();
        Ok(())
    }

    fn register_node(&mut self, node: &NodeRecord) -> Result<(), Refusal> {
        let known = self.nodes.get_mut(&node.node);
        let known = known.filter(|known| known.incarnation == node.incarnation);
        *known.ok_or(Refusal::UnknownNode)? = node.clone();
        Ok(())
    }

    fn register_start(
        &mut self,
        register: &RegisterStart,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let RegisterStart {
            node,
            incarnation,
            claim,
        } = register;
        let member = self.nodes.get(node);
        if member.is_none_or(|member| member.incarnation != *incarnation) {
            return Err(Refusal::UnknownNode);
        }
        if claim.drawn.len() > STARTS_DRAWN_MAX {
            return Err(Refusal::Invalid);
        }
        if let Some(StartRecord { registered, .. }) = self.starts.get(node).copied() {
            if registered.start == claim.start {
                return Ok(());
            }
            if !knows(claim, registered) {
                return Err(Refusal::LaterStart { registered });
            }
        }
        let record = StartRecord {
            incarnation: *incarnation,
            registered: RegisteredStart {
                start: claim.start,
                index: entry.index,
            },
        };
        self.starts.insert(*node, record);
        Ok(())
    }
}

/// Whether a data directory drew the registered start, or was registered with it or after it.
fn knows(claim: &StartClaim, registered: RegisteredStart) -> bool {
    let registered_since = claim
        .last
        .is_some_and(|last| last.start == registered.start || last.index >= registered.index);
    registered_since || claim.drawn.contains(&registered.start)
}

/// Whether the shards are the groups from 1 on, each on some of the nodes.
fn is_whole(nodes: &[NodeRecord], placements: &[ShardPlacement]) -> bool {
    let members: BTreeSet<_> = nodes.iter().map(|node| node.node).collect();
    let lives: BTreeSet<_> = nodes.iter().map(|node| node.incarnation).collect();
    let groups = placements.iter().map(|placement| placement.group.get());
    let is_placed = |placement: &ShardPlacement| {
        let distinct: BTreeSet<_> = placement.replicas.iter().collect();
        !distinct.is_empty()
            && distinct.len() == placement.replicas.len()
            && distinct.into_iter().all(|node| members.contains(node))
    };
    !nodes.is_empty()
        && members.len() == nodes.len()
        && lives.len() == nodes.len()
        && !placements.is_empty()
        && groups
            .zip(1_u32..)
            .all(|(group, expected)| group == expected)
        && placements.iter().all(is_placed)
}
