//! Reachability within some packs alone: the objects that must not be lost when all other packs are
//! removed.

use std::path::PathBuf;

use gix_hashtable::HashSet;
use henge_types::{ObjectFormat, ObjectId};

use crate::fsck::{Fsck, FsckError, FsckReport};
use crate::oid::Oid;
use crate::protocol::Stop;
use crate::store::ObjectStore;

/// Reached objects. If the walk had no findings, each is present with all that it needs.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    ids: HashSet<Oid>,
}

impl Reached {
    /// Their number.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(crate) const fn ids(&self) -> &HashSet<Oid> {
        &self.ids
    }
}

/// Walks from `tips` through the packs of these indexes, of objects of this format. Without
/// findings, the packs hold all that the tips need. The memory is about 40 bytes per object.
///
/// # Errors
/// When a pack cannot be opened or the deadline passes. Missing and broken objects are findings.
pub fn reach_from(
    idx_files: &[PathBuf],
    format: ObjectFormat,
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<(Reached, FsckReport), FsckError> {
    let store = ObjectStore::of_packs(idx_files, format)?;
    let mut silent = |_| {};
    let mut fsck = Fsck {
        format,
        report: FsckReport::default(),
        stop,
        progress: &mut silent,
    };
    let ids = fsck.walk(&store, tips, &HashSet::default())?;
    fsck.count_unreachable(&store, &ids)?;
    Ok(finish(fsck.report, idx_files, ids))
}

/// Like [`reach_from`], but objects in `known` count as complete: only objects reached beyond them
/// are read and counted. Unreachable objects are not counted.
///
/// # Errors
/// As [`reach_from`].
pub fn reach_anew(
    idx_files: &[PathBuf],
    format: ObjectFormat,
    tips: &[ObjectId],
    known: &Reached,
    stop: &Stop,
) -> Result<(Reached, FsckReport), FsckError> {
    let store = ObjectStore::of_packs(idx_files, format)?;
    let mut silent = |_| {};
    let mut fsck = Fsck {
        format,
        report: FsckReport::default(),
        stop,
        progress: &mut silent,
    };
    let ids = fsck.walk(&store, tips, &known.ids)?;
    Ok(finish(fsck.report, idx_files, ids))
}

fn finish(
    mut report: FsckReport,
    idx_files: &[PathBuf],
    ids: HashSet<Oid>,
) -> (Reached, FsckReport) {
    report.packs = idx_files.len() as u64;
    report.reachable = Some(ids.len() as u64);
    (Reached { ids }, report)
}
