//! Time as a dependency. The state machines never read a clock: `proposed_at_ms` in a command's
//! header is their time.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The source of a component's time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump in either direction: never measure with it.
    fn unix_ms(&self) -> u64;
    /// A monotonic instant, for deadlines and latencies.
    fn instant(&self) -> Instant;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// A shared handle of the clock.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the clocks"
)]
impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}
