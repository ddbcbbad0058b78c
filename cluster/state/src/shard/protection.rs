//! Protected refs: no push deletes them or removes history from them.
//!
//! The check whether a move keeps the history needs objects. So the leader makes it, with the
//! patterns at the index stated in its push. Apply checks that these patterns still hold; it checks
//! deletions by itself.

use henge_types::limits::REF_PROTECTIONS_MAX;
use henge_types::{
    Generation, PreviousValue, RefPattern, RefProtection, RefProtections, RefRefusal, RefUpdate,
    RefVerdict, Refusal, Reply, RepoId, UpdateRefs,
};

use super::ShardView;
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::view::View;

/// Adds a pattern.
pub(super) fn protect(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    (repo, generation): (&RepoId, Generation),
    pattern: &RefPattern,
) -> Outcome {
    let before = ShardView::new(changes.before());
    if let Err(refusal) = before.live_repo(repo, generation) {
        return Outcome::reply(Reply::Refused(refusal));
    }
    let mut known = before.protections(repo);
    let Err(at) = known
        .rules
        .binary_search_by(|rule| rule.pattern.cmp(pattern))
    else {
        return Outcome::reply(Reply::Refused(Refusal::ProtectionExists));
    };
    if known.rules.len() >= REF_PROTECTIONS_MAX {
        return Outcome::reply(Reply::Refused(Refusal::TooMany));
    }
    let rule = RefProtection {
        pattern: pattern.clone(),
        created_at_ms: entry.now_ms,
    };
    known.rules.insert(at, rule);
    put(changes, entry, repo, known)
}

/// Removes a pattern.
pub(super) fn unprotect(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    (repo, generation): (&RepoId, Generation),
    pattern: &RefPattern,
) -> Outcome {
    let before = ShardView::new(changes.before());
    if let Err(refusal) = before.live_repo(repo, generation) {
        return Outcome::reply(Reply::Refused(refusal));
    }
    let mut known = before.protections(repo);
    let Ok(at) = known
        .rules
        .binary_search_by(|rule| rule.pattern.cmp(pattern))
    else {
        return Outcome::reply(Reply::Refused(Refusal::NoSuchProtection));
    };
    known.rules.remove(at);
    put(changes, entry, repo, known)
}

fn put(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    repo: &RepoId,
    mut changed: RefProtections,
) -> Outcome {
    changed.changed_at = entry.index;
    changes.put_record(keys::protections(repo), &changed);
    Outcome::reply(Reply::Done)
}

/// The leader's check is out of date.
pub(super) struct Outdated;

/// Refuses deletions of protected refs among the otherwise accepted updates.
///
/// # Errors
/// When a protected ref would move and the leader has not checked that move, with these patterns
/// and from this value.
pub(super) fn check(
    before: ShardView<'_, impl View>,
    push: &UpdateRefs,
    verdicts: &mut [RefVerdict],
) -> Result<(), Outdated> {
    let rules = before.protections(&push.repo);
    if rules.rules.is_empty() {
        return Ok(());
    }
    let patterns = rules.patterns();
    for (update, verdict) in push.updates.iter().zip(verdicts) {
        let changes_it = verdict.old.is_some() && update.new != verdict.old;
        if verdict.result.is_err() || !changes_it {
            continue;
        }
        let Some(pattern) = patterns.first_match(&update.name) else {
            continue;
        };
        if update.new.is_none() {
            let pattern = pattern.clone();
            verdict.result = Err(RefRefusal::ProtectedFromDeletion { pattern });
        } else if push.checked_at < rules.changed_at || !names_its_value(update) {
            return Err(Outdated);
        }
    }
    Ok(())
}

/// Whether the update expects an exact value: then the leader checked the move from it.
const fn names_its_value(update: &RefUpdate) -> bool {
    matches!(update.expected, PreviousValue::MustExistAndMatch(_))
}
