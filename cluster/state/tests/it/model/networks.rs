//! A naive model of networks: manifests of packs, and marks for the removal of unreachable objects.

use std::collections::{BTreeMap, BTreeSet};

use henge_state::Effect;
use henge_types::{
    LogIndex, MarkFound, NetworkId, ObjectId, PackId, PackRecord, PackRef, PrunePacks, Refusal,
    ReplacePacks,
};

use super::Answer;
use super::group::ModelEntry;
use super::shard::ShardModel;

/// A network with a live repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ModelNetwork {
    pub(super) packs: BTreeMap<PackId, PackRecord>,
    pub(super) mark: Option<ModelMark>,
    pub(super) pruned_at: Option<LogIndex>,
    /// Whether a fork was made in it.
    pub(super) is_shared: bool,
}

/// A mark, and the tips that refs of the network lost since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelMark {
    pub(super) at: LogIndex,
    pub(super) at_ms: u64,
    pub(super) lost: BTreeSet<ObjectId>,
    pub(super) may_hold_unreached: bool,
}

impl ModelMark {
    const fn new(entry: ModelEntry, may_hold_unreached: bool) -> Self {
        Self {
            at: entry.index,
            at_ms: entry.now_ms,
            lost: BTreeSet::new(),
            may_hold_unreached,
        }
    }
}

impl ModelNetwork {
    /// Adds a pack to the manifest. An existing one keeps its record.
    pub(super) fn name(&mut self, pack: &PackRef, entry: ModelEntry) {
        let record = PackRecord {
            pack: pack.pack,
            pack_bytes: pack.pack_bytes,
            idx_bytes: pack.idx_bytes,
            objects: pack.objects,
            named_at: entry.index,
        };
        self.packs.entry(pack.pack).or_insert(record);
    }

    fn must_name(&self, packs: &[PackId]) -> Result<(), Refusal> {
        match packs.iter().find(|pack| !self.packs.contains_key(*pack)) {
            Some(pack) => Err(Refusal::NoSuchPack { pack: *pack }),
            None => Ok(()),
        }
    }

    fn exchange(&mut self, old: &[PackId], new: Option<&PackRef>, entry: ModelEntry) {
        self.packs.retain(|pack, _| !old.contains(pack));
        if let Some(new) = new {
            self.name(new, entry);
        }
    }
}

/// Whether an inline pack has the lengths that its entry states.
pub(super) fn is_whole(pack: &PackRef) -> bool {
    pack.inline.as_ref().is_none_or(|inline| {
        u64::try_from(inline.pack.len()) == Ok(pack.pack_bytes)
            && u64::try_from(inline.idx.len()) == Ok(pack.idx_bytes)
    })
}

/// Some packs without duplicates, and another one that replaces them.
fn is_exchange(old: &[PackId], new: Option<&PackRef>) -> bool {
    let distinct: BTreeSet<_> = old.iter().collect();
    let fits = |new: &PackRef| is_whole(new) && !old.contains(&new.pack);
    !old.is_empty() && distinct.len() == old.len() && new.is_none_or(fits)
}

impl ShardModel {
    pub(super) fn network_mut(&mut self, id: &NetworkId) -> Result<&mut ModelNetwork, Refusal> {
        let found = self.networks.get_mut(id);
        found.ok_or(Refusal::NoSuchNetwork { network: *id })
    }

    pub(super) fn replace_packs(&mut self, replace: &ReplacePacks, entry: ModelEntry) -> Answer {
        let effect = Effect::ReplacePacks {
            network: replace.network,
            old: replace.old.clone(),
            new: replace.new.clone(),
        };
        Answer::with(self.replace(replace, entry), effect)
    }

    fn replace(&mut self, replace: &ReplacePacks, entry: ModelEntry) -> Result<(), Refusal> {
        if !is_exchange(&replace.old, Some(&replace.new)) {
            return Err(Refusal::Invalid);
        }
        let network = self.network_mut(&replace.network)?;
        network.must_name(&replace.old)?;
        network.exchange(&replace.old, Some(&replace.new), entry);
        Ok(())
    }

    pub(super) fn prune_packs(&mut self, prune: &PrunePacks, entry: ModelEntry) -> Answer {
        let effect = Effect::PrunePacks {
            network: prune.network,
            old: prune.old.clone(),
            new: prune.new.clone(),
        };
        Answer::with(self.prune(prune, entry), effect)
    }

    fn prune(&mut self, prune: &PrunePacks, entry: ModelEntry) -> Result<(), Refusal> {
        if !is_exchange(&prune.old, prune.new.as_ref()) {
            return Err(Refusal::Invalid);
        }
        let network = self.network_mut(&prune.network)?;
        let mark = network.mark.as_ref().filter(|mark| {
            let age_ms = entry.now_ms.saturating_sub(mark.at_ms);
            mark.at == prune.marked_at && age_ms >= prune.grace_ms
        });
        let lost_tips = mark.map(|mark| !mark.lost.is_empty());
        let lost_tips = lost_tips.ok_or(Refusal::Invalid)?;
        network.must_name(&prune.old)?;
        // A ref that moved since the walk, or a repository that was added.
        let mut repos = self.repos_of(&prune.network).into_iter();
        let moved = repos.find(|repo| {
            let repo = self.repos.get(repo).and_then(Option::as_ref);
            repo.is_some_and(|repo| repo.updated_at > prune.walked_at)
        });
        if let Some(repo) = moved {
            return Err(Refusal::WrongState { repo });
        }
        let network = self.network_mut(&prune.network)?;
        network.exchange(&prune.old, prune.new.as_ref(), entry);
        network.pruned_at = Some(entry.index);
        network.mark = Some(ModelMark::new(entry, lost_tips));
        Ok(())
    }

    /// Sets the mark if there is none, or replaces the named one.
    pub(super) fn mark(
        &mut self,
        network: &NetworkId,
        (instead_of, found): (Option<LogIndex>, MarkFound),
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let network = self.network_mut(network)?;
        let may_hold_unreached = match &network.mark {
            None => true,
            Some(mark) if instead_of == Some(mark.at) => {
                let lost = u32::try_from(mark.lost.len()).expect("a few tips");
                match found {
                    MarkFound::Unknown => mark.may_hold_unreached || lost > 0,
                    MarkFound::LostTipsReached { tips } => mark.may_hold_unreached || lost > tips,
                    MarkFound::AllReached => lost > 0,
                }
            }
            Some(_) => return Ok(()),
        };
        network.mark = Some(ModelMark::new(entry, may_hold_unreached));
        Ok(())
    }

    /// The network may hold objects that neither a ref nor a recorded tip reaches.
    pub(super) fn suspect(&mut self, network: &NetworkId) {
        let network = self.networks.get_mut(network);
        if let Some(mark) = network.and_then(|network| network.mark.as_mut()) {
            mark.may_hold_unreached = true;
        }
    }

    /// Values of refs, values that refs lost since then, and values that refs lost since the mark.
    pub(super) fn kept_tips(&self, network: &NetworkId, since_ms: u64) -> Vec<ObjectId> {
        let mut tips = BTreeSet::new();
        let repos = self.repos.values().flatten();
        for repo in repos.filter(|repo| repo.network == *network) {
            tips.extend(repo.refs.values().copied());
            let former = repo.lost.iter().filter(|(_, at_ms)| **at_ms >= since_ms);
            tips.extend(former.map(|(tip, _)| *tip));
        }
        let network = self.networks.get(network);
        if let Some(mark) = network.and_then(|network| network.mark.as_ref()) {
            tips.extend(mark.lost.iter().copied());
        }
        tips.into_iter().collect()
    }
}
