//! The pack of a push, streamed into the quarantine: bounded, indexed, thin packs completed.

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
/// Below this a pack is indexed on one thread: starting more costs longer than it saves.
const PARALLEL_OBJECTS_MIN: u32 = 4096;
/// What is read and written at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why a pack was refused.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// It does not begin as a pack does.
    #[error("what follows the commands is not a pack")]
    NotAPack,
    /// It ends before its header or its trailer does.
    #[error("the pack ends early")]
    Truncated,
    /// It says that it holds more objects than allowed.
    #[error("the pack holds {objects} objects, {max} are allowed")]
    TooManyObjects {
        /// What its header says.
        objects: u32,
        /// What is allowed.
        max: u32,
    },
    /// The repository holds as much as it may.
    #[error("{}", refusal_text(&RefRefusal::PacksFull { used: *used, max: *max, bytes: *bytes }))]
    Quota {
        /// Bytes that it holds.
        used: u64,
        /// Bytes that it may hold.
        max: u64,
        /// Bytes of the completed pack and its index.
        bytes: u64,
    },
    /// A chain of deltas is too long, or goes in a circle.
    #[error(
        "object {id} is more than {max} deltas away from a whole one: repack with --depth={max} and push again"
    )]
    DeltaDepth {
        /// The object at its end.
        id: ObjectId,
        /// How many deltas are allowed.
        max: u32,
    },
    /// An object can only be read with too many bytes of deltas in memory.
    #[error(
        "object {id} is made of more than {max} bytes of deltas: push again with git -c pack.depth=5 push"
    )]
    DeltaBytes {
        /// The object at the end of the chain.
        id: ObjectId,
        /// Bytes of all deltas in a chain.
        max: u64,
    },
    /// Its objects are together far larger than what was sent.
    #[error(
        "the objects of the pack have more than {max} bytes together, far more than were sent: push in smaller steps"
    )]
    Inflated {
        /// How many bytes are allowed for a pack of its size.
        max: u64,
    },
    /// Its deltas are of objects so large, or branch so much, that too much would have to be in memory.
    #[error(
        "resolving the deltas of the pack would take more than {max} bytes at once: push again with git -c pack.depth=5 -c core.bigFileThreshold=50m push"
    )]
    Resolved {
        /// How many bytes are allowed.
        max: u64,
    },
    /// A delta that no git reads.
    #[error("a delta of the pack has {bytes} bytes: git reads none of less than 4")]
    ShortDelta {
        /// Its bytes.
        bytes: u64,
    },
    /// The time for it is over.
    #[error("the push took too long")]
    Stopped,
    /// It has more bytes than allowed.
    #[error(
        "the push is larger than {max} bytes, the most that is taken: push in smaller steps, older commits first (git push REMOTE COMMIT:BRANCH)"
    )]
    PackTooLarge {
        /// How many are allowed.
        max: u64,
    },
    /// It holds an object with more bytes than allowed.
    #[error(
        "{object}, {max} are allowed: keep files of that size elsewhere (git lfs migrate import --above=400MB takes them out of the history)"
    )]
    ObjectTooLarge {
        /// Which.
        object: OversizedObject,
        /// How many bytes are allowed.
        max: u64,
    },
    /// It is cut off, damaged, or refers to what is not there.
    #[error("{}", reason(.0))]
    Broken(gix_error::Error),
    /// Whether the repository has the base of a delta could not be found out.
    #[error("the bases of the pack could not be checked: {0}")]
    Bases(#[source] ReachError),
    /// The server's disk did not take it.
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

/// The message that says most, with what caused it.
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

    /// What the system said, where it said something.
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
    /// None for an empty pack.
    pub(crate) pack: Option<QuarantinedPack>,
    /// Objects of the repository's store that were added as bases of deltas: the client did not send them.
    pub(crate) external: HashSet<Oid>,
}

/// Streams a pack from `input` into `quarantine`. Where the store is shared, `reach` tells which of its objects deltas may
/// be made on.
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

/// What a failed read or write was, where the pack is not to blame for it.
fn explained(error: IngestError, limits: &PushLimits) -> IngestError {
    match error.io_kind() {
        // Only the bound on the whole request fails like this: an object's own is told by the budget.
        Some(io::ErrorKind::FileTooLarge) => IngestError::PackTooLarge {
            max: limits.pack_bytes_max,
        },
        Some(kind) if is_of_the_disk(kind) => IngestError::Disk(kind.into()),
        Some(_) | None => error,
    }
}

/// Writes the pack and its index, completed where it is thin, into their place.
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
    // gix makes room for all entries that may come at once, and refuses a pack when that room is larger than an object
    // may be: with 512 MiB, from 7,456,541 objects on. What does not say how many come is given room as they come.
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

/// Names the files of a pack after it, where they have names.
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

/// How entries are handed to whoever resolves them.
fn resolver<'b>(
    budget: &'b Budget<'_>,
) -> impl for<'r> Fn(gix_pack::data::EntryRange, &'r gix_pack::data::File) -> Option<&'r [u8]>
+ Send
+ Clone
+ 'b {
    move |range, pack| budget.resolve(range, pack)
}

/// What `bytes` have at most when they are deflated, with room for what is read ahead.
const fn deflated_max(bytes: u64) -> u64 {
    bytes
        .saturating_add(bytes / 1024)
        .saturating_add(4 * BUFFER_BYTES as u64)
}

/// A pack without objects is its header and the checksum of it.
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

/// Ends a read at the deadline, or when one entry is larger than any object may be: gix keeps the bytes of an entry
/// until it has all of them.
struct GuardedRead<'a, R> {
    inner: R,
    stop: &'a Stop,
    /// The end stays the end: gix looks at it again and takes an error there for a broken promise.
    ended: bool,
    /// Bytes since the last whole entry.
    entry_bytes: &'a Cell<u64>,
    entry_bytes_max: u64,
    /// Told that the entry is larger than that.
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
