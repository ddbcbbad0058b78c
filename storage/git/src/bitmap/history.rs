//! The commits of a pack, parents first, with the objects that each of them introduces.

use std::ops::Range;

use gix_hashtable::HashMap;

use crate::ancestry::parents_first;
use crate::bitmap::coverage::{At, find};
use crate::oid::Oid;
use crate::protocol::Stop;
use crate::reach::ReachError;
use crate::store::{ObjectStore, Pack};
use crate::trees::Trees;

/// Interval of deadline checks, in commits.
const STOP_EVERY: usize = 256;

/// A commit of the pack.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) at: At,
    /// Whether everything that it reaches is in the pack.
    pub(super) is_complete: bool,
    tree: Oid,
    parents: Range<usize>,
    introduced: Range<usize>,
}

/// The history of some tips within a pack.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Parents before their children, older commits before newer ones.
    pub(super) commits: Vec<Member>,
    /// Index in `commits` by id.
    pub(super) numbers: HashMap<Oid, u32>,
    parents: Vec<u32>,
    /// Positions in the pack.
    introduced: Vec<u32>,
}

/// A commit before it has a place in the order.
struct Found {
    /// `None` outside the pack: its ancestors are not read.
    at: Option<At>,
    id: Oid,
    tree: Oid,
    time: i64,
    parents: Vec<u32>,
}

impl History {
    pub(super) fn parents(&self, commit: &Member) -> &[u32] {
        &self.parents[commit.parents.clone()]
    }

    /// Positions in the pack of the objects that a commit introduces: objects that it needs and
    /// that no parent has at the same path, without the commit itself. Only known for complete
    /// commits.
    pub(super) fn introduced(&self, commit: &Member) -> &[u32] {
        &self.introduced[commit.introduced.clone()]
    }

    /// Reads the history of some commits.
    pub(super) fn read(
        store: &ObjectStore,
        pack: &Pack,
        tips: &[Oid],
        stop: &Stop,
    ) -> Result<Self, ReachError> {
        let found = read_commits(store, pack, tips, stop)?;
        let links: Vec<(&[u32], i64)> = found
            .iter()
            .map(|commit| (&commit.parents[..], commit.time))
            .collect();
        let order = parents_first(&links);
        drop(links);
        let mut history = Self::default();
        let mut new_numbers = vec![u32::MAX; found.len()];
        for old in order {
            let commit = &found[old as usize];
            // Outside the pack: its children are incomplete.
            let Some(at) = commit.at else {
                continue;
            };
            let start = history.parents.len();
            let parents = commit.parents.iter().map(|old| new_numbers[*old as usize]);
            history.parents.extend(parents);
            let parents = start..history.parents.len();
            let number = u32::try_from(history.commits.len()).unwrap_or(u32::MAX);
            new_numbers[old as usize] = number;
            history.numbers.insert(commit.id, number);
            history.commits.push(Member {
                at,
                is_complete: false,
                tree: commit.tree,
                parents,
                introduced: 0..0,
            });
        }
        // Dropped before the trees are read, since these commits take as much memory again.
        drop(found);
        history.read_trees(store, pack, stop)?;
        Ok(history)
    }

    /// Compares the tree of each commit with those of its parents.
    fn read_trees(
        &mut self,
        store: &ObjectStore,
        pack: &Pack,
        stop: &Stop,
    ) -> Result<(), ReachError> {
        let mut trees = Trees::new(store, stop);
        // For each object, the last commit in which it was seen: a tree may hold the same object a
        // thousand times.
        let mut seen_in = vec![u32::MAX; pack.index.num_objects() as usize];
        for (number, position) in (0_u32..).zip(0..self.commits.len()) {
            let commit = &self.commits[position];
            let parents = self.parents(commit);
            let tree = commit.tree;
            let mut is_complete = parents.iter().all(|parent| {
                self.commits
                    .get(*parent as usize)
                    .is_some_and(|it| it.is_complete)
            });
            let start = self.introduced.len();
            if is_complete {
                let bases = parents
                    .iter()
                    .map(|parent| self.commits[*parent as usize].tree)
                    .collect();
                let introduced = &mut self.introduced;
                trees.differences(tree, bases, &mut |id| {
                    let Some(at) = find(pack, id) else {
                        is_complete = false;
                        return false;
                    };
                    let seen = &mut seen_in[at.position as usize];
                    let is_new = *seen != number;
                    if is_new {
                        *seen = number;
                        introduced.push(at.position);
                    }
                    is_new && is_complete
                })?;
            }
            if !is_complete {
                self.introduced.truncate(start);
            }
            let end = self.introduced.len();
            let commit = &mut self.commits[position];
            commit.is_complete = is_complete;
            commit.introduced = start..end;
        }
        Ok(())
    }
}

/// Every commit of the pack that the tips reach, and the boundary commits just outside it.
fn read_commits(
    store: &ObjectStore,
    pack: &Pack,
    tips: &[Oid],
    stop: &Stop,
) -> Result<Vec<Found>, ReachError> {
    let mut numbers: HashMap<Oid, u32> = HashMap::default();
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    let mut number = |id: Oid, found: &mut Vec<Found>| {
        *numbers.entry(id).or_insert_with(|| {
            found.push(Found {
                at: find(pack, &id),
                id,
                tree: Oid::null(id.kind()),
                time: i64::MIN,
                parents: Vec::new(),
            });
            u32::try_from(found.len() - 1).unwrap_or(u32::MAX)
        })
    };
    for tip in tips {
        number(*tip, &mut found);
    }
    let mut next = 0;
    while next < found.len() {
        if next.is_multiple_of(STOP_EVERY) && stop.is_set() {
            return Err(ReachError::Stopped);
        }
        if found[next].at.is_some() {
            let commit = store.commit(&found[next].id, &mut buffer)?;
            let parents = commit.parents.into_iter();
            let parents = parents.map(|parent| number(parent, &mut found)).collect();
            found[next].parents = parents;
            found[next].tree = commit.tree;
            found[next].time = commit.time;
        }
        next += 1;
    }
    Ok(found)
}
