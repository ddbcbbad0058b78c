//! A push: packs and ref updates, checked against the state when the entry is applied.

use std::collections::BTreeSet;

use henge_types::command::VERSION_REPOS;
use henge_types::limits::{PACK_OBJECTS_MAX, REF_UPDATES_MAX};
use henge_types::{
    NetworkId, ObjectFormat, ObjectId, PackRef, PreviousValue, RefName, RefRefusal, RefUpdate,
    RefVerdict, Refusal, Reply, ShardRepo, UpdateRefs,
};

use super::protection::{self, Outdated};
use super::{ShardView, former_tips, mirrors, name_conflicts, packs, pruning, put_updated, quota};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::{Effect, Outcome};
use crate::version::version;
use crate::view::View;

/// Accepts the updates that match the present refs; all or nothing for an atomic push.
pub(super) fn update_refs(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    push: &UpdateRefs,
) -> Outcome {
    let before = ShardView::new(changes.before());
    let repo = match before.live_repo(&push.repo, push.generation) {
        Ok(repo) => repo,
        Err(refusal) => return Outcome::reply(Reply::Refused(refusal)),
    };
    let is_named_well =
        names_objects_by(push, repo.object_format) || takes_any_format(changes.before(), &repo);
    if !is_named_well || !is_well_formed(push) {
        return Outcome::reply(Reply::Refused(Refusal::Invalid));
    }
    // The base objects of the push may have been pruned since the check.
    let pruned_at = before.pruned_at(&repo.network);
    if pruned_at.is_some_and(|pruned_at| push.checked_at < pruned_at) {
        return Outcome::reply(Reply::Recheck);
    }
    if repo.archived {
        let verdicts = archived(before, push);
        return Outcome::reply(Reply::RefsUpdated { verdicts });
    }
    if !mirrors::allow_push(before, &push.repo, &push.pusher) {
        return Outcome::reply(Reply::Refused(Refusal::WrongState { repo: push.repo }));
    }
    let Ok(verdicts) = judge(before, &repo, push) else {
        return Outcome::reply(Reply::Recheck);
    };
    let mut effects = Vec::new();
    if verdicts.iter().any(|verdict| verdict.result.is_ok()) {
        if !quota::refuses_packs(&verdicts) {
            effects = name_packs(changes, entry, &repo.network, &push.packs);
            if verdicts.iter().any(|verdict| verdict.result.is_err()) {
                pruning::suspect(changes, &repo.network);
            }
        }
        if entry.time_is_replicated {
            former_tips::set_anew(changes, entry.now_ms);
        }
        former_tips::expire(changes, entry.now_ms);
        take(changes, entry, repo, &push.updates, &verdicts);
    }
    Outcome {
        effects,
        ..Outcome::reply(Reply::RefsUpdated { verdicts })
    }
}

/// Whether the push keeps the limits and has no duplicates. Proposers check it too, so a failure
/// here is a proposer's defect; it must not stop the group.
fn is_well_formed(push: &UpdateRefs) -> bool {
    let names: BTreeSet<_> = push.updates.iter().map(|update| &update.name).collect();
    let packs: BTreeSet<_> = push.packs.iter().map(|pack| pack.pack).collect();
    (1..=REF_UPDATES_MAX).contains(&push.updates.len())
        && names.len() == push.updates.len()
        && packs.len() == push.packs.len()
        && push.packs.iter().all(pack_is_well_formed)
        && push.updates.iter().all(update_is_well_formed)
}

/// Whether every new value and every pack id uses the repository's hash.
fn names_objects_by(push: &UpdateRefs, format: ObjectFormat) -> bool {
    let values = push.updates.iter().filter_map(|update| update.new.as_ref());
    let packs = push.packs.iter().map(|pack| pack.pack.checksum());
    values.chain(packs).all(|id| id.format() == format)
}

/// Releases that know one hash only accept any id: until all replicas know both, they must judge
/// alike.
fn takes_any_format(before: &impl View, repo: &ShardRepo) -> bool {
    repo.object_format == ObjectFormat::Sha1 && version(before) < VERSION_REPOS
}

fn pack_is_well_formed(pack: &PackRef) -> bool {
    pack.objects <= PACK_OBJECTS_MAX && packs::inline_fits(pack)
}

/// The all-zero id means "no object" in git's protocol and is never a value.
fn update_is_well_formed(update: &RefUpdate) -> bool {
    update
        .new
        .is_none_or(|new| new.as_bytes().iter().any(|byte| *byte != 0))
}

/// Refuses every update.
fn archived(before: ShardView<'_, impl View>, push: &UpdateRefs) -> Vec<RefVerdict> {
    let refused = |update: &RefUpdate| RefVerdict {
        name: update.name.clone(),
        old: before.ref_value(&push.repo, &update.name),
        result: Err(RefRefusal::Archived),
    };
    push.updates.iter().map(refused).collect()
}

/// One verdict per update, in order.
fn judge(
    before: ShardView<'_, impl View>,
    repo: &ShardRepo,
    push: &UpdateRefs,
) -> Result<Vec<RefVerdict>, Outdated> {
    let mut verdicts: Vec<_> = push
        .updates
        .iter()
        .map(|update| {
            let old = before.ref_value(&push.repo, &update.name);
            RefVerdict {
                name: update.name.clone(),
                old,
                result: check_expected(update.expected, old),
            }
        })
        .collect();
    protection::check(before, push, &mut verdicts)?;
    name_conflicts::refuse(before, push, &mut verdicts);
    quota::check(before, repo, push, &mut verdicts);
    if push.atomic && verdicts.iter().any(|verdict| verdict.result.is_err()) {
        for verdict in &mut verdicts {
            if verdict.result.is_ok() {
                verdict.result = Err(RefRefusal::AtomicAborted);
            }
        }
    }
    Ok(verdicts)
}

const fn stale(current: Option<ObjectId>) -> Result<(), RefRefusal> {
    Err(RefRefusal::Stale { current })
}

fn check_expected(expected: PreviousValue, current: Option<ObjectId>) -> Result<(), RefRefusal> {
    match (expected, current) {
        (PreviousValue::Any, _)
        | (PreviousValue::MustNotExist, None)
        | (PreviousValue::MustExist, Some(_)) => Ok(()),
        (PreviousValue::MustNotExist, Some(current)) => Err(RefRefusal::Exists { current }),
        (PreviousValue::MustExist, None) => Err(RefRefusal::Missing),
        (PreviousValue::MustExistAndMatch(expected), Some(current)) if expected == current => {
            Ok(())
        }
        (PreviousValue::MustExistAndMatch(_), current) => stale(current),
    }
}

/// Adds the packs to the manifest. Every replica installs them, also those already in the manifest:
/// a file with that name may be damaged.
fn name_packs(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    network: &NetworkId,
    named: &[PackRef],
) -> Vec<Effect> {
    for pack in named {
        packs::name(changes, entry, network, pack);
    }
    let install = |pack: &PackRef| Effect::InstallPack {
        network: *network,
        pack: pack.clone(),
    };
    named.iter().map(install).collect()
}

/// Writes the accepted updates, the former tips that they cause, and the repository.
fn take(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    mut repo: ShardRepo,
    updates: &[RefUpdate],
    verdicts: &[RefVerdict],
) {
    let moved = updates.iter().zip(verdicts);
    let moved =
        moved.filter(|(update, verdict)| verdict.result.is_ok() && update.new != verdict.old);
    let mut changed = false;
    for (update, verdict) in moved {
        changed = true;
        let key = keys::reference(&repo.repo, &update.name);
        match update.new {
            Some(new) => changes.put(key, new.as_bytes().to_vec()),
            None => changes.delete(key),
        }
        if let Some(old) = &verdict.old {
            former_tips::remember(changes, &repo.repo, old, entry.now_ms);
            pruning::remember(changes, &repo.network, old);
        }
    }
    if !changed {
        return;
    }
    mirrors::refs_changed(changes, entry, &repo.repo);
    if let Some(head) = first_branch(changes, &repo, updates, verdicts) {
        repo.head = head;
    }
    put_updated(changes, repo, entry.index, entry.now_ms);
}

/// The new HEAD when the push brings the first branches and none of them is HEAD's.
fn first_branch(
    changes: &Changes<'_, impl View>,
    repo: &ShardRepo,
    updates: &[RefUpdate],
    verdicts: &[RefVerdict],
) -> Option<RefName> {
    if changes
        .get(&keys::reference(&repo.repo, &repo.head))
        .is_some()
    {
        return None;
    }
    // If no branch existed before, HEAD's branch did not exist either.
    let branches = keys::refs(&repo.repo, "refs/heads/");
    if changes
        .before()
        .range(&branches, &branches)
        .next()
        .is_some()
    {
        return None;
    }
    updates
        .iter()
        .zip(verdicts)
        .find(|(update, verdict)| {
            verdict.result.is_ok() && update.new.is_some() && update.name.is_branch()
        })
        .map(|(update, _)| update.name.clone())
}
