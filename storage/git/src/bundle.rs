//! Bundles of a repository's branches and tags: gitformat-bundle(5). A bundle is made once, cached
//! for a while and served in parts, so that an interrupted clone resumes.
//!
//! A bundle is a header and the pack of a clone of its refs. Most of it is not copied: it refers to
//! parts of the repository's packs, and keeps those open that maintenance removes meanwhile.
//! [`Bundles`] is the cache of a server.

mod kept;
mod pieces;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use henge_types::{ObjectFormat, ObjectId, limits};
use sha2::{Digest, Sha256};

use crate::fetch::{FetchError, write_tips};
use crate::output::Output;
use crate::protocol::Stop;
use crate::refs::RefStore;
use crate::store::{Objects, Pack, StoreError};
pub use kept::{BundleMaking, Bundles, Offer};
use pieces::{Pieces, Recorder};

/// The id of a bundle: SHA-256 of its header and of its pack's checksum, so that bundles with
/// different bytes have different ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId([u8; 32]);

impl BundleId {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no bundle id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bundle is named by 64 hexadecimal digits")]
pub struct InvalidBundleId;

impl FromStr for BundleId {
    type Err = InvalidBundleId;

    fn from_str(text: &str) -> Result<Self, InvalidBundleId> {
        let mut bytes = [0; 32];
        let is_small = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if is_small => Ok(Self(bytes)),
            Ok(()) | Err(_) => Err(InvalidBundleId),
        }
    }
}

/// The reason why a repository has no bundle.
#[derive(Debug, thiserror::Error)]
pub enum NoBundle {
    /// It has no branches and tags.
    #[error("the repository has no branches and tags")]
    Empty,
    /// It is too small: a plain clone is as good.
    #[error("it would have {bytes} bytes: a bundle is offered from {min} on")]
    Small {
        /// Its size.
        bytes: u64,
        /// The minimum.
        min: u64,
    },
    /// Too much of it is in no pack in the form to be sent.
    #[error("more than {max} bytes of it would have to be copied")]
    OwnBytes {
        /// Maximum number of copied bytes.
        max: u64,
    },
    /// Its pack cannot be made.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The disk failed.
    #[error("the bundle could not be written: {0}")]
    Io(#[from] io::Error),
}

/// A bundle: its id, the values of its refs and its content.
#[derive(Debug)]
pub struct Bundle {
    id: BundleId,
    tips: Vec<ObjectId>,
    pieces: Pieces,
}

impl Bundle {
    /// Makes the bundle of the current refs: HEAD, branches and tags. Its own bytes are in an
    /// unnamed file in the existing `directory`.
    ///
    /// # Errors
    /// See [`NoBundle`]. A bundle of less than `bytes_min` bytes is not worthwhile.
    pub fn make(
        refs: &dyn RefStore,
        objects: &Objects,
        directory: &Path,
        bytes_min: u64,
        stop: &Stop,
    ) -> Result<Self, NoBundle> {
        let covered = Covered::of(refs);
        if covered.0.is_empty() {
            return Err(NoBundle::Empty);
        }
        let header = covered.header(objects.format());
        let mut tips: Vec<ObjectId> = covered.0.into_iter().map(|(_, id)| id).collect();
        tips.sort_unstable();
        tips.dedup();
        let mut recorder = Recorder::new(directory, limits::BUNDLE_OWN_BYTES_MAX);
        io::Write::write_all(&mut recorder, header.as_bytes())?;
        let written = write_tips(refs, objects, &tips, stop, &mut recorder);
        if recorder.is_full() {
            let max = limits::BUNDLE_OWN_BYTES_MAX;
            return Err(NoBundle::OwnBytes { max });
        }
        written?;
        let pieces = recorder.finish()?;
        let bytes = pieces.bytes();
        if bytes < bytes_min {
            return Err(NoBundle::Small {
                bytes,
                min: bytes_min,
            });
        }
        let checksum = bytes.saturating_sub(objects.format().id_bytes() as u64)..bytes;
        let mut trailer = Vec::new();
        pieces.write_range(pieces.packs(), checksum, &mut trailer)?;
        let mut id = Sha256::new();
        id.update(header.len().to_le_bytes());
        id.update(&header);
        id.update(&trailer);
        Ok(Self {
            id: BundleId(id.finalize().into()),
            tips,
            pieces,
        })
    }

    /// Its id.
    pub const fn id(&self) -> BundleId {
        self.id
    }

    /// Its length.
    pub const fn bytes(&self) -> u64 {
        self.pieces.bytes()
    }

    /// The values of its refs, ascending.
    pub(crate) fn tips(&self) -> &[ObjectId] {
        &self.tips
    }

    /// Its bytes on disk: its own bytes, and packs whose files were removed and are still open.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.pieces.disk_bytes()
    }

    /// Opens it for reading, with the store's current packs: a damaged pack may have been fetched
    /// again.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open(self: &Arc<Self>, objects: &Objects) -> Result<OpenBundle, StoreError> {
        let store = objects.open()?;
        let newest = |held: &Arc<Pack>| {
            let path = held.index.path();
            let mut packs = store.packs().iter();
            let found = packs.find(|pack| pack.index.path() == path);
            Arc::clone(found.unwrap_or(held))
        };
        Ok(OpenBundle {
            packs: self.pieces.packs().iter().map(newest).collect(),
            bundle: Arc::clone(self),
        })
    }
}

/// A bundle that is open for reading.
#[derive(Debug)]
pub struct OpenBundle {
    bundle: Arc<Bundle>,
    packs: Vec<Arc<Pack>>,
}

impl OpenBundle {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bundle.bytes()
    }

    /// Writes a range, which must lie within the bundle.
    ///
    /// # Errors
    /// When the disk or the output fails.
    pub fn write(&self, range: Range<u64>, output: &mut dyn Output) -> io::Result<()> {
        self.bundle.pieces.write_range(&self.packs, range, output)
    }
}

/// The refs of a bundle, in the order of its header: HEAD, branches and tags. With more than
/// [`limits::BUNDLE_REFS_MAX`] branches and tags: HEAD and its branch only.
struct Covered(Vec<(String, ObjectId)>);

impl Covered {
    fn of(refs: &dyn RefStore) -> Self {
        let head = refs.head();
        let mut found = Vec::new();
        let mut count = 0_usize;
        for prefix in ["refs/heads/", "refs/tags/"] {
            refs.for_each_name(prefix, &mut |name, id| {
                count += 1;
                if count <= limits::BUNDLE_REFS_MAX {
                    found.push((name.to_owned(), id));
                }
            });
        }
        let head_value = refs.get(&head);
        if count > limits::BUNDLE_REFS_MAX {
            found = head_value
                .map(|id| (head.to_string(), id))
                .into_iter()
                .collect();
        }
        let head_line = head_value.map(|id| ("HEAD".to_owned(), id));
        Self(head_line.into_iter().chain(found).collect())
    }

    /// The bundle's header, which ends where the pack begins.
    fn header(&self, format: ObjectFormat) -> String {
        let mut header = match format {
            ObjectFormat::Sha1 => "# v2 git bundle\n".to_owned(),
            ObjectFormat::Sha256 => "# v3 git bundle\n@object-format=sha256\n".to_owned(),
        };
        for (name, id) in &self.0 {
            header.push_str(&format!("{id} {name}\n"));
        }
        header.push('\n');
        header
    }
}
