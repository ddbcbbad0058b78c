//! An index of all refs for fetches: their values, and the tags. Reading a hundred thousand refs
//! costs more than most fetches, so it is done once for each version of the refs.

use std::sync::OnceLock;

use gix_hashtable::HashSet;
use sha2::{Digest, Sha256};

use crate::fetch::FetchError;
use crate::oid::{Oid, to_gix};
use crate::peel;
use crate::protocol::Stop;
use crate::refs::RefStore;
use crate::store::ObjectStore;

/// Interval of deadline checks, in tags.
const STOP_EVERY: usize = 4096;
/// Maximum number of refs in a cached index, about 120 bytes each.
const KEPT_REFS_MAX: usize = 200_000;

/// An index of the refs of a repository in one version, made on first use.
#[derive(Debug, Default)]
pub(crate) struct TipIndex {
    tips: OnceLock<HashSet<Oid>>,
    tags: OnceLock<[u8; 32]>,
    annotated: OnceLock<Vec<AnnotatedTag>>,
}

/// A tag object that is the value of a ref below `refs/tags/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnnotatedTag {
    pub(crate) id: Oid,
    /// Its peeled value.
    pub(crate) target: Oid,
}

impl TipIndex {
    /// The values of all refs.
    pub(crate) fn tips(&self, refs: &dyn RefStore) -> &HashSet<Oid> {
        self.tips.get_or_init(|| {
            let mut tips = HashSet::default();
            refs.for_each_name("", &mut |_, id| {
                tips.extend(to_gix(id, id.format()));
            });
            tips
        })
    }

    /// A hash of the values of the refs below `refs/tags/`.
    pub(crate) fn tags(&self, refs: &dyn RefStore) -> &[u8; 32] {
        self.tags.get_or_init(|| {
            let mut digest = Sha256::new();
            refs.for_each_name("refs/tags/", &mut |_, id| digest.update(id.as_bytes()));
            digest.finalize().into()
        })
    }

    /// The annotated tags, in the order of their refs.
    ///
    /// # Errors
    /// When a tag cannot be read, or the deadline passes.
    pub(crate) fn annotated(
        &self,
        refs: &dyn RefStore,
        store: &ObjectStore,
        stop: &Stop,
    ) -> Result<&[AnnotatedTag], FetchError> {
        if let Some(known) = self.annotated.get() {
            return Ok(known);
        }
        let mut ids = Vec::new();
        refs.for_each_name("refs/tags/", &mut |_, id| {
            ids.extend(to_gix(id, store.format()));
        });
        // Tags with the same value are usually adjacent.
        ids.dedup();
        let mut annotated = Vec::new();
        let mut buffer = Vec::new();
        for (number, id) in ids.into_iter().enumerate() {
            if number.is_multiple_of(STOP_EVERY) && stop.is_set() {
                return Err(FetchError::Stopped);
            }
            if let Some(target) = peel::tag_target(store, &id, &mut buffer)? {
                annotated.push(AnnotatedTag { id, target });
            }
        }
        Ok(self.annotated.get_or_init(|| annotated))
    }

    /// Whether it is small enough to be cached.
    pub(crate) fn is_small(&self) -> bool {
        let tips = self.tips.get().map_or(0, HashSet::len);
        let annotated = self.annotated.get().map_or(0, Vec::len);
        tips.max(annotated) <= KEPT_REFS_MAX
    }
}
