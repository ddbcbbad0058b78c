//! The progress of a transfer, on standard error: at a terminal one line that changes, elsewhere a
//! line every few seconds.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use henge_git_client::Event;
use tokio::time::{Instant, MissedTickBehavior};

use crate::table::printable;

/// The time between two updates at a terminal.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Updates between two lines without a terminal.
const LOOKS_PER_LINE: u32 = 20;
/// Characters of a remote's message.
const SAID_CHARS_MAX: usize = 100;

/// The form of progress output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// No output.
    Not,
    /// A line that changes.
    InPlace,
    /// A line every few seconds.
    InLines,
}

#[derive(Debug, Default)]
struct State {
    said: String,
    /// The remote's message that has not ended.
    saying: String,
    moved: Option<(&'static str, u64, Option<u64>)>,
    refs: Option<(usize, usize)>,
}

/// The last state of a job that runs on another thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<State>>);

impl Progress {
    /// Records an event.
    pub(crate) fn note(&self, event: Event<'_>) {
        // A panic on another thread must not end a transfer because of its progress output.
        let Ok(mut state) = self.0.lock() else {
            return;
        };
        match event {
            Event::Said(text) => {
                for c in text.chars() {
                    if c == '\n' || c == '\r' {
                        let line = std::mem::take(&mut state.saying);
                        if !line.trim().is_empty() {
                            state.said = line;
                        }
                    } else if state.saying.len() < SAID_CHARS_MAX {
                        state.saying.push(c);
                    }
                }
            }
            Event::Received { bytes } => state.moved = Some(("received", bytes, None)),
            Event::Sent { bytes, total } => state.moved = Some(("sent", bytes, Some(total))),
            Event::Refs { done, total } => {
                state.refs = Some((done, total));
                state.moved = None;
            }
        }
    }

    /// Waits for `job` and shows its progress meanwhile.
    pub(crate) async fn during<T>(
        &self,
        told: Told,
        err: &mut (dyn Write + Send),
        job: impl Future<Output = T>,
    ) -> T {
        let mut job = std::pin::pin!(job);
        if told == Told::Not {
            return job.await;
        }
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut line = Line::default();
        let mut count = 0_u32;
        loop {
            tokio::select! {
                biased;
                done = &mut job => {
                    line.end(told, err);
                    return done;
                }
                now = looks.tick() => {
                    let text = self.0.lock().ok().and_then(|state| line.text(&state, now));
                    if let Some(text) = text {
                        line.show(&text, told, count, err);
                    }
                    count += 1;
                }
            }
        }
    }
}

/// The current line.
#[derive(Default)]
struct Line {
    chars: usize,
    /// The present step: its name, its begin, and the bytes at its begin.
    step: Option<(&'static str, Instant, u64)>,
}

impl Line {
    fn text(&mut self, state: &State, now: Instant) -> Option<String> {
        let refs = state.refs.map_or_else(String::new, |(done, total)| {
            format!("{done} of {total} refs; ")
        });
        let Some((what, bytes, total)) = state.moved else {
            let said = printable(&state.said);
            return (!said.is_empty() || !refs.is_empty()).then(|| format!("{refs}{said}"));
        };
        let began = match self.step {
            Some((step, at, from)) if step == what && from <= bytes => (at, from),
            _ => {
                self.step = Some((what, now, bytes));
                (now, bytes)
            }
        };
        let elapsed = now.duration_since(began.0).as_millis().max(1);
        let rate = u128::from(bytes - began.1) * 1000 / elapsed;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let of = total.map_or_else(String::new, |total| format!(" of {}", size(total)));
        Some(format!(
            "{refs}{what} {}{of}, {}/s",
            size(bytes),
            size(rate)
        ))
    }

    /// A failed write is ignored: without standard error there is no reader.
    fn show(&mut self, text: &str, told: Told, count: u32, err: &mut (dyn Write + Send)) {
        if told == Told::InPlace {
            let chars = text.chars().count();
            let gap = self.chars.saturating_sub(chars);
            self.chars = chars;
            drop(write!(err, "\r{text}{}", " ".repeat(gap)).and_then(|()| err.flush()));
        } else if count.is_multiple_of(LOOKS_PER_LINE) {
            drop(writeln!(err, "{text}"));
        }
    }

    fn end(&self, told: Told, err: &mut (dyn Write + Send)) {
        if told == Told::InPlace && self.chars > 0 {
            drop(write!(err, "\r{}\r", " ".repeat(self.chars)).and_then(|()| err.flush()));
        }
    }
}

/// A number of bytes in a readable unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_600_000, "1.5 MiB"),
            (5 << 40, "5.0 TiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a point to count from")]
    fn a_line_says_how_far_it_is() {
        let (progress, start) = (Progress::default(), Instant::now());
        let mut line = Line::default();
        let mut text = |after_ms| {
            let now = start + Duration::from_millis(after_ms);
            line.text(&progress.0.lock().expect("not poisoned"), now)
        };
        assert_eq!(text(0), None);
        progress.note(Event::Said(
            "Counting objects: 5\rCounting objects: 9, done.\nmore",
        ));
        assert_eq!(text(0).as_deref(), Some("Counting objects: 9, done."));
        progress.note(Event::Received { bytes: 1024 });
        assert_eq!(text(1000).as_deref(), Some("received 1.0 KiB, 0 B/s"));
        progress.note(Event::Received { bytes: 3072 });
        assert_eq!(text(2000).as_deref(), Some("received 3.0 KiB, 2.0 KiB/s"));
        progress.note(Event::Sent { bytes: 1, total: 2 });
        assert_eq!(text(3000).as_deref(), Some("sent 1 B of 2 B, 0 B/s"));
        progress.note(Event::Refs { done: 1, total: 2 });
        progress.note(Event::Received { bytes: 5 });
        assert_eq!(
            text(4000).as_deref(),
            Some("1 of 2 refs; received 5 B, 0 B/s")
        );
    }

    #[test]
    fn a_line_is_overwritten_and_goes_at_the_end() {
        let (mut line, mut err) = (Line::default(), Vec::new());
        line.show("longer", Told::InPlace, 0, &mut err);
        line.show("short", Told::InPlace, 1, &mut err);
        line.end(Told::InPlace, &mut err);
        assert_eq!(err, b"\rlonger\rshort \r     \r");
        err.clear();
        line.show("a", Told::InLines, 0, &mut err);
        line.show("b", Told::InLines, 1, &mut err);
        assert_eq!(err, b"a\n");
    }
}
