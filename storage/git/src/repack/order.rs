//! The order in which objects are written, and their names.

use gix_object::Kind;

use crate::object::{EntryKind, TreeEntries, parse_commit};
use crate::protocol::Stop;
use crate::repack::RepackError;
use crate::repack::forms::Forms;
use crate::repack::sources::{Reader, STOP_EVERY, Sources, number};

/// Not visited by the walk.
const UNSEEN: u32 = u32::MAX;

/// Results of a walk of all commits, newest first, for each object.
pub(super) struct Order {
    /// Position in the walk.
    seen: Vec<u32>,
    /// Sort key among the objects of a kind that are compared with each other. Objects at one path
    /// are together, beside those whose paths end alike.
    pub(super) names: Vec<u64>,
}

/// The end of a path.
#[derive(Debug, Clone, Copy)]
struct PathEnd {
    /// Its last six bytes, the last one as the highest.
    tail: u64,
    /// Hash of the whole path.
    hash: u32,
}

impl PathEnd {
    const ROOT: Self = Self {
        tail: 0,
        hash: 0x811c_9dc5,
    };

    /// The path of an entry below this one.
    fn join(self, name: &[u8]) -> Self {
        name.iter().chain(b"/").fold(self, |path, byte| Self {
            tail: path.tail >> 8 | u64::from(*byte) << 40,
            hash: (path.hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193),
        })
    }

    fn key(self) -> u64 {
        self.tail << 16 | u64::from(self.hash >> 16)
    }
}

impl Order {
    /// Walks the commits of `sources`, and the contents of at most `trees_max` trees.
    pub(super) fn walk(
        sources: &Sources,
        forms: &Forms,
        trees_max: usize,
        stop: &Stop,
    ) -> Result<Self, RepackError> {
        let mut walk = Walk {
            order: Self {
                seen: vec![UNSEEN; forms.kinds.len()],
                names: vec![0; forms.kinds.len()],
            },
            next: 0,
            trees_left: trees_max,
            reader: Reader::new(sources),
            buffer: Vec::new(),
            sources,
            forms,
            stop,
        };
        for (commit, tree) in walk.commits()? {
            walk.meet(commit);
            if let Some(tree) = tree {
                walk.walk_tree(tree)?;
            }
        }
        Ok(walk.order)
    }

    /// All objects: commits, tags, trees, files; each kind in the order of the walk, unvisited
    /// objects last.
    pub(super) fn sequence(&self, forms: &Forms) -> Vec<u32> {
        let rank = |kind| match kind {
            Kind::Commit => 0,
            Kind::Tag => 1,
            Kind::Tree => 2,
            Kind::Blob => 3,
        };
        let mut sequence: Vec<u32> = (0..).take(self.seen.len()).collect();
        sequence.sort_unstable_by_key(|object| {
            let at = *object as usize;
            (rank(forms.kinds[at]), self.seen[at], forms.copies[at])
        });
        sequence
    }

    /// The position of an object in the walk: the newest first.
    pub(super) fn seen(&self, object: u32) -> u32 {
        self.seen[object as usize]
    }
}

struct Walk<'a> {
    order: Order,
    next: u32,
    trees_left: usize,
    reader: Reader<'a>,
    buffer: Vec<u8>,
    sources: &'a Sources,
    forms: &'a Forms,
    stop: &'a Stop,
}

impl Walk<'_> {
    /// Commits with their trees, newest first. Commits that do not parse come last, in the order of
    /// their ids.
    fn commits(&mut self) -> Result<Vec<(u32, Option<u32>)>, RepackError> {
        let mut commits = Vec::new();
        for object in 0..self.sources.len() {
            if self.forms.kinds[object as usize] != Kind::Commit {
                continue;
            }
            if commits.len().is_multiple_of(STOP_EVERY) && self.stop.is_set() {
                return Err(RepackError::Stopped);
            }
            let copy = self.forms.copies[object as usize];
            self.reader.read(copy, &mut self.buffer)?;
            let commit = parse_commit(&self.buffer, self.sources.format());
            let tree = commit
                .as_ref()
                .and_then(|commit| self.sources.lookup(&commit.tree));
            let time = commit.map_or(i64::MIN, |commit| commit.time);
            commits.push((std::cmp::Reverse(time), object, tree));
        }
        commits.sort_unstable();
        Ok(commits
            .into_iter()
            .map(|(_, object, tree)| (object, tree))
            .collect())
    }

    /// Records a visit. Returns whether it is the first one.
    fn meet(&mut self, object: u32) -> bool {
        let seen = &mut self.order.seen[object as usize];
        if *seen != UNSEEN {
            return false;
        }
        *seen = self.next;
        self.next += 1;
        true
    }

    fn walk_tree(&mut self, tree: u32) -> Result<(), RepackError> {
        let mut pending = vec![(tree, PathEnd::ROOT)];
        while let Some((tree, path)) = pending.pop() {
            let is_tree = self.forms.kinds[tree as usize] == Kind::Tree;
            if !is_tree || !self.meet(tree) {
                continue;
            }
            self.order.names[tree as usize] = path.key();
            let Some(left) = self.trees_left.checked_sub(1) else {
                continue;
            };
            self.trees_left = left;
            if left.is_multiple_of(STOP_EVERY) && self.stop.is_set() {
                return Err(RepackError::Stopped);
            }
            let copy = self.forms.copies[tree as usize];
            self.reader.read(copy, &mut self.buffer)?;
            let buffer = std::mem::take(&mut self.buffer);
            let first = pending.len();
            for entry in TreeEntries::new(&buffer, self.sources.format()).filter_map(Result::ok) {
                let Some(object) = self.sources.lookup(entry.id) else {
                    continue;
                };
                if entry.kind == EntryKind::Tree {
                    pending.push((object, path.join(entry.name)));
                } else if self.meet(object) {
                    self.order.names[object as usize] = path.join(entry.name).key();
                }
            }
            pending[first..].reverse();
            self.buffer = buffer;
        }
        Ok(())
    }
}

/// The candidates for deltas, similar objects next to each other: the same kind, the same or a
/// similar path, nearly the same size. The larger and newer ones come first.
pub(super) fn alike(
    sources: &Sources,
    forms: &Forms,
    order: &Order,
    size: &mut dyn FnMut(u32) -> Result<Option<u32>, RepackError>,
) -> Result<Vec<Candidate>, RepackError> {
    let mut candidates = Vec::new();
    for object in 0..sources.len() {
        if let Some(size) = size(object)? {
            candidates.push(Candidate { object, size });
        }
    }
    number(candidates.len())?;
    candidates.sort_unstable_by_key(|candidate| {
        let at = candidate.object as usize;
        (
            forms.kinds[at] as u8,
            order.names[at],
            std::cmp::Reverse(candidate.size),
            order.seen(candidate.object),
            candidate.object,
        )
    });
    Ok(candidates)
}

/// An object to search a delta for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) object: u32,
    /// Inflated size in bytes.
    pub(super) size: u32,
}
