//! Former tips: values that refs lost a short while ago. A client that got one from another node's
//! advertisement may still request it.

use henge_types::limits::{FORMER_TIP_MS, FORMER_TIPS_EXPIRED_PER_APPLY, TIME_KEPT_MS};
use henge_types::{ObjectId, RepoId};

use crate::changes::Changes;
use crate::keys;
use crate::view::{View, decode_u64};

/// Records that a ref of the repository lost this value now. A clock that steps back changes
/// nothing.
pub(super) fn remember(
    changes: &mut Changes<'_, impl View>,
    repo: &RepoId,
    tip: &ObjectId,
    now_ms: u64,
) {
    let key = keys::former_tip(repo, tip);
    let known = changes.get(&key).map(|bytes| decode_u64(&key, &bytes));
    if let Some(known) = known {
        if known >= now_ms {
            return;
        }
        changes.delete(keys::former_tip_age(known, repo, tip));
    }
    changes.put(key, now_ms.to_be_bytes().to_vec());
    changes.put(keys::former_tip_age(now_ms, repo, tip), Vec::new());
}

/// Removes a few of the oldest, which have expired.
pub(super) fn expire(changes: &mut Changes<'_, impl View>, now_ms: u64) {
    let all = keys::former_tip_ages();
    let oldest = changes.before().range(&all, &all);
    for (age_key, _) in oldest.take(FORMER_TIPS_EXPIRED_PER_APPLY) {
        let (at_ms, repo, tip) = keys::former_tip_age_of(age_key)
            .unwrap_or_else(|| panic!("former tip with a broken key {age_key:?}: state damaged"));
        if now_ms.saturating_sub(at_ms) <= FORMER_TIP_MS {
            break;
        }
        changes.delete(age_key.clone());
        changes.delete(keys::former_tip(&repo, &tip));
    }
}

/// Sets the time of a few former tips to now if a clock that was ahead recorded them, so that they
/// expire as well. For groups that keep their own time.
pub(super) fn set_anew(changes: &mut Changes<'_, impl View>, now_ms: u64) {
    let all = keys::former_tip_ages();
    let later = now_ms
        .saturating_add(TIME_KEPT_MS)
        .saturating_add(1)
        .to_be_bytes();
    let ahead = changes.before().range(&[&all[..], &later].concat(), &all);
    for (age_key, _) in ahead.take(FORMER_TIPS_EXPIRED_PER_APPLY) {
        let (_, repo, tip) = keys::former_tip_age_of(age_key)
            .unwrap_or_else(|| panic!("former tip with a broken key {age_key:?}: state damaged"));
        changes.delete(age_key.clone());
        changes.put(keys::former_tip_age(now_ms, &repo, &tip), Vec::new());
        let at = now_ms.to_be_bytes().to_vec();
        changes.put(keys::former_tip(&repo, &tip), at);
    }
}

/// Removes all former tips of a repository.
pub(super) fn forget(changes: &mut Changes<'_, impl View>, repo: &RepoId) {
    let all = keys::former_tips(repo);
    for (key, bytes) in changes.before().range(&all, &all) {
        let at_ms = decode_u64(key, bytes);
        let (repo, tip) = keys::former_tip_of(key)
            .unwrap_or_else(|| panic!("former tip with a broken key {key:?}: state damaged"));
        changes.delete(keys::former_tip_age(at_ms, &repo, &tip));
        changes.delete(key.clone());
    }
}
