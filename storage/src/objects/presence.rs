//! Whether a pack is there as its name says, as far as a few reads tell: lengths, heads and trailers.
//!
//! A file's name says nothing about its contents: a power cut leaves names of files that are empty or torn, and a disk or
//! an operator may take a file away later. What lies between head and trailer is compared by [`ObjectStore::verify_pack`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use henge_types::{NetworkId, PackId};

use super::packs::names;
use super::verify::{IDX_FAN_OUT_LAST_AT, IDX_MAGIC, PACK_MAGIC};
use super::{ObjectStore, PackFault};

/// Objects in the pack, in its head.
const PACK_COUNT_AT: usize = 8;
const PACK_HEAD_BYTES: usize = 12;
/// What an index has for each object beside its name: a checksum and an offset.
const IDX_ENTRY_BYTES: u64 = 8;

/// How a pack looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Lengths, heads and trailers of both files are as they must be.
    Whole,
    /// Neither of its files is there, or only the index.
    Missing,
    /// A file is there, and not as the name says; or the index is not there.
    Damaged(PackFault),
}

/// Lengths of the files of a pack, as its manifest names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackLengths {
    /// Bytes of the pack.
    pub pack: u64,
    /// Bytes of its index.
    pub idx: u64,
}

impl ObjectStore {
    /// How a pack looks from outside. `lengths` are those of its manifest, where they are known. A handful of reads: what
    /// lies between head and trailer is not looked at.
    pub fn presence(
        &self,
        network: &NetworkId,
        pack: &PackId,
        lengths: Option<PackLengths>,
    ) -> Presence {
        let (pack_path, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        look(pack, &pack_path, &idx_path, lengths)
    }

    /// Whether both files have these lengths: two calls of the file system, cheap enough for every read.
    pub fn has_lengths(&self, network: &NetworkId, pack: &PackId, lengths: PackLengths) -> bool {
        let (pack_path, idx_path) = names(&self.objects_dir(network).join("pack"), pack);
        let is = |path: &Path, bytes| std::fs::metadata(path).is_ok_and(|file| file.len() == bytes);
        is(&pack_path, lengths.pack) && is(&idx_path, lengths.idx)
    }

    /// Whether both files of a pack are there, as far as [`ObjectStore::presence`] tells.
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
