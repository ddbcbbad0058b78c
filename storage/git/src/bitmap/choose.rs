//! Selects the commits that get a bitmap: the tips, and enough others to keep every walk short.

use std::collections::BTreeSet;

use crate::bitmap::history::{History, Member};

/// Maximum number of tips with a bitmap, newest first.
const TIPS_MAX: usize = 1024;
/// Number of newest commits that get a bitmap each.
const DENSE_COMMITS: usize = 100;
/// Up to this age in commits, one in [`NEAR_STEP`] gets a bitmap. Beyond it, one in [`FAR_STEP`]
/// does.
const NEAR_COMMITS: usize = 20_000;
const NEAR_STEP: usize = 100;
const FAR_STEP: usize = 1000;

/// The selected commits, as numbers in `history`, ascending: ancestors precede their descendants.
/// Only complete commits are selected.
pub(super) fn choose(history: &History, tips: &[u32]) -> BTreeSet<u32> {
    let complete = |number: &u32| {
        let commit = history.commits.get(*number as usize);
        commit.is_some_and(|commit| commit.is_complete)
    };
    let newest_tips: BTreeSet<u32> = tips.iter().copied().filter(complete).collect();
    let mut chosen: BTreeSet<u32> = newest_tips.into_iter().rev().take(TIPS_MAX).collect();
    // Newer commits have higher numbers: parents come first, then older commits.
    let count = u32::try_from(history.commits.len()).unwrap_or(u32::MAX);
    let newest_first: Vec<u32> = (0..count).rev().filter(complete).collect();
    let is_merge = |number: &u32| {
        let commit: &Member = &history.commits[*number as usize];
        history.parents(commit).len() > 1
    };
    let mut start = 0;
    while start < newest_first.len() {
        let step = if start < DENSE_COMMITS {
            1
        } else if start < NEAR_COMMITS {
            NEAR_STEP
        } else {
            FAR_STEP
        };
        let end = (start + step).min(newest_first.len());
        let window = &newest_first[start..end];
        // A merge covers more of the history than a commit beside it.
        let merge = window.iter().copied().find(is_merge);
        if !window.iter().any(|number| chosen.contains(number)) {
            chosen.extend(merge.or_else(|| window.first().copied()));
        }
        start = end;
    }
    chosen
}
