//! Writes the files beside a pack: its index, version 2, and its reverse index (gitformat-pack(5)).

use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::oid::{Oid, format_number, format_of, oid};
use crate::repack::output::HashedFile;

const IDX_SIGNATURE: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
/// Signature, version 1.
const REV_HEADER: [u8; 8] = *b"RIDX\0\0\0\x01";
/// Offsets from here on are in a separate table.
const LARGE_OFFSET: u64 = 1 << 31;

/// Writes the index of a pack, with its objects in the order of their ids. Returns the size in
/// bytes.
pub(super) fn write_idx<'a>(
    into: &Path,
    ids: impl Iterator<Item = &'a oid> + Clone,
    checksums: &[u32],
    offsets: &[u64],
    pack: &Oid,
) -> io::Result<(NamedTempFile, u64)> {
    let mut file = HashedFile::create(into, format_of(pack))?;
    file.put(&IDX_SIGNATURE)?;
    let mut fan = [0_u32; 256];
    for id in ids.clone() {
        fan[usize::from(id.first_byte())] += 1;
    }
    let mut sum = 0;
    for count in fan {
        sum += count;
        file.put(&sum.to_be_bytes())?;
    }
    for id in ids {
        file.put(id.as_bytes())?;
    }
    for checksum in checksums {
        file.put(&checksum.to_be_bytes())?;
    }
    let mut large: u32 = 0;
    for offset in offsets {
        let field = match u32::try_from(*offset) {
            Ok(small) if *offset < LARGE_OFFSET => small,
            Ok(_) | Err(_) => {
                large += 1;
                (large - 1) | 1 << 31
            }
        };
        file.put(&field.to_be_bytes())?;
    }
    for offset in offsets.iter().filter(|offset| **offset >= LARGE_OFFSET) {
        file.put(&offset.to_be_bytes())?;
    }
    file.put(pack.as_bytes())?;
    let bytes = file.written + pack.as_bytes().len() as u64;
    Ok((file.finish()?.1, bytes))
}

/// Writes the reverse index: the objects, numbered in the order of their ids, in the order of their
/// offsets.
pub(super) fn write_rev(into: &Path, order: &[u32], pack: &Oid) -> io::Result<NamedTempFile> {
    let mut file = HashedFile::create(into, format_of(pack))?;
    file.put(&REV_HEADER)?;
    file.put(&u32::from(format_number(format_of(pack))).to_be_bytes())?;
    for object in order {
        file.put(&object.to_be_bytes())?;
    }
    file.put(pack.as_bytes())?;
    Ok(file.finish()?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_large_pack_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let offsets: Vec<u64> = (0..200).map(|number| 12 + number * 0x0200_0000).collect();
        let checksums: Vec<u32> = (0..200).map(|number| number * 7).collect();
        let of_sha1 = |byte| Oid::Sha1([byte; 20]);
        let of_sha256 = |byte| Oid::Sha256([byte; 32]);
        for id in [&of_sha1 as &dyn Fn(u8) -> Oid, &of_sha256] {
            let ids: Vec<Oid> = (0..200_u8).map(id).collect();
            let all = ids.iter().map(AsRef::as_ref);
            let pack = id(9);
            let (file, bytes) = write_idx(dir.path(), all, &checksums, &offsets, &pack).unwrap();
            assert_eq!(file.as_file().metadata().unwrap().len(), bytes);
            let index = gix_pack::index::File::at(file.path(), pack.kind()).unwrap();
            assert_eq!(index.num_objects(), 200);
            for (entry, id) in (0..).zip(&ids) {
                assert_eq!(index.lookup(id), Some(entry));
                let at = entry as usize;
                assert_eq!(index.pack_offset_at_index(entry), offsets[at]);
                assert_eq!(index.crc32_at_index(entry), Some(checksums[at]));
            }
            let stop = std::sync::atomic::AtomicBool::new(false);
            index
                .verify_checksum(&mut gix_utils::progress::Discard, &stop)
                .unwrap();
        }
    }
}
