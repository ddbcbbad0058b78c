//! A naive model of mirrors: their settings, and the run of each.

use henge_types::command::VERSION_MIRROR_REMOVALS;
use henge_types::limits::{
    MIRROR_INTERVAL_MS_MAX, MIRROR_INTERVAL_MS_MIN, MIRROR_LEASE_MS_MAX, MIRROR_REASON_BYTES_MAX,
};
use henge_types::{
    BeginMirror, ChangeMirror, EditMirror, Generation, LogIndex, Mirror, MirrorChange, MirrorId,
    MirrorKind, MirrorLast, MirrorOutcome, MirrorPusher, MirrorRemoval, MirrorRemovalRecord,
    MirrorRun, MirrorSettings, MirrorWord, RecordMirror, Refusal, RepoId, SecretEdit, SetMirror,
};

use super::group::ModelEntry;
use super::shard::{ModelRepo, ShardModel};
use crate::fixtures::SEED;

/// A mirror, and the refs that its runs may remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelMirror {
    pub(super) mirror: Mirror,
    pub(super) removal: Option<MirrorRemovalRecord>,
}

impl ModelMirror {
    fn new(set: &SetMirror, entry: ModelEntry) -> Self {
        let mirror = Mirror {
            id: set.mirror,
            repo: set.repo,
            settings: set.settings.clone(),
            made_ms: entry.now_ms,
            next_due_ms: entry.now_ms,
            fence: entry.index,
            run: None,
            failures: 0,
            last: None,
        };
        Self {
            mirror,
            removal: None,
        }
    }

    /// Due now, unless it runs.
    fn make_due(&mut self, entry: ModelEntry) {
        if self.mirror.run.is_none() {
            self.mirror.next_due_ms = self.mirror.next_due_ms.min(entry.now_ms);
        }
    }

    fn allow(&mut self, removal: Option<MirrorRemoval>, entry: ModelEntry) {
        if let Some(removal) = removal {
            let since = entry.index;
            self.removal = Some(MirrorRemovalRecord { removal, since });
        }
    }

    fn end(&mut self, outcome: &MirrorOutcome, entry: ModelEntry) {
        let mirror = &mut self.mirror;
        let scheduled_at_ms = mirror.next_due_ms;
        let interval_ms = mirror.settings.interval_ms;
        mirror.run = None;
        mirror.last = Some(MirrorLast {
            scheduled_at_ms,
            ended_ms: entry.now_ms,
            outcome: shortened(outcome),
        });
        match outcome {
            // The first due time after now; missed runs are not made up for.
            MirrorOutcome::Done { .. } => {
                mirror.failures = 0;
                let firings = entry.now_ms.saturating_sub(scheduled_at_ms) / interval_ms + 1;
                let ahead_ms = firings.saturating_mul(interval_ms);
                mirror.next_due_ms = scheduled_at_ms.saturating_add(ahead_ms);
            }
            // A backoff of a minute that doubles with each failure, up to the interval. The jitter
            // subtracts up to half of it.
            MirrorOutcome::Failed { .. } => {
                let doubled = (0..mirror.failures.min(20)).fold(60_000_u64, |ms, _| 2 * ms);
                let pause_ms = doubled.min(interval_ms);
                mirror.failures += 1;
                let less_ms = SEED % (pause_ms / 2);
                mirror.next_due_ms = entry.now_ms.saturating_add(pause_ms - less_ms);
            }
        }
    }
}

/// The stored form of an outcome: a reason is cut at a whole character.
fn shortened(outcome: &MirrorOutcome) -> MirrorOutcome {
    let mut outcome = outcome.clone();
    if let MirrorOutcome::Failed { why } = &mut outcome {
        while why.len() > MIRROR_REASON_BYTES_MAX {
            why.pop();
        }
    }
    outcome
}

/// The drawn secrets are short.
fn is_well_formed(settings: &MirrorSettings) -> bool {
    let intervals = MIRROR_INTERVAL_MS_MIN..=MIRROR_INTERVAL_MS_MAX;
    let may_be_on_push = settings.kind == MirrorKind::Push;
    !settings.url.is_empty()
        && intervals.contains(&settings.interval_ms)
        && (may_be_on_push || !settings.on_push)
}

/// Whether a time has come. A group that keeps its own time also treats a time further ahead than
/// `ahead_ms_max` as come: a wrong clock set it.
const fn has_come(at_ms: u64, ahead_ms_max: u64, entry: ModelEntry) -> bool {
    entry.now_ms >= at_ms || (entry.time_is_replicated && at_ms - entry.now_ms > ahead_ms_max)
}

const fn lease_is_over(run: MirrorRun, entry: ModelEntry) -> bool {
    has_come(run.until_ms, MIRROR_LEASE_MS_MAX, entry)
}

impl ModelRepo {
    /// A run in progress pushes with its fence. A repository that follows another one accepts no
    /// other pushes.
    pub(super) fn takes_pushes_of(&self, pusher: &str) -> bool {
        let mut mirrors = self.mirrors.values().map(|known| &known.mirror);
        match MirrorPusher::parse(pusher) {
            Some(run) => mirrors.any(|mirror| {
                mirror.id == run.mirror && mirror.fence == run.fence && mirror.run.is_some()
            }),
            None => !mirrors.any(|mirror| mirror.settings.kind == MirrorKind::Pull),
        }
    }

    /// A ref has moved.
    pub(super) fn make_mirrors_due(&mut self, entry: ModelEntry) {
        for known in self.mirrors.values_mut() {
            if known.mirror.settings.on_push && known.mirror.failures == 0 {
                known.make_due(entry);
            }
        }
    }
}

impl ShardModel {
    fn mirror_mut(
        &mut self,
        (repo, generation): (RepoId, Generation),
        mirror: &MirrorId,
    ) -> Result<&mut ModelMirror, Refusal> {
        let found = self.live_mut(&repo, generation)?.mirrors.get_mut(mirror);
        found.ok_or(Refusal::WrongState { repo })
    }

    /// The mirror, and the last entry that moved a ref or HEAD of its repository.
    fn run_mut(
        &mut self,
        repo: RepoId,
        mirror: &MirrorId,
    ) -> Result<(&mut ModelMirror, LogIndex), Refusal> {
        let wrong = Refusal::WrongState { repo };
        let Some(repo) = self.repos.get_mut(&repo).and_then(Option::as_mut) else {
            return Err(wrong);
        };
        let updated_at = repo.updated_at;
        let found = repo.mirrors.get_mut(mirror).ok_or(wrong)?;
        Ok((found, updated_at))
    }

    pub(super) fn set_mirror(&mut self, set: &SetMirror, entry: ModelEntry) -> Result<(), Refusal> {
        let repo = self.live_mut(&set.repo, set.generation)?;
        if !is_well_formed(&set.settings) {
            return Err(Refusal::Invalid);
        }
        let follows = |settings: &MirrorSettings| settings.kind == MirrorKind::Pull;
        let mut others = repo.mirrors.values().map(|known| &known.mirror);
        let another_follows =
            others.any(|other| other.id != set.mirror && follows(&other.settings));
        if follows(&set.settings) && another_follows {
            return Err(Refusal::WrongState { repo: set.repo });
        }
        let known = repo.mirrors.entry(set.mirror);
        let known = known.or_insert_with(|| ModelMirror::new(set, entry));
        known.mirror.settings = set.settings.clone();
        known.make_due(entry);
        known.allow(set.removal, entry);
        Ok(())
    }

    pub(super) fn edit_mirror(
        &mut self,
        edit: &EditMirror,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let knows_removals = self.group.version >= VERSION_MIRROR_REMOVALS;
        let known = self.mirror_mut((edit.repo, edit.generation), &edit.mirror)?;
        let mut settings = known.mirror.settings.clone();
        // Credentials for one address are not sent to another one.
        if edit.url.is_some() && edit.secret == SecretEdit::Keep {
            return Err(Refusal::Invalid);
        }
        match &edit.secret {
            SecretEdit::Keep => {}
            SecretEdit::Set(secret) => settings.secret = Some(secret.clone()),
            SecretEdit::Remove => settings.secret = None,
        }
        let url = edit.url.clone();
        settings.url = url.unwrap_or(settings.url);
        settings.interval_ms = edit.interval_ms.unwrap_or(settings.interval_ms);
        settings.on_push = edit.on_push.unwrap_or(settings.on_push);
        if !is_well_formed(&settings) {
            return Err(Refusal::Invalid);
        }
        let moves = settings.url != known.mirror.settings.url;
        let nothing = (moves && knows_removals).then_some(MirrorRemoval::Nothing);
        known.mirror.settings = settings;
        if known.mirror.run.is_none() {
            known.mirror.failures = 0;
        }
        known.make_due(entry);
        known.allow(edit.removal.or(nothing), entry);
        Ok(())
    }

    pub(super) fn change_mirror(
        &mut self,
        change: &ChangeMirror,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let known = self.mirror_mut((change.repo, change.generation), &change.mirror)?;
        match change.change {
            MirrorChange::Remove => {
                let repo = self.live_mut(&change.repo, change.generation)?;
                repo.mirrors.remove(&change.mirror);
            }
            MirrorChange::Due => known.make_due(entry),
            MirrorChange::DueWhateverItRemoves => {
                known.make_due(entry);
                known.allow(Some(MirrorRemoval::Everything), entry);
            }
        }
        Ok(())
    }

    pub(super) fn begin_mirror(
        &mut self,
        begin: &BeginMirror,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let (known, _) = self.run_mut(begin.repo, &begin.mirror)?;
        let mirror = &mut known.mirror;
        let is_due = has_come(mirror.next_due_ms, mirror.settings.interval_ms, entry);
        let is_free = mirror.run.is_none_or(|run| lease_is_over(run, entry));
        let is_this_firing = mirror.next_due_ms == begin.scheduled_at_ms;
        if !(is_due && is_free && is_this_firing && begin.lease_ms <= MIRROR_LEASE_MS_MAX) {
            return Err(Refusal::WrongState { repo: begin.repo });
        }
        mirror.fence = entry.index;
        mirror.run = Some(MirrorRun {
            began_ms: entry.now_ms,
            until_ms: entry.now_ms.saturating_add(begin.lease_ms),
        });
        Ok(())
    }

    pub(super) fn record_mirror(
        &mut self,
        record: &RecordMirror,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let now_ms = entry.now_ms;
        let wrong = Err(Refusal::WrongState { repo: record.repo });
        let (known, updated_at) = self.run_mut(record.repo, &record.mirror)?;
        let has_fence = known.mirror.fence == record.fence;
        let Some(mut run) = known.mirror.run.filter(|_| has_fence) else {
            return wrong;
        };
        if let MirrorWord::Working { lease_ms } = &record.word
            && *lease_ms > MIRROR_LEASE_MS_MAX
        {
            return wrong;
        }
        // A time set by a wrong clock is replaced by now.
        if entry.time_is_replicated {
            known.mirror.next_due_ms = known.mirror.next_due_ms.min(now_ms);
            if lease_is_over(run, entry) {
                run.until_ms = run.until_ms.min(now_ms);
            }
        }
        match &record.word {
            MirrorWord::Working { lease_ms } => {
                run.until_ms = run.until_ms.max(now_ms.saturating_add(*lease_ms));
                known.mirror.run = Some(run);
            }
            MirrorWord::Ended(outcome) => {
                known.end(outcome, entry);
                // Changes during the run are left for the next one.
                let moved = updated_at > known.mirror.fence;
                if known.mirror.settings.on_push && known.mirror.failures == 0 && moved {
                    known.make_due(entry);
                }
            }
            MirrorWord::CameThrough { since } => {
                known.removal = known.removal.filter(|removal| removal.since != *since);
            }
        }
        Ok(())
    }
}
