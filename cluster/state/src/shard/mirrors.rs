//! Mirrors: their settings, and the leases of their runs.

use henge_types::command::VERSION_MIRROR_REMOVALS;
use henge_types::limits::{MIRROR_LEASE_MS_MAX, MIRROR_REASON_BYTES_MAX, MIRRORS_MAX};
use henge_types::{
    BeginMirror, ChangeMirror, EditMirror, LogIndex, Mirror, MirrorChange, MirrorId, MirrorKind,
    MirrorLast, MirrorOutcome, MirrorPusher, MirrorRemoval, MirrorRemovalRecord, MirrorRun,
    MirrorWord, RecordMirror, Refusal, Reply, RepoId, SecretEdit, SetMirror,
};

use super::ShardView;
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::version::version;
use crate::view::View;

/// The backoff after a first failure, milliseconds; it doubles, up to the interval.
const BACKOFF_MS_MIN: u64 = 60_000;
/// How often it doubles.
const DOUBLINGS_MAX: u32 = 20;

/// Creates a mirror, due at once, or changes its settings. A repository follows at most one other.
pub(super) fn set(changes: &mut Changes<'_, impl View>, entry: &Entry, set: &SetMirror) -> Outcome {
    let before = ShardView::new(changes.before());
    if let Err(refusal) = before.live_repo(&set.repo, set.generation) {
        return refused(refusal);
    }
    if !set.settings.is_well_formed() {
        return refused(Refusal::Invalid);
    }
    let known = before.mirror(&set.repo, &set.mirror);
    let others = before.mirrors_of(&set.repo);
    let others: Vec<_> = others.filter(|other| other.id != set.mirror).collect();
    let second_source = set.settings.kind == MirrorKind::Pull
        && others
            .iter()
            .any(|other| other.settings.kind == MirrorKind::Pull);
    if second_source || others.len() >= MIRRORS_MAX {
        return wrong_state(&set.repo);
    }
    let mirror = match known {
        // A run in progress uses its old settings; the next one uses these.
        Some(known) => Mirror {
            settings: set.settings.clone(),
            next_due_ms: match known.run {
                Some(_) => known.next_due_ms,
                None => known.next_due_ms.min(entry.now_ms),
            },
            ..known
        },
        None => Mirror {
            id: set.mirror,
            repo: set.repo,
            settings: set.settings.clone(),
            made_ms: entry.now_ms,
            next_due_ms: entry.now_ms,
            fence: entry.index,
            run: None,
            failures: 0,
            last: None,
        },
    };
    put(changes, &mirror);
    put_removal(changes, entry, &mirror, set.removal);
    Outcome::reply(Reply::Done)
}

/// Changes the settings of a mirror, and makes it due: a mirror that works as intended is rarely
/// edited.
pub(super) fn edit(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    edit: &EditMirror,
) -> Outcome {
    let before = ShardView::new(changes.before());
    if let Err(refusal) = before.live_repo(&edit.repo, edit.generation) {
        return refused(refusal);
    }
    let Some(mut mirror) = before.mirror(&edit.repo, &edit.mirror) else {
        return wrong_state(&edit.repo);
    };
    let removal = removal_of_edit(changes, &mirror, edit);
    let settings = &mut mirror.settings;
    match (&edit.url, &edit.secret) {
        (Some(_), SecretEdit::Keep) => return refused(Refusal::Invalid),
        (None, SecretEdit::Keep) => {}
        (_, SecretEdit::Set(secret)) => settings.secret = Some(secret.clone()),
        (_, SecretEdit::Remove) => settings.secret = None,
    }
    settings.url = edit.url.clone().unwrap_or_else(|| settings.url.clone());
    settings.interval_ms = edit.interval_ms.unwrap_or(settings.interval_ms);
    settings.on_push = edit.on_push.unwrap_or(settings.on_push);
    if !settings.is_well_formed() {
        return refused(Refusal::Invalid);
    }
    // A run in progress uses its old settings; the next one uses these.
    if mirror.run.is_none() {
        mirror.failures = 0;
        mirror.next_due_ms = mirror.next_due_ms.min(entry.now_ms);
    }
    put(changes, &mirror);
    put_removal(changes, entry, &mirror, removal);
    Outcome::reply(Reply::Done)
}

/// A ref of the repository changed: mirrors that follow every push are due. A failed one keeps its
/// backoff. A running one is due when its run has ended.
pub(super) fn refs_changed(changes: &mut Changes<'_, impl View>, entry: &Entry, repo: &RepoId) {
    let mirrors = ShardView::new(changes.before()).mirrors_of(repo);
    let late = mirrors.filter(|mirror| {
        mirror.settings.on_push
            && mirror.run.is_none()
            && mirror.failures == 0
            && mirror.next_due_ms > entry.now_ms
    });
    for mut mirror in late {
        mirror.next_due_ms = entry.now_ms;
        put(changes, &mirror);
    }
}

/// Removes a mirror, or makes it due now.
pub(super) fn change(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    change: &ChangeMirror,
) -> Outcome {
    let before = ShardView::new(changes.before());
    if let Err(refusal) = before.live_repo(&change.repo, change.generation) {
        return refused(refusal);
    }
    let Some(mut mirror) = before.mirror(&change.repo, &change.mirror) else {
        return wrong_state(&change.repo);
    };
    match change.change {
        MirrorChange::Remove => {
            let removal = before.mirror_removal(&change.repo, &change.mirror);
            changes.delete(keys::mirror(&change.repo, &change.mirror));
            if removal.is_some() {
                changes.delete(keys::mirror_removal(&change.repo, &change.mirror));
            }
            return Outcome::reply(Reply::Done);
        }
        MirrorChange::Due => {}
        MirrorChange::DueWhateverItRemoves => {
            put_removal(changes, entry, &mirror, Some(MirrorRemoval::Everything));
        }
    }
    if mirror.run.is_none() {
        mirror.next_due_ms = mirror.next_due_ms.min(entry.now_ms);
        put(changes, &mirror);
    }
    Outcome::reply(Reply::Done)
}

/// Claims a run of a mirror for the first requester. Another run is claimed only after the lease of
/// the first has expired.
pub(super) fn begin(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    begin: &BeginMirror,
) -> Outcome {
    let mirror = ShardView::new(changes.before()).mirror(&begin.repo, &begin.mirror);
    let now_ms = entry.now_ms;
    let is_due = |mirror: &Mirror| match entry.time_is_replicated {
        true => mirror.is_due_in_group(now_ms),
        false => mirror.is_due(now_ms),
    };
    let Some(mirror) = mirror.filter(|mirror| {
        mirror.next_due_ms == begin.scheduled_at_ms
            && is_due(mirror)
            && begin.lease_ms <= MIRROR_LEASE_MS_MAX
    }) else {
        return wrong_state(&begin.repo);
    };
    let run = MirrorRun {
        began_ms: now_ms,
        until_ms: now_ms.saturating_add(begin.lease_ms),
    };
    let begun = Mirror {
        fence: entry.index,
        run: Some(run),
        ..mirror
    };
    put(changes, &begun);
    Outcome::reply(Reply::Done)
}

/// A heartbeat or report of the run with the fence.
pub(super) fn record(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    record: &RecordMirror,
) -> Outcome {
    let mirror = ShardView::new(changes.before()).mirror(&record.repo, &record.mirror);
    let Some((mut mirror, mut run)) = mirror
        .filter(|mirror| mirror.fence == record.fence && record.word.is_well_formed())
        .and_then(|mirror| mirror.run.map(|run| (mirror, run)))
    else {
        return wrong_state(&record.repo);
    };
    let now_ms = entry.now_ms;
    if entry.time_is_replicated {
        set_anew(&mut mirror, &mut run, now_ms);
    }
    match &record.word {
        MirrorWord::Working { lease_ms } => {
            run.until_ms = run.until_ms.max(now_ms.saturating_add(*lease_ms));
            mirror.run = Some(run);
        }
        MirrorWord::Ended(outcome) => {
            end(&mut mirror, outcome, now_ms, entry.seed);
            let repo = ShardView::new(changes.before()).repo(&record.repo);
            let moved = repo.is_some_and(|repo| repo.updated_at > mirror.fence);
            if mirror.settings.on_push && mirror.failures == 0 && moved {
                mirror.next_due_ms = mirror.next_due_ms.min(now_ms);
            }
        }
        MirrorWord::CameThrough { since } => forget_removal(changes, &mirror, *since),
    }
    put(changes, &mirror);
    Outcome::reply(Reply::Done)
}

/// Replaces times that a wrong clock set by now: else the next run would be counted from them.
fn set_anew(mirror: &mut Mirror, run: &mut MirrorRun, now_ms: u64) {
    mirror.next_due_ms = mirror.next_due_ms.min(now_ms);
    if run.is_over_in_group(now_ms) {
        run.until_ms = run.until_ms.min(now_ms);
    }
}

fn end(mirror: &mut Mirror, outcome: &MirrorOutcome, now_ms: u64, seed: u64) {
    let (scheduled_at_ms, interval_ms) = (mirror.next_due_ms, mirror.settings.interval_ms);
    mirror.run = None;
    mirror.last = Some(MirrorLast {
        scheduled_at_ms,
        ended_ms: now_ms,
        outcome: shortened(outcome),
    });
    match outcome {
        MirrorOutcome::Done { .. } => {
            mirror.failures = 0;
            // Missed runs are not made up for.
            let missed = now_ms.saturating_sub(scheduled_at_ms) / interval_ms.max(1);
            let ahead = missed.saturating_add(1).saturating_mul(interval_ms);
            mirror.next_due_ms = scheduled_at_ms.saturating_add(ahead);
        }
        MirrorOutcome::Failed { .. } => {
            let doubled = BACKOFF_MS_MIN << mirror.failures.min(DOUBLINGS_MAX);
            let pause = doubled.min(interval_ms).max(2);
            mirror.failures = mirror.failures.saturating_add(1);
            // Between half and all of the backoff: mirrors of one recovered source must not run all
            // at once.
            let jitter = seed % (pause / 2);
            mirror.next_due_ms = now_ms.saturating_add(pause - jitter);
        }
    }
}

/// The stored form of an outcome.
fn shortened(outcome: &MirrorOutcome) -> MirrorOutcome {
    match outcome {
        MirrorOutcome::Failed { why } => {
            let mut end = why.len().min(MIRROR_REASON_BYTES_MAX);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            MirrorOutcome::Failed {
                why: why.get(..end).unwrap_or_default().to_owned(),
            }
        }
        MirrorOutcome::Done { .. } => outcome.clone(),
    }
}

/// Whether a push is accepted. A repository that follows another one accepts only pushes of the run
/// in progress. A run's push is accepted only while that run is in progress.
pub(super) fn allow_push(before: ShardView<'_, impl View>, repo: &RepoId, pusher: &str) -> bool {
    match MirrorPusher::parse(pusher) {
        Some(MirrorPusher { mirror, fence }) => is_running(before, repo, &mirror, fence),
        None => before.pull_mirror(repo).is_none(),
    }
}

fn is_running(
    before: ShardView<'_, impl View>,
    repo: &RepoId,
    mirror: &MirrorId,
    fence: LogIndex,
) -> bool {
    let mirror = before.mirror(repo, mirror);
    mirror.is_some_and(|mirror| mirror.fence == fence && mirror.run.is_some())
}

/// The refs that runs after an edit may remove; unchanged without a statement. If the edit moves
/// the address without a statement, runs may remove nothing: consent for another address does not
/// hold here.
fn removal_of_edit(
    changes: &Changes<'_, impl View>,
    mirror: &Mirror,
    edit: &EditMirror,
) -> Option<MirrorRemoval> {
    let moves = edit
        .url
        .as_ref()
        .is_some_and(|url| *url != mirror.settings.url);
    let is_told = version(changes.before()) >= VERSION_MIRROR_REMOVALS;
    match edit.removal {
        None if moves && is_told => Some(MirrorRemoval::Nothing),
        said => said,
    }
}

/// Sets the refs that the next runs may remove, if stated.
fn put_removal(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    mirror: &Mirror,
    removal: Option<MirrorRemoval>,
) {
    let Some(removal) = removal else {
        return;
    };
    let record = MirrorRemovalRecord {
        removal,
        since: entry.index,
    };
    changes.put_record(keys::mirror_removal(&mirror.repo, &mirror.id), &record);
}

/// Removes the permission of the entry at `since`, which the run has used. A later permission is
/// for the next run.
fn forget_removal(changes: &mut Changes<'_, impl View>, mirror: &Mirror, since: LogIndex) {
    let known = ShardView::new(changes.before()).mirror_removal(&mirror.repo, &mirror.id);
    if known.is_some_and(|known| known.since == since) {
        changes.delete(keys::mirror_removal(&mirror.repo, &mirror.id));
    }
}

fn put(changes: &mut Changes<'_, impl View>, mirror: &Mirror) {
    changes.put_record(keys::mirror(&mirror.repo, &mirror.id), mirror);
}

const fn wrong_state(repo: &RepoId) -> Outcome {
    refused(Refusal::WrongState { repo: *repo })
}

const fn refused(refusal: Refusal) -> Outcome {
    Outcome::reply(Reply::Refused(refusal))
}
