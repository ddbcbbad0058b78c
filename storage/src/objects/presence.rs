//! Comparison of a pack with its name by a few reads: lengths, heads and trailers.
//!
//! A file's name is no proof of its contents: a power cut can leave names of empty or torn files,
//! and a disk or an operator may remove a file later. [`ObjectStore::verify_pack`] compares the
//! bytes between head and trailer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use henge_types::{NetworkId, PackId};

use super::packs::names;
use super::verify::{IDX_FAN_OUT_LAST_AT, IDX_MAGIC, PACK_MAGIC};
use super::{ObjectStore, PackFault};

/// Offset of the object count in a pack's head.
const PACK_COUNT_AT: usize = 8;
const PACK_HEAD_BYTES: usize = 12;
/// Bytes of an index per object besides its name: a checksum and an offset.
const IDX_ENTRY_BYTES: u64 = 8;

/// The state of a pack by its lengths, heads and trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Lengths, heads and trailers of both files are correct.
    Whole,
    /// Neither file exists, or only the index does.
    Missing,
    /// A file exists and does not match the name, or the index is missing.
    Damaged(PackFault),
}

/// Lengths of a pack's files in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackLengths {
    /// Bytes of the pack.
    pub pack: u64,
    /// Bytes of its index.
    pub idx: u64,
}

impl ObjectStore {
    /// The state of a pack by its lengths, heads and trailers. `lengths` are those of its manifest,
    /// where known. A few reads; the bytes between head and trailer are not read.
    pub fn presence(
        &self,
        network: &NetworkId,
        pack: &PackId,
        lengths: Option<PackLengths>,
    ) -> Presence {
        let (pack_path, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        look(pack, &pack_path, &idx_path, lengths)
    }

    /// Whether both files have these lengths: two system calls, cheap enough for every read.
    pub fn has_lengths(&self, network: &NetworkId, pack: &PackId, lengths: PackLengths) -> bool {
        let (pack_path, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        let is = |path: &Path, bytes| std::fs::metadata(path).is_ok_and(|file| file.len() == bytes);
        is(&pack_path, lengths.pack) && is(&idx_path, lengths.idx)
    }

    /// Whether [`ObjectStore::presence`] reports a whole pack.
    pub fn has_pack(&self, network: &NetworkId, pack: &PackId) -> bool {
        self.presence(network, pack, None) == Presence::Whole
    }
}

fn look(
    pack: &PackId,
    pack_path: &Path,
    idx_path: &Path,
    lengths: Option<PackLengths>,
) -> Presence {
    let pack_file = match File::open(pack_path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Presence::Missing,
        Err(error) => return unreadable(pack_path, &error),
    };
    let idx_file = match File::open(idx_path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Presence::Damaged(PackFault::NoIndex);
        }
        Err(error) => return unreadable(idx_path, &error),
    };
    match compare(pack, &pack_file, &idx_file, lengths) {
        Ok(None) => Presence::Whole,
        Ok(Some(fault)) => Presence::Damaged(fault),
        Err(error) => unreadable(pack_path, &error),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Presence {
    tracing::warn!(?path, %error, "a file of a pack cannot be read");
    Presence::Damaged(PackFault::Unreadable)
}

fn compare(
    pack: &PackId,
    pack_file: &File,
    idx_file: &File,
    lengths: Option<PackLengths>,
) -> io::Result<Option<PackFault>> {
    let checksum = pack.checksum();
    let name = checksum.as_bytes();
    let sum_bytes = name.len() as u64;
    let (pack_bytes, idx_bytes) = (pack_file.metadata()?.len(), idx_file.metadata()?.len());
    let differ = |known: PackLengths| (known.pack, known.idx) != (pack_bytes, idx_bytes);
    if lengths.is_some_and(differ) {
        return Ok(Some(PackFault::Length));
    }
    if pack_bytes < PACK_HEAD_BYTES as u64 + sum_bytes {
        return Ok(Some(PackFault::NotAPack));
    }
    let head = read_at::<PACK_HEAD_BYTES>(pack_file, 0)?;
    if !head.starts_with(PACK_MAGIC) {
        return Ok(Some(PackFault::NotAPack));
    }
    if !is_at(pack_file, pack_bytes - sum_bytes, name)? {
        return Ok(Some(PackFault::OtherPack));
    }
    let count = head.get(PACK_COUNT_AT..).unwrap_or_default();
    let count = u32::from_be_bytes(count.try_into().unwrap_or_default());
    let fan_out_end = IDX_FAN_OUT_LAST_AT + 4;
    let least = fan_out_end + u64::from(count) * (sum_bytes + IDX_ENTRY_BYTES) + 2 * sum_bytes;
    if idx_bytes < least || !is_at(idx_file, 0, &IDX_MAGIC)? {
        return Ok(Some(PackFault::Index));
    }
    let is_of_it = is_at(idx_file, IDX_FAN_OUT_LAST_AT, &count.to_be_bytes())?
        && is_at(idx_file, idx_bytes - 2 * sum_bytes, name)?;
    Ok((!is_of_it).then_some(PackFault::OtherIndex))
}

fn read_at<const BYTES: usize>(file: &File, at: u64) -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn is_at(file: &File, at: u64, expected: &[u8]) -> io::Result<bool> {
    let mut bytes = vec![0; expected.len()];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes == expected)
}
