//! Backoff of the fetcher, for each missing pack.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use henge_runtime::Random;

use crate::parking::Missing;

/// The backoff after the first failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The outcome of an attempt to get a missing pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The pack is here.
    Over,
    /// It has to be retried.
    Again,
    /// It has to be retried; every replica answered that it lacks the pack.
    Lacked,
}

/// The next attempt for a missing pack.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    backoff: Duration,
    is_lacked: bool,
}

/// The missing packs with a failed attempt.
#[derive(Debug, Default)]
pub(crate) struct Retries(BTreeMap<Missing, Retry>);

impl Retries {
    /// Drops packs that are no longer missing.
    pub(crate) fn retain(&mut self, missing: &[Missing]) {
        let missing: BTreeSet<_> = missing.iter().collect();
        self.0.retain(|known, _| missing.contains(known));
    }

    /// The packs that every replica lacked at the last attempt.
    pub(crate) fn lacked(&self) -> BTreeSet<Missing> {
        let lacked = self.0.iter().filter(|(_, retry)| retry.is_lacked);
        lacked.map(|(missing, _)| *missing).collect()
    }

    /// The missing packs that are to be tried now.
    pub(crate) fn due(&self, mut missing: Vec<Missing>, now: Instant) -> Vec<Missing> {
        missing.retain(|missing| self.0.get(missing).is_none_or(|retry| retry.at <= now));
        missing
    }

    /// Time until the next attempt; `None` when there is none.
    pub(crate) fn next_in(&self, now: Instant) -> Option<Duration> {
        let next = self.0.values().map(|retry| retry.at).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Records an outcome. A pack that arrives shows that the disk or the holders work again: the
    /// others are retried soon.
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
        // Jitter: between half of the backoff and all of it.
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
