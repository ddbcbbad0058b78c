//! The reverse index of a pack: from an object's position in the pack to its entry in the index.

use std::io;
use std::path::Path;

use crate::oid::{Checksum, format_number};
use crate::store::Pack;

const SIGNATURE: &[u8; 4] = b"RIDX";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 12;
const NUMBER_BYTES: usize = 4;

/// The index entries of a pack's objects, in the order of the pack. The index is in the order of
/// ids.
#[derive(Debug)]
pub(crate) struct PackOrder {
    entries: Box<[u32]>,
}

impl PackOrder {
    /// Reads the `.rev` file beside the index of `pack`. If it is missing or does not match, the
    /// order is sorted from the index.
    pub(crate) fn load(pack: &Pack) -> Self {
        let path = pack.index.path().with_extension("rev");
        let entries = match read(&path, pack) {
            Ok(entries) if is_order(pack, &entries) => entries,
            Ok(_) => {
                tracing::warn!(path = %path.display(), "ignored: it is not the order of its pack");
                sort(pack)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => sort(pack),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignored");
                sort(pack)
            }
        };
        Self { entries }
    }

    /// The index entry of the object at a position, which must be below the number of objects.
    pub(crate) fn entry(&self, position: u32) -> u32 {
        self.entries[position as usize]
    }

    /// Encodes a `.rev` file (gitformat-pack(5)).
    pub(super) fn encode(&self, pack: &Pack) -> Vec<u8> {
        let length = HEAD_BYTES + self.entries.len() * NUMBER_BYTES + 2 * pack.format.id_bytes();
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&u32::from(format_number(pack.format)).to_be_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.to_be_bytes());
        }
        out.extend_from_slice(pack.data.checksum().as_bytes());
        let checksum = Checksum::of(pack.format, &out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }
}

fn read(path: &Path, pack: &Pack) -> io::Result<Box<[u32]>> {
    let data = std::fs::read(path)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not a reverse index");
    let (head, rest) = data.split_at_checked(HEAD_BYTES).ok_or_else(malformed)?;
    let table = rest
        .len()
        .checked_sub(2 * pack.format.id_bytes())
        .ok_or_else(malformed)?;
    let (numbers, odd) = rest[..table].as_chunks::<NUMBER_BYTES>();
    let is_known = head[..4] == *SIGNATURE
        && head[4..8] == VERSION.to_be_bytes()
        && head[8..] == u32::from(format_number(pack.format)).to_be_bytes();
    if !is_known || !odd.is_empty() || numbers.len() != pack.index.num_objects() as usize {
        return Err(malformed());
    }
    Ok(numbers
        .iter()
        .map(|number| u32::from_be_bytes(*number))
        .collect())
}

/// Checks that the entries are in the order of the file. This proves more than a checksum.
fn is_order(pack: &Pack, entries: &[u32]) -> bool {
    let objects = pack.index.num_objects();
    entries
        .iter()
        .zip(pack.boundaries())
        .all(|(entry, offset)| {
            *entry < objects && pack.index.pack_offset_at_index(*entry) == *offset
        })
}

fn sort(pack: &Pack) -> Box<[u32]> {
    let mut entries: Vec<_> = (0..pack.index.num_objects())
        .map(|entry| (pack.index.pack_offset_at_index(entry), entry))
        .collect();
    entries.sort_unstable();
    entries.into_iter().map(|(_, entry)| entry).collect()
}
