//! The pack of a push, streamed into the quarantine: bounded, indexed, thin packs completed.

use std::cell::RefCell;
use std::io::{self, BufRead, Read};
use std::path::Path;

use gix_hashtable::HashSet;
use gix_pack::data::input;
use henge_types::{ObjectId, PackId};

use crate::oid::{KIND, OID_BYTES, Oid, from_gix, oid};
use crate::pkt::Bounded;
use crate::protocol::{PushLimits, Stop};
use crate::push::depth::check_delta_depth;
use crate::refs::QuarantinedPack;
use crate::store::ObjectStore;

const PACK_HEADER_BYTES: usize = 12;
/// Below this a pack is indexed on one thread: starting more costs longer than it saves.
const PARALLEL_OBJECTS_MIN: u32 = 4096;

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
    /// The time for it is over.
    #[error("the push took too long")]
    Stopped,
    /// It is cut off, damaged, refers to what is not there, or is too large.
    #[error("{}", reason(.0))]
    Broken(gix_error::Error),
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
        let io_kind = match self {
            Self::Io(error) => Some(error.kind()),
            Self::Broken(error) => error.downcast_any_ref::<io::Error>().map(io::Error::kind),
            Self::NotAPack
            | Self::Truncated
            | Self::TooManyObjects { .. }
            | Self::DeltaDepth { .. }
            | Self::Stopped => None,
        };
        matches!(
            io_kind,
            Some(
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::OutOfMemory
            )
        )
    }
}

/// A pack in the quarantine.
pub(crate) struct Ingested {
    /// None for an empty pack.
    pub(crate) pack: Option<QuarantinedPack>,
    /// Objects of the repository's store that were added as bases of deltas: the client did not send them.
    pub(crate) external: HashSet<Oid>,
}

/// Streams a pack from `input` into the directory `quarantine`.
pub(crate) fn ingest(
    input: &mut dyn BufRead,
    store: &ObjectStore,
    quarantine: &Path,
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
        check_empty(&header, &mut bounded)?;
        return Ok(Ingested {
            pack: None,
            external: HashSet::default(),
        });
    }
    let mut pack = StoppableRead {
        inner: (&header[..]).chain(bounded),
        stop: &limits.stop,
    };
    let bases = Bases {
        store,
        used: RefCell::default(),
    };
    let threads = if objects < PARALLEL_OBJECTS_MIN {
        1
    } else {
        limits.index_threads_max
    };
    let outcome = gix_pack::Bundle::write_to_directory(
        &mut pack,
        Some(quarantine),
        &mut gix_utils::progress::Discard,
        limits.stop.flag(),
        Some(&bases),
        KIND,
        gix_pack::bundle::write::Options {
            thread_limit: Some(threads),
            iteration_mode: input::Mode::Verify,
            index_version: gix_pack::index::Version::V2,
            alloc_limit_bytes: usize::try_from(limits.object_bytes_max).ok(),
            ..Default::default()
        },
    )
    .map_err(|error| {
        if limits.stop.is_set() {
            IngestError::Stopped
        } else {
            IngestError::Broken(error)
        }
    })?;
    let pack = quarantined(&outcome)?;
    check_delta_depth(&pack, limits)?;
    Ok(Ingested {
        pack: Some(pack),
        external: bases.used.into_inner(),
    })
}

fn quarantined(outcome: &gix_pack::bundle::write::Outcome) -> Result<QuarantinedPack, IngestError> {
    let (Some(pack_path), Some(idx_path)) = (&outcome.data_path, &outcome.index_path) else {
        return Err(IngestError::NotAPack);
    };
    if let Some(keep) = &outcome.keep_path {
        std::fs::remove_file(keep)?;
    }
    Ok(QuarantinedPack {
        id: PackId::new(from_gix(&outcome.index.data_hash)),
        pack_bytes: std::fs::metadata(pack_path)?.len(),
        idx_bytes: std::fs::metadata(idx_path)?.len(),
        pack_path: pack_path.clone(),
        idx_path: idx_path.clone(),
        objects: outcome.index.num_objects,
    })
}

/// A pack without objects is its header and the checksum of it.
fn check_empty(header: &[u8], input: &mut dyn Read) -> Result<(), IngestError> {
    let mut trailer = [0_u8; OID_BYTES];
    input.read_exact(&mut trailer)?;
    let mut hasher = gix_hash::hasher(KIND);
    hasher.update(header);
    let expected = hasher.try_finalize().map_err(IngestError::Broken)?;
    if expected.as_bytes() == trailer {
        Ok(())
    } else {
        Err(IngestError::NotAPack)
    }
}

/// Looks up the bases of thin packs and remembers which ones were used.
struct Bases<'a> {
    store: &'a ObjectStore,
    used: RefCell<HashSet<Oid>>,
}

impl gix_object::Find for Bases<'_> {
    fn try_find<'b>(
        &self,
        id: &oid,
        buffer: &'b mut Vec<u8>,
    ) -> gix_error::Result<Option<gix_object::Data<'b>>> {
        let found = gix_object::Find::try_find(self.store, id, buffer)?;
        if found.is_some() {
            self.used.borrow_mut().insert(id.to_owned());
        }
        Ok(found)
    }
}

/// Ends a read at the deadline.
struct StoppableRead<'a, R> {
    inner: R,
    stop: &'a Stop,
}

impl<R> StoppableRead<'_, R> {
    fn check(&self) -> io::Result<()> {
        if self.stop.is_set() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the push took too long",
            ));
        }
        Ok(())
    }
}

impl<R: Read> Read for StoppableRead<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(buffer)
    }
}

impl<R: BufRead> BufRead for StoppableRead<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.inner.consume(bytes);
    }
}
