//! A rate limit for log lines that clients can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Admits a number of lines of one kind in a window of time, and counts the rest.
#[derive(Debug)]
pub struct LogLimit {
    lines: u32,
    window: Duration,
    state: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    held_back: u64,
}

impl LogLimit {
    /// At most `lines` in each `window`.
    pub const fn new(lines: u32, window: Duration) -> Self {
        Self {
            lines,
            window,
            state: Mutex::new(Window {
                began: None,
                written: 0,
                held_back: 0,
            }),
        }
    }

    /// The number of lines held back since the last one, if a line may be written now. The line
    /// names that number.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |began| now.saturating_duration_since(began) >= self.window;
        if state.began.is_none_or(is_over) {
            state.began = Some(now);
            state.written = 0;
        }
        if state.written >= self.lines {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock as _, SystemClock};

    #[test]
    fn lines_beyond_the_bound_are_counted() {
        let limit = LogLimit::new(2, Duration::from_secs(60));
        let start = SystemClock.instant();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limit.admit(start), Some(0));
        assert_eq!(limit.admit(after(1)), Some(0));
        for _ in 0..3_000 {
            assert_eq!(limit.admit(after(59)), None);
        }
        assert_eq!(limit.admit(after(60)), Some(3_000));
        assert_eq!(limit.admit(after(60)), Some(0));
        assert_eq!(limit.admit(after(61)), None);
    }
}
