//! Changed paths between two trees.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use gix_diff::tree::visit::{Action, Change as TreeChange};
use gix_object::bstr::BStr;
use gix_object::tree::EntryMode;

use crate::oid::Oid;
use crate::read::source::{Source, entries};
use crate::read::{Entry, PathKind, ReadError, ReadLimits, renames};

/// Whether deletions and additions are compared to find renames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameDetection {
    /// A rename is a deletion and an addition.
    Off,
    /// Renames are found as `git diff -M` finds them: equal files, then files that are similar by
    /// half at least.
    On,
}

/// How far the search for renames went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameSearch {
    /// Every pair was compared, or there was none.
    Complete,
    /// Some pairs were not compared: there were too many, or too much to read.
    Partial,
    /// There was no search.
    Off,
}

/// The paths that differ between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The changes, sorted by [`Change::path`].
    pub list: Vec<Change>,
    /// Whether there are more: [`ReadLimits`] bounds the list, and what is compared for it. What is
    /// listed then is not the beginning of the whole list, and renames are not searched.
    pub is_truncated: bool,
    /// How far the search for renames went.
    pub renames: RenameSearch,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// The path is new.
    Added,
    /// The path is gone.
    Deleted,
    /// Another content, or another executable bit.
    Modified,
    /// Another type: a file, a symbolic link and a submodule are three types.
    TypeChanged,
    /// Another path, perhaps with another content.
    Renamed,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    kind: ChangeKind,
    before: Option<Entry>,
    after: Option<Entry>,
    similarity: u8,
}

impl Change {
    const fn added(after: Entry) -> Self {
        Self {
            kind: ChangeKind::Added,
            before: None,
            after: Some(after),
            similarity: 0,
        }
    }

    const fn deleted(before: Entry) -> Self {
        Self {
            kind: ChangeKind::Deleted,
            before: Some(before),
            after: None,
            similarity: 0,
        }
    }

    const fn two_sided(kind: ChangeKind, before: Entry, after: Entry, similarity: u8) -> Self {
        Self {
            kind,
            before: Some(before),
            after: Some(after),
            similarity,
        }
    }

    const fn entry(&self) -> Option<&Entry> {
        match (&self.after, &self.before) {
            (Some(entry), _) | (None, Some(entry)) => Some(entry),
            (None, None) => None,
        }
    }

    /// The kind of the change.
    pub const fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// The entry before the change; `None` for an addition.
    pub const fn before(&self) -> Option<&Entry> {
        self.before.as_ref()
    }

    /// The entry after the change; `None` for a deletion.
    pub const fn after(&self) -> Option<&Entry> {
        self.after.as_ref()
    }

    /// The path after the change; of a deletion the path before it.
    pub fn path(&self) -> &[u8] {
        self.entry().map_or(&[], Entry::path)
    }

    /// For a rename, the percentage of the content that stayed: 50 to 100. For other changes 0.
    pub const fn similarity(&self) -> u8 {
        self.similarity
    }
}

/// The paths that differ between two trees; without an old one, those of the new one.
pub(super) fn changes(
    source: &Source<'_>,
    old: Option<Oid>,
    new: Oid,
    detection: RenameDetection,
) -> Result<Changes, ReadError> {
    let (list, is_truncated) = differences(source, old, new)?;
    let mut changes = Changes {
        list,
        is_truncated,
        renames: RenameSearch::Off,
    };
    if detection == RenameDetection::On {
        changes.renames = RenameSearch::Partial;
        if !is_truncated {
            pair(source, &mut changes)?;
        }
    }
    changes.list.sort_by(|left, right| {
        let order = left.path().cmp(right.path());
        order.then_with(|| left.kind.cmp(&right.kind))
    });
    Ok(changes)
}

/// Deletions, additions and modifications, in the order of the comparison, and whether there are
/// more.
pub(super) fn differences(
    source: &Source<'_>,
    old: Option<Oid>,
    new: Oid,
) -> Result<(Vec<Change>, bool), ReadError> {
    source.check()?;
    if old == Some(new) {
        return Ok((Vec::new(), false));
    }
    let old_data = old.map(|old| source.checked_tree(&old)).transpose()?;
    let new_data = source.checked_tree(&new)?;
    let format = source.format();
    let mut collector = Collector::new(source.limits());
    let compared = gix_diff::tree(
        entries(old_data.as_deref().map_or(&[][..], Vec::as_slice), format),
        entries(&new_data, format),
        gix_diff::tree::State::default(),
        source,
        &mut collector,
    );
    match compared {
        Ok(()) => Ok((collector.list, false)),
        Err(gix_diff::tree::Error::Cancelled) => Ok((collector.list, true)),
        Err(gix_diff::tree::Error::Failure(_)) => Err(source.failure(&new)),
    }
}

/// Replaces deletions and additions that are renames.
fn pair(source: &Source<'_>, changes: &mut Changes) -> Result<(), ReadError> {
    let of_kind = |kind: ChangeKind| {
        let changes = changes
            .list
            .iter()
            .filter(move |change| change.kind == kind);
        let mut entries: Vec<_> = changes.filter_map(Change::entry).collect();
        entries.sort_by(|left, right| left.path().cmp(right.path()));
        entries
    };
    let (deleted, added) = (of_kind(ChangeKind::Deleted), of_kind(ChangeKind::Added));
    let found = renames::find(source, &deleted, &added)?;
    let mut renamed = Vec::with_capacity(found.pairs.len());
    let mut is_paired = Vec::with_capacity(2 * found.pairs.len());
    for pair in &found.pairs {
        let (before, after) = (deleted[pair.source], added[pair.destination]);
        is_paired.push((ChangeKind::Deleted, before.path().to_owned()));
        is_paired.push((ChangeKind::Added, after.path().to_owned()));
        renamed.push(Change::two_sided(
            ChangeKind::Renamed,
            before.clone(),
            after.clone(),
            pair.percent(),
        ));
    }
    is_paired.sort_unstable();
    changes.list.retain(|change| {
        let found = is_paired.binary_search_by(|(kind, path)| {
            let order = kind.cmp(&change.kind);
            order.then_with(|| path.as_slice().cmp(change.path()))
        });
        found.is_err()
    });
    changes.list.append(&mut renamed);
    changes.renames = found.search;
    Ok(())
}

/// Collects what gix's comparison shows, up to the bounds.
///
/// gix's own recorder is not used: an entry without a name makes it lose a directory of the path.
struct Collector<'a> {
    limits: &'a ReadLimits,
    path: Vec<u8>,
    /// The lengths of the path before its last components.
    lengths: Vec<usize>,
    /// The paths of directories that wait for their comparison.
    waiting: VecDeque<Vec<u8>>,
    list: Vec<Change>,
    compared: usize,
    paths_bytes: usize,
}

impl<'a> Collector<'a> {
    const fn new(limits: &'a ReadLimits) -> Self {
        Self {
            limits,
            path: Vec::new(),
            lengths: Vec::new(),
            waiting: VecDeque::new(),
            list: Vec::new(),
            compared: 0,
            paths_bytes: 0,
        }
    }

    /// Counts an entry that differs.
    fn count(&mut self) -> Action {
        self.compared += 1;
        self.paths_bytes += self.path.len();
        let limits = self.limits;
        let is_too_much = self.compared > limits.compared_max
            || self.paths_bytes > limits.paths_bytes_max
            || self.path.len() > limits.path_bytes_max;
        if is_too_much {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// The entry at the current path; `None` for a directory, which is not listed.
    fn entry(&self, mode: EntryMode, id: Oid) -> Option<Entry> {
        let kind = PathKind::of(mode).filter(|kind| *kind != PathKind::Directory)?;
        Some(Entry::new(self.path.clone(), kind, id))
    }

    fn list(&mut self, change: Option<Change>) -> Action {
        let Some(change) = change else {
            return ControlFlow::Continue(());
        };
        if self.list.len() >= self.limits.changes_max {
            return ControlFlow::Break(());
        }
        self.list.push(change);
        ControlFlow::Continue(())
    }

    fn modified(&self, old: (EntryMode, Oid), new: (EntryMode, Oid)) -> Option<Change> {
        let old = self.entry(old.0, old.1)?;
        let new = self.entry(new.0, new.1)?;
        // Modes that git reads as the same one may be written differently.
        if (old.kind(), old.oid()) == (new.kind(), new.oid()) {
            return None;
        }
        let kind = if old.kind().is_type_of(new.kind()) {
            ChangeKind::Modified
        } else {
            ChangeKind::TypeChanged
        };
        Some(Change::two_sided(kind, old, new, 0))
    }
}

impl gix_diff::tree::Visit for Collector<'_> {
    fn pop_front_tracked_path_and_set_current(&mut self) {
        self.path = self.waiting.pop_front().unwrap_or_default();
        self.lengths.clear();
    }

    fn push_back_tracked_path_component(&mut self, component: &BStr) {
        self.push_path_component(component);
        self.waiting.push_back(self.path.clone());
    }

    fn push_path_component(&mut self, component: &BStr) {
        self.lengths.push(self.path.len());
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(component);
    }

    fn pop_path_component(&mut self) {
        self.path.truncate(self.lengths.pop().unwrap_or_default());
    }

    fn visit(&mut self, change: TreeChange) -> Action {
        if self.count().is_break() {
            return ControlFlow::Break(());
        }
        let change = match change {
            TreeChange::Addition {
                entry_mode, oid, ..
            } => {
                let entry = self.entry(entry_mode, oid);
                entry.map(Change::added)
            }
            TreeChange::Deletion {
                entry_mode, oid, ..
            } => {
                let entry = self.entry(entry_mode, oid);
                entry.map(Change::deleted)
            }
            TreeChange::Modification {
                previous_entry_mode,
                previous_oid,
                entry_mode,
                oid,
            } => self.modified((previous_entry_mode, previous_oid), (entry_mode, oid)),
        };
        self.list(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gix_diff::tree::Visit;

    /// gix's recorder drops the parent's name where an entry has none.
    #[test]
    fn an_entry_without_a_name_keeps_its_directory() {
        let limits = ReadLimits::default();
        let mut collector = Collector::new(&limits);
        collector.push_back_tracked_path_component("a".into());
        collector.pop_path_component();
        collector.pop_front_tracked_path_and_set_current();
        for name in ["", "b"] {
            collector.push_path_component(name.into());
            collector.pop_path_component();
            assert_eq!(collector.path, b"a");
        }
        collector.pop_path_component();
        assert!(collector.path.is_empty());
    }
}
