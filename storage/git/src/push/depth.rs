//! Limits on the delta chains in a pushed pack: every reader of an object goes through its whole
//! chain, and has all deltas of the chain in memory at once.

use gix_pack::data::entry::Header;
use henge_types::ObjectId;

use crate::oid::{from_gix, hash_kind};
use crate::protocol::PushLimits;
use crate::push::IngestError;
use crate::refs::QuarantinedPack;

/// Number of entries between two checks of the deadline.
const STOP_EVERY: usize = 4096;
/// Not computed yet.
const UNKNOWN: u32 = u32::MAX;
/// On the path from a delta to its base, whose depth is being computed.
const ON_PATH: u32 = u32::MAX - 1;

/// Refuses a pack with a chain of more than `limits.delta_depth_max` deltas. Refuses a chain whose
/// deltas have more bytes together than an object may have. Reads the heads of the entries only.
pub(super) fn check_delta_depth(
    pack: &QuarantinedPack,
    limits: &PushLimits,
) -> Result<(), IngestError> {
    let (max, bytes_max) = (limits.delta_depth_max, limits.object_bytes_max);
    let chains = Chains::open(pack).map_err(IngestError::Broken)?;
    let mut depths = vec![UNKNOWN; chains.entries.len()];
    let mut sums = vec![0_u64; chains.entries.len()];
    let mut path = Vec::new();
    for start in 0..chains.entries.len() {
        if start.is_multiple_of(STOP_EVERY) && limits.stop.is_set() {
            return Err(IngestError::Stopped);
        }
        let mut link = Some(start);
        let (mut depth, mut bytes) = (0, 0);
        while let Some(at) = link {
            match depths[at] {
                UNKNOWN => {
                    depths[at] = ON_PATH;
                    let (base, own) = chains.link(at).map_err(IngestError::Broken)?;
                    path.push((at, own));
                    link = base;
                }
                ON_PATH => return Err(chains.too_deep(at, max)),
                known => {
                    depth = known + 1;
                    bytes = sums[at];
                    break;
                }
            }
        }
        while let Some((at, own)) = path.pop() {
            if depth > max {
                return Err(chains.too_deep(at, max));
            }
            bytes += own;
            if bytes > bytes_max {
                let (id, max) = (chains.id(at), bytes_max);
                return Err(IngestError::DeltaBytes { id, max });
            }
            depths[at] = depth;
            sums[at] = bytes;
            depth += 1;
        }
    }
    Ok(())
}

/// The entries of a pack in the order of their offsets.
struct Chains {
    index: gix_pack::index::File,
    data: gix_pack::data::File,
    /// Offset, and number in the index.
    entries: Vec<(u64, u32)>,
}

impl Chains {
    fn open(pack: &QuarantinedPack) -> gix_error::Result<Self> {
        let kind = hash_kind(pack.id.checksum().format());
        let index = gix_pack::index::File::at(&pack.idx_path, kind)?;
        let mut entries: Vec<_> = (0..index.num_objects())
            .map(|entry| (index.pack_offset_at_index(entry), entry))
            .collect();
        entries.sort_unstable();
        Ok(Self {
            data: gix_pack::data::File::at(&pack.pack_path, kind)?,
            index,
            entries,
        })
    }

    /// The base of the entry at `at` and the bytes of its delta; `None` and 0 for a whole object.
    fn link(&self, at: usize) -> gix_error::Result<(Option<usize>, u64)> {
        let entry = self.data.entry(self.entries[at].0)?;
        let offset = match entry.header {
            Header::OfsDelta { base_distance } => entry.checked_base_pack_offset(base_distance),
            Header::RefDelta { base_id } => self
                .index
                .lookup(base_id)
                .map(|entry| self.index.pack_offset_at_index(entry)),
            Header::Commit | Header::Tree | Header::Blob | Header::Tag => return Ok((None, 0)),
        };
        let found = offset.and_then(|offset| {
            self.entries
                .binary_search_by_key(&offset, |(offset, _)| *offset)
                .ok()
        });
        found
            .map(|base| (Some(base), entry.decompressed_size))
            .ok_or_else(|| gix_error::corruption("the base of a delta is missing").into())
    }

    fn too_deep(&self, at: usize, max: u32) -> IngestError {
        IngestError::DeltaDepth {
            id: self.id(at),
            max,
        }
    }

    fn id(&self, at: usize) -> ObjectId {
        from_gix(self.index.oid_at_index(self.entries[at].1))
    }
}
