//! The response to one fetch while it is written: sections, side bands, progress and keep-alives.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use crate::fetch::{FetchError, FetchSummary};
use crate::output::Output;
use crate::pkt::{self, Band, SidebandWriter};
use crate::protocol::Stop;

/// Interval of progress messages.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// After this time without a byte, an empty frame keeps the connection alive (git's
/// `uploadpack.keepAlive`).
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(5);

/// A check that long loops make every few hundred steps.
pub(super) trait Tick {
    /// Continues or gives up. `objects` is the number of objects that the loop has found.
    ///
    /// # Errors
    /// When the deadline passed or no client waits any more.
    fn tick(&self, objects: usize) -> Result<(), FetchError>;
}

impl Tick for Stop {
    fn tick(&self, _objects: usize) -> Result<(), FetchError> {
        if self.is_set() {
            return Err(FetchError::Stopped);
        }
        Ok(())
    }
}

/// The framing of the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// No frames.
    None,
    /// In frames of at most 1000 bytes (`side-band`).
    Small,
    /// In frames of at most 65520 bytes (`side-band-64k`, and always in v2).
    Large,
}

/// Whether the client requests progress messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Shown,
    Silent,
}

/// The writer of the response to one fetch. Loops write through a shared reference ([`Tick`]).
pub(super) struct Answer<'a> {
    output: RefCell<&'a mut dyn Output>,
    stop: Stop,
    /// Lines of sections are framed, too (`sideband-all`).
    sideband_all: bool,
    /// Whether frames may be written now.
    framed: Cell<bool>,
    progress: Cell<Progress>,
    objects: Cell<usize>,
    last: Cell<Option<Instant>>,
}

impl<'a> Answer<'a> {
    /// A response without content.
    pub(super) fn new(output: &'a mut dyn Output, stop: Stop, sideband_all: bool) -> Self {
        Self {
            output: RefCell::new(output),
            sideband_all,
            framed: Cell::new(sideband_all),
            progress: Cell::new(Progress::Silent),
            objects: Cell::new(0),
            last: Cell::new(stop.now()),
            stop,
        }
    }

    /// Writes a line of a section; the caller adds the newline.
    pub(super) fn line(&self, line: &str) -> io::Result<()> {
        let output = &mut **self.output.borrow_mut();
        if self.sideband_all {
            pkt::write_band(output, Band::Data, line.as_bytes())
        } else {
            pkt::write(output, line.as_bytes())
        }
    }

    /// Separates two sections.
    pub(super) fn delimiter(&self) -> io::Result<()> {
        pkt::write_delimiter(&mut **self.output.borrow_mut())
    }

    /// Writes a flush packet.
    pub(super) fn flush(&self) -> io::Result<()> {
        pkt::write_flush(&mut **self.output.borrow_mut())
    }

    /// Sends the bytes written so far: the client waits for them.
    pub(super) fn hand_over(&self) -> io::Result<()> {
        self.output.borrow_mut().flush()
    }

    /// From here on frames may be written: the pack comes next.
    pub(super) fn begin_pack(&self, frames: Frames, progress: Progress) {
        if frames != Frames::None {
            self.framed.set(true);
            self.progress.set(progress);
        }
    }

    /// Reports the number of objects in the pack.
    pub(super) fn enumerated(&self, objects: usize) -> io::Result<()> {
        self.show(&format!("Enumerating objects: {objects}, done.\n"))
    }

    /// Writes the pack and its totals.
    pub(super) fn pack(
        self,
        frames: Frames,
        write: impl FnOnce(&mut dyn Output) -> Result<FetchSummary, FetchError>,
    ) -> Result<FetchSummary, FetchError> {
        let progress = self.progress.get();
        let output = self.output.into_inner();
        output.begin_pack();
        let mut frames = match frames {
            Frames::None => return write(output),
            Frames::Small => SidebandWriter::small(output),
            Frames::Large => SidebandWriter::new(output),
        };
        let summary = write(&mut frames)?;
        let output = frames.finish()?;
        if progress == Progress::Shown {
            let line = totals(&summary);
            pkt::write_band(output, Band::Progress, line.as_bytes())?;
        }
        pkt::write_flush(output)?;
        Ok(summary)
    }

    fn show(&self, line: &str) -> io::Result<()> {
        if self.progress.get() == Progress::Silent {
            return Ok(());
        }
        let output = &mut **self.output.borrow_mut();
        pkt::write_band(output, Band::Progress, line.as_bytes())
    }
}

/// git's summary of a pack. Entries that were copied verbatim are counted separately.
fn totals(summary: &FetchSummary) -> String {
    let FetchSummary {
        objects_sent: sent,
        deltas_sent: deltas,
        objects_copied,
        objects_verbatim: verbatim,
        packs_verbatim: packs,
        ..
    } = summary;
    let reused = objects_copied.saturating_sub(*verbatim);
    format!(
        "Total {sent} (delta {deltas}), reused {reused} (delta {deltas}), pack-reused {verbatim} (from {packs})\n"
    )
}

impl Tick for Answer<'_> {
    fn tick(&self, objects: usize) -> Result<(), FetchError> {
        self.stop.tick(objects)?;
        self.objects.set(self.objects.get().max(objects));
        if !self.framed.get() {
            return Ok(());
        }
        let (Some(now), Some(last)) = (self.stop.now(), self.last.get()) else {
            return Ok(());
        };
        let passed = now.saturating_duration_since(last);
        match self.progress.get() {
            Progress::Shown if passed >= PROGRESS_EVERY => {
                self.show(&format!("Enumerating objects: {}\r", self.objects.get()))?;
            }
            Progress::Silent if passed >= KEEP_ALIVE_AFTER => {
                self.output.borrow_mut().write_all(b"0005\x01")?;
            }
            Progress::Shown | Progress::Silent => return Ok(()),
        }
        self.last.set(Some(now));
        Ok(self.output.borrow_mut().flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Deadline;
    use henge_runtime::Clock;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A clock that a test sets.
    #[derive(Debug)]
    struct Hand(Instant, AtomicU64);

    impl Clock for Hand {
        fn unix_ms(&self) -> u64 {
            self.1.load(Ordering::Relaxed)
        }

        fn instant(&self) -> Instant {
            self.0 + Duration::from_millis(self.unix_ms())
        }
    }

    fn ticks(progress: Progress, at_ms: &[u64]) -> (Vec<u8>, bool) {
        let start = henge_runtime::SystemClock.instant();
        let clock = Arc::new(Hand(start, AtomicU64::new(0)));
        let within = Duration::from_secs(60);
        let stop = Stop::at(Deadline::after(clock.clone(), within));
        let mut output = Vec::new();
        let mut stopped = false;
        {
            let answer = Answer::new(&mut output, stop, false);
            answer.tick(1).unwrap();
            answer.begin_pack(Frames::Large, progress);
            for (number, at) in at_ms.iter().enumerate() {
                clock.1.store(*at, Ordering::Relaxed);
                stopped = answer.tick(number * 10).is_err();
            }
        }
        (output, stopped)
    }

    #[test]
    fn long_work_gives_signs_of_life() {
        let (output, stopped) = ticks(Progress::Silent, &[1000, 4999, 5000, 5001, 9999, 10_500]);
        assert_eq!(
            (output.as_slice(), stopped),
            (&b"0005\x010005\x01"[..], false)
        );
        let (output, stopped) = ticks(Progress::Shown, &[500, 1000, 1500, 2000, 60_000]);
        let text = String::from_utf8(output).unwrap();
        assert_eq!(
            text,
            "001d\x02Enumerating objects: 10\r001d\x02Enumerating objects: 30\r"
        );
        assert!(stopped);
    }
}
