//! The meta group: the members of the cluster, the placement of the shards, and the catalogue of
//! repositories.

mod catalogue;
mod edit;
mod membership;
mod naming;
mod starts;

use bytes::Bytes;
use henge_types::{
    ClusterRecord, GroupId, MetaCommand, NodeId, NodeRecord, OwnerName, RepoId, RepoPath,
    RepoRecord, RepoState, RequestId, ShardPlacement, StartRecord, UntoldRecord,
};

use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::{Action, Outcome};
use crate::requests::{self, RecordedRequest};
use crate::view::{View, decode};

/// Reads the meta group's state.
#[derive(Debug)]
pub struct MetaView<'v, V> {
    view: &'v V,
}

impl<V> Clone for MetaView<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for MetaView<'_, V> {}

impl<'v, V: View> MetaView<'v, V> {
    /// Reads from these pairs, which must be the meta group's.
    pub const fn new(view: &'v V) -> Self {
        Self { view }
    }

    /// The cluster; none before it was formed.
    pub fn cluster(self) -> Option<ClusterRecord> {
        let key = keys::cluster();
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// A member.
    pub fn node(self, node: NodeId) -> Option<NodeRecord> {
        let key = keys::node(node);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// All members, by number.
    pub fn nodes(self) -> impl Iterator<Item = NodeRecord> + use<'v, V> {
        let all = keys::nodes();
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| decode(key, bytes))
    }

    /// The last registered start of a member.
    pub fn start(self, node: NodeId) -> Option<StartRecord> {
        let key = keys::start(node);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The last registered start of every member that has one, by number.
    pub fn starts(self) -> impl Iterator<Item = (NodeId, StartRecord)> + use<'v, V> {
        let all = keys::starts();
        let pairs = self.view.range(&all, &all);
        pairs.filter_map(|(key, bytes)| {
            let node = keys::start_node(key)?;
            Some((node, decode(key, bytes)))
        })
    }

    /// The placement of a shard.
    pub fn placement(self, group: GroupId) -> Option<ShardPlacement> {
        let key = keys::placement(group);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The placements of all shards, by group.
    pub fn placements(self) -> impl Iterator<Item = ShardPlacement> + use<'v, V> {
        let all = keys::placements();
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| decode(key, bytes))
    }

    /// A repository in the catalogue, in any state: deleted ones are kept.
    pub fn repo(self, repo: &RepoId) -> Option<RepoRecord> {
        let key = keys::repo(repo);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The repository that holds the name now, reserved or ready. Upper and lower case are the
    /// same.
    pub fn repo_by_path(self, path: &RepoPath) -> Option<RepoRecord> {
        let key = keys::path(&path.key());
        let bytes = self.view.get(&key)?;
        Some(self.named(&key, &bytes))
    }

    /// The repository that held the name before and is still found under it, because no other one
    /// has taken it since.
    pub fn repo_by_former_path(self, path: &RepoPath) -> Option<RepoRecord> {
        let key = keys::former_path(&path.key());
        let bytes = self.view.get(&key)?;
        Some(self.named(&key, &bytes))
    }

    /// The direct forks of a repository that serve, by id; forks of its forks are not included.
    pub fn forks_of(self, repo: &RepoId) -> impl Iterator<Item = RepoRecord> + use<'v, V> {
        let all = keys::forks(repo);
        let marks = self.view.range(&all, &all);
        marks.map(move |(key, _)| {
            keys::fork_of(key)
                .and_then(|fork| self.repo(&fork))
                .unwrap_or_else(|| panic!("mark {key:?} without its repository: state damaged"))
        })
    }

    /// Up to `limit` repositories that hold a name (reserved or ready), of one owner or of all, in
    /// the order of [`RepoPath::key`]; the page begins after the key `after`.
    pub fn repos(
        self,
        owner: Option<&OwnerName>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<RepoRecord> {
        let prefix = owner.map_or_else(keys::paths, |owner| {
            keys::paths_of(&owner.as_str().to_ascii_lowercase())
        });
        let from = after.map_or_else(
            || prefix.clone(),
            |after| keys::after_path(&after.to_ascii_lowercase()),
        );
        let pairs = self.view.range(&from, &prefix);
        pairs
            .take(limit)
            .map(|(key, bytes)| self.named(key, bytes))
            .collect()
    }

    /// Repositories whose creation or deletion is incomplete: reserved or being deleted, by id.
    pub fn unfinished(self) -> impl Iterator<Item = RepoRecord> + use<'v, V> {
        let all = keys::all_unfinished();
        let marks = self.view.range(&all, &all);
        marks.map(move |(key, _)| {
            keys::unfinished_repo(key)
                .and_then(|repo| self.repo(&repo))
                .unwrap_or_else(|| panic!("mark {key:?} without its repository: state damaged"))
        })
    }

    /// Repositories whose settings are pending at their shard, by id, with the entry of the last
    /// change.
    pub fn untold(self) -> impl Iterator<Item = (RepoRecord, UntoldRecord)> + use<'v, V> {
        let all = keys::all_untold();
        let marks = self.view.range(&all, &all);
        marks.map(move |(key, bytes)| {
            let record = keys::untold_repo(key)
                .and_then(|repo| self.repo(&repo))
                .unwrap_or_else(|| panic!("mark {key:?} without its repository: state damaged"));
            (record, decode(key, bytes))
        })
    }

    /// The settings of a repository that are pending at its shard; `None` when the shard has
    /// acknowledged all of them.
    pub fn untold_of(self, repo: &RepoId) -> Option<UntoldRecord> {
        let key = keys::untold(repo);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The record of a request, while it is kept.
    pub fn request(self, id: &RequestId) -> Option<RecordedRequest> {
        requests::find(self.view, id)
    }

    /// The repository that a name's pair refers to.
    fn named(self, key: &Bytes, id: &Bytes) -> RepoRecord {
        <[u8; 16]>::try_from(id.as_ref())
            .ok()
            .and_then(|id| self.repo(&RepoId::from_bytes(id)))
            .unwrap_or_else(|| panic!("name {key:?} without its repository: state damaged"))
    }
}

/// The leader's pending actions, in the order in which it carries them out.
pub fn pending_actions(view: &impl View) -> Vec<Action> {
    let untold = MetaView::new(view).untold();
    let tell = untold.map(|(record, mark)| Action::TellShard {
        repo: record.repo,
        revision: mark.revision,
    });
    let unfinished = MetaView::new(view).unfinished();
    let finish = unfinished.filter_map(|record| match record.state {
        RepoState::Reserved => Some(Action::FinishCreate { repo: record.repo }),
        RepoState::Deleting => Some(Action::FinishDelete { repo: record.repo }),
        RepoState::Ready | RepoState::Deleted => None,
    });
    // A repository that took the name of another one waits until the other one's shard has
    // acknowledged that.
    tell.chain(finish).collect()
}

pub(crate) fn execute(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    command: &MetaCommand,
) -> Outcome {
    match command {
        MetaCommand::FormCluster {
            cluster,
            replication,
            nodes,
            placements,
        } => {
            let cluster = ClusterRecord {
                cluster: *cluster,
                shards: u32::try_from(placements.len()).unwrap_or(u32::MAX),
                replication: *replication,
                formed_at_ms: entry.now_ms,
                version: crate::version(changes.before()),
            };
            membership::form(changes, &cluster, nodes, placements)
        }
        MetaCommand::RegisterNode(node) => membership::register(changes, node),
        MetaCommand::ReserveRepo(create) => catalogue::reserve(changes, entry, create),
        MetaCommand::MarkRepoReady { repo } => catalogue::mark_ready(changes, repo),
        MetaCommand::AbandonRepo { repo } => catalogue::abandon(changes, repo),
        MetaCommand::DeleteRepo { repo } => catalogue::delete(changes, repo),
        MetaCommand::MarkRepoDropped { repo } => catalogue::mark_dropped(changes, repo),
        MetaCommand::EditRepo(edit) => edit::edit(changes, entry, edit),
        MetaCommand::MarkRepoTold { repo, revision } => edit::mark_told(changes, repo, *revision),
        MetaCommand::RegisterStart(register) => starts::register(changes, entry, register),
    }
}
