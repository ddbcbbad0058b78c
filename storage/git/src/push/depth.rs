//! How long the chains of deltas in a pushed pack are: every reader of an object goes through all of its chain.

use gix_pack::data::entry::Header;

use crate::oid::{KIND, from_gix};
use crate::protocol::PushLimits;
use crate::push::IngestError;
use crate::refs::QuarantinedPack;

/// How often the deadline is looked at, in entries.
const STOP_EVERY: usize = 4096;
/// Not reckoned yet.
const UNKNOWN: u32 = u32::MAX;
/// On the way from a delta to its base.
const ON_PATH: u32 = u32::MAX - 1;

/// Refuses a pack with a chain of more than `limits.delta_depth_max` deltas. Reads the heads of its entries.
pub(super) fn check_delta_depth(
    pack: &QuarantinedPack,
    limits: &PushLimits,
) -> Result<(), IngestError> {
    let max = limits.delta_depth_max;
    // So few entries are no longer chain.
    if pack.objects <= max {
        return Ok(());
    }
    let chains = Chains::open(pack).map_err(IngestError::Broken)?;
    let mut depths = vec![UNKNOWN; chains.entries.len()];
    let mut path = Vec::new();
    for start in 0..chains.entries.len() {
        if start.is_multiple_of(STOP_EVERY) && limits.stop.is_set() {
            return Err(IngestError::Stopped);
        }
        let mut link = Some(start);
        let mut depth = 0;
        while let Some(at) = link {
            match depths[at] {
                UNKNOWN => {
                    depths[at] = ON_PATH;
                    path.push(at);
                    link = chains.base(at).map_err(IngestError::Broken)?;
                }
                ON_PATH => return Err(chains.too_deep(at, max)),
                known => {
                    depth = known + 1;
                    break;
                }
            }
        }
        while let Some(at) = path.pop() {
            if depth > max {
                return Err(chains.too_deep(at, max));
            }
            depths[at] = depth;
            depth += 1;
        }
    }
    Ok(())
}

/// The entries of a pack in the order of their offsets.
struct Chains {
    index: gix_pack::index::File,
    data: gix_pack::data::File,
    /// Offset and number in the index.
    entries: Vec<(u64, u32)>,
}

impl Chains {
    fn open(pack: &QuarantinedPack) -> gix_error::Result<Self> {
        let index = gix_pack::index::File::at(&pack.idx_path, KIND)?;
        let mut entries: Vec<_> = (0..index.num_objects())
            .map(|entry| (index.pack_offset_at_index(entry), entry))
            .collect();
        entries.sort_unstable();
        Ok(Self {
            data: gix_pack::data::File::at(&pack.pack_path, KIND)?,
            index,
            entries,
        })
    }

    /// The entry that another one is a delta against; none for a whole one.
    fn base(&self, at: usize) -> gix_error::Result<Option<usize>> {
        let entry = self.data.entry(self.entries[at].0)?;
        let offset = match entry.header {
            Header::OfsDelta { base_distance } => entry.checked_base_pack_offset(base_distance),
            Header::RefDelta { base_id } => self
                .index
                .lookup(base_id)
                .map(|entry| self.index.pack_offset_at_index(entry)),
            Header::Commit | Header::Tree | Header::Blob | Header::Tag => return Ok(None),
        };
        let found = offset.and_then(|offset| {
            self.entries
                .binary_search_by_key(&offset, |(offset, _)| *offset)
                .ok()
        });
        found
            .map(Some)
            .ok_or_else(|| gix_error::corruption("the base of a delta is missing").into())
    }

    fn too_deep(&self, at: usize, max: u32) -> IngestError {
        IngestError::DeltaDepth {
            id: from_gix(self.index.oid_at_index(self.entries[at].1)),
            max,
        }
    }
}
