//! Packs in the manifest of a network.

use henge_types::limits::INLINE_PACK_BYTES_MAX;
use henge_types::{NetworkId, PackRecord, PackRef};

use super::ShardView;
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::view::View;

/// Whether an inline pack is small enough and has the lengths that its entry states.
pub(super) fn inline_fits(pack: &PackRef) -> bool {
    pack.inline.as_ref().is_none_or(|inline| {
        let (pack_bytes, idx_bytes) = (inline.pack.len(), inline.idx.len());
        pack_bytes.saturating_add(idx_bytes) <= INLINE_PACK_BYTES_MAX
            && u64::try_from(pack_bytes) == Ok(pack.pack_bytes)
            && u64::try_from(idx_bytes) == Ok(pack.idx_bytes)
    })
}

/// Adds a pack to the manifest. An existing one keeps its record.
pub(super) fn name(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    network: &NetworkId,
    pack: &PackRef,
) {
    let known = ShardView::new(changes.before()).pack(network, &pack.pack);
    if known.is_some() {
        return;
    }
    let record = PackRecord {
        pack: pack.pack,
        pack_bytes: pack.pack_bytes,
        idx_bytes: pack.idx_bytes,
        objects: pack.objects,
        named_at: entry.index,
    };
    changes.put_record(keys::pack(network, &pack.pack), &record);
}
