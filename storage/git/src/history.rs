//! Whether former values of refs are still in the history of the refs.

use std::collections::BinaryHeap;

use gix_hashtable::HashSet;
use gix_object::Kind;
use henge_types::ObjectId;

use crate::oid::{Oid, to_gix};
use crate::protocol::Stop;
use crate::reach::ReachError;
use crate::store::Objects;

/// Whether every id of `lost` is one of `tips` or a commit in the history of one: no commit became
/// unreachable when refs lost these values. An id that is neither a commit nor a tip counts as
/// unreachable, even if another object refers to it.
///
/// Cost: one read for each commit, newest first, until all ids are found. No tree is read.
///
/// # Errors
/// When a commit cannot be read, and when `stop` is set.
pub fn history_holds(
    objects: &Objects,
    lost: &[ObjectId],
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<bool, ReachError> {
    let store = objects.open()?;
    let format = store.format();
    let mut buffer = Vec::new();
    let tips: HashSet<Oid> = tips.iter().filter_map(|id| to_gix(*id, format)).collect();
    let mut wanted = HashSet::default();
    for id in lost {
        let Some(id) = to_gix(*id, format) else {
            return Ok(false);
        };
        if tips.contains(&id) {
            continue;
        }
        if store.kind(&id)? != Some(Kind::Commit) {
            return Ok(false);
        }
        wanted.insert(id);
    }
    let mut next = Vec::new();
    for tip in &tips {
        let peeled = store.peel(tip, &mut buffer)?;
        let Some(peeled) = peeled else { continue };
        if store.kind(&peeled)? == Some(Kind::Commit) {
            next.push(peeled);
        }
    }
    let mut queued = HashSet::default();
    let mut queue: BinaryHeap<(i64, Oid, Vec<Oid>)> = BinaryHeap::new();
    loop {
        for id in next {
            if queued.insert(id) {
                wanted.remove(&id);
                let commit = store.commit(&id, &mut buffer)?;
                queue.push((commit.time, id, commit.parents));
            }
        }
        if wanted.is_empty() {
            return Ok(true);
        }
        if stop.is_set() {
            return Err(ReachError::Stopped);
        }
        match queue.pop() {
            Some((_, _, parents)) => next = parents,
            None => return Ok(false),
        }
    }
}
