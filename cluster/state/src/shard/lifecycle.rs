//! Creation and removal of a repository in its shard, and its HEAD.

use henge_types::{
    ConfigureRepo, Generation, LogIndex, ObjectFormat, PushRules, RefName, Refusal, Reply, RepoId,
    RepoLimits, ShardRepo, ShardRepoState,
};

use super::{ShardView, former_tips, pruning, put, put_updated};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::{Effect, Outcome};
use crate::view::View;

/// Creates a repository. The reply to a repetition is `Done`; a dropped one is never created again.
pub(super) fn create(changes: &mut Changes<'_, impl View>, made: &ShardRepo) -> Outcome {
    if let Some(known) = ShardView::new(changes.before()).repo(&made.repo) {
        let same = known.state == ShardRepoState::Live
            && known.network == made.network
            && known.generation == made.generation
            && known.object_format == made.object_format;
        return if same {
            Outcome::reply(Reply::Done)
        } else {
            refused(Refusal::WrongState { repo: made.repo })
        };
    }
    // Forks share one store, and a store has one object format.
    let sibling = ShardView::new(changes.before()).any_repo_of(&made.network);
    let fits = sibling.is_none_or(|sibling| sibling.object_format == made.object_format);
    if !fits || !made.head.is_branch() {
        return refused(Refusal::Invalid);
    }
    changes.put(keys::network_repo(&made.network, &made.repo), Vec::new());
    put(changes, made);
    Outcome::reply(Reply::Done)
}

/// Drops a repository: its refs, former tips and push certificates, and with its network's last
/// live repository the manifest.
///
/// One apply removes all of it, so it costs as many writes as the repository has refs and former
/// tips.
pub(super) fn drop_repo(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    id: &RepoId,
) -> Outcome {
    let Some(repo) = ShardView::new(changes.before()).repo(id) else {
        // A create may still be in flight: the tombstone stops it.
        put(changes, &unknown(entry, id));
        return Outcome::reply(Reply::Done);
    };
    if repo.state == ShardRepoState::Deleted {
        return Outcome::reply(Reply::Done);
    }
    let mark = keys::network_repo(&repo.network, id);
    let all = keys::network_repos(&repo.network);
    let mut live = changes.before().range(&all, &all);
    let last = live.all(|(key, _)| *key == mark);
    changes.delete(mark);
    delete_all(changes, &keys::refs(id, ""));
    delete_all(changes, &keys::mirrors_of(id));
    delete_all(changes, &keys::mirror_removals_of(id));
    delete_all(changes, &keys::push_certificates(id));
    former_tips::forget(changes, id);
    delete_all(changes, &keys::repo_limits(id));
    delete_all(changes, &keys::push_rules(id));
    delete_all(changes, &keys::protections(id));
    if last {
        pruning::forget(changes, &repo.network);
        delete_all(changes, &keys::packs(&repo.network));
    } else {
        pruning::suspect(changes, &repo.network);
    }
    let network = repo.network;
    let dropped = ShardRepo {
        state: ShardRepoState::Deleted,
        ..repo
    };
    put_updated(changes, dropped, entry.index, entry.now_ms);
    Outcome {
        effects: vec![Effect::DropRepo { network, repo: *id }],
        ..Outcome::reply(Reply::Done)
    }
}

/// Sets HEAD; the branch need not exist.
pub(super) fn set_head(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    repo: &RepoId,
    generation: Generation,
    head: &RefName,
) -> Outcome {
    let mut repo = match ShardView::new(changes.before()).live_repo(repo, generation) {
        Ok(repo) => repo,
        Err(refusal) => return refused(refusal),
    };
    if !head.is_branch() {
        return refused(Refusal::Invalid);
    }
    if repo.head != *head {
        repo.head = head.clone();
        put_updated(changes, repo, entry.index, entry.now_ms);
    }
    Outcome::reply(Reply::Done)
}

/// Sets the quota of the repository from here on. Its present contents stay, also above the quota.
pub(super) fn set_limits(
    changes: &mut Changes<'_, impl View>,
    repo: &RepoId,
    generation: Generation,
    limits: &RepoLimits,
) -> Outcome {
    if let Err(refusal) = ShardView::new(changes.before()).live_repo(repo, generation) {
        return refused(refusal);
    }
    if *limits == RepoLimits::default() {
        changes.delete(keys::repo_limits(repo));
    } else {
        changes.put_record(keys::repo_limits(repo), limits);
    }
    Outcome::reply(Reply::Done)
}

/// Sets the push rules from here on; default rules remove the record.
pub(super) fn set_push_rules(
    changes: &mut Changes<'_, impl View>,
    repo: &RepoId,
    generation: Generation,
    rules: PushRules,
) -> Outcome {
    if let Err(refusal) = ShardView::new(changes.before()).live_repo(repo, generation) {
        return refused(refusal);
    }
    if rules == PushRules::default() {
        changes.delete(keys::push_rules(repo));
    } else {
        changes.put_record(keys::push_rules(repo), &rules);
    }
    Outcome::reply(Reply::Done)
}

/// Takes over the catalogue's settings, unless the shard has later ones.
pub(super) fn configure(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    settings: &ConfigureRepo,
) -> Outcome {
    let known = ShardView::new(changes.before()).repo(&settings.repo);
    let known = known.filter(|known| known.state == ShardRepoState::Live);
    let Some(known) = known else {
        return refused(Refusal::NoSuchRepo {
            repo: settings.repo,
        });
    };
    if settings.head.as_ref().is_some_and(|head| !head.is_branch()) {
        return refused(Refusal::Invalid);
    }
    if settings.revision <= known.revision {
        return Outcome::reply(Reply::Done);
    }
    let moved = settings
        .head
        .as_ref()
        .is_some_and(|head| *head != known.head);
    let repo = ShardRepo {
        generation: known.generation.max(settings.generation),
        revision: settings.revision,
        archived: settings.archived,
        head: settings.head.clone().unwrap_or(known.head),
        ..known
    };
    if moved {
        put_updated(changes, repo, entry.index, entry.now_ms);
    } else {
        put(changes, &repo);
    }
    Outcome::reply(Reply::Done)
}

/// The tombstone of a repository that was never created here: only its id and its state are
/// meaningful. Generations of a name count from 1, so generation 0 belongs to none.
fn unknown(entry: &Entry, repo: &RepoId) -> ShardRepo {
    ShardRepo {
        repo: *repo,
        network: repo.root_network(),
        generation: Generation::new(0),
        state: ShardRepoState::Deleted,
        head: RefName::branch("main").expect("invariant: main is a valid branch name"),
        updated_at: entry.index,
        updated_at_ms: entry.now_ms,
        revision: LogIndex::new(0),
        archived: false,
        object_format: ObjectFormat::Sha1,
    }
}

pub(super) fn delete_all(changes: &mut Changes<'_, impl View>, prefix: &[u8]) {
    for (key, _) in changes.before().range(prefix, prefix) {
        changes.delete(key.clone());
    }
}

const fn refused(refusal: Refusal) -> Outcome {
    Outcome::reply(Reply::Refused(refusal))
}
