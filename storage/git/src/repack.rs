//! Merges packs: selection of packs ([`plan()`]), the merge ([`write()`]), and a check of packs
//! that git made ([`verify_covers`]). [`write_reached`] keeps only reachable objects.
//!
//! Each push leaves a pack. A merge copies their entries in compressed form, and searches deltas
//! only between objects that are whole in every pack. It uses one thread, a deadline, and bounded
//! memory: about 100 bytes for each object, the window (64 MiB), and a cache of decoded objects (24
//! MiB); the packs themselves are mapped.

mod covers;
mod forms;
mod index;
mod order;
mod output;
mod plan;
mod search;
mod sources;

use std::io;
use std::path::{Path, PathBuf};

use gix_hashtable::HashSet;
use henge_types::{ObjectFormat, ObjectId, PackId};

pub use covers::{CoverError, verify_covers};
pub use plan::{PackSize, PlanLimits, plan};

use crate::fsck::Reached;
use crate::oid::{Oid, from_gix};
use crate::protocol::Stop;
use crate::refs::QuarantinedPack;
use forms::{Form, Forms};
use order::Order;
use sources::{Reader, Sources};

/// Reasons for a merge to fail. No file is left behind.
#[derive(Debug, thiserror::Error)]
pub enum RepackError {
    /// There is nothing to merge.
    #[error("the packs to merge hold no object")]
    Empty,
    /// A pack or an index cannot be opened.
    #[error("cannot open {path} or its pack: {source}")]
    Open {
        /// The index.
        path: PathBuf,
        /// The error of gix.
        #[source]
        source: gix_error::Error,
    },
    /// A pack that cannot be merged in its form.
    #[error("{path} cannot be merged: {reason}")]
    Unfit {
        /// The index.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// An entry cannot be read.
    #[error("object {id} in {pack} cannot be read: {source}")]
    Entry {
        /// The pack.
        pack: PathBuf,
        /// The object.
        id: ObjectId,
        /// The error of gix.
        #[source]
        source: gix_error::Error,
    },
    /// An entry does not match its index: the disk or the file is damaged.
    #[error("object {id} in {pack} is damaged: its checksum is another one")]
    Damaged {
        /// The pack.
        pack: PathBuf,
        /// The object.
        id: ObjectId,
    },
    /// More than 2^32 - 1 objects.
    #[error("there are more objects than one pack can hold")]
    TooManyObjects,
    /// The deadline passed, or the caller set the stop signal.
    #[error("merging packs took too long")]
    Stopped,
    /// A new file could not be written.
    #[error("the merged pack could not be written: {0}")]
    Io(#[from] io::Error),
}

/// Whether a reverse index is written beside the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReverseIndex {
    /// Written: git 2.41 and newer make one by default.
    Written,
    /// Not written.
    Omitted,
}

/// Options of a merge. The defaults are git's.
#[derive(Debug, Clone)]
pub struct RepackOptions {
    /// The object format of the packs.
    pub object_format: ObjectFormat,
    /// Number of objects that each object is compared with; 0 searches no new deltas.
    pub window: usize,
    /// Memory for those objects and their indexes, in bytes.
    pub window_bytes_max: usize,
    /// Deltas in a chain, from an object to the whole object at the end; 1 to 4095.
    pub depth_max: u16,
    /// Maximum size of objects that get a new delta, in bytes.
    pub delta_object_bytes_max: u32,
    /// Maximum number of trees read for the names of objects, those of the newest commits first.
    pub trees_walked_max: usize,
    /// Whether a reverse index is written.
    pub reverse_index: ReverseIndex,
    /// The signal to end the search for new deltas. The pack is still written, with those found so
    /// far.
    pub search_until: Stop,
    /// The signal to abort.
    pub stop: Stop,
}

impl Default for RepackOptions {
    fn default() -> Self {
        Self {
            object_format: ObjectFormat::Sha1,
            window: 10,
            window_bytes_max: 64 * 1024 * 1024,
            depth_max: 50,
            delta_object_bytes_max: 16 * 1024 * 1024,
            trees_walked_max: 2_000_000,
            reverse_index: ReverseIndex::Written,
            search_until: Stop::default(),
            stop: Stop::default(),
        }
    }
}

/// The longest delta chain that git makes, and the limit here.
pub const DEPTH_MAX: u16 = 4095;

/// The result of a merge.
#[derive(Debug, Clone)]
pub struct Repacked {
    /// The new pack and its index.
    pub pack: QuarantinedPack,
    /// Its reverse index, if requested.
    pub rev_path: Option<PathBuf>,
    /// Copied entries, whole or as deltas.
    pub copied: u32,
    /// New deltas.
    pub new_deltas: u32,
    /// Objects that were deflated again.
    pub deflated: u32,
}

/// Writes one pack with every object of the packs with the indexes `idx_files` into the directory
/// `into`.
///
/// `into` belongs to the caller, on the file system of the pack's destination. The files are named
/// after the pack's checksum, as in git, and are read-only. Nothing is fsynced: the caller does so
/// before it relies on them, as with the pack of a push. The source packs are not changed.
///
/// Every entry is verified against the checksum in its index, and every object that is deflated
/// again against its id.
///
/// # Errors
/// When a pack is damaged, the disk fails, or `options.stop` is set. No file is left then.
pub fn write(
    idx_files: &[PathBuf],
    into: &Path,
    options: &RepackOptions,
) -> Result<Repacked, RepackError> {
    write_some(idx_files, None, into, options)
}

/// As [`write()`], but writes only objects in `reached`.
///
/// # Errors
/// As [`write()`]; [`RepackError::Empty`] when the packs hold none of them.
pub fn write_reached(
    idx_files: &[PathBuf],
    reached: &Reached,
    into: &Path,
    options: &RepackOptions,
) -> Result<Repacked, RepackError> {
    write_some(idx_files, Some(reached.ids()), into, options)
}

fn write_some(
    idx_files: &[PathBuf],
    wanted: Option<&HashSet<Oid>>,
    into: &Path,
    options: &RepackOptions,
) -> Result<Repacked, RepackError> {
    let mut options = options.clone();
    options.depth_max = options.depth_max.clamp(1, DEPTH_MAX);
    let sources = Sources::open(idx_files, options.object_format, wanted, &options.stop)?;
    if sources.len() == 0 {
        return Err(RepackError::Empty);
    }
    let mut forms = Forms::choose(&sources, options.depth_max, &options.stop)?;
    let order = Order::walk(&sources, &forms, options.trees_walked_max, &options.stop)?;
    let candidates = if options.window == 0 {
        Vec::new()
    } else {
        candidates(&sources, &forms, &order, &options)?
    };
    let deltas = search::search(&sources, &mut forms, &candidates, into, &options)?;
    drop(candidates);
    let new_deltas = sources::number(deltas.len())?;
    let sequence = order.sequence(&forms);
    drop(order);
    let written = output::write_pack(&sources, &forms, deltas, &sequence, into, &options)?;
    drop((sequence, forms));
    finish(&sources, written, new_deltas, into, &options)
}

/// The objects to search deltas for: whole so far, neither tiny nor large.
fn candidates(
    sources: &Sources,
    forms: &Forms,
    order: &Order,
    options: &RepackOptions,
) -> Result<Vec<order::Candidate>, RepackError> {
    let mut reader = Reader::new(sources);
    let mut size = |object: u32| {
        if !matches!(forms.forms[object as usize], Form::Copied | Form::Deflated) {
            return Ok(None);
        }
        let (_, size) = sources.header(forms.copies[object as usize], reader.inflate())?;
        let size = u32::try_from(size).ok().filter(|size| {
            u64::from(*size) >= search::DELTA_BYTES_MIN && *size <= options.delta_object_bytes_max
        });
        Ok(size)
    };
    order::alike(sources, forms, order, &mut size)
}

/// Writes the indexes and names every file. The index of the pack is last: it makes the pack
/// visible.
fn finish(
    sources: &Sources,
    written: output::WrittenPack,
    new_deltas: u32,
    into: &Path,
    options: &RepackOptions,
) -> Result<Repacked, RepackError> {
    let checksum = written.checksum;
    let (idx, idx_bytes) = index::write_idx(
        into,
        (0..sources.len()).map(|object| sources.id(object)),
        &written.checksums,
        &written.offsets,
        &checksum,
    )?;
    let rev = match options.reverse_index {
        ReverseIndex::Written => Some(index::write_rev(into, &written.order, &checksum)?),
        ReverseIndex::Omitted => None,
    };
    let id = PackId::new(from_gix(&checksum));
    let path = |extension: &str| into.join(format!("pack-{id}.{extension}"));
    let pack_path = output::keep(written.file, path("pack"))?;
    let rev_path = rev.map(|rev| output::keep(rev, path("rev"))).transpose();
    let idx_path = rev_path.and_then(|rev_path| Ok((rev_path, output::keep(idx, path("idx"))?)));
    let (rev_path, idx_path) = match idx_path {
        Ok(paths) => paths,
        Err(error) => {
            for path in [pack_path, path("rev")] {
                // A remaining file is in the caller's own directory, which is removed as a whole.
                let _removed = std::fs::remove_file(path).is_ok();
            }
            return Err(error.into());
        }
    };
    Ok(Repacked {
        pack: QuarantinedPack {
            id,
            pack_path,
            idx_path,
            pack_bytes: written.bytes,
            idx_bytes,
            objects: sources.len(),
            in_memory: None,
        },
        rev_path,
        copied: sources.len() - new_deltas - written.deflated,
        new_deltas,
        deflated: written.deflated,
    })
}
