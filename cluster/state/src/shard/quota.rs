//! The quota of a repository: refs of its own, and bytes of packs that it shares with its network.
//!
//! The leader checks before a pack is stored, to save the work. Two pushes that both fit at that
//! check need not both fit when they are applied, so apply counts again.

use henge_types::{RefRefusal, RefVerdict, ShardRepo, UpdateRefs};

use super::ShardView;
use crate::view::View;

/// Refuses new refs above the quota, in the order of the push, and every new value when the packs
/// exceed it. Deletions of the push do not free quota for it.
///
/// Reads all refs or packs if there is a quota and the push may exceed it; otherwise it costs
/// nothing.
pub(super) fn check(
    before: ShardView<'_, impl View>,
    repo: &ShardRepo,
    push: &UpdateRefs,
    verdicts: &mut [RefVerdict],
) {
    let limits = before.limits(&repo.repo);
    if let Some(max) = limits.refs_max {
        check_refs(before, max, push, verdicts);
    }
    if let Some(max) = limits.network_bytes_max {
        check_bytes(before, repo, max, push, verdicts);
    }
}

fn check_refs(
    before: ShardView<'_, impl View>,
    max: u64,
    push: &UpdateRefs,
    verdicts: &mut [RefVerdict],
) {
    let new = push
        .updates
        .iter()
        .zip(verdicts)
        .filter_map(|(update, verdict)| {
            let is_new = update.new.is_some() && verdict.old.is_none() && verdict.result.is_ok();
            is_new.then_some(verdict)
        });
    let mut new = new.peekable();
    if new.peek().is_none() {
        return;
    }
    let held = before.ref_texts(&push.repo, "").count();
    let held = u64::try_from(held).unwrap_or(u64::MAX);
    let room = usize::try_from(max.saturating_sub(held)).unwrap_or(usize::MAX);
    for verdict in new.skip(room) {
        verdict.result = Err(RefRefusal::TooManyRefs { max });
    }
}

fn check_bytes(
    before: ShardView<'_, impl View>,
    repo: &ShardRepo,
    max: u64,
    push: &UpdateRefs,
    verdicts: &mut [RefVerdict],
) {
    // A pack that is already in the manifest takes no more space.
    let more = push.packs.iter();
    let more = more.filter(|pack| before.pack(&repo.network, &pack.pack).is_none());
    let bytes = sum(more.map(|pack| (pack.pack_bytes, pack.idx_bytes)));
    if bytes == 0 {
        return;
    }
    let packs = before.packs(&repo.network);
    let used = sum(packs.map(|pack| (pack.pack_bytes, pack.idx_bytes)));
    if used.saturating_add(bytes) <= max {
        return;
    }
    let updates = push.updates.iter().zip(verdicts);
    for (_, verdict) in
        updates.filter(|(update, verdict)| update.new.is_some() && verdict.result.is_ok())
    {
        verdict.result = Err(RefRefusal::PacksFull { used, max, bytes });
    }
}

fn sum(files: impl Iterator<Item = (u64, u64)>) -> u64 {
    files.fold(0, |sum, (pack, idx)| {
        sum.saturating_add(pack).saturating_add(idx)
    })
}

/// Whether the packs of a push are refused: its deletions may still be accepted.
pub(super) fn refuses_packs(verdicts: &[RefVerdict]) -> bool {
    verdicts
        .iter()
        .any(|verdict| matches!(verdict.result, Err(RefRefusal::PacksFull { .. })))
}
