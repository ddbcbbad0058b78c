//! Clocks that tests set: the monotonic clock stands still unless a test moves it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const START_MS: u64 = 1_767_225_600_000;

#[derive(Debug)]
struct SetClock {
    start: Instant,
    passed_ms: AtomicU64,
    unix_ms: AtomicU64,
}

impl SetClock {
    #[allow(clippy::disallowed_methods, reason = "a start that does not matter")]
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            passed_ms: AtomicU64::new(0),
            unix_ms: AtomicU64::new(START_MS),
        })
    }

    fn pass(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
        self.unix_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn set(&self, by_ms: i64) {
        let now = self.unix_ms.load(Ordering::Relaxed);
        let set = now.saturating_add_signed(by_ms);
        self.unix_ms.store(set, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn unix_ms(&self) -> u64 {
        self.unix_ms.load(Ordering::Relaxed)
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }
}

fn node(number: u64) -> NodeId {
    NodeId::new(number)
}

fn clocks() -> (Clocks, Arc<SetClock>) {
    let clock = SetClock::new();
    (
        Clocks::new(node(1), Arc::<SetClock>::clone(&clock) as _),
        clock,
    )
}

fn hear(clocks: &Clocks, others: usize, ahead_ms: &[(u64, i64)]) {
    let at = clocks.clock.instant();
    let readings = ahead_ms.iter().map(|(number, ahead_ms)| {
        let ahead_ms = *ahead_ms;
        (node(*number), Reading { ahead_ms, at })
    });
    clocks.heard(others, ahead_ms.len(), readings.collect());
}

fn of(others: &[i64]) -> ClockState {
    judge(others.iter().copied()).0
}

#[test]
fn the_median_decides_which_clock_is_wrong() {
    assert_eq!(of(&[]), ClockState::Right);
    assert_eq!(of(&[0, 400 * DAY]), ClockState::Right);
    assert_eq!(of(&[MINUTE, -400 * DAY]), ClockState::Right);
    let ahead_ms = 400 * DAY;
    assert_eq!(of(&[-ahead_ms, -ahead_ms]), ClockState::Wrong { ahead_ms });
    let ahead_ms = -6 * MINUTE;
    assert_eq!(of(&[-ahead_ms, -ahead_ms]), ClockState::Wrong { ahead_ms });
    assert_eq!(of(&[5 * MINUTE, 5 * MINUTE]), ClockState::Right);
    // No two of the three agree: the middle one is the median.
    assert_eq!(of(&[-DAY, DAY]), ClockState::Right);
    assert_eq!(of(&[DAY, 2 * DAY]), ClockState::Wrong { ahead_ms: -DAY });
}

#[test]
fn of_two_clocks_that_are_far_apart_neither_is_known_to_be_right() {
    assert_eq!(of(&[9 * MINUTE]), ClockState::Right);
    for ahead in [DAY, -DAY] {
        let apart_ms = DAY.unsigned_abs();
        assert_eq!(of(&[ahead]), ClockState::Undecided { apart_ms });
        assert_eq!(of(&[ahead, ahead, 0]), ClockState::Undecided { apart_ms });
    }
    // A clock outside of both is wrong, whichever of them is right.
    let wrong = ClockState::Wrong { ahead_ms: -DAY };
    assert_eq!(of(&[DAY, 3 * DAY, 3 * DAY]), wrong);
}

#[test]
fn nothing_is_stamped_before_a_majority_was_heard() {
    let (clocks, _) = clocks();
    assert_eq!(clocks.judge().0, ClockState::Unknown);
    hear(&clocks, 4, &[(2, 0)]);
    assert_eq!(clocks.judge().0, ClockState::Unknown);
    hear(&clocks, 4, &[(2, 0), (3, 0)]);
    assert_eq!(clocks.judge().0, ClockState::Right);
    // The readings are kept when the others are gone.
    hear(&clocks, 4, &[]);
    assert_eq!(clocks.judge().0, ClockState::Right);
    let (alone, _) = self::clocks();
    hear(&alone, 0, &[]);
    assert_eq!(alone.judge().0, ClockState::Right);
}

#[test]
fn a_clock_that_is_set_is_judged_before_the_next_reading() {
    let (clocks, clock) = clocks();
    hear(&clocks, 2, &[(2, 0), (3, 0)]);
    clock.pass(700);
    assert_eq!(clocks.judge(), (ClockState::Right, 0));
    assert!(!clocks.was_set());
    clock.set(400 * DAY);
    let ahead_ms = 400 * DAY;
    assert_eq!(clocks.judge(), (ClockState::Wrong { ahead_ms }, ahead_ms));
    assert!(clocks.was_set());
    assert_eq!(clocks.corrected_ms(), START_MS + 700);
    // The same without any further response.
    hear(&clocks, 2, &[]);
    assert_eq!(clocks.judge().0, ClockState::Wrong { ahead_ms });
    clock.set(-ahead_ms);
    assert_eq!(clocks.judge().0, ClockState::Right);
}

#[test]
fn a_reading_counts_from_the_middle_of_its_round_trip() {
    let clock = SetClock::new();
    let asked = Moment::now(clock.as_ref());
    clock.pass(400);
    let reading = asked.reading(START_MS + 1200, clock.as_ref());
    assert_eq!(reading.ahead_ms, 1000);
}

#[test]
fn a_larger_step_takes_the_latest_clocks_of_a_majority() {
    let voters = |numbers: &[u64]| numbers.iter().copied().map(node).collect::<BTreeSet<_>>();
    let three = [voters(&[1, 2, 3])];
    let smallest = |clocks: &Clocks| {
        let chosen = clocks.majority(&three)?;
        assert_eq!(chosen.len(), 2);
        chosen.iter().map(|clock| clock.unix_ms).min()
    };
    let (clocks, clock) = clocks();
    assert_eq!(smallest(&clocks), None);
    // A clock that is behind does not hold the step back. A clock that is ahead does not stretch
    // it.
    hear(&clocks, 2, &[(2, 1), (3, -DAY)]);
    assert_eq!(smallest(&clocks), Some(START_MS));
    hear(&clocks, 2, &[(2, -1), (3, DAY)]);
    assert_eq!(smallest(&clocks), Some(START_MS));
    hear(&clocks, 2, &[(2, 1)]);
    assert_eq!(smallest(&clocks), Some(START_MS));
    clock.pass(CLOCK_READING_MS_MAX + 1);
    assert_eq!(smallest(&clocks), None, "read too long ago");
    // Both voter sets of a joint membership.
    hear(&clocks, 4, &[(2, 0), (4, 0), (5, 0)]);
    let joint = [voters(&[1, 2, 3]), voters(&[3, 4, 5])];
    assert_eq!(clocks.majority(&joint).map(|clocks| clocks.len()), Some(4));
    hear(&clocks, 4, &[(2, 0), (4, 0), (3, 0)]);
    assert_eq!(
        clocks
            .majority(&[voters(&[3, 4, 5])])
            .map(|clocks| clocks.len()),
        Some(2)
    );
}
