//! The removal of unreachable objects.
//!
//! A mark starts the record of the tips that refs lose. Objects reachable neither from a ref nor
//! from a tip lost since then have been unreachable since the mark. They may be left out of the
//! pack that replaces all others. The set of these objects is not in the state. The proposer walks
//! the refs of a state, the entry is refused when a ref moved since, and every replica walks again
//! before it removes a file.

use std::collections::BTreeSet;

use henge_types::limits::{LOST_TIPS_MAX, PACKS_REPLACED_MAX};
use henge_types::{
    LogIndex, MarkFound, NetworkId, ObjectId, PruneMark, PrunePacks, Refusal, Reply,
};

use super::lifecycle::delete_all;
use super::{ShardView, packs};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::{Effect, Outcome};
use crate::view::{View, decode};

/// Sets the mark, unless another mark than the named one is set.
pub(super) fn mark(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    network: &NetworkId,
    (instead_of, found): (Option<LogIndex>, MarkFound),
) -> Outcome {
    let before = ShardView::new(changes.before());
    if !before.network_is_live(network) {
        return refused(Refusal::NoSuchNetwork { network: *network });
    }
    match before.prune_mark(network) {
        None => begin(changes, entry, network, true),
        Some(known) if instead_of == Some(known.at) => {
            let may_hold_unreached = match found {
                MarkFound::Unknown => known.may_hold_unreached || lost_tips(&known),
                MarkFound::LostTipsReached { tips } => {
                    known.may_hold_unreached || known.is_full || known.lost_tips > tips
                }
                MarkFound::AllReached => lost_tips(&known),
            };
            begin(changes, entry, network, may_hold_unreached);
        }
        Some(_) => {}
    }
    Outcome::reply(Reply::Done)
}

/// Whether tips were lost since the mark, whose objects may be reachable from nothing else.
const fn lost_tips(mark: &PruneMark) -> bool {
    mark.is_full || mark.lost_tips > 0
}

fn begin(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    network: &NetworkId,
    may_hold_unreached: bool,
) {
    delete_all(changes, &keys::lost_tips(network));
    let mark = PruneMark {
        at: entry.index,
        at_ms: entry.now_ms,
        lost_tips: 0,
        is_full: false,
        may_hold_unreached,
    };
    put(changes, network, &mark);
}

/// Records that the network may hold objects that have been unreachable since the mark, if there is
/// one.
pub(super) fn suspect(changes: &mut Changes<'_, impl View>, network: &NetworkId) {
    let key = keys::prune_mark(network);
    let mark = changes.get(&key);
    let mark = mark.map(|bytes| decode::<PruneMark>(&key, &bytes));
    if let Some(mut mark) = mark.filter(|mark| !mark.may_hold_unreached) {
        mark.may_hold_unreached = true;
        put(changes, network, &mark);
    }
}

fn put(changes: &mut Changes<'_, impl View>, network: &NetworkId, mark: &PruneMark) {
    changes.put_record(keys::prune_mark(network), mark);
}

/// Records that a ref of the network lost this value, if there is a mark.
pub(super) fn remember(changes: &mut Changes<'_, impl View>, network: &NetworkId, tip: &ObjectId) {
    let key = keys::prune_mark(network);
    let Some(bytes) = changes.get(&key) else {
        return;
    };
    let mut mark: PruneMark = decode(&key, &bytes);
    let tip = keys::lost_tip(network, tip);
    if mark.is_full || changes.get(&tip).is_some() {
        return;
    }
    if mark.lost_tips >= LOST_TIPS_MAX {
        mark.is_full = true;
    } else {
        mark.lost_tips += 1;
        changes.put(tip, Vec::new());
    }
    put(changes, network, &mark);
}

/// Removes the pruning state when the network's last repository is gone.
pub(super) fn forget(changes: &mut Changes<'_, impl View>, network: &NetworkId) {
    let all = [
        keys::lost_tips(network),
        keys::prune_mark(network),
        keys::pruned_at(network),
        keys::shared(network),
    ];
    for prefix in all {
        delete_all(changes, &prefix);
    }
}

/// Replaces packs by one, or by none, all or nothing, and sets the next mark.
pub(super) fn prune_packs(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    prune: &PrunePacks,
) -> Outcome {
    let before = ShardView::new(changes.before());
    let network = prune.network;
    if !is_well_formed(prune) {
        return refused(Refusal::Invalid);
    }
    if !before.network_is_live(&network) {
        return refused(Refusal::NoSuchNetwork { network });
    }
    let mark = before.prune_mark(&network).filter(|mark| {
        let age_ms = entry.now_ms.saturating_sub(mark.at_ms);
        mark.at == prune.marked_at && !mark.is_full && age_ms >= prune.grace_ms
    });
    let Some(mark) = mark else {
        return refused(Refusal::Invalid);
    };
    let mut old = prune.old.iter();
    if let Some(pack) = old.find(|pack| before.pack(&network, pack).is_none()) {
        return refused(Refusal::NoSuchPack { pack: *pack });
    }
    // The walk covers all reachable objects only if no ref moved and no repository was added since.
    let mut repos = before.repos_of(&network);
    let moved = repos.find(|repo| {
        let repo = before.repo(repo);
        repo.is_none_or(|repo| repo.updated_at > prune.walked_at)
    });
    if let Some(repo) = moved {
        return refused(Refusal::WrongState { repo });
    }
    for pack in &prune.old {
        changes.delete(keys::pack(&network, pack));
    }
    if let Some(new) = &prune.new {
        packs::name(changes, entry, &network, new);
    }
    let at = entry.index.get().to_be_bytes().to_vec();
    changes.put(keys::pruned_at(&network), at);
    begin(changes, entry, &network, lost_tips(&mark));
    Outcome {
        effects: vec![Effect::PrunePacks {
            network,
            old: prune.old.clone(),
            new: prune.new.clone(),
        }],
        ..Outcome::reply(Reply::Done)
    }
}

fn is_well_formed(prune: &PrunePacks) -> bool {
    let old: BTreeSet<_> = prune.old.iter().collect();
    let fits = |new| packs::inline_fits(new) && !old.contains(&new.pack);
    (1..=PACKS_REPLACED_MAX).contains(&prune.old.len())
        && old.len() == prune.old.len()
        && prune.new.as_ref().is_none_or(fits)
}

const fn refused(refusal: Refusal) -> Outcome {
    Outcome::reply(Reply::Refused(refusal))
}
