//! The content of a bundle: bytes of its own and parts of packs.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tempfile::SpooledTempFile;

use crate::output::{Output, PackPart};
use crate::spooled::Spooled;
use crate::store::Pack;

/// A bundle's own bytes stay in memory up to this size, which fits a header and a checksum.
const MEMORY_BYTES_MAX: usize = 256 * 1024;
/// Parts of smaller packs are copied, since such packs are soon merged.
const REFERRED_PACK_BYTES_MIN: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
enum Piece {
    /// The bundle's own bytes from this offset on.
    Own(u64),
    /// A part of the pack with this number, from this offset on.
    Part(usize, u64),
}

/// The content of a bundle.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Each with its end in the bundle, ascending.
    pieces: Vec<(u64, Piece)>,
    packs: Vec<Arc<Pack>>,
    own: Spooled,
    own_bytes: u64,
    bytes: u64,
}

impl Pieces {
    /// The length of the whole bundle.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The packs that it refers to.
    pub(super) fn packs(&self) -> &[Arc<Pack>] {
        &self.packs
    }

    /// Its bytes on disk: its own bytes, and packs whose files were removed and are still open.
    pub(super) fn disk_bytes(&self) -> u64 {
        let own = if self.own.is_in_memory() {
            0
        } else {
            self.own_bytes
        };
        // Where the check fails, the pack counts.
        let is_removed = |pack: &&Arc<Pack>| !pack.data.path().try_exists().unwrap_or(false);
        let removed = self.packs.iter().filter(is_removed);
        own + removed.map(|pack| pack.data.data_len() as u64).sum::<u64>()
    }

    /// Writes a range. `packs` are the packs that it refers to, or others with the same content.
    pub(super) fn write_range(
        &self,
        packs: &[Arc<Pack>],
        range: Range<u64>,
        output: &mut dyn Output,
    ) -> io::Result<()> {
        let first = self.pieces.partition_point(|(end, _)| *end <= range.start);
        let mut start = match first {
            0 => 0,
            _ => self.pieces[first - 1].0,
        };
        for (end, piece) in &self.pieces[first..] {
            let from = range.start.max(start);
            let to = range.end.min(*end);
            if from >= to {
                break;
            }
            let skipped = from - start;
            match piece {
                Piece::Own(at) => self.own.write_range(at + skipped, to - from, output)?,
                Piece::Part(pack, at) => {
                    let at = at + skipped;
                    let pack = Arc::clone(&packs[*pack]);
                    output.write_part(PackPart::new(pack, at..at + (to - from)))?;
                }
            }
            start = *end;
        }
        Ok(())
    }
}

/// Records a bundle while it is written.
pub(super) struct Recorder {
    pieces: Vec<(u64, Piece)>,
    packs: Vec<Arc<Pack>>,
    own: SpooledTempFile,
    own_bytes: u64,
    own_bytes_max: u64,
    bytes: u64,
    is_full: bool,
}

impl Recorder {
    /// Records at most `own_bytes_max` bytes of the bundle's own, in an unnamed file in
    /// `directory`.
    pub(super) fn new(directory: &Path, own_bytes_max: u64) -> Self {
        Self {
            pieces: Vec::new(),
            packs: Vec::new(),
            own: tempfile::spooled_tempfile_in(MEMORY_BYTES_MAX, directory),
            own_bytes: 0,
            own_bytes_max,
            bytes: 0,
            is_full: false,
        }
    }

    /// Whether the bundle exceeded that limit.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// The recorded content.
    pub(super) fn finish(self) -> io::Result<Pieces> {
        let own = Spooled::from(self.own);
        Ok(Pieces {
            pieces: self.pieces,
            packs: self.packs,
            own,
            own_bytes: self.own_bytes,
            bytes: self.bytes,
        })
    }
}

impl Write for Recorder {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let bytes = data.len() as u64;
        if self.own_bytes + bytes > self.own_bytes_max {
            self.is_full = true;
            return Err(io::Error::other("too much of a bundle lies in no pack"));
        }
        self.own.write_all(data)?;
        self.bytes += bytes;
        match self.pieces.last_mut() {
            Some((end, Piece::Own(_))) => *end = self.bytes,
            Some((_, Piece::Part(..))) | None => {
                self.pieces.push((self.bytes, Piece::Own(self.own_bytes)));
            }
        }
        self.own_bytes += bytes;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Recorder {
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let (pack, range) = part.into_place();
        if (pack.data.data_len() as u64) < REFERRED_PACK_BYTES_MIN {
            let bytes = PackPart::new(pack, range).into_bytes()?;
            return self.write_all(&bytes);
        }
        let number = match self.packs.iter().position(|held| Arc::ptr_eq(held, &pack)) {
            Some(number) => number,
            None => {
                self.packs.push(pack);
                self.packs.len() - 1
            }
        };
        self.bytes += range.end - range.start;
        let piece = Piece::Part(number, range.start);
        self.pieces.push((self.bytes, piece));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every range is read of own bytes, in memory and in a file, with parts of a pack in between.
    #[test]
    fn every_part_is_what_it_is_of_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        crate::store::put_empty_pack(directory.path(), "0");
        let idx = directory.path().join("pack-0.idx");
        let pack = Pack::open(&idx, henge_types::ObjectFormat::Sha1).unwrap();
        let pack = Arc::new(pack);
        for padding in [10, 300_000] {
            let mut recorder = Recorder::new(directory.path(), 1_000_000);
            let mut expected: Vec<u8> = Vec::new();
            for number in 0..3_u8 {
                let own: Vec<u8> = (0..=250)
                    .map(|at| number ^ at)
                    .cycle()
                    .take(padding)
                    .collect();
                recorder.write_all(&own).unwrap();
                expected.extend(&own);
                let range = 4..20;
                expected.extend(&*pack.shared(range.clone()).unwrap());
                recorder.bytes += 16;
                if recorder.packs.is_empty() {
                    recorder.packs.push(Arc::clone(&pack));
                }
                recorder.pieces.push((recorder.bytes, Piece::Part(0, 4)));
            }
            let pieces = recorder.finish().unwrap();
            let total = pieces.bytes();
            assert_eq!(total, expected.len() as u64);
            let edges = [0, 1, 9, 10, 11, 25, 26, 27, total - 17, total - 1, total];
            for from in edges {
                for to in edges.into_iter().filter(|to| *to >= from) {
                    let mut part = Vec::new();
                    let packs = pieces.packs();
                    pieces.write_range(packs, from..to, &mut part).unwrap();
                    let place = |at: u64| usize::try_from(at).unwrap();
                    let expected = &expected[place(from)..place(to)];
                    assert!(part == expected, "{from}..{to} of {total}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_much_of_its_own_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(directory.path(), 100);
        recorder.write_all(&[1; 60]).unwrap();
        assert!(!recorder.is_full());
        recorder.write_all(&[1; 60]).unwrap_err();
        assert!(recorder.is_full());
    }
}
