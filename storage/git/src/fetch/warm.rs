//! What fetches have compared and made, kept for the next ones: those who follow a branch lack the same objects and have
//! the same older versions, though hardly two of them ask the same.
//!
//! Everything is known by the ids of objects, which name their contents: it stays right for the life of the process,
//! whichever repository it came from. That something is here says nothing of what a repository holds or shows.

use std::collections::hash_map::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::generations::Generations;
use crate::oid::Oid;

/// Differences of trees, in bytes.
const DIFFERENCES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Trees that differ in more entries are compared again: a history has few of them.
pub(super) const DIFFERENCES_MAX: usize = 1024;
/// Deltas, in bytes.
const DELTAS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an entry takes beside its delta.
const ENTRY_BYTES: usize = 128;

/// A delta, deflated, for whom has its base.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    /// Its size before deflating.
    pub(super) size: u64,
    pub(super) deflated: Arc<[u8]>,
}

impl Delta {
    fn bytes(known: Option<&Self>) -> usize {
        ENTRY_BYTES + known.map_or(0, |delta| delta.deflated.len())
    }
}

/// Deltas by target and base; `None` where it would be too long to be of use.
type Deltas = Generations<(Oid, Oid), Option<Delta>, RandomState>;

/// An entry of a tree that none of the trees it was compared with has at the same path.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    pub(super) is_tree: bool,
    pub(super) id: Oid,
    /// What those trees have there instead.
    pub(super) below: Vec<Oid>,
}

/// By a tree and what it was compared with.
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

/// What a tree was found to hold that `bases` do not, in its order.
pub(super) fn differences(of: &(Oid, Vec<Oid>)) -> Option<Arc<[Difference]>> {
    differences_known().get(of, bytes_of)
}

/// Keeps what a tree holds that others do not.
pub(super) fn keep_differences(of: (Oid, Vec<Oid>), differences: &Arc<[Difference]>) {
    let bytes = bytes_of(differences);
    differences_known().put(of, Arc::clone(differences), bytes);
}

/// A delta that was made before; `Some(None)` where none is of use.
pub(super) fn delta(target: Oid, base: Oid) -> Option<Option<Delta>> {
    deltas().get(&(target, base), |known| Delta::bytes(known.as_ref()))
}

/// Keeps a delta, or that none is of use.
pub(super) fn keep_delta(target: Oid, base: Oid, delta: Option<Delta>) {
    let bytes = Delta::bytes(delta.as_ref());
    deltas().put((target, base), delta, bytes);
}
