//! Checks that no reachable object is missing.

use std::path::Path;

use gix_hashtable::HashSet;
use gix_object::Kind;
use henge_types::ObjectId;

use crate::fsck::{Finding, Fsck, FsckError, Stage};
use crate::object::{EntryKind, TreeEntries, is_safe_name, parse_commit, parse_tag};
use crate::oid::{Oid, from_gix, to_gix};
use crate::store::{ObjectStore, Objects};

/// An object that a tip or another object refers to.
struct Need {
    id: Oid,
    /// The referring object and the kind that it expects; `None` for a tip.
    by: Option<(Oid, Kind)>,
}

impl Fsck<'_> {
    pub(super) fn check_connectivity(
        &mut self,
        objects: &Path,
        tips: &[ObjectId],
    ) -> Result<(), FsckError> {
        let store = match Objects::at(objects, self.format).open() {
            Ok(store) => store,
            Err(error) => {
                self.find(Finding::File {
                    path: objects.to_owned(),
                    reason: format!("what is reachable cannot be checked: {error}"),
                });
                return Ok(());
            }
        };
        let seen = self.walk(&store, tips, &HashSet::default())?;
        self.report.reachable = Some(seen.len() as u64);
        self.count_unreachable(&store, &seen)
    }

    /// All objects that are reachable from the tips, except those in `known`, which are complete
    /// and are not read.
    pub(super) fn walk(
        &mut self,
        store: &ObjectStore,
        tips: &[ObjectId],
        known: &HashSet<Oid>,
    ) -> Result<HashSet<Oid>, FsckError> {
        let mut seen = HashSet::default();
        let mut pending = Vec::new();
        for tip in tips {
            match to_gix(*tip, self.format) {
                Some(id) => pending.push(Need { id, by: None }),
                None => self.find(Finding::Missing {
                    id: *tip,
                    needed_by: None,
                }),
            }
        }
        let mut buffer = Vec::new();
        while let Some(need) = pending.pop() {
            if known.contains(&need.id) || !seen.insert(need.id) {
                continue;
            }
            if let Err(finding) = visit(store, &need, &mut buffer, &mut pending) {
                self.find(finding);
            }
            self.tell(Stage::Connectivity, seen.len() as u64, None)?;
        }
        Ok(seen)
    }

    pub(super) fn count_unreachable(
        &mut self,
        store: &ObjectStore,
        reachable: &HashSet<Oid>,
    ) -> Result<(), FsckError> {
        let mut unreachable = HashSet::default();
        for pack in store.packs() {
            if self.stop.is_set() {
                return Err(FsckError::Stopped);
            }
            let ids = (0..pack.index.num_objects()).map(|entry| pack.index.oid_at_index(entry));
            let ids = ids.map(ToOwned::to_owned);
            unreachable.extend(ids.filter(|id| !reachable.contains(id)));
        }
        self.report.unreachable = Some(unreachable.len() as u64);
        Ok(())
    }
}

/// Reads one object and adds the objects that it refers to to `pending`.
fn visit(
    store: &ObjectStore,
    need: &Need,
    buffer: &mut Vec<u8>,
    pending: &mut Vec<Need>,
) -> Result<(), Finding> {
    let id = from_gix(&need.id);
    let unreadable = |error: crate::store::StoreError| Finding::Unreadable {
        id,
        reason: error.to_string(),
    };
    let kind = store.kind(&need.id).map_err(unreadable)?;
    let kind = kind.ok_or_else(|| Finding::Missing {
        id,
        needed_by: need.by.map(|(by, _)| from_gix(&by)),
    })?;
    if let Some((by, expected)) = need.by.filter(|(_, expected)| *expected != kind) {
        return Err(Finding::Kind {
            id,
            kind: name(kind),
            needed_by: from_gix(&by),
            expected: name(expected),
        });
    }
    if kind == Kind::Blob {
        return Ok(());
    }
    store.get(&need.id, buffer).map_err(unreadable)?;
    let malformed = || Finding::Malformed {
        id,
        kind: name(kind),
    };
    let mut refer = |id, kind| {
        pending.push(Need {
            id,
            by: Some((need.id, kind)),
        });
    };
    match kind {
        Kind::Commit => {
            let commit = parse_commit(buffer, store.format()).ok_or_else(malformed)?;
            commit
                .parents
                .into_iter()
                .for_each(|parent| refer(parent, Kind::Commit));
            refer(commit.tree, Kind::Tree);
        }
        Kind::Tag => {
            let (target, kind) = parse_tag(buffer, store.format()).ok_or_else(malformed)?;
            refer(target, kind);
        }
        Kind::Tree => {
            let mut is_safe = true;
            for entry in TreeEntries::new(buffer, store.format()) {
                let entry = entry.map_err(|_| malformed())?;
                is_safe &= is_safe_name(entry.name);
                match entry.kind {
                    EntryKind::Tree => refer(entry.id.to_owned(), Kind::Tree),
                    EntryKind::Blob => refer(entry.id.to_owned(), Kind::Blob),
                    EntryKind::Submodule => {}
                }
            }
            if !is_safe {
                return Err(Finding::ForbiddenName { id });
            }
        }
        Kind::Blob => {}
    }
    Ok(())
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Commit => "commit",
        Kind::Tree => "tree",
        Kind::Blob => "blob",
        Kind::Tag => "tag",
    }
}
