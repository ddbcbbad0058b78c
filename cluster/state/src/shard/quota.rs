//! What a repository may hold: refs of its own, and bytes of packs that it shares with its network.
//!
//! The leader looks before a pack is stored, to spare it the work. Two pushes that both had room when they were looked at
//! need not both have it when they are applied, so apply counts again.

use henge_types::{RefRefusal, RefVerdict, ShardRepo, UpdateRefs};

use super::ShardView;
use crate::view::View;

/// Refuses new refs beyond those that the repository may hold, in the order of the push, and every new value where the
/// packs are too much. What the push deletes makes no room.
///
/// Costs a look at all refs or packs where there is a limit and the push may exceed it, and nothing elsewhere.
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
    // A pack that the manifest names already takes no more room.
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

/// Whether the packs of a push are refused: what it deletes may be taken all the same.
pub(super) fn refuses_packs(verdicts: &[RefVerdict]) -> bool {
    verdicts
        .iter()
        .any(|verdict| matches!(verdict.result, Err(RefRefusal::PacksFull { .. })))
}
