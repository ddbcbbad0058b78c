//! Replicated time: the time at which an entry is applied.
//!
//! Below release level [`VERSION_STARTS_AND_TIME`] that is the clock of the entry's proposer, right
//! or wrong. From that level on a group keeps its own time. One node's clock moves it by at most an
//! hour per entry, and never back: `now = max(last, min(proposed_at_ms, last + 1 h))`. A larger
//! step, in either direction, is a [`Command::MoveTime`](henge_types::Command::MoveTime) with the
//! clocks of a majority of the voters.
//!
//! `last` is set by the barrier that raises the group to the level. It is updated in steps of at
//! least [`TIME_KEPT_MS`], so that busy groups do not write one more pair per entry. Two entries of
//! two leaders may therefore be out of order by at most that much.

use henge_types::VoterClock;
use henge_types::command::VERSION_STARTS_AND_TIME;
use henge_types::limits::{TIME_KEPT_MS, TIME_STEP_MS_MAX};
use henge_types::{Refusal, Reply};

use crate::apply::Header;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::requests;
use crate::view::{View, decode_u64};

/// The group's time after its last entries, milliseconds since the Unix epoch; `None` below the
/// release level of replicated time.
pub fn time_ms(view: &impl View) -> Option<u64> {
    let key = keys::time();
    view.get(&key).map(|bytes| decode_u64(&key, &bytes))
}

/// The time at which an entry is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// The group's time before the entry; none at a level that uses the proposer's clock.
    last_ms: Option<u64>,
}

impl Now {
    /// The time of an entry with this header.
    pub(crate) fn of(view: &impl View, header: &Header) -> Self {
        let last_ms = time_ms(view);
        let proposed_ms = header.proposed_at_ms;
        let now_ms = last_ms.map_or(proposed_ms, |last| {
            proposed_ms.clamp(last, last.saturating_add(TIME_STEP_MS_MAX))
        });
        Self { now_ms, last_ms }
    }

    /// Whether it is the group's own time.
    pub(crate) const fn is_replicated(&self) -> bool {
        self.last_ms.is_some()
    }

    /// Stores the time if it is later by [`TIME_KEPT_MS`] or more.
    pub(crate) fn keep(&self, changes: &mut Changes<'_, impl View>) {
        let late = |last| self.now_ms.saturating_sub(last) >= TIME_KEPT_MS;
        if self.last_ms.is_some_and(late) {
            put(changes, self.now_ms);
        }
    }
}

/// The group begins to keep its time with this entry, if it has reached the level.
pub(crate) fn begin(changes: &mut Changes<'_, impl View>, version: u32, now_ms: u64) {
    if version >= VERSION_STARTS_AND_TIME && time_ms(changes.before()).is_none() {
        put(changes, now_ms);
    }
}

/// Moves the time to the smallest of these clocks, and removes expired records of requests.
pub(crate) fn step(changes: &mut Changes<'_, impl View>, clocks: &[VoterClock]) -> Outcome {
    let smallest = clocks.iter().map(|clock| clock.unix_ms).min();
    let known = time_ms(changes.before());
    let Some((now_ms, _)) = smallest.zip(known) else {
        return Outcome::reply(Reply::Refused(Refusal::Invalid));
    };
    put(changes, now_ms);
    requests::tend(changes, now_ms);
    Outcome::reply(Reply::Done)
}

fn put(changes: &mut Changes<'_, impl View>, now_ms: u64) {
    changes.put(keys::time(), now_ms.to_be_bytes().to_vec());
}
