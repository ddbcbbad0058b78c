//! Streams the pack of a push into the quarantine: bounded, indexed, thin packs completed.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};

use gix_hashtable::HashSet;
use gix_pack::data::input;
use henge_types::{ObjectId, PackId, RefRefusal};

use crate::oid::{HashKind, OID_BYTES_MAX, Oid, from_gix, hash_kind};
use crate::pkt::Bounded;
use crate::protocol::{PushLimits, Stop};
use crate::push::bases::{Bases, too_long};
use crate::push::budget::Budget;
use crate::push::depth::check_delta_depth;
use crate::push::oversize::OversizedObject;
use crate::push::quarantine::{Finished, Held, Incoming, Quarantine};
use crate::push::report::refusal_text;
use crate::reach::{Reach, ReachError};
use crate::refs::QuarantinedPack;
use crate::store::ObjectStore;

const PACK_HEADER_BYTES: usize = 12;
/// Smaller packs are indexed on one thread: starting more takes longer than it saves.
const PARALLEL_OBJECTS_MIN: u32 = 4096;
/// The size of one read or write.
const BUFFER_BYTES: usize = 64 * 1024;

/// Reasons to refuse a pack.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The data does not begin like a pack.
    #[error("what follows the commands is not a pack")]
    NotAPack,
    /// The pack ends inside its header or before its trailer.
    #[error("the pack ends early")]
    Truncated,
    /// The header announces more objects than the limit.
    #[error("the pack holds {objects} objects, {max} are allowed")]
    TooManyObjects {
        /// The number in the header.
        objects: u32,
        /// The limit.
        max: u32,
    },
    /// The quota of the repository for packs is exhausted.
    #[error("{}", refusal_text(&RefRefusal::PacksFull { used: *used, max: *max, bytes: *bytes }))]
    Quota {
        /// Bytes in use.
        used: u64,
        /// The quota in bytes.
        max: u64,
        /// Bytes of the completed pack and its index.
        bytes: u64,
    },
    /// A delta chain is too long, or a cycle.
    #[error(
        "object {id} is more than {max} deltas away from a whole one: repack with --depth={max} and push again"
    )]
    DeltaDepth {
        /// The object at the end of the chain.
        id: ObjectId,
        /// The limit in deltas.
        max: u32,
    },
    /// Reading an object needs too many bytes of deltas in memory.
    #[error(
        "object {id} is made of more than {max} bytes of deltas: push again with git -c pack.depth=5 push"
    )]
    DeltaBytes {
        /// The object at the end of the chain.
        id: ObjectId,
        /// The limit for all deltas of a chain, in bytes.
        max: u64,
    },
    /// The objects together are far larger than the pack.
    #[error(
        "the objects of the pack have more than {max} bytes together, far more than were sent: push in smaller steps"
    )]
    Inflated {
        /// The limit for a pack of this size, in bytes.
        max: u64,
    },
    /// Resolving the deltas needs too much memory, because their bases are too large or branch too
    /// much.
    #[error(
        "resolving the deltas of the pack would take more than {max} bytes at once: push again with git -c pack.depth=5 -c core.bigFileThreshold=50m push"
    )]
    Resolved {
        /// The limit in bytes.
        max: u64,
    },
    /// A delta too short for git to read.
    #[error("a delta of the pack has {bytes} bytes: git reads none of less than 4")]
    ShortDelta {
        /// The size of the delta.
        bytes: u64,
    },
    /// The deadline passed, or the caller set the stop signal.
    #[error("the push took too long")]
    Stopped,
    /// The pack is over the limit of bytes.
    #[error(
        "the push is larger than {max} bytes, the most that is taken: push in smaller steps, older commits first (git push REMOTE COMMIT:BRANCH)"
    )]
    PackTooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// The pack holds an object over the limit of bytes.
    #[error(
        "{object}, {max} are allowed: keep files of that size elsewhere (git lfs migrate import --above=400MB takes them out of the history)"
    )]
    ObjectTooLarge {
        /// The object.
        object: OversizedObject,
        /// The limit in bytes.
        max: u64,
    },
    /// The pack is truncated, damaged, or refers to missing objects.
    #[error("{}", reason(.0))]
    Broken(gix_error::Error),
    /// The proof that the repository has the base of a delta failed.
    #[error("the bases of the pack could not be checked: {0}")]
    Bases(#[source] ReachError),
    /// A write to the server's disk failed.
    #[error("the server's disk did not take the pack: {0}")]
    Disk(#[source] io::Error),
    /// The stream or the disk failed.
    #[error("the pack could not be read: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for IngestError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated
        } else {
            Self::Io(error)
        }
    }
}

/// The most specific message, with its cause.
fn reason(error: &gix_error::Error) -> String {
    let mut text = error.to_string();
    let cause = error.probable_cause().to_string();
    if !text.contains(&cause) {
        text = format!("{text}: {cause}");
    }
    format!("the pack is broken or incomplete: {text}")
}

impl IngestError {
    /// Whether the fault is the server's, not the pack's.
    pub(crate) fn is_internal(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Bases(_)) || self.io_kind().is_some_and(is_of_the_disk)
    }

    /// The kind of an IO error, where the reason is one.
    fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) | Self::Disk(error) => Some(error.kind()),
            Self::Broken(error) => error.downcast_any_ref::<io::Error>().map(io::Error::kind),
            Self::NotAPack
            | Self::Truncated
            | Self::TooManyObjects { .. }
            | Self::Quota { .. }
            | Self::DeltaDepth { .. }
            | Self::DeltaBytes { .. }
            | Self::Inflated { .. }
            | Self::Resolved { .. }
            | Self::ShortDelta { .. }
            | Self::PackTooLarge { .. }
            | Self::ObjectTooLarge { .. }
            | Self::Bases(_)
            | Self::Stopped => None,
        }
    }
}

const fn is_of_the_disk(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::OutOfMemory
    )
}

/// A pack in the quarantine.
pub(crate) struct Ingested {
    /// `None` for an empty pack.
    pub(crate) pack: Option<QuarantinedPack>,
    /// Objects of the repository's store that were added as delta bases: the client did not send
    /// them.
    pub(crate) external: HashSet<Oid>,
}

/// Streams a pack from `input` into `quarantine`. In a shared store, `reach` decides which of its
/// objects may be delta bases.
pub(crate) fn ingest(
    input: &mut dyn BufRead,
    store: &ObjectStore,
    reach: Option<Reach<'_>>,
    quarantine: &dyn Quarantine,
    limits: &PushLimits,
) -> Result<Ingested, IngestError> {
    let mut bounded = Bounded::new(input, limits.pack_bytes_max);
    let mut header = [0_u8; PACK_HEADER_BYTES];
    bounded.read_exact(&mut header)?;
    let (_, objects) =
        gix_pack::data::header::decode(&header).map_err(|_| IngestError::NotAPack)?;
    if objects > limits.objects_max {
        return Err(IngestError::TooManyObjects {
            objects,
            max: limits.objects_max,
        });
    }
    if objects == 0 {
        check_empty(&header, &mut bounded, hash_kind(store.format()))?;
        return Ok(Ingested {
            pack: None,
            external: HashSet::default(),
        });
    }
    let bases = Bases::new(store, &limits.stop, reach);
    let budget = Budget::new(limits, store.format());
    let input = (&header[..]).chain(bounded);
    let incoming = Incoming::new(quarantine);
    let indexed = index(input, objects, &bases, &budget, &incoming, limits);
    let pack = match (budget.refusal(), indexed) {
        (Some(refusal), _) => return Err(refusal),
        (None, Ok(pack)) => pack,
        (None, Err(_)) if limits.stop.is_set() => return Err(IngestError::Stopped),
        (None, Err(error)) => {
            let fault = incoming.fault().map(IngestError::Disk);
            let fault = fault.or_else(|| bases.failure().map(IngestError::Bases));
            return Err(fault.unwrap_or_else(|| explained(error, limits)));
        }
    };
    let bytes = pack.pack_bytes.saturating_add(pack.idx_bytes);
    if let Some(quota) = limits.quota.filter(|quota| quota.is_exceeded_by(bytes)) {
        let (used, max) = (quota.used, quota.max);
        return Err(IngestError::Quota { used, max, bytes });
    }
    if budget.has_doubtful_chains(pack.objects) {
        check_delta_depth(&pack, limits)?;
    }
    Ok(Ingested {
        pack: Some(pack),
        external: bases.into_used(),
    })
}

/// Translates the error of a read or write that the pack did not cause.
fn explained(error: IngestError, limits: &PushLimits) -> IngestError {
    match error.io_kind() {
        // Only the bound on the whole request fails like this: the budget reports single objects.
        Some(io::ErrorKind::FileTooLarge) => IngestError::PackTooLarge {
            max: limits.pack_bytes_max,
        },
        Some(kind) if is_of_the_disk(kind) => IngestError::Disk(kind.into()),
        Some(_) | None => error,
    }
}

/// Writes the pack, completed where it is thin, and its index into the quarantine.
fn index(
    input: impl Read,
    objects: u32,
    bases: &Bases<'_>,
    budget: &Budget<'_>,
    incoming: &Incoming<'_>,
    limits: &PushLimits,
) -> Result<QuarantinedPack, IngestError> {
    let kind = hash_kind(bases.store.format());
    let entry_bytes = Cell::new(0);
    let input = GuardedRead {
        inner: input,
        stop: &limits.stop,
        ended: false,
        entry_bytes: &entry_bytes,
        entry_bytes_max: deflated_max(limits.object_bytes_max),
        too_large: &|| budget.refuse_next_object(),
    };
    let entries = input::BytesToEntriesIter::new_from_header(
        BufReader::with_capacity(BUFFER_BYTES, input),
        input::Mode::Verify,
        input::EntryDataMode::KeepAndCrc32,
        kind,
    )
    .map_err(IngestError::Broken)?;
    let version = entries.version();
    let entries = entries.inspect(|_| entry_bytes.set(0));
    let compression = gix_pack::bundle::write::Options::default().compression;
    let entries = input::LookupRefDeltaObjectsIter::new(entries, bases, compression);
    let output = incoming.begin()?;
    let entries = input::EntriesToBytesIter::new(entries, output, version, kind);
    let mut entries = entries
        .inspect(|entry| {
            if let Ok(entry) = entry {
                budget.note(entry);
            }
        })
        .take_while(|_| !budget.has_refused());
    // gix allocates for the upper size hint of the iterator, and refuses a pack when that exceeds
    // the size of an object: with 512 MiB, from 7,456,541 objects on. An iterator without a size
    // hint is allocated for as the entries come.
    let mut entries = std::iter::from_fn(|| entries.next());
    let threads = if objects < PARALLEL_OBJECTS_MIN {
        1
    } else {
        limits.index_threads_max
    };
    let mut idx = incoming.begin_idx();
    let outcome = gix_pack::index::write_data_iter_to_stream(
        gix_pack::index::Version::V2,
        || {
            let pack_path = incoming.pack_path()?;
            budget.begin(std::fs::metadata(&pack_path)?.len());
            let pack = gix_pack::data::File::at(&pack_path, kind).map_err(io::Error::other)?;
            Ok((resolver(budget), pack))
        },
        &mut entries,
        Some(threads),
        &mut gix_utils::progress::Discard,
        &mut idx,
        limits.stop.flag(),
        kind,
        usize::try_from(limits.object_bytes_max).ok(),
        version,
    )
    .map_err(IngestError::Broken)?;
    let id = PackId::new(from_gix(&outcome.data_hash));
    Ok(quarantined(id, outcome.num_objects, incoming.finish(idx)?)?)
}

/// Renames the files of a pack after its id, where they have names.
fn quarantined(id: PackId, objects: u32, finished: Finished) -> io::Result<QuarantinedPack> {
    let Finished {
        pack,
        idx,
        in_memory,
    } = finished;
    let named = |file: &Held, extension: &str| {
        let path = file.path().to_owned();
        if in_memory {
            return Ok(path);
        }
        let name = path.with_file_name(format!("pack-{id}.{extension}"));
        std::fs::rename(path, &name).map(|()| name)
    };
    Ok(QuarantinedPack {
        id,
        pack_bytes: std::fs::metadata(pack.path())?.len(),
        idx_bytes: std::fs::metadata(idx.path())?.len(),
        pack_path: named(&pack, "pack")?,
        idx_path: named(&idx, "idx")?,
        objects,
        in_memory: in_memory.then(|| [pack.into_file(), idx.into_file()]),
    })
}

/// The function through which gix reads entries to resolve.
fn resolver<'b>(
    budget: &'b Budget<'_>,
) -> impl for<'r> Fn(gix_pack::data::EntryRange, &'r gix_pack::data::File) -> Option<&'r [u8]>
+ Send
+ Clone
+ 'b {
    move |range, pack| budget.resolve(range, pack)
}

/// The maximum deflated size of `bytes` bytes, plus an allowance for read-ahead.
const fn deflated_max(bytes: u64) -> u64 {
    bytes
        .saturating_add(bytes / 1024)
        .saturating_add(4 * BUFFER_BYTES as u64)
}

/// Checks a pack without objects: a header and its checksum.
fn check_empty(header: &[u8], input: &mut dyn Read, kind: HashKind) -> Result<(), IngestError> {
    let mut trailer = [0_u8; OID_BYTES_MAX];
    let trailer = &mut trailer[..kind.len_in_bytes()];
    input.read_exact(trailer)?;
    let mut hasher = gix_hash::hasher(kind);
    hasher.update(header);
    let expected = hasher.try_finalize().map_err(IngestError::Broken)?;
    if expected.as_bytes() == trailer {
        Ok(())
    } else {
        Err(IngestError::NotAPack)
    }
}

/// Fails a read at the deadline, or when one entry exceeds the maximum size of an object: gix keeps
/// the bytes of an entry until the entry is complete.
struct GuardedRead<'a, R> {
    inner: R,
    stop: &'a Stop,
    /// Whether the end was reached. Later reads return the end again: gix reads once more there,
    /// and treats an error as a broken contract.
    ended: bool,
    /// Bytes since the last whole entry.
    entry_bytes: &'a Cell<u64>,
    entry_bytes_max: u64,
    /// Called when an entry exceeds that.
    too_large: &'a dyn Fn(),
}

impl<R: Read> Read for GuardedRead<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.stop.is_set() {
            return Err(too_long());
        }
        if self.entry_bytes.get() > self.entry_bytes_max {
            (self.too_large)();
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "an object of the pack is too large",
            ));
        }
        let bytes = self.inner.read(buffer)?;
        self.ended = bytes == 0 && !buffer.is_empty();
        self.entry_bytes.set(self.entry_bytes.get() + bytes as u64);
        Ok(bytes)
    }
}
