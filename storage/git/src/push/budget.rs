//! Limits on the cost of resolving the deltas of a pushed pack: time, bytes in total, bytes at
//! once.
//!
//! A few hundred bytes can describe terabytes: deltas that copy one base over and over, long chains
//! of them, and chains that branch, whose bases all have to be kept. Every entry is admitted here
//! before it is inflated, so the refusal precedes the allocation. The sizes are known: a delta
//! begins with the sizes of its base and its result (gitformat-pack(5)).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress};
use gix_pack::data::entry::Header;
use gix_pack::data::{Entry, EntryRange, File};
use henge_types::ObjectFormat;

use crate::oid::{HashKind, Oid, hash_kind};
use crate::protocol::PushLimits;
use crate::push::IngestError;
use crate::push::oversize::{OversizedObject, oversized};

/// The shortest delta that git reads (`DELTA_SIZE_MIN`); a shorter one makes an empty object.
const DELTA_BYTES_MIN: u64 = 4;
/// The maximum length of the two sizes at the head of a delta.
const DELTA_HEAD_BYTES: usize = 20;

/// The base of a delta, as the pack names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Base {
    Offset(u64),
    Id(Oid),
}

/// A base of more than one delta: it is kept until the last of them is resolved.
struct Shared {
    /// Its size, known from the first of the deltas on.
    bytes: Option<u64>,
    /// Deltas still to be resolved on it.
    left: u32,
}

/// The budget of one pack.
pub(super) struct Budget<'a> {
    limits: &'a PushLimits,
    state: Mutex<State>,
}

struct State {
    kind: HashKind,
    inflate: Decompress,
    /// Bases by offset and by id, once for each delta on them, until all entries are read.
    offsets: Vec<u64>,
    ids: Vec<Oid>,
    shared: BTreeMap<Base, Shared>,
    /// Bytes of the shared bases in memory now.
    kept: u64,
    /// Number of entries so far.
    objects: u64,
    /// Bytes of all objects so far.
    inflated: u64,
    inflated_max: u64,
    /// Bytes of all deltas so far, inflated.
    deltas: u64,
    /// Whether a delta names a base of the same pack by id.
    has_ref_deltas: bool,
    /// The reason of a refusal.
    refused: Option<IngestError>,
}

impl<'a> Budget<'a> {
    pub(super) fn new(limits: &'a PushLimits, format: ObjectFormat) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                kind: hash_kind(format),
                inflate: Decompress::new(true),
                offsets: Vec::new(),
                ids: Vec::new(),
                shared: BTreeMap::new(),
                kept: 0,
                objects: 0,
                inflated: 0,
                inflated_max: 0,
                deltas: 0,
                has_ref_deltas: false,
                refused: None,
            }),
        }
    }

    /// Records an entry that was read: its base, and whether it is too large.
    pub(super) fn note(&self, entry: &gix_pack::data::input::Entry) {
        let max = self.limits.object_bytes_max;
        let (place, kind) = self.with(|state| {
            state.objects += 1;
            match entry.header {
                Header::OfsDelta { base_distance } => {
                    let base = entry.pack_offset.checked_sub(base_distance);
                    state.offsets.extend(base);
                }
                Header::RefDelta { base_id } => {
                    state.has_ref_deltas = true;
                    state.ids.push(base_id);
                }
                Header::Commit | Header::Tree | Header::Blob | Header::Tag => {}
            }
            (state.objects, state.kind)
        });
        if let Some(object) = oversized(entry, place, max, kind) {
            self.refuse(IngestError::ObjectTooLarge { object, max });
        }
    }

    /// Refuses the entry after the recorded ones: it exceeds the size of an object and is not read
    /// to its end.
    pub(super) fn refuse_next_object(&self) {
        let place = self.with(|state| state.objects + 1);
        let object = OversizedObject {
            id: None,
            place,
            bytes: 0,
        };
        let max = self.limits.object_bytes_max;
        self.refuse(IngestError::ObjectTooLarge { object, max });
    }

    fn refuse(&self, why: IngestError) {
        self.with(|state| {
            state.refused.get_or_insert(why);
        });
    }

    /// Whether the pack is refused already: then reading stops.
    pub(super) fn has_refused(&self) -> bool {
        self.with(|state| state.refused.is_some())
    }

    /// Ends the phase of reading: the pack has `pack_bytes` bytes. Resolving its entries comes
    /// next.
    pub(super) fn begin(&self, pack_bytes: u64) {
        self.with(|state| {
            state.inflated_max = pack_bytes
                .saturating_mul(self.limits.inflated_ratio_max)
                .saturating_add(self.limits.inflated_bytes_free);
            let mut offsets = std::mem::take(&mut state.offsets);
            let mut ids = std::mem::take(&mut state.ids);
            offsets.sort_unstable();
            ids.sort_unstable();
            let by_offset = offsets.chunk_by(|left, right| left == right);
            let by_id = ids.chunk_by(|left, right| left == right);
            let named = by_offset
                .map(|same| (Base::Offset(same[0]), same.len()))
                .chain(by_id.map(|same| (Base::Id(same[0]), same.len())));
            state.shared = named
                .filter(|(_, deltas)| *deltas > 1)
                .map(|(base, deltas)| {
                    let left = u32::try_from(deltas).unwrap_or(u32::MAX);
                    (base, Shared { bytes: None, left })
                })
                .collect();
        });
    }

    /// The bytes of an entry to resolve; `None` once the pack is refused.
    pub(super) fn resolve<'r>(&self, range: EntryRange, pack: &'r File) -> Option<&'r [u8]> {
        let start = range.start;
        let bytes = pack.entry_slice(range)?;
        if self.limits.stop.is_set() {
            self.with(|state| state.refused = Some(IngestError::Stopped));
            return None;
        }
        self.with(|state| match state.admit(start, bytes, self.limits) {
            Ok(()) => Some(bytes),
            Err(refused) => {
                state.refused.get_or_insert(refused);
                None
            }
        })
    }

    /// Takes the reason of the refusal, if there was one.
    pub(super) fn refusal(&self) -> Option<IngestError> {
        self.with(|state| state.refused.take())
    }

    /// Whether a pack of `objects` objects may hold a delta chain that is too long or too large, or
    /// a cycle. A cycle needs a duplicate object, once as a delta that names its base by id.
    /// Example: a delta on itself.
    pub(super) fn has_doubtful_chains(&self, objects: u32) -> bool {
        self.with(|state| {
            objects > self.limits.delta_depth_max
                || state.deltas > self.limits.object_bytes_max
                || state.has_ref_deltas
        })
    }

    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        // A poisoned lock is used all the same: the state holds numbers, which a panic leaves
        // valid.
        action(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn admit(&mut self, start: u64, bytes: &[u8], limits: &PushLimits) -> Result<(), IngestError> {
        let entry = Entry::from_bytes(bytes, start, self.kind).map_err(IngestError::Broken)?;
        let base = match entry.header {
            Header::OfsDelta { base_distance } => {
                start.checked_sub(base_distance).map(Base::Offset)
            }
            Header::RefDelta { base_id } => Some(Base::Id(base_id)),
            Header::Commit | Header::Tree | Header::Blob | Header::Tag => None,
        };
        let Some(base) = base else {
            return self.count(entry.decompressed_size);
        };
        if entry.decompressed_size < DELTA_BYTES_MIN {
            return Err(IngestError::ShortDelta {
                bytes: entry.decompressed_size,
            });
        }
        self.deltas = self.deltas.saturating_add(entry.decompressed_size);
        let sizes = bytes
            .get(entry.header_size()..)
            .and_then(|delta| self.delta_sizes(delta));
        // A delta with unreadable sizes cannot be resolved either, and that error says more.
        let Some((base_bytes, result_bytes)) = sizes else {
            return Ok(());
        };
        self.count(result_bytes)?;
        let kept = self.keep(base, base_bytes);
        let needed = base_bytes
            .max(result_bytes)
            .saturating_mul(2)
            .saturating_add(entry.decompressed_size)
            .saturating_add(kept);
        let max = limits.resolved_bytes_max;
        if needed > max {
            return Err(IngestError::Resolved { max });
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), IngestError> {
        self.inflated = self.inflated.saturating_add(bytes);
        if self.inflated > self.inflated_max {
            return Err(IngestError::Inflated {
                max: self.inflated_max,
            });
        }
        Ok(())
    }

    /// Counts a delta on `base`, whose size is `bytes`, and returns the bytes kept for other deltas
    /// meanwhile. Chains are resolved depth first, so a shared base is kept from its first delta to
    /// its last one.
    fn keep(&mut self, base: Base, bytes: u64) -> u64 {
        let mut own = 0;
        if let Some(shared) = self.shared.get_mut(&base) {
            own = match shared.bytes {
                Some(bytes) => bytes,
                None => {
                    shared.bytes = Some(bytes);
                    self.kept = self.kept.saturating_add(bytes);
                    bytes
                }
            };
            shared.left -= 1;
        }
        let others = self.kept.saturating_sub(own);
        if self
            .shared
            .get(&base)
            .is_some_and(|shared| shared.left == 0)
        {
            self.shared.remove(&base);
            self.kept = others;
        }
        others
    }

    /// The sizes of base and result at the head of a deflated delta.
    fn delta_sizes(&mut self, deflated: &[u8]) -> Option<(u64, u64)> {
        let mut head = [0; DELTA_HEAD_BYTES];
        self.inflate.reset(true);
        self.inflate
            .decompress(deflated, &mut head, FlushDecompress::None)
            .ok()?;
        let (base, rest) = size(&head)?;
        let (result, _) = size(rest)?;
        Some((base, result))
    }
}

/// Parses a size of seven bits a byte, lowest first. Returns it with the bytes after it.
fn size(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(7 * u32::try_from(at).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}
