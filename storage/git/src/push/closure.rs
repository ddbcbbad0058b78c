//! The connectivity check of a push: everything that its new tips need was pushed, or is reachable
//! from the repository's own refs.
//!
//! Pushed objects are walked. Objects that they refer to outside the pack need a proof. Commits are
//! proven by a walk from the refs. Trees and files are looked up at the same path of the parents
//! first, then in the history. A push of one commit therefore reads the trees that it changed, in
//! the new and the old version, and no others.

mod findings;
mod objects;
mod outside;

use gix_hashtable::HashSet;
use gix_object::Kind;

use crate::object::{EntryKind, SamePath, TreeEntries, is_safe_name, parse_commit, parse_tag};
use crate::oid::Oid;
use crate::protocol::PushLimits;
use crate::push::closure::findings::Findings;
use crate::push::closure::objects::CheckedObjects;
pub(crate) use crate::push::closure::objects::NoResults;
use crate::reach::{Reach, ReachError};
use crate::refs::{ClosureCheck, RefStore};
use crate::rules::ObjectRules;
use crate::store::{ObjectStore, StoreError};
use crate::trees::{BASES_BYTES_MAX, BASES_MAX};

/// Bytes that a buffer for trees keeps between two trees.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;
/// Reasons to refuse a new tip.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unconnected {
    /// A necessary object is neither pushed nor reachable.
    #[error("missing necessary objects")]
    Missing { id: Oid },
    /// A pushed object is malformed or of the wrong kind.
    #[error("malformed object {id}")]
    Malformed { id: Oid },
    /// A tree that must not be checked out.
    #[error("tree {id} holds a forbidden path name")]
    ForbiddenName { id: Oid },
    /// A tree below the limit of depth.
    #[error("tree {id} lies deeper than {max} directories")]
    TreeDepth { id: Oid, max: usize },
    /// More parents than any real history has.
    #[error("the pushed commits name more than {max} parents: push in smaller steps")]
    Parents { max: usize },
    /// A tree over the limit of bytes.
    #[error("tree {id} has {bytes} bytes, {max} are allowed: spread its entries over directories")]
    TreeBytes { id: Oid, bytes: usize, max: usize },
}

/// A refused tip, or no result for any tip.
#[derive(Debug)]
pub(crate) enum ClosureError {
    Refused(Unconnected),
    NoResults(NoResults),
}

impl From<ReachError> for ClosureError {
    fn from(error: ReachError) -> Self {
        Self::NoResults(error.into())
    }
}

impl From<StoreError> for ClosureError {
    fn from(error: StoreError) -> Self {
        Self::NoResults(error.into())
    }
}

impl From<Unconnected> for ClosureError {
    fn from(refused: Unconnected) -> Self {
        Self::Refused(refused)
    }
}

/// The pushed pack among the packs of an [`ObjectStore`].
pub(crate) struct Pushed {
    /// The slot of the pack.
    pub(crate) slot: u32,
    /// Objects in the pack that the server added as bases of deltas: they prove nothing. In a
    /// shared store, only bases reachable from the repository's refs were added.
    pub(crate) external: HashSet<Oid>,
}

/// The connectivity check of one push.
pub(crate) struct Closure<'a> {
    store: &'a ObjectStore,
    pushed: Option<Pushed>,
    reach: Reach<'a>,
    /// `None` without rules for single objects.
    objects: Option<CheckedObjects<'a>>,
    limits: &'a PushLimits,
    /// Whether the store holds objects of other repositories: no result may depend on them.
    is_shared: bool,
    /// Counts of the work so far.
    pub(crate) stats: ClosureCheck,
}

/// The trees that pushed trees are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// The trees of the parents of their commits, proven or not.
    Parents,
    Nothing,
}

/// The result of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walked {
    /// All objects are proven.
    Complete,
    /// An added base was sent as well: the walk is repeated, and treats it like every pushed
    /// object.
    Again,
}

/// A pushed tree to be walked.
struct Pending {
    tree: Oid,
    /// The trees of the parents at the same path.
    bases: Vec<Oid>,
    /// The number of directories above it.
    depth: usize,
}

impl<'a> Closure<'a> {
    pub(crate) fn new(
        refs: &'a dyn RefStore,
        store: &'a ObjectStore,
        pushed: Option<Pushed>,
        known_tips: HashSet<Oid>,
        rules: Option<&'a ObjectRules>,
        limits: &'a PushLimits,
    ) -> Self {
        let objects = rules.map(|rules| CheckedObjects::new(rules, store, pushed.as_ref()));
        Self {
            store,
            pushed,
            objects,
            reach: Reach::new(refs, store, known_tips, &limits.stop),
            limits,
            is_shared: refs.shares_objects(),
            stats: ClosureCheck::default(),
        }
    }

    /// Checks the connectivity of `tips`.
    pub(crate) fn check(&mut self, tips: &[Oid]) -> Result<(), ClosureError> {
        match self.check_beside(tips, Beside::Parents) {
            // A pushed parent may name a tree that only another repository has. The result must not
            // show whether that tree is there.
            Err(ClosureError::Refused(_)) if self.is_shared => {
                self.check_beside(tips, Beside::Nothing)
            }
            outcome => outcome,
        }
    }

    fn check_beside(&mut self, tips: &[Oid], beside: Beside) -> Result<(), ClosureError> {
        loop {
            let mut findings = Findings::default();
            let outcome = self.walk(tips, beside, &mut findings);
            self.stats.objects_walked += findings.objects();
            self.stats.history_read = self.reach.objects_read;
            if outcome? == Walked::Complete {
                self.take_named(findings.named);
                return Ok(());
            }
        }
    }

    /// A malformed object ends the walk at once. A missing object is reported after the whole walk.
    fn walk(
        &mut self,
        tips: &[Oid],
        beside: Beside,
        findings: &mut Findings,
    ) -> Result<Walked, ClosureError> {
        self.walk_commits(tips, findings)?;
        self.prove_boundary(findings)?;
        for position in 0..findings.commits.len() {
            let (tree, parents) = findings.commits[position].clone();
            let bases = match beside {
                Beside::Nothing => Vec::new(),
                Beside::Parents => parents
                    .iter()
                    .take(BASES_MAX)
                    .filter_map(|parent| findings.trees.get(parent).copied())
                    .collect(),
            };
            self.walk_trees(tree, bases, findings)?;
        }
        self.prove_outside(findings)
    }

    /// Whether an object was sent and is not a commit.
    pub(crate) fn sent_no_commit(&self, id: &Oid) -> Result<bool, StoreError> {
        let is_sent = self.place_of(id).is_some();
        Ok(is_sent && self.store.kind(id)? != Some(Kind::Commit))
    }

    /// The position of a pushed object in the index of its pack.
    fn place_of(&self, id: &Oid) -> Option<u32> {
        let pushed = self.pushed.as_ref()?;
        let place = self.store.pack(pushed.slot).index.lookup(id)?;
        (!pushed.external.contains(id)).then_some(place)
    }

    /// Walks pushed tags and commits. Objects outside the pack are recorded in the findings.
    fn walk_commits(&mut self, tips: &[Oid], findings: &mut Findings) -> Result<(), ClosureError> {
        let format = self.store.format();
        let mut pending: Vec<(Oid, Option<Kind>)> = tips.iter().map(|tip| (*tip, None)).collect();
        let mut buffer = Vec::new();
        while let Some((id, expected)) = pending.pop() {
            let Some(place) = self.place_of(&id) else {
                findings.note_outside(id, expected)?;
                continue;
            };
            let kind = self.pushed_kind(&id, expected)?;
            match kind {
                Kind::Tree => {
                    self.walk_trees(id, Vec::new(), findings)?;
                    continue;
                }
                Kind::Blob => self.note_object(place),
                Kind::Commit | Kind::Tag => {}
            }
            if !findings.see(id, kind)? || kind == Kind::Blob {
                continue;
            }
            self.check_stop()?;
            self.store.get(&id, &mut buffer)?;
            self.check_object((&id, place), kind, &buffer, &mut findings.named)?;
            if kind == Kind::Tag {
                let (target, kind) =
                    parse_tag(&buffer, format).ok_or(Unconnected::Malformed { id })?;
                pending.push((target, Some(kind)));
                continue;
            }
            let commit = parse_commit(&buffer, format).ok_or(Unconnected::Malformed { id })?;
            findings.count_parents(commit.parents.len())?;
            findings.trees.insert(id, commit.tree);
            pending.extend(
                commit
                    .parents
                    .iter()
                    .map(|parent| (*parent, Some(Kind::Commit))),
            );
            findings.commits.push((commit.tree, commit.parents));
        }
        Ok(())
    }

    /// The kind of a pushed object, which must be the expected one.
    fn pushed_kind(&self, id: &Oid, expected: Option<Kind>) -> Result<Kind, ClosureError> {
        let kind = self
            .store
            .kind(id)?
            .ok_or(StoreError::Missing { id: *id })?;
        if expected.is_some_and(|expected| expected != kind) {
            return Err(Unconnected::Malformed { id: *id }.into());
        }
        Ok(kind)
    }

    /// Walks a pushed tree beside the trees of its commit's parents at the same path. An entry that
    /// a parent has there too has the status of the parent: pushed and walked itself, or proven
    /// reachable.
    fn walk_trees(
        &mut self,
        tree: Oid,
        bases: Vec<Oid>,
        findings: &mut Findings,
    ) -> Result<(), ClosureError> {
        let mut pending = Vec::new();
        if !bases.contains(&tree) && findings.see(tree, Kind::Tree)? {
            let depth = 0;
            pending.push(Pending { tree, bases, depth });
        }
        let mut buffer = Vec::new();
        let mut base_buffers: Vec<Vec<u8>> = Vec::new();
        while let Some(Pending { tree, bases, depth }) = pending.pop() {
            let Some(place) = self.place_of(&tree) else {
                findings.note_outside(tree, Some(Kind::Tree))?;
                continue;
            };
            self.check_stop()?;
            self.pushed_kind(&tree, Some(Kind::Tree))?;
            self.store.get(&tree, &mut buffer)?;
            self.check_tree_limits(tree, depth, buffer.len())?;
            self.check_object((&tree, place), Kind::Tree, &buffer, &mut findings.named)?;
            let read = self.read_bases(&bases, &mut base_buffers, findings)?;
            let beside = &base_buffers[..read];
            let first = pending.len();
            self.walk_entries(tree, &buffer, beside, &mut pending, findings)?;
            for below in &mut pending[first..] {
                below.depth = depth + 1;
            }
        }
        Ok(())
    }

    /// The depth is that of the first path on which the walk reached the tree.
    fn check_tree_limits(&self, id: Oid, depth: usize, bytes: usize) -> Result<(), Unconnected> {
        let (depth_max, bytes_max) = (self.limits.tree_depth_max, self.limits.tree_bytes_max);
        if depth > depth_max {
            return Err(Unconnected::TreeDepth { id, max: depth_max });
        }
        if bytes > bytes_max {
            let max = bytes_max;
            return Err(Unconnected::TreeBytes { id, bytes, max });
        }
        Ok(())
    }

    /// Reads trees to compare with, up to [`BASES_BYTES_MAX`] in memory at once. Entries that only
    /// the other trees have need a proof from the history. Returns the number of trees read.
    fn read_bases(
        &self,
        bases: &[Oid],
        buffers: &mut Vec<Vec<u8>>,
        findings: &mut Findings,
    ) -> Result<usize, ClosureError> {
        let mut bytes = 0;
        for (position, base) in bases.iter().enumerate() {
            if position == buffers.len() {
                buffers.push(Vec::new());
            }
            // The buffer is kept from tree to tree, but not the memory of a large one.
            buffers[position].shrink_to(BUFFER_BYTES_KEPT);
            self.read_base(base, &mut buffers[position], findings)?;
            bytes += buffers[position].len();
            if bytes > BASES_BYTES_MAX {
                for buffer in &mut buffers[position + 1..] {
                    *buffer = Vec::new();
                }
                return Ok(position + 1);
            }
        }
        Ok(bases.len())
    }

    fn read_base(
        &self,
        base: &Oid,
        buffer: &mut Vec<u8>,
        findings: &mut Findings,
    ) -> Result<(), ClosureError> {
        buffer.clear();
        match self.store.find(base, buffer)? {
            Some(Kind::Tree) => {}
            // A pushed parent may name any object as its tree; its own walk refuses that.
            Some(Kind::Blob | Kind::Commit | Kind::Tag) | None => buffer.clear(),
        }
        let needs_bases = self
            .pushed
            .as_ref()
            .is_some_and(|pushed| !pushed.external.is_empty());
        if needs_bases {
            findings.beside.insert(*base);
            let entries = TreeEntries::new(buffer, self.store.format()).filter_map(Result::ok);
            let held = entries.filter(|entry| entry.kind != EntryKind::Submodule);
            findings
                .beside
                .extend(held.map(|entry| entry.id.to_owned()));
        }
        Ok(())
    }

    fn walk_entries(
        &mut self,
        tree: Oid,
        data: &[u8],
        bases: &[Vec<u8>],
        pending: &mut Vec<Pending>,
        findings: &mut Findings,
    ) -> Result<(), ClosureError> {
        let format = self.store.format();
        let mut beside: Vec<_> = bases
            .iter()
            .map(|base| SamePath::new(base, format))
            .collect();
        let mut entries = TreeEntries::new(data, format);
        loop {
            if let Some(first) = beside.first_mut() {
                first.skip_common(&mut entries);
            }
            let Some(entry) = entries.next() else {
                return Ok(());
            };
            let entry = entry.map_err(|_| Unconnected::Malformed { id: tree })?;
            // With rules, the rules judge names, and may be set to allow some. An empty name is
            // always refused: no reader can handle it.
            if (entry.name.is_empty() || !self.has_rules()) && !is_safe_name(entry.name) {
                return Err(Unconnected::ForbiddenName { id: tree }.into());
            }
            if entry.kind == EntryKind::Submodule {
                continue;
            }
            let mut below = Vec::new();
            let mut is_same = false;
            for base in &mut beside {
                if let Some(other) = base.find(&entry) {
                    is_same |= other.id == entry.id;
                    below.push(other.id.to_owned());
                }
            }
            if is_same {
                continue;
            }
            let id = entry.id.to_owned();
            let kind = match entry.kind {
                EntryKind::Tree => Kind::Tree,
                EntryKind::Blob | EntryKind::Submodule => Kind::Blob,
            };
            if !findings.see(id, kind)? {
                continue;
            }
            if entry.kind == EntryKind::Tree {
                pending.push(Pending {
                    tree: id,
                    bases: below,
                    depth: 0,
                });
            } else if let Some(place) = self.place_of(&id) {
                self.pushed_kind(&id, Some(Kind::Blob))?;
                self.note_object(place);
            } else {
                findings.note_outside(id, Some(Kind::Blob))?;
            }
        }
    }

    /// Fails when the stop signal is set.
    pub(crate) fn check_stop(&self) -> Result<(), ReachError> {
        if self.limits.stop.is_set() {
            return Err(ReachError::Stopped);
        }
        Ok(())
    }
}
