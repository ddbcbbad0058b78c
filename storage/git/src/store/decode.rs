//! Entries of packs, decoded. What a delta was made on is kept, the objects that are stored whole above all: the next delta
//! is made on the same one, as a rule, and inflating it is most of the work.

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

/// Decoded objects kept per request, in bytes.
const KEPT_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Larger objects are not kept.
const KEPT_OBJECT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What an object counts for beside its bytes.
const KEPT_ENTRY_BYTES: usize = 96;
/// The most bytes before the data of an entry: type and size, and the name of a base.
const ENTRY_HEAD_BYTES_MAX: u64 = 48;
/// The most bytes of the two sizes that a delta begins with.
const DELTA_HEAD_BYTES_MAX: usize = 20;
/// DEFLATE makes no more than this many bytes out of one: an entry that claims more is broken.
const INFLATE_RATIO_MAX: u64 = 1032;

/// An object.
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
    /// What it is compared with; where the caller compares by itself, nothing.
    pub(crate) sound: Option<&'a Sound>,
}

impl PackFiles<'_> {
    /// The head of the entry that begins at `offset`.
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

    /// Kind and size of the object whose entry begins at `offset`. Of a delta only the head is inflated.
    pub(crate) fn header(
        self,
        offset: u64,
        inflate: &mut gix_zlib::Inflate,
    ) -> gix_error::Result<(Kind, u64)> {
        let mut made = None;
        let mut at = offset;
        // A chain is shorter than its pack: this bound only stops a cycle in a broken file.
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

    /// The size of the object that a delta makes.
    fn made_bytes(self, entry: &Entry, inflate: &mut gix_zlib::Inflate) -> gix_error::Result<u64> {
        let stored = entry.data_offset..self.data.pack_end() as u64;
        let stored = self.data.entry_slice(stored).unwrap_or_default();
        let mut head = [0; DELTA_HEAD_BYTES_MAX];
        inflate.reset();
        let inflated = inflate.prefix(stored, &mut head);
        // What was read is known only now; of what cannot be inflated, as much as an intact head may take.
        let read = inflated
            .as_ref()
            .map_or(BLOCK_BYTES as u64, |(_, read, _)| *read as u64);
        self.check(entry.data_offset..entry.data_offset + read)?;
        let (_, _, written) = inflated?;
        let (_, made) =
            sizes(head.get(..written).unwrap_or_default()).map_err(gix_error::Error::from_error)?;
        Ok(made)
    }

    /// Where the base of a delta entry lies: a pack on disk is complete.
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

/// Decodes entries, for one request or one task. Packs are told apart by the `id` of their data file.
pub(crate) struct Decoder {
    inflate: gix_zlib::Inflate,
    /// By pack and place.
    kept: Generations<(u32, u64), Decoded, RandomState>,
    /// A delta, inflated.
    delta: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::keeping(KEPT_BYTES_MAX)
    }
}

impl Decoder {
    /// Keeps decoded objects up to so many bytes.
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

    /// The object whose entry begins at `offset`.
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
            // What lies between the kept base and the object that was asked for is nobody else's.
            spare = Arc::into_inner(base).unwrap_or_default();
        }
        self.keep(pack, offset, &object);
        Ok(object)
    }

    /// The nearest object below an entry that is kept or stored whole, and the deltas that lead from it to the entry, the
    /// last one first.
    fn base(
        &mut self,
        pack: PackFiles<'_>,
        offset: u64,
    ) -> gix_error::Result<(Decoded, Vec<Entry>)> {
        let mut deltas = Vec::new();
        let mut at = offset;
        // A chain is shorter than its pack: this bound only stops a cycle in a broken file.
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

    /// Reads the object whose entry begins at `offset` into `buffer`.
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
            // It would not be kept: no second copy of it.
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
        // Only now it is known where the entry ends.
        Ok(read) => pack.check(start..entry.data_offset + read as u64),
        Err(error) => {
            // The file may be damaged, or have been made that way.
            let most = entry.decompressed_size / 1000 + entry.decompressed_size;
            pack.check(start..entry.data_offset + most + ENTRY_HEAD_BYTES_MAX)?;
            Err(error)
        }
    }
}
