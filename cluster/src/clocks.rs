//! The clocks of the members: the offset of this node's clock from them, and its consequences.
//!
//! Every second a node reads the clocks of all members in the reports that it requests anyway. A
//! reading counts from the middle of its round trip. A clock is wrong when it is more than
//! [`CLOCK_SKEW_MS_MAX`] from the median of all clocks, its own included. A node with a wrong clock
//! stamps no proposal, hands over the groups it leads and stands for no election until its clock is
//! right.
//!
//! The middle two of an even number of clocks may be that far apart; then neither is known to be
//! right. Proposals are then stamped with the group's own time, which stands still, and the time
//! takes no larger step.
//!
//! Proposals are not stamped either until a majority of the members has answered once since the
//! start. A clock that is set between two readings deviates from the monotonic clock, and is judged
//! at once by the deviation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use henge_runtime::Clock;
use henge_types::limits::{CLOCK_READING_MS_MAX, CLOCK_SKEW_MS_MAX};
use henge_types::{NodeId, VoterClock};

/// The state of a node's clock relative to those of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// A majority of the members has not answered yet.
    Unknown,
    /// Near the median.
    Right,
    /// The middle two of an even number of clocks are too far apart, and this clock is not outside
    /// of them.
    Undecided {
        /// How far they are apart, milliseconds.
        apart_ms: u64,
    },
    /// Too far from the median.
    Wrong {
        /// How far it is ahead of it, milliseconds; negative when it is behind.
        ahead_ms: i64,
    },
}

impl ClockState {
    /// The fault and its remedy, for an operator; `None` without a fault.
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::Unknown | Self::Right => None,
            Self::Undecided { apart_ms } => Some(format!(
                "the clocks of the members that answer are {} apart and none has a majority: set the wrong one right",
                Span(*apart_ms)
            )),
            Self::Wrong { ahead_ms } => Some(format!(
                "this node's clock is {} {} the median of the members' clocks: it leads nothing and takes no writes until the clock is set right",
                Span(ahead_ms.unsigned_abs()),
                if *ahead_ms < 0 { "behind" } else { "ahead of" },
            )),
        }
    }
}

/// Displays a span of time for a person.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = (self.0 + 30_000) / 60_000;
        match minutes / 60 {
            0 => write!(f, "{minutes} min"),
            hours @ 1..48 => write!(f, "{hours} h {} min", minutes % 60),
            hours => write!(f, "{} d {} h", hours / 24, hours % 24),
        }
    }
}

/// One reading of another node's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Offset of that clock ahead of this node's, milliseconds.
    pub(crate) ahead_ms: i64,
    /// When it was read.
    pub(crate) at: Instant,
}

/// Both clocks of this node at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    unix_ms: u64,
    instant: Instant,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self {
            unix_ms: clock.unix_ms(),
            instant: clock.instant(),
        }
    }

    /// How far the clock was set forward since this moment, milliseconds.
    fn jumped_ms(&self, now: &Self) -> i64 {
        let passed = now.instant.saturating_duration_since(self.instant);
        let expected = self.unix_ms.saturating_add(millis(passed));
        apart(now.unix_ms, expected)
    }

    /// The reading of a clock from the response to a request that was sent at this moment.
    pub(crate) fn reading(&self, theirs_ms: u64, clock: &dyn Clock) -> Reading {
        let at = clock.instant();
        let half = at.saturating_duration_since(self.instant) / 2;
        let own_ms = self.unix_ms.saturating_add(millis(half));
        Reading {
            ahead_ms: apart(theirs_ms, own_ms),
            at,
        }
    }
}

#[derive(Debug)]
struct Known {
    moment: Moment,
    readings: BTreeMap<NodeId, Reading>,
    /// Whether a majority has answered.
    enough: bool,
}

/// The readings of the members' clocks on this node; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Clocks {
    own: NodeId,
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Option<Known>>>,
}

impl Clocks {
    pub(crate) fn new(own: NodeId, clock: Arc<dyn Clock>) -> Self {
        Self {
            own,
            clock,
            known: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known
            .lock()
            .expect("invariant: the readings are only read and replaced")
    }

    /// Records the responses of the members: `heard` of the `others` answered, those in `readings`
    /// with a clock. An older release answers without a clock.
    pub(crate) fn heard(&self, others: usize, heard: usize, readings: BTreeMap<NodeId, Reading>) {
        let moment = Moment::now(self.clock.as_ref());
        let majority = heard.saturating_add(1) > others.saturating_add(1) / 2;
        let mut known = self.known();
        let enough = majority || known.as_ref().is_some_and(|known| known.enough);
        let readings = match known.take() {
            // Without a majority the earlier readings are the best available; they are corrected by
            // how far this clock was set.
            Some(mut before) if !majority => {
                let jumped = before.moment.jumped_ms(&moment);
                for reading in before.readings.values_mut() {
                    reading.ahead_ms = reading.ahead_ms.saturating_sub(jumped);
                }
                before.readings.extend(readings);
                before.readings
            }
            Some(_) | None => readings,
        };
        *known = Some(Known {
            moment,
            readings,
            enough,
        });
    }

    /// The state of this node's clock, and its offset ahead of the median, milliseconds.
    pub(crate) fn judge(&self) -> (ClockState, i64) {
        let now = Moment::now(self.clock.as_ref());
        let known = self.known();
        let Some(known) = known.as_ref().filter(|known| known.enough) else {
            return (ClockState::Unknown, 0);
        };
        let jumped = known.moment.jumped_ms(&now);
        let others = known.readings.values();
        judge(others.map(|reading| reading.ahead_ms.saturating_sub(jumped)))
    }

    /// Whether the clock was set by more than [`CLOCK_SKEW_MS_MAX`] since the last reading, so that
    /// it needs a new one.
    pub(crate) fn was_set(&self) -> bool {
        let now = Moment::now(self.clock.as_ref());
        self.known()
            .as_ref()
            .is_some_and(|known| known.moment.jumped_ms(&now).unsigned_abs() > CLOCK_SKEW_MS_MAX)
    }

    /// The median of the clocks now, milliseconds since the Unix epoch. It is this node's own clock
    /// unless that is known to be wrong.
    pub(crate) fn corrected_ms(&self) -> u64 {
        let own = self.clock.unix_ms();
        match self.judge() {
            (ClockState::Wrong { ahead_ms }, _) => own.saturating_add_signed(-ahead_ms),
            (ClockState::Unknown | ClockState::Right | ClockState::Undecided { .. }, _) => own,
        }
    }

    /// Whether another node's clock is near the median, as far as is known.
    pub(crate) fn is_right(&self, node: NodeId) -> bool {
        let (_, own_ahead) = self.judge();
        let known = self.known();
        let reading = known.as_ref().and_then(|known| known.readings.get(&node));
        reading.is_none_or(|reading| {
            reading.ahead_ms.saturating_add(own_ahead).unsigned_abs() <= CLOCK_SKEW_MS_MAX
        })
    }

    /// The latest clocks of a majority of each of these voter sets: even where the others are
    /// wrong, one of them is not ahead. `None` when too few readings are recent.
    pub(crate) fn majority(&self, voter_sets: &[BTreeSet<NodeId>]) -> Option<Vec<VoterClock>> {
        let now = Moment::now(self.clock.as_ref());
        let known = self.known();
        let known = known.as_ref()?;
        let jumped = known.moment.jumped_ms(&now);
        let fresh = Duration::from_millis(CLOCK_READING_MS_MAX);
        let read = |node: NodeId| {
            if node == self.own {
                return Some(now.unix_ms);
            }
            let reading = known.readings.get(&node)?;
            let is_fresh = now.instant.saturating_duration_since(reading.at) <= fresh;
            let ahead = reading.ahead_ms.saturating_sub(jumped);
            is_fresh.then(|| now.unix_ms.saturating_add_signed(ahead))
        };
        let mut chosen = BTreeMap::new();
        for voters in voter_sets {
            let clocks = voters.iter().filter_map(|node| Some((read(*node)?, *node)));
            let mut clocks: Vec<_> = clocks.collect();
            clocks.sort_unstable_by(|one, other| other.cmp(one));
            let majority = voters.len() / 2 + 1;
            if clocks.len() < majority {
                return None;
            }
            clocks.truncate(majority);
            chosen.extend(clocks.into_iter().map(|(unix_ms, node)| (node, unix_ms)));
        }
        let clocks = chosen.into_iter();
        let clocks = clocks.map(|(node, unix_ms)| VoterClock { node, unix_ms });
        Some(clocks.collect())
    }
}

/// The state of a clock that the others are ahead of by these offsets, and its own offset ahead of
/// their median.
fn judge(others_ahead_ms: impl Iterator<Item = i64>) -> (ClockState, i64) {
    let mut clocks: Vec<i64> = others_ahead_ms.chain([0]).collect();
    clocks.sort_unstable();
    let high = clocks.get(clocks.len() / 2).copied().unwrap_or(0);
    let low = match clocks.len() % 2 {
        0 => clocks.get(clocks.len() / 2 - 1).copied().unwrap_or(high),
        _ => high,
    };
    let apart_ms = high.abs_diff(low);
    // Each of the two is half of `apart_ms` from their middle.
    let decided = apart_ms / 2 <= CLOCK_SKEW_MS_MAX;
    let nearest = match decided {
        true => low.midpoint(high),
        false => 0_i64.clamp(low, high),
    };
    let ahead_ms = nearest.saturating_neg();
    let state = if ahead_ms.unsigned_abs() > CLOCK_SKEW_MS_MAX {
        ClockState::Wrong { ahead_ms }
    } else if decided {
        ClockState::Right
    } else {
        ClockState::Undecided { apart_ms }
    };
    (state, ahead_ms)
}

fn apart(one: u64, other: u64) -> i64 {
    let apart = i64::try_from(one.abs_diff(other)).unwrap_or(i64::MAX);
    if one < other { -apart } else { apart }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
