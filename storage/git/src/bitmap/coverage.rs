//! The objects reached so far inside the pack that has bitmaps.

use std::sync::Arc;

use crate::bitmap::{Bits, PackBitmap};
use crate::oid::oid;
use crate::store::{ObjectStore, Pack};

/// The location of an object of the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// Its entry in the index, which is in the order of ids.
    pub(crate) entry: u32,
    /// Its position in the file, which is the number of its bit.
    pub(crate) position: u32,
}

/// Finds an object in a pack.
pub(crate) fn find(pack: &Pack, id: &oid) -> Option<At> {
    let entry = pack.index.lookup(id)?;
    let position = pack.position(pack.index.pack_offset_at_index(entry))?;
    Some(At { entry, position })
}

/// A growing set of reached objects of one pack.
pub(crate) struct Coverage {
    /// The pack's slot in its store.
    pub(crate) slot: u32,
    pub(crate) pack: Arc<Pack>,
    pub(crate) bitmap: Arc<PackBitmap>,
    pub(crate) bits: Bits,
}

impl Coverage {
    /// An empty set; `None` when no pack of the store has bitmaps.
    pub(crate) fn new(store: &ObjectStore) -> Option<Self> {
        let (slot, bitmap) = store.bitmapped()?;
        let pack = Arc::clone(store.pack(slot));
        let bits = Bits::new(pack.index.num_objects());
        Some(Self {
            slot,
            pack,
            bitmap,
            bits,
        })
    }

    /// The location of an object; `None` outside the pack.
    pub(crate) fn find(&self, id: &oid) -> Option<At> {
        find(&self.pack, id)
    }

    pub(crate) fn contains(&self, id: &oid) -> bool {
        self.find(id)
            .is_some_and(|at| self.bits.contains(at.position))
    }

    /// Adds everything that a commit reaches. Returns false if the commit has no readable bitmap.
    pub(crate) fn absorb(&mut self, commit: At) -> bool {
        match self.bitmap.decode(commit.entry) {
            Ok(Some(bits)) if bits.contains(commit.position) => {
                self.bits.or(&bits);
                true
            }
            Ok(None) => false,
            Ok(Some(_)) => {
                self.report(&"a commit is not in its own bitmap");
                false
            }
            Err(error) => {
                self.report(&error);
                false
            }
        }
    }

    /// Logs an unusable bitmap. The history is walked instead.
    fn report(&self, error: &dyn std::fmt::Display) {
        let path = self.pack.index.path().with_extension("bitmap");
        tracing::warn!(path = %path.display(), %error, "a bitmap cannot be used");
    }
}
