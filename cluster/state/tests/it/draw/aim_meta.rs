//! Commands of the meta group from a proposer that has read the state: they name existing things.

use henge_state::{MetaView, State};
use henge_types::{CreateRepo, MetaCommand, RegisterStart, RepoId, RepoState};

use super::REPOS;
use crate::fixtures::repo_id;

type View<'v> = MetaView<'v, State>;

/// Replaces drawn values by those in the view.
pub(super) fn aim(command: &mut MetaCommand, view: View<'_>) {
    match command {
        MetaCommand::FormCluster { .. }
        | MetaCommand::RegisterNode(_)
        | MetaCommand::DeleteRepo { .. } => {}
        MetaCommand::ReserveRepo(create) => aim_fork(view, create),
        MetaCommand::MarkRepoReady { repo } | MetaCommand::AbandonRepo { repo } => {
            aim_repo(view, repo, RepoState::Reserved);
        }
        MetaCommand::MarkRepoDropped { repo } => aim_repo(view, repo, RepoState::Deleting),
        MetaCommand::EditRepo(edit) => aim_repo(view, &mut edit.repo, RepoState::Ready),
        MetaCommand::MarkRepoTold { repo, revision } => {
            if let Some((record, mark)) = view.untold().next() {
                *repo = record.repo;
                *revision = mark.revision;
            }
        }
        MetaCommand::RegisterStart(register) => aim_start(view, register),
    }
}

/// A repository in this state: the named one if possible.
fn aim_repo(view: View<'_>, repo: &mut RepoId, state: RepoState) {
    let is_wanted = |id: &RepoId| view.repo(id).is_some_and(|record| record.state == state);
    let named = [*repo].into_iter();
    let mut candidates = named.chain(REPOS.map(repo_id));
    if let Some(found) = candidates.find(is_wanted) {
        *repo = found;
    }
}

/// A fork of a repository that serves, in its network and with its hash.
fn aim_fork(view: View<'_>, create: &mut CreateRepo) {
    let Some(parent) = &mut create.forked_from else {
        return;
    };
    aim_repo(view, parent, RepoState::Ready);
    if let Some(record) = view.repo(parent) {
        create.network = record.network;
        create.object_format = record.object_format;
    }
}

/// A start of a member whose directory knows the registered one.
fn aim_start(view: View<'_>, register: &mut RegisterStart) {
    if let Some(member) = view.node(register.node) {
        register.incarnation = member.incarnation;
    }
    if let Some(record) = view.start(register.node) {
        register.claim.last = Some(record.registered);
    }
}
