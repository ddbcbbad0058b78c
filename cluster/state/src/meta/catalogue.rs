//! The catalogue of repositories: their names, and the progress of creation and deletion.

use henge_types::command::VERSION_FORKS_AS_PARENT;
use henge_types::{CreateRepo, Refusal, Reply, RepoId, RepoRecord, RepoState};

use super::{MetaView, naming};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::version::version;
use crate::view::View;

/// Reserves a name and an id. The reply to a repeated reservation of the same repository is its
/// record.
pub(super) fn reserve(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    create: &CreateRepo,
) -> Outcome {
    let catalogue = MetaView::new(changes.before());
    if let Some(holder) = catalogue.repo_by_path(&create.path) {
        if holder.repo == create.repo {
            return Outcome::reply(Reply::Repo(holder));
        }
        return refused(Refusal::NameTaken {
            path: holder.path,
            by: holder.repo,
        });
    }
    if catalogue.repo(&create.repo).is_some() {
        return refused(Refusal::IdTaken { repo: create.repo });
    }
    // A fork shares the store of its parent, and a store has one object format.
    let source = create
        .forked_from
        .and_then(|source| catalogue.repo(&source));
    let fits = source
        .as_ref()
        .is_none_or(|source| source.object_format == create.object_format);
    if !fits || !create.default_branch.is_branch() {
        return refused(Refusal::Invalid);
    }
    let mut private = create.private;
    if let Some(parent) = create.forked_from {
        let found = source.filter(|found| found.state == RepoState::Ready);
        let found = found.filter(|found| found.network == create.network);
        let Some(found) = found else {
            return refused(Refusal::NoSuchRepo { repo: parent });
        };
        // The parent may have become private after the client that forks it had looked.
        private |= found.private && version(changes.before()) >= VERSION_FORKS_AS_PARENT;
    }
    let now_ms = entry.now_ms;
    let path_key = create.path.key();
    let record = RepoRecord {
        repo: create.repo,
        network: create.network,
        path: create.path.clone(),
        generation: naming::highest_generation(changes, &path_key).next(),
        state: RepoState::Reserved,
        private,
        description: create.description.clone(),
        default_branch: create.default_branch.clone(),
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
        topics: Vec::new(),
        archived: false,
        object_format: create.object_format,
        forked_from: create.forked_from,
        former_paths: Vec::new(),
    };
    naming::take(changes, entry, &record);
    put(changes, &record);
    Outcome::reply(Reply::Repo(record))
}

/// The shard has created it.
pub(super) fn mark_ready(changes: &mut Changes<'_, impl View>, repo: &RepoId) -> Outcome {
    with_repo(changes, repo, |changes, record| match record.state {
        RepoState::Reserved => {
            record.state = RepoState::Ready;
            put(changes, record);
            done()
        }
        RepoState::Ready => done(),
        RepoState::Deleting | RepoState::Deleted => wrong_state(record),
    })
}

/// Undoes a reservation. Only for a repository that its shard never created and never will. A
/// proposer without that knowledge deletes instead, which leaves a tombstone in the shard.
pub(super) fn abandon(changes: &mut Changes<'_, impl View>, repo: &RepoId) -> Outcome {
    with_repo(changes, repo, |changes, record| match record.state {
        RepoState::Reserved => {
            record.state = RepoState::Deleted;
            naming::free(changes, record);
            put(changes, record);
            done()
        }
        RepoState::Deleted => done(),
        RepoState::Ready | RepoState::Deleting => wrong_state(record),
    })
}

/// Sets the tombstone: from here on the repository is not found by name.
pub(super) fn delete(changes: &mut Changes<'_, impl View>, repo: &RepoId) -> Outcome {
    with_repo(changes, repo, |changes, record| match record.state {
        RepoState::Reserved | RepoState::Ready => {
            record.state = RepoState::Deleting;
            naming::free(changes, record);
            put(changes, record);
            done()
        }
        RepoState::Deleting | RepoState::Deleted => done(),
    })
}

/// The shard has dropped it.
pub(super) fn mark_dropped(changes: &mut Changes<'_, impl View>, repo: &RepoId) -> Outcome {
    with_repo(changes, repo, |changes, record| match record.state {
        RepoState::Deleting => {
            record.state = RepoState::Deleted;
            put(changes, record);
            done()
        }
        RepoState::Deleted => done(),
        RepoState::Reserved | RepoState::Ready => wrong_state(record),
    })
}

pub(super) fn with_repo<V: View>(
    changes: &mut Changes<'_, V>,
    repo: &RepoId,
    step: impl FnOnce(&mut Changes<'_, V>, &mut RepoRecord) -> Outcome,
) -> Outcome {
    match MetaView::new(changes.before()).repo(repo) {
        Some(mut record) => step(changes, &mut record),
        None => refused(Refusal::NoSuchRepo { repo: *repo }),
    }
}

/// Writes the record and its marks: the mark of an unfinished repository, and the mark of a fork
/// under its parent.
pub(super) fn put(changes: &mut Changes<'_, impl View>, record: &RepoRecord) {
    changes.put_record(keys::repo(&record.repo), record);
    if let Some(parent) = &record.forked_from {
        let mark = keys::fork(parent, &record.repo);
        let marked = changes.before().get(&mark).is_some();
        match record.state {
            RepoState::Ready if !marked => changes.put(mark, Vec::new()),
            RepoState::Deleting | RepoState::Deleted if marked => changes.delete(mark),
            RepoState::Reserved | RepoState::Ready | RepoState::Deleting | RepoState::Deleted => {}
        }
    }
    let mark = keys::unfinished(&record.repo);
    let marked = changes.before().get(&mark).is_some();
    match record.state {
        RepoState::Reserved | RepoState::Deleting if !marked => changes.put(mark, Vec::new()),
        RepoState::Ready | RepoState::Deleted if marked => changes.delete(mark),
        RepoState::Reserved | RepoState::Ready | RepoState::Deleting | RepoState::Deleted => {}
    }
}

pub(super) const fn done() -> Outcome {
    Outcome::reply(Reply::Done)
}

pub(super) const fn refused(refusal: Refusal) -> Outcome {
    Outcome::reply(Reply::Refused(refusal))
}

pub(super) const fn wrong_state(record: &RepoRecord) -> Outcome {
    refused(Refusal::WrongState { repo: record.repo })
}
