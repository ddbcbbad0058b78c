//! A response whose first bytes are held back: an unreadable pack shows while another node may
//! still answer.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use henge_git::{Output, PackPart};
use henge_types::limits;

/// How long a response is held back from its start: after this a flush shows the client that the
/// work goes on.
const HELD_FOR: Duration = Duration::from_secs(2);

/// A part of a response that is held back.
enum Piece {
    Bytes(Vec<u8>),
    Part(PackPart),
}

/// Holds a response back until it exceeds [`limits::ANSWER_HELD_BYTES_MAX`] or is complete.
pub(crate) struct Held<'a> {
    output: &'a mut dyn Output,
    pieces: Vec<Piece>,
    bytes: u64,
    now: &'a dyn Fn() -> Instant,
    begun_at: Instant,
    has_left: bool,
}

impl<'a> Held<'a> {
    pub(crate) fn new(output: &'a mut dyn Output, now: &'a dyn Fn() -> Instant) -> Self {
        Self {
            output,
            pieces: Vec::new(),
            bytes: 0,
            now,
            begun_at: now(),
            has_left: false,
        }
    }

    /// Whether a byte of the response was sent.
    pub(crate) const fn has_left(&self) -> bool {
        self.has_left
    }

    /// The response is complete: sends it.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.leave()
    }

    fn leave(&mut self) -> io::Result<()> {
        self.has_left = true;
        for piece in std::mem::take(&mut self.pieces) {
            match piece {
                Piece::Bytes(bytes) => self.output.write_all(&bytes)?,
                Piece::Part(part) => self.output.write_part(part)?,
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes += bytes;
        if self.bytes > limits::ANSWER_HELD_BYTES_MAX {
            self.leave()?;
        }
        Ok(())
    }
}

impl Write for Held<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.has_left {
            return self.output.write(data);
        }
        match self.pieces.last_mut() {
            Some(Piece::Bytes(bytes)) => bytes.extend_from_slice(data),
            Some(Piece::Part(_)) | None => self.pieces.push(Piece::Bytes(data.to_vec())),
        }
        self.count(data.len() as u64)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.has_left {
            if (self.now)().saturating_duration_since(self.begun_at) < HELD_FOR {
                return Ok(());
            }
            self.leave()?;
        }
        self.output.flush()
    }
}

impl Output for Held<'_> {
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        if self.has_left {
            return self.output.write_part(part);
        }
        // Checked now, while another node can still answer; checked again when it is sent.
        part.check()?;
        let bytes = part.len();
        self.pieces.push(Piece::Part(part));
        self.count(bytes)
    }

    fn begin_pack(&mut self) {
        self.output.begin_pack();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_runtime::{Clock, SystemClock};
    use std::cell::Cell;

    #[test]
    fn an_answer_leaves_when_it_is_long_or_whole_or_takes_long() {
        let start = SystemClock.instant();
        let passed = Cell::new(Duration::ZERO);
        let now = || start + passed.get();
        let mut output = Vec::new();
        let mut held = Held::new(&mut output, &now);
        held.write_all(b"abc").unwrap();
        held.flush().unwrap();
        assert!(!held.has_left());
        held.finish().unwrap();
        assert_eq!(output, b"abc");

        let mut output = Vec::new();
        let mut held = Held::new(&mut output, &now);
        let most = usize::try_from(limits::ANSWER_HELD_BYTES_MAX).unwrap();
        held.write_all(&vec![1; most]).unwrap();
        assert!(!held.has_left());
        held.write_all(&[2]).unwrap();
        assert!(held.has_left());
        assert_eq!(output.len(), most + 1);

        let mut output = Vec::new();
        let mut held = Held::new(&mut output, &now);
        held.write_all(b"progress").unwrap();
        passed.set(HELD_FOR);
        held.flush().unwrap();
        held.write_all(b", more").unwrap();
        assert_eq!(output, b"progress, more");
    }
}
