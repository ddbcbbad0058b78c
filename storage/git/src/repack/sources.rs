//! The packs to merge: their entries, the objects of the entries, and the reads of these.

use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};

use gix_hashtable::HashSet;
use gix_object::Kind;
use gix_pack::data::entry::Header;
use henge_types::ObjectFormat;

use crate::oid::{HashKind, Oid, from_gix, hash_kind, oid};
use crate::protocol::Stop;
use crate::repack::RepackError;
use crate::store::{Decoder, PackFiles};

/// Number of objects between two checks of the deadline.
pub(super) const STOP_EVERY: usize = 1024;

/// One copy of an object: entry number `entry` (in order of ids) of pack number `pack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) pack: u32,
    pub(super) entry: u32,
}

/// The storage of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// A whole object.
    Whole(Kind),
    /// A delta on another entry of its pack.
    Delta {
        /// The number of that entry.
        base: u32,
    },
}

/// The number of an entry whose object is left out.
const LEFT_OUT: u32 = u32::MAX;

/// One pack.
pub(super) struct Source {
    index: gix_pack::index::File,
    data: gix_pack::data::File,
    path: PathBuf,
    /// Entries in the order of their offsets.
    by_offset: Vec<u32>,
    /// The storage of each entry.
    stored: Vec<Stored>,
    /// The object that each entry holds, or [`LEFT_OUT`].
    numbers: Vec<u32>,
}

/// The objects of some packs, each once, numbered in the order of ids.
pub(super) struct Sources {
    format: ObjectFormat,
    packs: Vec<Source>,
    /// The preferred copy of each object: a delta where there is one, from the largest pack that
    /// has it.
    copies: Vec<Place>,
    /// Whole copies of objects whose preferred copy is a delta, in the order of objects.
    whole: Vec<(u32, Place)>,
    /// For each first two bytes of an id: the end of the objects with them.
    fan: Vec<u32>,
}

impl Sources {
    /// Opens packs by their indexes and reads the header of every entry. If `wanted` is given,
    /// other objects are left out.
    pub(super) fn open(
        idx_files: &[PathBuf],
        format: ObjectFormat,
        wanted: Option<&HashSet<Oid>>,
        stop: &Stop,
    ) -> Result<Self, RepackError> {
        let mut packs = Vec::with_capacity(idx_files.len());
        for path in idx_files {
            if stop.is_set() {
                return Err(RepackError::Stopped);
            }
            packs.push(Source::open(path, hash_kind(format))?);
        }
        packs.sort_by(|left, right| {
            let objects = left.stored.len().cmp(&right.stored.len());
            objects.reverse().then_with(|| left.path.cmp(&right.path))
        });
        for (slot, pack) in packs.iter_mut().enumerate() {
            // The cache of delta bases distinguishes packs by these numbers.
            pack.data.id = number(slot)?;
        }
        let mut sources = Self {
            format,
            packs,
            copies: Vec::new(),
            whole: Vec::new(),
            fan: Vec::new(),
        };
        sources.merge(wanted, stop)?;
        sources.fan = sources.fan_out();
        Ok(sources)
    }

    /// Merges all indexes in the order of ids.
    fn merge(&mut self, wanted: Option<&HashSet<Oid>>, stop: &Stop) -> Result<(), RepackError> {
        use std::cmp::Reverse;
        let mut heads = BinaryHeap::with_capacity(self.packs.len());
        for (slot, pack) in self.packs.iter().enumerate() {
            if !pack.stored.is_empty() {
                let head = (pack.index.oid_at_index(0).to_owned(), number(slot)?, 0_u32);
                heads.push(Reverse(head));
            }
        }
        let mut last: Option<Oid> = None;
        while let Some(mut head) = heads.peek_mut() {
            let Reverse((id, slot, entry)) = *head;
            let pack = &mut self.packs[slot as usize];
            if entry as usize + 1 < pack.stored.len() {
                head.0.0 = pack.index.oid_at_index(entry + 1).to_owned();
                head.0.2 = entry + 1;
                drop(head);
            } else {
                std::collections::binary_heap::PeekMut::pop(head);
            }
            if wanted.is_some_and(|wanted| !wanted.contains(&id)) {
                continue;
            }
            let copy = Place { pack: slot, entry };
            let is_new = last.replace(id) != Some(id);
            if is_new {
                if self.copies.len().is_multiple_of(STOP_EVERY) && stop.is_set() {
                    return Err(RepackError::Stopped);
                }
                number(self.copies.len() + 1)?;
                self.copies.push(copy);
            }
            let object = number(self.copies.len() - 1)?;
            self.packs[slot as usize].numbers[entry as usize] = object;
            if !is_new {
                self.note_duplicate(object, copy);
            }
        }
        Ok(())
    }

    /// Records a further copy. Packs come in the order of their size: the first delta and the first
    /// whole copy are kept.
    fn note_duplicate(&mut self, object: u32, copy: Place) {
        let kept = self.copies[object as usize];
        let is_whole = |copy| matches!(self.stored(copy), Stored::Whole(_));
        if is_whole(kept) && !is_whole(copy) {
            self.whole.push((object, kept));
            self.copies[object as usize] = copy;
        } else if !is_whole(kept) && is_whole(copy) {
            let has_whole = self.whole.last().is_some_and(|(last, _)| *last == object);
            if !has_whole {
                self.whole.push((object, copy));
            }
        }
    }

    fn fan_out(&self) -> Vec<u32> {
        let mut fan = vec![0_u32; 1 << 16];
        for object in 0..self.len() {
            fan[prefix(self.id(object))] += 1;
        }
        let mut sum = 0;
        for count in &mut fan {
            sum += *count;
            *count = sum;
        }
        fan
    }

    /// The object format of the packs.
    pub(super) const fn format(&self) -> ObjectFormat {
        self.format
    }

    /// Number of objects.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.copies.len()).unwrap_or(u32::MAX)
    }

    /// The id of an object.
    pub(super) fn id(&self, object: u32) -> &oid {
        let copy = self.copies[object as usize];
        self.packs[copy.pack as usize]
            .index
            .oid_at_index(copy.entry)
    }

    /// The number of the object with this id.
    pub(super) fn lookup(&self, id: &oid) -> Option<u32> {
        let prefix = prefix(id);
        let mut low = match prefix.checked_sub(1) {
            Some(before) => self.fan[before],
            None => 0,
        };
        let mut high = self.fan[prefix];
        while low < high {
            let middle = low.midpoint(high);
            match self.id(middle).cmp(id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The preferred copy of an object.
    pub(super) fn copy(&self, object: u32) -> Place {
        self.copies[object as usize]
    }

    /// A copy without a base.
    pub(super) fn whole_copy(&self, object: u32) -> Option<Place> {
        let copy = self.copy(object);
        if matches!(self.stored(copy), Stored::Whole(_)) {
            return Some(copy);
        }
        let found = self
            .whole
            .binary_search_by_key(&object, |(other, _)| *other);
        found.ok().map(|at| self.whole[at].1)
    }

    pub(super) fn stored(&self, copy: Place) -> Stored {
        self.packs[copy.pack as usize].stored[copy.entry as usize]
    }

    /// The object of an entry; `None` if it is left out.
    pub(super) fn number_of(&self, pack: u32, entry: u32) -> Option<u32> {
        let number = self.packs[pack as usize].numbers[entry as usize];
        (number != LEFT_OUT).then_some(number)
    }

    /// The header of a copy and its compressed bytes, verified against their checksum.
    pub(super) fn entry(&self, copy: Place) -> Result<(gix_pack::data::Entry, &[u8]), RepackError> {
        let source = &self.packs[copy.pack as usize];
        let (entry, raw) = source
            .entry_bytes(copy.entry)
            .map_err(|error| self.broken(copy, error))?;
        let id = source.index.oid_at_index(copy.entry);
        if source.index.crc32_at_index(copy.entry) != Some(crc32fast::hash(raw)) {
            return Err(RepackError::Damaged {
                pack: source.data.path().to_owned(),
                id: from_gix(id),
            });
        }
        let body = &raw[entry.header_size()..];
        Ok((entry, body))
    }

    /// The kind and size of an object. Does not read all of it.
    pub(super) fn header(
        &self,
        copy: Place,
        inflate: &mut gix_zlib::Inflate,
    ) -> Result<(Kind, u64), RepackError> {
        use gix_pack::data::decode::header::ResolvedBase;
        let source = &self.packs[copy.pack as usize];
        let resolve = |base: &oid| {
            let entry = source.index.lookup(base);
            entry
                .map(|entry| source.entry(entry).map(ResolvedBase::InPack))
                .transpose()
        };
        let outcome = source
            .entry(copy.entry)
            .and_then(|entry| source.data.decode_header(entry, inflate, &resolve))
            .map_err(|error| self.broken(copy, error))?;
        Ok((outcome.kind, outcome.object_size))
    }

    fn broken(&self, copy: Place, error: gix_error::Error) -> RepackError {
        let source = &self.packs[copy.pack as usize];
        RepackError::Entry {
            pack: source.data.path().to_owned(),
            id: from_gix(source.index.oid_at_index(copy.entry)),
            source: error,
        }
    }
}

fn prefix(id: &oid) -> usize {
    let bytes = id.as_bytes();
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// Converts to the 32 bits of objects, packs and entries, as in the files themselves.
pub(super) fn number(count: usize) -> Result<u32, RepackError> {
    u32::try_from(count)
        .ok()
        .filter(|number| *number < u32::MAX)
        .ok_or(RepackError::TooManyObjects)
}

impl Source {
    fn open(path: &Path, kind: HashKind) -> Result<Self, RepackError> {
        let failed = |source| RepackError::Open {
            path: path.to_owned(),
            source,
        };
        let unfit = |reason| RepackError::Unfit {
            path: path.to_owned(),
            reason,
        };
        let index = gix_pack::index::File::at(path, kind).map_err(failed)?;
        let data = gix_pack::data::File::at(path.with_extension("pack"), kind).map_err(failed)?;
        if index.version() != gix_pack::index::Version::V2 {
            return Err(unfit("the index has no checksums of entries (version 1)"));
        }
        if data.num_objects() != index.num_objects() || data.checksum() != index.pack_checksum() {
            return Err(unfit("index and pack do not belong together"));
        }
        let mut offsets: Vec<(u64, u32)> = (0..index.num_objects())
            .map(|entry| (index.pack_offset_at_index(entry), entry))
            .collect();
        offsets.sort_unstable();
        let mut source = Self {
            path: path.to_owned(),
            by_offset: offsets.iter().map(|(_, entry)| *entry).collect(),
            stored: vec![Stored::Whole(Kind::Blob); offsets.len()],
            numbers: vec![LEFT_OUT; offsets.len()],
            index,
            data,
        };
        for (offset, entry) in &offsets {
            let stored = source.stored_at(*offset, &offsets);
            source.stored[*entry as usize] = stored.map_err(|error| RepackError::Entry {
                pack: source.data.path().to_owned(),
                id: from_gix(source.index.oid_at_index(*entry)),
                source: error,
            })?;
        }
        Ok(source)
    }

    fn stored_at(&self, offset: u64, offsets: &[(u64, u32)]) -> gix_error::Result<Stored> {
        let entry = self.data.entry(offset)?;
        let base = match entry.header {
            Header::Commit => return Ok(Stored::Whole(Kind::Commit)),
            Header::Tree => return Ok(Stored::Whole(Kind::Tree)),
            Header::Blob => return Ok(Stored::Whole(Kind::Blob)),
            Header::Tag => return Ok(Stored::Whole(Kind::Tag)),
            Header::RefDelta { base_id } => self.index.lookup(base_id),
            Header::OfsDelta { base_distance } => entry
                .checked_base_pack_offset(base_distance)
                .and_then(|base| {
                    offsets
                        .binary_search_by_key(&base, |(offset, _)| *offset)
                        .ok()
                })
                .map(|at| offsets[at].1),
        };
        base.map(|base| Stored::Delta { base })
            .ok_or_else(|| gix_error::corruption("the base of a delta is not in its pack").into())
    }

    fn entry(&self, entry: u32) -> gix_error::Result<gix_pack::data::Entry> {
        self.data.entry(self.index.pack_offset_at_index(entry))
    }

    /// An entry and all its bytes, up to the next entry.
    fn entry_bytes(&self, entry: u32) -> gix_error::Result<(gix_pack::data::Entry, &[u8])> {
        let offset_of = |entry| self.index.pack_offset_at_index(entry);
        let offset = offset_of(entry);
        let behind = self
            .by_offset
            .partition_point(|other| offset_of(*other) <= offset);
        let end = match self.by_offset.get(behind) {
            Some(next) => offset_of(*next),
            None => self.data.pack_end() as u64,
        };
        let parsed = self.data.entry(offset)?;
        let raw = self
            .data
            .entry_slice(offset..end)
            .filter(|raw| raw.len() > parsed.header_size())
            .ok_or_else(|| gix_error::corruption("an entry reaches beyond its pack"))?;
        Ok((parsed, raw))
    }
}

/// A reader of objects.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    decoder: Decoder,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self {
            sources,
            decoder: Decoder::default(),
        }
    }

    pub(super) const fn inflate(&mut self) -> &mut gix_zlib::Inflate {
        self.decoder.inflate()
    }

    /// Reads an object into `buffer`.
    pub(super) fn read(&mut self, copy: Place, buffer: &mut Vec<u8>) -> Result<Kind, RepackError> {
        let source = &self.sources.packs[copy.pack as usize];
        let files = PackFiles {
            index: &source.index,
            data: &source.data,
            sound: None,
        };
        let offset = source.index.pack_offset_at_index(copy.entry);
        let read = self.decoder.read(files, offset, buffer);
        read.map_err(|error| self.sources.broken(copy, error))
    }

    /// Reads an object that is written again: its content must match its id.
    pub(super) fn read_checked(
        &mut self,
        copy: Place,
        buffer: &mut Vec<u8>,
    ) -> Result<Kind, RepackError> {
        let kind = self.read(copy, buffer)?;
        let source = &self.sources.packs[copy.pack as usize];
        let id = source.index.oid_at_index(copy.entry);
        let found = gix_object::compute_hash(id.kind(), kind, buffer)
            .map_err(|error| self.sources.broken(copy, error))?;
        if found == id {
            return Ok(kind);
        }
        Err(RepackError::Damaged {
            pack: source.data.path().to_owned(),
            id: from_gix(id),
        })
    }
}
