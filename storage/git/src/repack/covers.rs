//! Verifies a pack made by another program before it replaces other packs.

use std::path::{Path, PathBuf};

use gix_utils::progress::Discard;
use henge_types::{ObjectFormat, ObjectId};

use crate::oid::{HashKind, from_gix, hash_kind};
use crate::protocol::Stop;

/// The ratio of objects, new to old, from which on the old ones are looked up in the new index one
/// by one. Below it both indexes are walked in parallel.
const LOOKUP_RATIO: u32 = 16;
/// Number of objects between two checks of the deadline.
const STOP_EVERY: u32 = 1 << 16;

/// Reasons not to replace the old packs.
#[derive(Debug, thiserror::Error)]
pub enum CoverError {
    /// An object would be lost.
    #[error("object {id} of {old} is not in the new pack {new}")]
    Missing {
        /// The object.
        id: ObjectId,
        /// The index that has it.
        old: PathBuf,
        /// The index that lacks it.
        new: PathBuf,
    },
    /// A pack or an index cannot be opened, or its checksum is wrong.
    #[error("{path} is damaged or cannot be read: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The error of gix.
        #[source]
        source: gix_error::Error,
    },
    /// Index and pack do not belong together.
    #[error("{path} is not the index of the pack beside it")]
    Mismatch {
        /// The index.
        path: PathBuf,
    },
    /// The deadline passed, or the caller set the stop signal.
    #[error("checking the new pack took too long")]
    Stopped,
}

/// Verifies that the pack of `new_idx` holds every object of the packs of `old_idx_files`. Verifies
/// the checksums of the new pack and of its index. All packs are of this format.
///
/// Reads the new pack once and every index once; does not inflate objects.
///
/// # Errors
/// When an object is missing, a file is damaged, or `stop` is set.
pub fn verify_covers(
    new_idx: &Path,
    old_idx_files: &[PathBuf],
    format: ObjectFormat,
    stop: &Stop,
) -> Result<(), CoverError> {
    let kind = hash_kind(format);
    let new = open(new_idx, kind)?;
    verify_checksums(&new, new_idx, kind, stop)?;
    for path in old_idx_files {
        let old = open(path, kind)?;
        let missing = if old.num_objects() < new.num_objects() / LOOKUP_RATIO {
            (0..old.num_objects()).find(|entry| new.lookup(old.oid_at_index(*entry)).is_none())
        } else {
            first_missing(&new, &old, stop)?
        };
        if let Some(entry) = missing {
            return Err(CoverError::Missing {
                id: from_gix(old.oid_at_index(entry)),
                old: path.clone(),
                new: new_idx.to_owned(),
            });
        }
    }
    Ok(())
}

/// Walks two indexes in parallel; both are sorted.
fn first_missing(
    new: &gix_pack::index::File,
    old: &gix_pack::index::File,
    stop: &Stop,
) -> Result<Option<u32>, CoverError> {
    let mut at = 0;
    for entry in 0..old.num_objects() {
        if entry.is_multiple_of(STOP_EVERY) && stop.is_set() {
            return Err(CoverError::Stopped);
        }
        let id = old.oid_at_index(entry);
        while at < new.num_objects() && new.oid_at_index(at) < id {
            at += 1;
        }
        if at == new.num_objects() || new.oid_at_index(at) != id {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn open(idx: &Path, kind: HashKind) -> Result<gix_pack::index::File, CoverError> {
    gix_pack::index::File::at(idx, kind).map_err(|source| CoverError::Damaged {
        path: idx.to_owned(),
        source,
    })
}

fn verify_checksums(
    index: &gix_pack::index::File,
    idx: &Path,
    kind: HashKind,
    stop: &Stop,
) -> Result<(), CoverError> {
    let pack_path = idx.with_extension("pack");
    let damaged = |path: &Path, source| {
        if stop.is_set() {
            return CoverError::Stopped;
        }
        CoverError::Damaged {
            path: path.to_owned(),
            source,
        }
    };
    index
        .verify_checksum(&mut Discard, stop.flag())
        .map_err(|source| damaged(idx, source))?;
    let data =
        gix_pack::data::File::at(&pack_path, kind).map_err(|source| damaged(&pack_path, source))?;
    if data.checksum() != index.pack_checksum() || data.num_objects() != index.num_objects() {
        return Err(CoverError::Mismatch {
            path: idx.to_owned(),
        });
    }
    data.verify_checksum(&mut Discard, stop.flag())
        .map_err(|source| damaged(&pack_path, source))?;
    if stop.is_set() {
        return Err(CoverError::Stopped);
    }
    Ok(())
}
