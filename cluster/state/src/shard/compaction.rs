//! Compaction: the manifest names one pack instead of several.
//!
//! The objects of a pack are not in the state. The proposer checks that the new pack holds all
//! objects of the old ones, and every replica checks it again before it removes a file.

use std::collections::BTreeSet;

use henge_types::limits::PACKS_REPLACED_MAX;
use henge_types::{Refusal, ReplacePacks, Reply};

use super::{ShardView, packs};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::{Effect, Outcome};
use crate::view::View;

/// Replaces packs by one, all or nothing. Refs and repositories are unchanged.
pub(super) fn replace_packs(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    replace: &ReplacePacks,
) -> Outcome {
    let before = ShardView::new(changes.before());
    let network = replace.network;
    if !is_well_formed(replace) {
        return refused(Refusal::Invalid);
    }
    if !before.network_is_live(&network) {
        return refused(Refusal::NoSuchNetwork { network });
    }
    let mut old = replace.old.iter();
    if let Some(pack) = old.find(|pack| before.pack(&network, pack).is_none()) {
        return refused(Refusal::NoSuchPack { pack: *pack });
    }
    for pack in &replace.old {
        changes.delete(keys::pack(&network, pack));
    }
    packs::name(changes, entry, &network, &replace.new);
    Outcome {
        effects: vec![Effect::ReplacePacks {
            network,
            old: replace.old.clone(),
            new: replace.new.clone(),
        }],
        ..Outcome::reply(Reply::Done)
    }
}

/// A pack that replaces others may hold more objects than a push may.
fn is_well_formed(replace: &ReplacePacks) -> bool {
    let old: BTreeSet<_> = replace.old.iter().collect();
    (1..=PACKS_REPLACED_MAX).contains(&replace.old.len())
        && old.len() == replace.old.len()
        && !old.contains(&replace.new.pack)
        && packs::inline_fits(&replace.new)
}

const fn refused(refusal: Refusal) -> Outcome {
    Outcome::reply(Reply::Refused(refusal))
}
