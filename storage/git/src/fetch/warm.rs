//! A cache of tree comparisons and deltas, shared by all fetches: clients that follow a branch lack
//! the same objects and have the same older versions, though few of them send equal requests.
//!
//! The keys are ids of objects, which name their contents: an entry stays valid for the life of the
//! process, in any repository. A cached entry does not imply that a repository holds or shows an
//! object.

use std::collections::hash_map::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::generations::Generations;
use crate::oid::Oid;

/// Maximum bytes of cached differences of trees.
const DIFFERENCES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Trees that differ in more entries are not cached: a history has few of them.
pub(super) const DIFFERENCES_MAX: usize = 1024;
/// Maximum bytes of cached deltas.
const DELTAS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of an entry besides its delta.
const ENTRY_BYTES: usize = 128;

/// A compressed delta, for clients that have its base.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    /// Its uncompressed size.
    pub(super) size: u64,
    pub(super) deflated: Arc<[u8]>,
}

impl Delta {
    fn bytes(known: Option<&Self>) -> usize {
        ENTRY_BYTES + known.map_or(0, |delta| delta.deflated.len())
    }
}

/// Deltas by target and base; `None` if the delta would be too long to be useful.
type Deltas = Generations<(Oid, Oid), Option<Delta>, RandomState>;

/// An entry of a tree that none of its bases has at the same path.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    pub(super) is_tree: bool,
    pub(super) id: Oid,
    /// The objects of the bases at that path.
    pub(super) below: Vec<Oid>,
}

/// Differences by a tree and its bases.
type Differences = Generations<(Oid, Vec<Oid>), Arc<[Difference]>, RandomState>;

fn bytes_of(differences: &Arc<[Difference]>) -> usize {
    let ids: usize = differences.iter().map(|entry| entry.below.len()).sum();
    ENTRY_BYTES + differences.len() * size_of::<Difference>() + ids * size_of::<Oid>()
}

fn differences_known() -> MutexGuard<'static, Differences> {
    static DIFFERENCES: OnceLock<Mutex<Differences>> = OnceLock::new();
    DIFFERENCES
        .get_or_init(|| Mutex::new(Generations::new(DIFFERENCES_BYTES_MAX)))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn deltas() -> MutexGuard<'static, Deltas> {
    static DELTAS: OnceLock<Mutex<Deltas>> = OnceLock::new();
    DELTAS
        .get_or_init(|| Mutex::new(Generations::new(DELTAS_BYTES_MAX)))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// The cached differences of a tree and its bases, in the order of the tree.
pub(super) fn differences(of: &(Oid, Vec<Oid>)) -> Option<Arc<[Difference]>> {
    differences_known().get(of, bytes_of)
}

/// Caches the differences of a tree and its bases.
pub(super) fn keep_differences(of: (Oid, Vec<Oid>), differences: &Arc<[Difference]>) {
    let bytes = bytes_of(differences);
    differences_known().put(of, Arc::clone(differences), bytes);
}

/// A cached delta; `Some(None)` if there is no useful one.
pub(super) fn delta(target: Oid, base: Oid) -> Option<Option<Delta>> {
    deltas().get(&(target, base), |known| Delta::bytes(known.as_ref()))
}

/// Caches a delta, or the absence of a useful one.
pub(super) fn keep_delta(target: Oid, base: Oid, delta: Option<Delta>) {
    let bytes = Delta::bytes(delta.as_ref());
    deltas().put((target, base), delta, bytes);
}
