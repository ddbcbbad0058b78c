//! Forks: a repository with the refs of another one of its network at one entry. Both use the same
//! objects, so none are copied.

use henge_types::{ForkRepo, LogIndex, Refusal, Reply, ShardRepo, ShardRepoState};

use super::{ShardView, put};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::view::View;

/// Creates the fork. The reply to a repetition is `Done`; a dropped one is never created again.
/// Costs as many writes as the parent has refs.
pub(super) fn fork(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    fork: &ForkRepo,
) -> Outcome {
    let before = ShardView::new(changes.before());
    if let Some(known) = before.repo(&fork.repo) {
        let same = known.state == ShardRepoState::Live
            && known.network == fork.network
            && known.generation == fork.generation;
        return if same {
            Outcome::reply(Reply::Done)
        } else {
            refused(Refusal::WrongState { repo: fork.repo })
        };
    }
    let parent = before.repo(&fork.parent);
    let parent = parent.filter(|parent| parent.state == ShardRepoState::Live);
    let Some(parent) = parent.filter(|parent| parent.network == fork.network) else {
        return refused(Refusal::NoSuchRepo { repo: fork.parent });
    };
    for (name, value) in before.ref_texts(&fork.parent, "") {
        changes.put(keys::ref_text(&fork.repo, name), value.as_bytes().to_vec());
    }
    let limits = before.limits(&fork.parent);
    if limits != Default::default() {
        changes.put_record(keys::repo_limits(&fork.repo), &limits);
    }
    let rules = before.push_rules(&fork.parent);
    if rules != Default::default() {
        changes.put_record(keys::push_rules(&fork.repo), &rules);
    }
    changes.put(keys::network_repo(&fork.network, &fork.repo), Vec::new());
    changes.put(keys::shared(&fork.network), Vec::new());
    let made = ShardRepo {
        repo: fork.repo,
        generation: fork.generation,
        updated_at: entry.index,
        updated_at_ms: entry.now_ms,
        // The catalogue's settings of the parent do not apply to the fork.
        revision: LogIndex::new(0),
        archived: false,
        ..parent
    };
    put(changes, &made);
    Outcome::reply(Reply::Done)
}

const fn refused(refusal: Refusal) -> Outcome {
    Outcome::reply(Reply::Refused(refusal))
}
