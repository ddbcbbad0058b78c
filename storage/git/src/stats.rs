//! Counts of the contents of an object store.

use std::io;
use std::path::Path;

use henge_types::ObjectFormat;

use crate::oid::hash_kind;
use crate::store::{StoreError, idx_files};

/// Counts of the contents of an object store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Packs with an index.
    pub packs: u64,
    /// Objects in the packs; an object in several packs counts in each.
    pub packed_objects: u64,
    /// Bytes of the pack files.
    pub pack_bytes: u64,
    /// Bytes of all other files beside the packs: indexes, bitmaps and other derived files.
    pub index_bytes: u64,
    /// Loose objects.
    pub loose_objects: u64,
    /// Bytes of the loose objects.
    pub loose_bytes: u64,
    /// Whether a pack, or the set of packs, has a bitmap.
    pub bitmap: bool,
    /// Whether there is an index over all packs.
    pub multi_pack_index: bool,
    /// Whether there is a commit-graph, in one file or in a chain.
    pub commit_graph: bool,
}

/// Counts the contents of the object store `objects` in this format, without its alternates. Reads
/// directories and the heads of indexes.
///
/// # Errors
/// When a directory cannot be listed or an index cannot be opened.
pub fn stats(objects: &Path, format: ObjectFormat) -> Result<StoreStats, StoreError> {
    let mut stats = StoreStats::default();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Open { path, source }
    };
    let packs = objects.join("pack");
    for idx in idx_files(&packs).map_err(failed(&packs))? {
        let index = gix_pack::index::File::at(&idx, hash_kind(format))
            .map_err(|source| StoreError::Pack { path: idx, source })?;
        stats.packs += 1;
        stats.packed_objects += u64::from(index.num_objects());
    }
    for_each_file(&packs, &mut |name, bytes| {
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        stats.bitmap |= extension == "bitmap";
        stats.multi_pack_index |= stem == "multi-pack-index" || name == "multi-pack-index";
        if extension == "pack" {
            stats.pack_bytes += bytes;
        } else {
            stats.index_bytes += bytes;
        }
    })
    .map_err(failed(&packs))?;
    for first in 0..=u8::MAX {
        let directory = objects.join(hex::encode([first]));
        for_each_file(&directory, &mut |name, bytes| {
            if name.len() == format.hex_bytes() - 2 {
                stats.loose_objects += 1;
                stats.loose_bytes += bytes;
            }
        })
        .map_err(failed(&directory))?;
    }
    let info = objects.join("info");
    for graph in ["commit-graph", "commit-graphs/commit-graph-chain"] {
        let path = info.join(graph);
        stats.commit_graph |= path.try_exists().map_err(failed(&path))?;
    }
    Ok(stats)
}

/// Visits the files of a directory with their sizes. The directory may be missing.
fn for_each_file(directory: &Path, visit: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
    let listing = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listing => listing?,
    };
    for file in listing {
        let file = file?;
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => {
                visit(&file.file_name().to_string_lossy(), metadata.len());
            }
            Ok(_) => {}
            // Maintenance removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
