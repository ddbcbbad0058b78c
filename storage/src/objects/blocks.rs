//! Checksums of blocks of packs and indexes. Bytes read from disk are compared with them before
//! they leave the node.
//!
//! A pack's own trailer is a checksum of the whole: it verifies all of a pack, at the cost of
//! reading all of it. CRC-32 of each 16 KiB verifies any part of it, at memory speed: measured at
//! 28 GB/s with carry-less multiplication, against 6 to 13 for CRC-32C with its own instruction.
//! The block size is chosen for frames of 65,515 bytes, which cut across blocks: the bytes compared
//! beyond a frame are a quarter of it. With 64 KiB blocks they would be as much again.
//!
//! The checksums are computed when a pack is received, while it is read anyway, and are stored
//! beside it in `pack-<checksum>.crc`. That file is a cache: it has a checksum itself and holds the
//! trailers of its pack and index, so that a torn file or one of another pack counts as absent.
//! Small packs have no such file: reading them completely costs as little.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes of a block; the last one of a file is shorter.
pub const BLOCK_BYTES: usize = 16 * 1024;
/// Pack and index of at most this many bytes together have no file of checksums.
pub const SMALL_PACK_BYTES_MAX: u64 = 1024 * 1024;
/// Extension of the file with the checksums, beside the pack.
pub const SUMS_EXTENSION: &str = "crc";

const MAGIC: &[u8; 8] = b"HENGECRC";
const VERSION: u32 = 1;
/// Magic, version, checksum of the rest.
const HEAD_BYTES: usize = 16;
const READ_BYTES: usize = 128 * 1024;

/// A block with a wrong checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the block at byte {at} has another checksum than it was given")]
pub struct BlockMismatch {
    /// Offset of the block's first byte.
    pub at: u64,
}

/// Number of blocks that are brought into the processor's cache together.
const NEAR_BLOCKS: usize = 2;

/// Reads one byte of each cache line of the blocks at `at`, alternating between their pages. The
/// memory accesses of all pages then overlap; a checksum that runs through one page after the other
/// waits for each. Measured: a sixth less.
fn bring_near(file: &[u8], at: usize) {
    const PAGE_BYTES: usize = 4096;
    const LINE_BYTES: usize = 64;
    let near = file.get(at..).unwrap_or_default();
    let near = &near[..near.len().min(NEAR_BLOCKS * BLOCK_BYTES)];
    let mut seen = 0_u8;
    for line in (0..PAGE_BYTES).step_by(LINE_BYTES) {
        for page in near.chunks(PAGE_BYTES) {
            seen ^= page.get(line).copied().unwrap_or_default();
        }
    }
    std::hint::black_box(seen);
}

/// The checksums of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSums {
    bytes: u64,
    sums: Box<[u32]>,
}

impl FileSums {
    /// Checksums of a file in memory.
    pub fn of(file: &[u8]) -> Self {
        Self {
            bytes: file.len() as u64,
            sums: file.chunks(BLOCK_BYTES).map(crc32fast::hash).collect(),
        }
    }

    /// Bytes of the file.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks of the file.
    pub const fn blocks(&self) -> usize {
        self.sums.len()
    }

    /// The blocks that overlap a range of bytes.
    pub fn touched(range: &Range<u64>) -> Range<usize> {
        let block = |at: u64| usize::try_from(at / BLOCK_BYTES as u64).unwrap_or(usize::MAX);
        if range.is_empty() {
            return 0..0;
        }
        block(range.start)..block(range.end - 1).saturating_add(1)
    }

    /// Compares one block of the whole file.
    ///
    /// # Errors
    /// [`BlockMismatch`], also for a block that does not exist.
    pub fn check_block(&self, file: &[u8], block: usize) -> Result<(), BlockMismatch> {
        let at = block.saturating_mul(BLOCK_BYTES);
        let bytes = file
            .get(at..)
            .map(|rest| rest.get(..BLOCK_BYTES).unwrap_or(rest));
        let found = bytes.map(crc32fast::hash);
        match (found, self.sums.get(block)) {
            (Some(found), Some(expected)) if found == *expected => Ok(()),
            _ => Err(BlockMismatch { at: at as u64 }),
        }
    }

    /// Compares every block of the whole file that overlaps a range.
    ///
    /// # Errors
    /// The first [`BlockMismatch`].
    pub fn check(&self, file: &[u8], range: Range<u64>) -> Result<(), BlockMismatch> {
        let blocks = Self::touched(&range);
        for first in blocks.clone().step_by(NEAR_BLOCKS) {
            bring_near(file, first * BLOCK_BYTES);
            let until = blocks.end.min(first + NEAR_BLOCKS);
            (first..until).try_for_each(|block| self.check_block(file, block))?;
        }
        Ok(())
    }

    /// Compares `piece`, whose first byte lies at `at`. Both ends are block boundaries.
    ///
    /// # Errors
    /// The first [`BlockMismatch`].
    pub fn check_piece(&self, at: u64, piece: &[u8]) -> Result<(), BlockMismatch> {
        let first = usize::try_from(at / BLOCK_BYTES as u64).unwrap_or(usize::MAX);
        for (number, block) in piece.chunks(BLOCK_BYTES).enumerate() {
            let known = self.sums.get(first.saturating_add(number));
            if known != Some(&crc32fast::hash(block)) {
                let at = at + (number * BLOCK_BYTES) as u64;
                return Err(BlockMismatch { at });
            }
        }
        Ok(())
    }

    /// Reads and compares a whole file.
    ///
    /// # Errors
    /// The outer error when the file cannot be read; the inner one is the first [`BlockMismatch`].
    pub fn check_file(&self, path: &Path) -> io::Result<Result<(), BlockMismatch>> {
        let mut summer = Summer::default();
        read_through(&mut File::open(path)?, |piece| summer.update(piece))?;
        let found = summer.finish();
        let pairs = found.sums.iter().zip(&self.sums);
        let same = pairs.take_while(|(found, known)| found == known).count();
        if same == self.sums.len() && found.bytes == self.bytes {
            return Ok(Ok(()));
        }
        let at = same as u64 * BLOCK_BYTES as u64;
        Ok(Err(BlockMismatch { at }))
    }
}

/// Computes the checksums of a file while it is read or written.
#[derive(Debug, Default)]
pub struct Summer {
    sums: Vec<u32>,
    bytes: u64,
    /// Checksum of the incomplete block.
    sum: u32,
    in_block: usize,
}

impl Summer {
    /// Adds the next bytes.
    pub fn update(&mut self, mut piece: &[u8]) {
        self.bytes += piece.len() as u64;
        while !piece.is_empty() {
            let taken = piece.len().min(BLOCK_BYTES - self.in_block);
            let (head, rest) = piece.split_at(taken);
            let mut sum = crc32fast::Hasher::new_with_initial(self.sum);
            sum.update(head);
            self.sum = sum.finalize();
            self.in_block += taken;
            piece = rest;
            if self.in_block == BLOCK_BYTES {
                self.sums.push(self.sum);
                (self.sum, self.in_block) = (0, 0);
            }
        }
    }

    /// The checksums of all added bytes.
    pub fn finish(mut self) -> FileSums {
        if self.in_block > 0 {
            self.sums.push(self.sum);
        }
        FileSums {
            bytes: self.bytes,
            sums: self.sums.into(),
        }
    }
}

/// The checksums of a pack and its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSums {
    /// Of the pack.
    pub pack: FileSums,
    /// Of the index.
    pub idx: FileSums,
    /// The last bytes of both files: they identify the files.
    trailers: Trailers,
}

/// The checksums at the end of a pack and of its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers {
    /// Of the pack.
    pub pack: Vec<u8>,
    /// Of the index's own contents.
    pub idx: Vec<u8>,
}

impl BlockSums {
    /// Checksums of the files with these trailers.
    pub const fn new(pack: FileSums, idx: FileSums, trailers: Trailers) -> Self {
        Self {
            pack,
            idx,
            trailers,
        }
    }

    /// Computes the checksums of files that were just written or verified. Their trailers have
    /// `trailer_bytes` bytes.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of_files(pack: &Path, idx: &Path, trailer_bytes: usize) -> io::Result<Self> {
        let sum = |path: &Path| {
            let (mut summer, mut tail) = (Summer::default(), Vec::new());
            read_through(&mut File::open(path)?, |piece| {
                summer.update(piece);
                keep_tail(&mut tail, piece, trailer_bytes);
            })?;
            io::Result::Ok((summer.finish(), tail))
        };
        let (pack, pack_trailer) = sum(pack)?;
        let (idx, idx_trailer) = sum(idx)?;
        let trailers = Trailers {
            pack: pack_trailer,
            idx: idx_trailer,
        };
        Ok(Self::new(pack, idx, trailers))
    }

    /// The path of a pack's file of checksums.
    pub fn path_of(pack: &Path) -> PathBuf {
        pack.with_extension(SUMS_EXTENSION)
    }

    /// Reads the checksums at `path`. `None` when there is no file, when it is torn, or when its
    /// trailers differ from `trailers`.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn read(path: &Path, trailers: &Trailers) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Self::decode(&bytes).filter(|found| found.trailers == *trailers))
    }

    /// Writes the checksums to `unfinished` and renames that to `path`. Not synced: `read` detects
    /// the damage of a power cut.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, path: &Path, unfinished: &Path) -> io::Result<()> {
        let written = File::create(unfinished).and_then(|mut file| file.write_all(&self.encode()));
        if let Err(error) = written.and_then(|()| fs::rename(unfinished, path)) {
            fs::remove_file(unfinished).ok();
            return Err(error);
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let block_bytes = u32::try_from(BLOCK_BYTES).unwrap_or(0);
        let trailer_bytes = u32::try_from(self.trailers.pack.len()).unwrap_or(0);
        body.extend_from_slice(&block_bytes.to_le_bytes());
        body.extend_from_slice(&trailer_bytes.to_le_bytes());
        body.extend_from_slice(&self.pack.bytes.to_le_bytes());
        body.extend_from_slice(&self.idx.bytes.to_le_bytes());
        body.extend_from_slice(&self.trailers.pack);
        body.extend_from_slice(&self.trailers.idx);
        for sum in self.pack.sums.iter().chain(&self.idx.sums) {
            body.extend_from_slice(&sum.to_le_bytes());
        }
        let mut file = Vec::with_capacity(HEAD_BYTES + body.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        file.extend_from_slice(&body);
        file
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        if number(&mut rest)? != VERSION {
            return None;
        }
        let sum = number(&mut rest)?;
        if crc32c::crc32c(rest) != sum {
            return None;
        }
        if usize::try_from(number(&mut rest)?).ok()? != BLOCK_BYTES {
            return None;
        }
        let trailer_bytes = usize::try_from(number(&mut rest)?).ok()?;
        let pack_bytes = length(&mut rest)?;
        let idx_bytes = length(&mut rest)?;
        let (pack_trailer, after) = rest.split_at_checked(trailer_bytes)?;
        let (idx_trailer, after) = after.split_at_checked(trailer_bytes)?;
        rest = after;
        let pack = sums(&mut rest, pack_bytes)?;
        let idx = sums(&mut rest, idx_bytes)?;
        let trailers = Trailers {
            pack: pack_trailer.to_vec(),
            idx: idx_trailer.to_vec(),
        };
        rest.is_empty().then(|| Self::new(pack, idx, trailers))
    }
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*bytes))
}

fn length(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*bytes))
}

fn sums(rest: &mut &[u8], bytes: u64) -> Option<FileSums> {
    let blocks = usize::try_from(bytes.div_ceil(BLOCK_BYTES as u64)).ok()?;
    let (head, after) = rest.split_at_checked(blocks.checked_mul(4)?)?;
    *rest = after;
    let (chunks, _) = head.as_chunks::<4>();
    let sums = chunks.iter().map(|chunk| u32::from_le_bytes(*chunk));
    Some(FileSums {
        bytes,
        sums: sums.collect(),
    })
}

/// Calls `take` with every byte of a file, in order.
pub(super) fn read_through(file: &mut File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Keeps the last `bytes` bytes of all pieces in `tail`.
pub(super) fn keep_tail(tail: &mut Vec<u8>, piece: &[u8], bytes: usize) {
    let superfluous = piece.len().saturating_sub(bytes);
    tail.extend_from_slice(piece.get(superfluous..).unwrap_or_default());
    let superfluous = tail.len().saturating_sub(bytes);
    tail.drain(..superfluous);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(byte: u8) -> Trailers {
        Trailers {
            pack: vec![byte; 20],
            idx: vec![byte + 1; 20],
        }
    }

    fn bytes(count: usize) -> Vec<u8> {
        let bytes = (0..count).map(|at| u8::try_from(at * 7 % 251).unwrap());
        bytes.collect()
    }

    #[test]
    fn every_flipped_bit_is_found_in_its_block_alone() {
        let mut file = bytes(3 * BLOCK_BYTES + 17);
        let sums = FileSums::of(&file);
        assert_eq!(sums.blocks(), 4);
        let mut summer = Summer::default();
        for piece in file.chunks(1000) {
            summer.update(piece);
        }
        assert_eq!(summer.finish(), sums, "however it is cut");
        let block = BLOCK_BYTES as u64;
        for at in [
            0,
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            3 * BLOCK_BYTES,
            3 * BLOCK_BYTES + 16,
        ] {
            file[at] ^= 4;
            let at = at as u64;
            let begin = at / block * block;
            assert_eq!(
                sums.check(&file, at..at + 1),
                Err(BlockMismatch { at: begin })
            );
            assert_eq!(sums.check(&file, 0..begin), Ok(()));
            let behind = (begin + block).min(file.len() as u64);
            assert_eq!(sums.check(&file, behind..file.len() as u64), Ok(()));
            file[usize::try_from(at).unwrap()] ^= 4;
        }
        assert_eq!(sums.check(&file, 0..file.len() as u64), Ok(()));
        for begin in [0, BLOCK_BYTES, 3 * BLOCK_BYTES] {
            let at = begin as u64;
            assert_eq!(sums.check_piece(at, &file[begin..]), Ok(()));
            let other = [&file[begin..begin + 9], b"x"].concat();
            assert_eq!(sums.check_piece(at, &other), Err(BlockMismatch { at }));
        }
        file.truncate(3 * BLOCK_BYTES + 5);
        assert!(sums.check(&file, 3 * block..3 * block + 1).is_err());
        assert!(
            sums.check_block(&file, 4).is_err(),
            "there is no such block"
        );
    }

    #[test]
    fn sums_of_other_files_or_torn_ones_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack-1.crc");
        let sums = BlockSums::new(
            FileSums::of(&bytes(100_000)),
            FileSums::of(&bytes(2000)),
            trailers(1),
        );
        assert_eq!(BlockSums::read(&path, &trailers(1)).unwrap(), None);
        sums.write(&path, &dir.path().join("new")).unwrap();
        let read = BlockSums::read(&path, &trailers(1)).unwrap();
        assert_eq!(read.as_ref(), Some(&sums));
        assert_eq!(BlockSums::read(&path, &trailers(2)).unwrap(), None);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            assert_eq!(BlockSums::decode(&damaged), None, "byte {at}");
            assert_eq!(BlockSums::decode(&good[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn a_file_is_compared_with_its_sums() {
        let dir = tempfile::tempdir().unwrap();
        let (pack, idx) = (dir.path().join("p"), dir.path().join("i"));
        let mut file = bytes(5 * BLOCK_BYTES);
        fs::write(&pack, &file).unwrap();
        fs::write(&idx, bytes(50)).unwrap();
        let sums = BlockSums::of_files(&pack, &idx, 20).unwrap();
        assert_eq!(sums.pack, FileSums::of(&file));
        assert_eq!(sums.trailers.idx, bytes(50)[30..]);
        assert_eq!(sums.pack.check_file(&pack).unwrap(), Ok(()));
        file[2 * BLOCK_BYTES + 9] ^= 1;
        fs::write(&pack, &file).unwrap();
        let at = 2 * BLOCK_BYTES as u64;
        assert_eq!(
            sums.pack.check_file(&pack).unwrap(),
            Err(BlockMismatch { at })
        );
        file.truncate(4);
        fs::write(&pack, &file).unwrap();
        assert!(sums.pack.check_file(&pack).unwrap().is_err());
    }
}
