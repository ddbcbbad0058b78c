//! Decodes entries of packs. Delta bases are cached, above all objects stored whole: the next delta
//! usually has the same base, and inflating it is most of the work.

use std::collections::hash_map::RandomState;
use std::sync::Arc;

use gix_error::corruption;
use gix_object::Kind;
use gix_pack::data::Entry;
use gix_pack::data::entry::Header;
use henge_storage::objects::blocks::BLOCK_BYTES;

use crate::delta::{apply, sizes};
use crate::generations::Generations;
use crate::store::sound::Sound;

/// The size of the cache of a request in bytes.
const KEPT_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Larger objects are not cached.
const KEPT_OBJECT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The overhead of a cached object in bytes.
const KEPT_ENTRY_BYTES: usize = 96;
/// The maximum length of the head of an entry: type and size, and the name of a base.
const ENTRY_HEAD_BYTES_MAX: u64 = 48;
/// The maximum length of the two sizes at the head of a delta.
const DELTA_HEAD_BYTES_MAX: usize = 20;
/// The maximum expansion of DEFLATE: an entry that claims more is damaged.
const INFLATE_RATIO_MAX: u64 = 1032;

/// A decoded object.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    pub(crate) kind: Kind,
    pub(crate) data: Arc<Vec<u8>>,
}

impl Decoded {
    fn kept_bytes(&self) -> usize {
        self.data.len() + KEPT_ENTRY_BYTES
    }
}

/// A pack and its index.
#[derive(Clone, Copy)]
pub(crate) struct PackFiles<'a> {
    pub(crate) index: &'a gix_pack::index::File,
    pub(crate) data: &'a gix_pack::data::File,
    /// The checksums to verify reads with; `None` where the caller verifies.
    pub(crate) sound: Option<&'a Sound>,
}

impl PackFiles<'_> {
    /// The head of the entry at `offset`.
    pub(crate) fn entry(self, offset: u64) -> gix_error::Result<Entry> {
        self.check(offset..offset.saturating_add(ENTRY_HEAD_BYTES_MAX))?;
        self.data.entry(offset)
    }

    fn check(self, range: std::ops::Range<u64>) -> gix_error::Result<()> {
        let Some(sound) = self.sound else {
            return Ok(());
        };
        let range = range.start..range.end.min(self.data.data_len() as u64);
        let checked = sound.check_read(self.data, &range);
        checked.map_err(gix_error::Error::from_error)
    }

    /// Kind and size of the object of the entry at `offset`. Only the head of a delta is inflated.
    pub(crate) fn header(
        self,
        offset: u64,
        inflate: &mut gix_zlib::Inflate,
    ) -> gix_error::Result<(Kind, u64)> {
        let mut made = None;
        let mut at = offset;
        // A chain is shorter than its pack: the bound only ends a cycle in a damaged file.
        for _ in 0..=self.data.num_objects() {
            let entry = self.entry(at)?;
            if let Some(kind) = entry.header.as_kind() {
                return Ok((kind, made.unwrap_or(entry.decompressed_size)));
            }
            if made.is_none() {
                made = Some(self.made_bytes(&entry, inflate)?);
            }
            let below = self.base_offset(&entry);
            at = below.ok_or_else(|| corruption("the base of a delta is missing"))?;
        }
        Err(corruption("a chain of deltas does not end").into())
    }

    /// The size of the result of a delta.
    fn made_bytes(self, entry: &Entry, inflate: &mut gix_zlib::Inflate) -> gix_error::Result<u64> {
        let stored = entry.data_offset..self.data.pack_end() as u64;
        let stored = self.data.entry_slice(stored).unwrap_or_default();
        let mut head = [0; DELTA_HEAD_BYTES_MAX];
        inflate.reset();
        let inflated = inflate.prefix(stored, &mut head);
        // The extent of the read is known only now. After a failure it is the maximum of an intact
        // head.
        let read = inflated
            .as_ref()
            .map_or(BLOCK_BYTES as u64, |(_, read, _)| *read as u64);
        self.check(entry.data_offset..entry.data_offset + read)?;
        let (_, _, written) = inflated?;
        let (_, made) =
            sizes(head.get(..written).unwrap_or_default()).map_err(gix_error::Error::from_error)?;
        Ok(made)
    }

    /// The offset of the base of a delta entry. A pack on disk is complete, so it has the base.
    pub(crate) fn base_offset(self, entry: &Entry) -> Option<u64> {
        match entry.header {
            Header::OfsDelta { base_distance } => entry.checked_base_pack_offset(base_distance),
            Header::RefDelta { base_id } => {
                let entry = self.index.lookup(base_id)?;
                Some(self.index.pack_offset_at_index(entry))
            }
            Header::Commit | Header::Tree | Header::Blob | Header::Tag => None,
        }
    }
}

/// Decodes entries for one request or one task. The `id` of a data file identifies its pack.
pub(crate) struct Decoder {
    inflate: gix_zlib::Inflate,
    /// By pack and offset.
    kept: Generations<(u32, u64), Decoded, RandomState>,
    /// The current delta, inflated.
    delta: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::keeping(KEPT_BYTES_MAX)
    }
}

impl Decoder {
    /// A decoder with a cache of `bytes_max` bytes.
    pub(crate) fn keeping(bytes_max: usize) -> Self {
        Self {
            inflate: gix_zlib::Inflate::default(),
            kept: Generations::new(bytes_max),
            delta: Vec::new(),
        }
    }

    pub(crate) const fn inflate(&mut self) -> &mut gix_zlib::Inflate {
        &mut self.inflate
    }

    /// The object of the entry at `offset`.
    pub(crate) fn decode(
        &mut self,
        pack: PackFiles<'_>,
        offset: u64,
    ) -> gix_error::Result<Decoded> {
        let (mut object, deltas) = self.base(pack, offset)?;
        if deltas.is_empty() {
            return Ok(object);
        }
        let mut spare = Vec::new();
        for entry in deltas.iter().rev() {
            inflate_into(pack, entry, &mut self.inflate, &mut self.delta)?;
            let mut data = spare;
            apply(&object.data, &self.delta, &mut data).map_err(gix_error::Error::from_error)?;
            let base = std::mem::replace(&mut object.data, Arc::new(data));
            // Results between the cached base and the requested object have no other owner: their
            // memory is used again.
            spare = Arc::into_inner(base).unwrap_or_default();
        }
        self.keep(pack, offset, &object);
        Ok(object)
    }

    /// The nearest object below an entry that is cached or stored whole, and the deltas from it to
    /// the entry, the last one first.
    fn base(
        &mut self,
        pack: PackFiles<'_>,
        offset: u64,
    ) -> gix_error::Result<(Decoded, Vec<Entry>)> {
        let mut deltas = Vec::new();
        let mut at = offset;
        // A chain is shorter than its pack: the bound only ends a cycle in a damaged file.
        for _ in 0..=pack.data.num_objects() {
            let kept = self.kept.get(&(pack.data.id, at), Decoded::kept_bytes);
            if let Some(base) = kept {
                return Ok((base, deltas));
            }
            let entry = pack.entry(at)?;
            if let Some(kind) = entry.header.as_kind() {
                let mut data = Vec::new();
                inflate_into(pack, &entry, &mut self.inflate, &mut data)?;
                let base = Decoded {
                    kind,
                    data: Arc::new(data),
                };
                self.keep(pack, at, &base);
                return Ok((base, deltas));
            }
            let below = pack.base_offset(&entry);
            at = below.ok_or_else(|| corruption("the base of a delta is missing"))?;
            deltas.push(entry);
        }
        Err(corruption("a chain of deltas does not end").into())
    }

    fn keep(&mut self, pack: PackFiles<'_>, offset: u64, object: &Decoded) {
        if object.data.len() as u64 <= KEPT_OBJECT_BYTES_MAX {
            let bytes = object.kept_bytes();
            self.kept.put((pack.data.id, offset), object.clone(), bytes);
        }
    }

    /// Reads the object of the entry at `offset` into `buffer`.
    pub(crate) fn read(
        &mut self,
        pack: PackFiles<'_>,
        offset: u64,
        buffer: &mut Vec<u8>,
    ) -> gix_error::Result<Kind> {
        let entry = pack.entry(offset)?;
        if entry.decompressed_size > KEPT_OBJECT_BYTES_MAX
            && let Some(kind) = entry.header.as_kind()
        {
            // The cache would not take it: no second copy.
            inflate_into(pack, &entry, &mut self.inflate, buffer)?;
            return Ok(kind);
        }
        let object = self.decode(pack, offset)?;
        buffer.clear();
        buffer.extend_from_slice(&object.data);
        Ok(object.kind)
    }
}

/// Inflates the bytes of an entry: an object, or a delta.
fn inflate_into(
    pack: PackFiles<'_>,
    entry: &Entry,
    inflate: &mut gix_zlib::Inflate,
    buffer: &mut Vec<u8>,
) -> gix_error::Result<()> {
    let size = entry.decompressed_size;
    let stored = (pack.data.pack_end() as u64).saturating_sub(entry.data_offset);
    if size > stored.saturating_mul(INFLATE_RATIO_MAX) {
        return Err(corruption("an entry claims more bytes than its pack can hold").into());
    }
    let size = usize::try_from(size).map_err(gix_error::Error::from_error)?;
    buffer.clear();
    let reserved = buffer.try_reserve_exact(size);
    reserved.map_err(gix_error::Error::from_error)?;
    buffer.resize(size, 0);
    let start = entry.pack_offset();
    match pack.data.decompress_entry(entry, inflate, buffer) {
        // The end of the entry is known only now.
        Ok(read) => pack.check(start..entry.data_offset + read as u64),
        Err(error) => {
            // Either the file is damaged, or it was written like this.
            let most = entry.decompressed_size / 1000 + entry.decompressed_size;
            pack.check(start..entry.data_offset + most + ENTRY_HEAD_BYTES_MAX)?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use henge_storage::objects::blocks::BlockSums;
    use henge_types::ObjectFormat;
    use sha1::{Digest, Sha1};

    use crate::store::packs::Pack;

    /// The offset of the first entry of a pack.
    const BASE_AT: usize = 12;
    const BASE_BYTES: usize = 3 * BLOCK_BYTES;
    /// The size of the result of the delta.
    const MADE_BYTES: u8 = 77;
    const BLOB: u8 = 3;
    const OFS_DELTA: u8 = 6;

    /// Deflates without compression: zlib verifies its checksum only at the end.
    fn stored(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn push_head(pack: &mut Vec<u8>, kind: u8, bytes: usize) {
        let mut byte = kind << 4 | u8::try_from(bytes & 15).unwrap();
        let mut left = bytes >> 4;
        while left > 0 {
            pack.push(byte | 128);
            byte = u8::try_from(left & 127).unwrap();
            left >>= 7;
        }
        pack.push(byte);
    }

    fn push_sum(bytes: &mut Vec<u8>) {
        let sum: [u8; 20] = Sha1::digest(&bytes).into();
        bytes.extend_from_slice(&sum);
    }

    /// Writes a pack of a blob and a delta on it in another block, with checksums of its blocks.
    /// Returns its index, the offset of the delta, and the offset of the size of its result.
    fn pack_of_a_delta(dir: &Path) -> (PathBuf, usize, usize) {
        let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
        push_head(&mut pack, BLOB, BASE_BYTES);
        pack.extend(stored(&vec![b'x'; BASE_BYTES]));
        let delta_at = pack.len();
        // The size of the base, the size of the result, and an instruction.
        let base = u32::try_from(BASE_BYTES).unwrap();
        let low = |bits: u32| u8::try_from(bits & 127).unwrap();
        let delta = [
            low(base) | 128,
            low(base >> 7) | 128,
            low(base >> 14),
            MADE_BYTES,
            1,
            b'a',
        ];
        push_head(&mut pack, OFS_DELTA, delta.len());
        let mut distance = delta_at - BASE_AT;
        let mut encoded = vec![u8::try_from(distance & 127).unwrap()];
        distance >>= 7;
        while distance > 0 {
            distance -= 1;
            encoded.insert(0, u8::try_from(distance & 127).unwrap() | 128);
            distance >>= 7;
        }
        pack.extend(encoded);
        let data_at = pack.len();
        pack.extend(stored(&delta));
        let size_at = data_at
            + pack[data_at..]
                .iter()
                .position(|b| *b == MADE_BYTES)
                .unwrap();
        push_sum(&mut pack);

        let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
        for first in 0..256_u32 {
            idx.extend_from_slice(&first.min(2).to_be_bytes());
        }
        idx.extend_from_slice(&[1; 20]);
        idx.extend_from_slice(&[2; 20]);
        idx.extend_from_slice(&[0; 8]);
        for offset in [BASE_AT, delta_at] {
            idx.extend_from_slice(&u32::try_from(offset).unwrap().to_be_bytes());
        }
        idx.extend_from_slice(&pack[pack.len() - 20..]);
        push_sum(&mut idx);

        let path = dir.join("pack-1.pack");
        let idx_path = path.with_extension("idx");
        fs::write(&path, pack).unwrap();
        fs::write(&idx_path, idx).unwrap();
        let sums = BlockSums::of_files(&path, &idx_path, 20).unwrap();
        sums.write(&BlockSums::path_of(&path), &dir.join("new"))
            .unwrap();
        (idx_path, delta_at, size_at)
    }

    /// For a delta, the size was once read from the head of the delta, and the kind from the end of
    /// the chain, without verification of these bytes.
    #[test]
    fn a_header_is_not_read_from_damaged_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (idx, delta_at, size_at) = pack_of_a_delta(dir.path());
        let header = || {
            let pack = Pack::open_compared(&idx, ObjectFormat::Sha1).unwrap();
            let files = pack.files();
            files.header(delta_at as u64, &mut gix_zlib::Inflate::default())
        };
        let flip = |at: usize, bit: u8| {
            let path = idx.with_extension("pack");
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= bit;
            fs::write(path, bytes).unwrap();
        };
        assert!(delta_at / BLOCK_BYTES > BASE_AT / BLOCK_BYTES);
        let whole = (Kind::Blob, u64::from(MADE_BYTES));
        assert_eq!(header().unwrap(), whole);
        // First the kind of the base: a tree of the same size. Then the size in the delta.
        for (at, bit) in [(BASE_AT, 0x10), (size_at, 1)] {
            flip(at, bit);
            let error = header().unwrap_err();
            let said = format!("{error:?}");
            assert!(
                said.contains("another checksum than it was given"),
                "{said}"
            );
            flip(at, bit);
            assert_eq!(header().unwrap(), whole);
        }
    }
}
