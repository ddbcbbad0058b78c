//! Time on this machine: the only module that reads a clock or waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Interval between two checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The current time, for durations.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness measures real processes; no library of the product is below it"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the Unix epoch, for the ledger and for the nodes' logs.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness writes down when a run was; no decision depends on it"
)]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Sleeps.
#[expect(
    clippy::disallowed_methods,
    reason = "a fault lasts for a while, and real processes are polled"
)]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Repeats `look` until it returns something, for at most `limit`.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if now() >= end {
            return None;
        }
        pause(LOOK_EVERY);
    }
}
