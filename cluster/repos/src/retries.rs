//! When the fetcher tries a missing pack again: each has a backoff of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use henge_runtime::Random;

use crate::parking::Missing;

/// The first pause after a pack could not be fetched.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a try to get a missing pack came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The pack is here.
    Over,
    /// It is to be tried again.
    Again,
    /// The same, and every replica answered that it lacks the pack.
    Lacked,
}

/// When a missing pack is tried again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    backoff: Duration,
    is_lacked: bool,
}

/// The missing packs that were tried in vain.
#[derive(Debug, Default)]
pub(crate) struct Retries(BTreeMap<Missing, Retry>);

impl Retries {
    /// Forgets what is not missing any more.
    pub(crate) fn retain(&mut self, missing: &[Missing]) {
        let missing: BTreeSet<_> = missing.iter().collect();
        self.0.retain(|known, _| missing.contains(known));
    }

    /// The packs that every replica lacked when it was asked last.
    pub(crate) fn lacked(&self) -> BTreeSet<Missing> {
        let lacked = self.0.iter().filter(|(_, retry)| retry.is_lacked);
        lacked.map(|(missing, _)| *missing).collect()
    }

    /// Those of the missing packs that are to be tried now.
    pub(crate) fn due(&self, mut missing: Vec<Missing>, now: Instant) -> Vec<Missing> {
        missing.retain(|missing| self.0.get(missing).is_none_or(|retry| retry.at <= now));
        missing
    }

    /// How long until the next one is due; `None` without one.
    pub(crate) fn next_in(&self, now: Instant) -> Option<Duration> {
        let next = self.0.values().map(|retry| retry.at).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// A pack that arrives proves that the disk or the holders are back: the others are tried again soon.
    pub(crate) fn note(
        &mut self,
        missing: Missing,
        outcome: Outcome,
        (now, random): (Instant, &dyn Random),
    ) {
        if outcome == Outcome::Over {
            self.0.remove(&missing);
            for retry in self.0.values_mut() {
                retry.backoff = BACKOFF_MIN;
                retry.at = retry.at.min(now + BACKOFF_MIN);
            }
            return;
        }
        let before = self.0.get(&missing).map(|retry| retry.backoff * 2);
        let backoff = before.unwrap_or(BACKOFF_MIN).min(BACKOFF_MAX);
        // Between half of it and all of it.
        let half_ms = u64::try_from(backoff.as_millis() / 2).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(random.within(0..half_ms));
        let retry = Retry {
            at: now + backoff / 2 + jitter,
            backoff,
            is_lacked: outcome == Outcome::Lacked,
        };
        self.0.insert(missing, retry);
    }
}
