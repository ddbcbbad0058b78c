//! The resolution of names: to the present holder, or else to the last one.
//!
//! Every read and every push carries the generation of the repository that its node resolved, from
//! a possibly stale state. When a name stops leading to a repository that continues to exist, the
//! repository's generation goes up and its shard gets it. A node that still resolves the name to
//! that repository is then refused, and resolves the name again.

use henge_types::limits::FORMER_PATHS_MAX;
use henge_types::{Generation, RepoPath, RepoRecord, UntoldRecord};

use super::{MetaView, catalogue};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::view::{View, decode, decode_u64};

/// Gives the repository the name in its record, which is free. The former holder is no longer found
/// under it.
pub(super) fn take(changes: &mut Changes<'_, impl View>, entry: &Entry, record: &RepoRecord) {
    let key = record.path.key();
    remember_generation(changes, &key, record.generation);
    changes.put(keys::path(&key), record.repo.as_bytes().to_vec());
    let before = MetaView::new(changes.before()).repo_by_former_path(&record.path);
    let Some(mut before) = before.filter(|before| before.repo != record.repo) else {
        return;
    };
    changes.delete(keys::former_path(&key));
    before.former_paths.retain(|path| path.key() != key);
    fence(changes, &mut before);
    catalogue::put(changes, &before);
    untold(changes, entry, &before, Head::AsItIs);
}

/// Moves a repository to a name that no other one holds. It is still found under its former name.
pub(super) fn rename(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    record: &mut RepoRecord,
    to: &RepoPath,
) {
    let from = std::mem::replace(&mut record.path, to.clone());
    let (from_key, to_key) = (from.key(), to.key());
    if from_key == to_key {
        return;
    }
    changes.delete(keys::path(&from_key));
    let own = record.former_paths.iter();
    if let Some(at) = own.clone().position(|path| path.key() == to_key) {
        record.former_paths.remove(at);
        changes.delete(keys::former_path(&to_key));
    }
    let id = record.repo.as_bytes().to_vec();
    changes.put(keys::former_path(&from_key), id);
    record.former_paths.push(from);
    if record.former_paths.len() > FORMER_PATHS_MAX {
        let oldest = record.former_paths.remove(0);
        changes.delete(keys::former_path(&oldest.key()));
        fence(changes, record);
        untold(changes, entry, record, Head::AsItIs);
    }
    take(changes, entry, record);
}

/// Frees the names. Only called while the repository holds them.
pub(super) fn free(changes: &mut Changes<'_, impl View>, record: &mut RepoRecord) {
    changes.delete(keys::path(&record.path.key()));
    for former in record.former_paths.drain(..) {
        changes.delete(keys::former_path(&former.key()));
    }
    let mark = keys::untold(&record.repo);
    if changes.get(&mark).is_some() {
        changes.delete(mark);
    }
}

/// Invalidates earlier resolutions of the repository by a new generation.
fn fence(changes: &mut Changes<'_, impl View>, record: &mut RepoRecord) {
    record.generation = record.generation.next();
    remember_generation(changes, &record.path.key(), record.generation);
}

/// Whether HEAD is among the settings pending at the shard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Changed,
    AsItIs,
}

/// Marks the settings after this entry as pending at the shard.
pub(super) fn untold(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    record: &RepoRecord,
    head: Head,
) {
    let key = keys::untold(&record.repo);
    let known = changes.get(&key);
    let known = known.map(|bytes| decode::<UntoldRecord>(&key, &bytes));
    let mark = UntoldRecord {
        revision: entry.index,
        head: head == Head::Changed || known.is_some_and(|known| known.head),
    };
    changes.put_record(key, &mark);
}

/// The highest generation of any repository of this name so far.
pub(super) fn highest_generation(changes: &Changes<'_, impl View>, path_key: &str) -> Generation {
    let key = keys::path_generation(path_key);
    let highest = changes.get(&key).map(|bytes| decode_u64(&key, &bytes));
    Generation::new(highest.unwrap_or_default())
}

fn remember_generation(
    changes: &mut Changes<'_, impl View>,
    path_key: &str,
    generation: Generation,
) {
    if generation > highest_generation(changes, path_key) {
        let bytes = generation.get().to_be_bytes().to_vec();
        changes.put(keys::path_generation(path_key), bytes);
    }
}
