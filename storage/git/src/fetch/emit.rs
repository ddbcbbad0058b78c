//! Writes a pack: entries are copied from disk in compressed form wherever their delta bases allow
//! it.

mod deflate;
mod thin;

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use gix_object::Kind;
use gix_pack::data::entry::Header;

use crate::fetch::emit::deflate::Deflater;
use crate::fetch::emit::thin::ThinDeltas;
use crate::fetch::select::{Packed, Selection};
use crate::fetch::{FetchError, FetchSummary};
use crate::oid::{Checksum, Oid};
use crate::output::{Output, PackPart};
use crate::protocol::Stop;
use crate::store::{DamagedPack, Location, ObjectStore, Pack, StoreError};

/// Minimum number of entries at the start of a pack that are sent as one piece.
const VERBATIM_OBJECTS_MIN: usize = 16;
/// Bytes of a pack without block checksums that are sent at once, after a check of each entry.
const COMPARED_BYTES: u64 = 1024 * 1024;
/// Interval of deadline checks, in objects that are copied verbatim.
const STOP_EVERY: usize = 1024;

/// A stored delta on an object of the client is copied if it has fewer bytes than this. For a
/// longer one, a better delta is sought.
const THIN_BYTES_MIN: u64 = 512;

/// The capabilities of the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepts {
    /// Bases given by their distance (`ofs-delta`).
    pub(super) ofs_delta: bool,
    /// Bases outside the pack (`thin-pack`).
    pub(super) thin: bool,
}

/// A writer with its position and the checksum of its output.
struct Hashed<'a> {
    output: &'a mut dyn Output,
    hash: Checksum,
    written: u64,
}

impl Hashed<'_> {
    fn write_part(&mut self, pack: &Arc<Pack>, range: Range<u64>) -> io::Result<()> {
        let bytes = pack.data.entry_slice(range.clone());
        self.hash.update(bytes.unwrap_or_default());
        let part = PackPart::new(Arc::clone(pack), range);
        self.written += part.len();
        self.output.write_part(part)
    }
}

impl Write for Hashed<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = self.output.write(data)?;
        self.hash.update(&data[..taken]);
        self.written += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn write_pack(
    store: &ObjectStore,
    mut selection: Selection,
    accepts: Accepts,
    stop: &Stop,
    output: &mut dyn Output,
) -> Result<FetchSummary, FetchError> {
    let count = u32::try_from(selection.len())
        .map_err(|_| io::Error::other("more objects than a pack can hold"))?;
    // In the order of the files: bases given by distance precede their deltas, and reading is
    // sequential.
    selection.packed.sort_unstable();
    if let Some(sent) = write_whole_pack(store, &selection, accepts, output)? {
        return Ok(sent);
    }
    let mut emitter = Emitter {
        store,
        accepts,
        offsets: vec![0; selection.packed.len()],
        output: Hashed {
            output,
            hash: Checksum::new(store.format()),
            written: 0,
        },
        selection: &selection,
        thin_bases: thin_bases(store, &selection, accepts),
        thin_deltas: ThinDeltas::new(store, &selection, stop),
        deflater: Deflater::default(),
        buffer: Vec::new(),
        sent: FetchSummary::default(),
    };
    let header = gix_pack::data::header::encode(gix_pack::data::Version::V2, count);
    emitter.output.write_all(&header)?;
    emitter.write_packed(stop)?;
    emitter.write_loose(stop)?;
    let Emitter {
        output,
        sent,
        thin_deltas,
        ..
    } = emitter;
    let Hashed {
        output,
        hash,
        written,
    } = output;
    let trailer = hash.finish();
    output.write_all(trailer.as_bytes())?;
    Ok(FetchSummary {
        objects_sent: u64::from(count),
        pack_bytes: written + trailer.as_bytes().len() as u64,
        deltas_made: thin_deltas.made,
        ..sent
    })
}

/// Sends one pack verbatim, with its own checksum, if the selection is exactly that pack. Nothing
/// is copied, and its bytes are compared with the checksums of their blocks.
fn write_whole_pack(
    store: &ObjectStore,
    selection: &Selection,
    accepts: Accepts,
    output: &mut dyn Output,
) -> Result<Option<FetchSummary>, FetchError> {
    let Some(first) = selection.packed.first() else {
        return Ok(None);
    };
    let pack = store.pack(first.pack);
    let count = pack.data.num_objects() as usize;
    // Sorted by pack: if the last entry is in the same pack, all are.
    let is_whole = selection.loose.is_empty()
        && selection.packed.len() == count
        && selection.packed[count - 1].pack == first.pack
        && pack.data.version() == gix_pack::data::Version::V2;
    if !is_whole || !accepts.ofs_delta {
        return Ok(None);
    }
    let length = pack.data.data_len() as u64;
    if pack.has_sums() {
        output.write_part(PackPart::new(Arc::clone(pack), 0..length))?;
    } else {
        write_compared(pack, &selection.packed, output)?;
    }
    Ok(Some(FetchSummary {
        objects_sent: count as u64,
        objects_copied: count as u64,
        objects_verbatim: count as u64,
        packs_verbatim: 1,
        pack_bytes: length,
        ..FetchSummary::default()
    }))
}

/// Like [`write_whole_pack`], for a pack without block checksums.
fn write_compared(
    pack: &Arc<Pack>,
    entries: &[Packed],
    output: &mut dyn Output,
) -> Result<(), FetchError> {
    let end = pack.data.pack_end() as u64;
    let mut written = 0;
    for (number, entry) in entries.iter().enumerate() {
        let next = entries.get(number + 1).map_or(end, |next| next.offset);
        check_entry(pack, entry.entry, entry.offset..next)?;
        if next - written >= COMPARED_BYTES || next == end {
            output.write_part(PackPart::new(Arc::clone(pack), written..next))?;
            written = next;
        }
    }
    let length = pack.data.data_len() as u64;
    Ok(output.write_part(PackPart::new(Arc::clone(pack), written..length))?)
}

/// The client's objects that deltas may have as bases, by pack and offset.
fn thin_bases(
    store: &ObjectStore,
    selection: &Selection,
    accepts: Accepts,
) -> std::collections::HashMap<(u32, u64), Oid> {
    if !accepts.thin {
        return std::collections::HashMap::new();
    }
    let mut bases = std::collections::HashMap::new();
    for id in &selection.at_client {
        if selection.contains(id) {
            continue;
        }
        if let Some(Location::Packed { pack, entry }) = store.locate(id) {
            let offset = store.pack(pack).index.pack_offset_at_index(entry);
            bases.insert((pack, offset), *id);
        }
    }
    bases
}

struct Emitter<'a> {
    store: &'a ObjectStore,
    accepts: Accepts,
    selection: &'a Selection,
    /// The offset of each written object of `selection.packed`; 0 for the others.
    offsets: Vec<u64>,
    thin_bases: std::collections::HashMap<(u32, u64), Oid>,
    thin_deltas: ThinDeltas<'a>,
    output: Hashed<'a>,
    deflater: Deflater,
    buffer: Vec<u8>,
    /// Statistics of the entries so far.
    sent: FetchSummary,
}

/// The reference to a delta's base in the new pack.
enum Base {
    /// By its distance back.
    Distance(u64),
    /// By its id: it comes later, or the client does not accept distances.
    Id(Oid),
    /// By its id: the client has it.
    AtClient(Oid),
    /// None: the object has to be sent whole.
    None,
}

impl Emitter<'_> {
    fn write_packed(&mut self, stop: &Stop) -> Result<(), FetchError> {
        let packed = &self.selection.packed;
        let mut start = 0;
        while start < packed.len() {
            let slot = packed[start].pack;
            let end = start + packed[start..].partition_point(|entry| entry.pack == slot);
            let pack = self.store.pack(slot);
            let verbatim = self.write_verbatim(pack, start, end, stop)?;
            for position in start + verbatim..end {
                // Each entry may need a long chain of delta bases.
                if stop.is_set() {
                    return Err(FetchError::Stopped);
                }
                self.write_entry(pack, position)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Copies the entries from the start of the pack up to the first one that was not selected:
    /// none of their deltas reaches over a gap. Returns their number.
    fn write_verbatim(
        &mut self,
        pack: &Arc<Pack>,
        start: usize,
        end: usize,
        stop: &Stop,
    ) -> Result<usize, FetchError> {
        let selected = &self.selection.packed[start..end];
        if !self.accepts.ofs_delta || selected.len() < VERBATIM_OBJECTS_MIN {
            return Ok(0);
        }
        let boundaries = pack.boundaries();
        let count = selected
            .iter()
            .zip(boundaries)
            .take_while(|(at, offset)| at.offset == **offset)
            .count();
        let is_whole = count == pack.data.num_objects() as usize;
        if count < VERBATIM_OBJECTS_MIN || (!is_whole && pack.has_ref_deltas()) {
            return Ok(0);
        }
        let shift = self.output.written;
        let first = boundaries[0];
        for (position, at) in selected[..count].iter().enumerate() {
            if position.is_multiple_of(STOP_EVERY) && stop.is_set() {
                return Err(FetchError::Stopped);
            }
            check_entry(
                pack,
                at.entry,
                boundaries[position]..boundaries[position + 1],
            )?;
            self.offsets[start + position] = at.offset - first + shift;
        }
        self.output.write_part(pack, first..boundaries[count])?;
        self.sent.objects_copied += count as u64;
        self.sent.objects_verbatim += count as u64;
        self.sent.packs_verbatim += 1;
        Ok(count)
    }

    fn write_entry(&mut self, pack: &Pack, position: usize) -> Result<(), FetchError> {
        let at = self.selection.packed[position];
        let id = pack.index.oid_at_index(at.entry).to_owned();
        let broken = |source| StoreError::Object { id, source };
        let entry = pack.data.entry(at.offset).map_err(broken)?;
        let location = Location::Packed {
            pack: at.pack,
            entry: at.entry,
        };
        self.offsets[position] = self.output.written;
        let end = pack.end_of(at.offset).ok_or(StoreError::Malformed { id })?;
        let header = if entry.header.is_delta() {
            match self.base(pack, at, &entry) {
                Base::Distance(base_distance) => Header::OfsDelta { base_distance },
                Base::Id(base_id) => Header::RefDelta { base_id },
                // The pack may hold a delta on a version that is older than the client's newest
                // one.
                Base::AtClient(_)
                    if end - at.offset >= THIN_BYTES_MIN
                        && self.write_thin(&id, location, end - at.offset)? =>
                {
                    return Ok(());
                }
                Base::AtClient(base_id) => Header::RefDelta { base_id },
                Base::None if self.write_thin(&id, location, u64::MAX)? => return Ok(()),
                Base::None => return self.write_whole(&id, location),
            }
        } else if self.write_thin(&id, location, end - at.offset)? {
            return Ok(());
        } else {
            entry.header
        };
        let raw = check_entry(pack, at.entry, at.offset..end)?;
        header.write_to(entry.decompressed_size, &mut self.output)?;
        self.output.write_all(&raw[entry.header_size()..])?;
        self.sent.objects_copied += 1;
        self.sent.deltas_sent += u64::from(entry.header.is_delta());
        Ok(())
    }

    /// Sends an object as a delta on an object of the client, if that takes fewer bytes than
    /// `bytes_max`. Returns whether it did.
    fn write_thin(
        &mut self,
        id: &Oid,
        location: Location,
        bytes_max: u64,
    ) -> Result<bool, FetchError> {
        if !self.accepts.thin {
            return Ok(false);
        }
        let Some((base_id, delta)) =
            self.thin_deltas
                .make(id, location, bytes_max, &mut self.deflater)?
        else {
            return Ok(false);
        };
        let header = Header::RefDelta { base_id };
        header.write_to(delta.size, &mut self.output)?;
        self.output.write_all(&delta.deflated)?;
        self.sent.deltas_sent += 1;
        Ok(true)
    }

    fn base(&self, pack: &Pack, at: Packed, entry: &gix_pack::data::Entry) -> Base {
        let Some(base) = pack.files().base_offset(entry) else {
            return Base::None;
        };
        let found = self
            .selection
            .packed
            .binary_search_by_key(&(at.pack, base), |packed| (packed.pack, packed.offset));
        match found {
            Ok(position) => {
                let base_at = self.offsets[position];
                if base_at != 0 && self.accepts.ofs_delta {
                    Base::Distance(self.output.written - base_at)
                } else {
                    let entry = self.selection.packed[position].entry;
                    Base::Id(pack.index.oid_at_index(entry).to_owned())
                }
            }
            Err(_) if self.accepts.thin && self.selection.is_at_client(at.pack, base) => {
                let id = pack.oid_at_offset(base);
                id.map_or(Base::None, |id| Base::AtClient(id.to_owned()))
            }
            Err(_) => self
                .thin_bases
                .get(&(at.pack, base))
                .map_or(Base::None, |id| Base::AtClient(*id)),
        }
    }

    fn write_loose(&mut self, stop: &Stop) -> Result<(), FetchError> {
        let selection = self.selection;
        for (id, dir) in &selection.loose {
            if stop.is_set() {
                return Err(FetchError::Stopped);
            }
            self.write_whole(id, Location::Loose { dir: *dir })?;
        }
        Ok(())
    }

    /// Decodes an object and sends it recompressed.
    fn write_whole(&mut self, id: &Oid, location: Location) -> Result<(), FetchError> {
        let kind = self.store.read(id, location, &mut self.buffer)?;
        let header = match kind {
            Kind::Commit => Header::Commit,
            Kind::Tree => Header::Tree,
            Kind::Blob => Header::Blob,
            Kind::Tag => Header::Tag,
        };
        header.write_to(self.buffer.len() as u64, &mut self.output)?;
        Ok(self.deflater.write(&self.buffer, &mut self.output)?)
    }
}

/// The bytes of an entry, compared with the entry's checksum in the index: no corrupt entry is
/// sent.
fn check_entry(pack: &Pack, entry: u32, range: Range<u64>) -> Result<&[u8], StoreError> {
    let malformed = || StoreError::Malformed {
        id: pack.index.oid_at_index(entry).to_owned(),
    };
    let start = range.start;
    let raw = pack.data.entry_slice(range).ok_or_else(malformed)?;
    match pack.index.crc32_at_index(entry) {
        Some(expected) if crc32fast::hash(raw) != expected => Err(DamagedPack::new(
            pack.data.path(),
            format!("the entry at byte {start} has another checksum than its index says"),
        )
        .into()),
        Some(_) | None => Ok(raw),
    }
}
