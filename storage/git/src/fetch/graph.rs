//! Commits in memory: each is read once and has a small number.

use gix_hashtable::HashMap;
use gix_hashtable::hash_map::Entry;

use crate::fetch::FetchError;
use crate::fetch::answer::Tick;
use crate::oid::Oid;
use crate::store::ObjectStore;

/// Interval of ticks, in commits.
const TICK_EVERY: usize = 256;

/// A commit's number in its [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node(u32);

impl Node {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

struct Commit {
    id: Oid,
    tree: Oid,
    time: i64,
    parents: Vec<Oid>,
}

/// The part of the history that was read.
pub(super) struct Graph<'a> {
    pub(super) store: &'a ObjectStore,
    tick: &'a dyn Tick,
    numbers: HashMap<Oid, Node>,
    commits: Vec<Commit>,
    buffer: Vec<u8>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(store: &'a ObjectStore, tick: &'a dyn Tick) -> Self {
        Self {
            store,
            tick,
            numbers: HashMap::default(),
            commits: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Runs the check of [`Tick`], for loops that may read no commit.
    pub(super) fn tick(&self) -> Result<(), FetchError> {
        self.tick.tick(self.commits.len())
    }

    /// The number of a commit. A new commit is read.
    pub(super) fn node(&mut self, id: Oid) -> Result<Node, FetchError> {
        let entry = match self.numbers.entry(id) {
            Entry::Occupied(entry) => return Ok(*entry.get()),
            Entry::Vacant(entry) => entry,
        };
        if self.commits.len().is_multiple_of(TICK_EVERY) {
            self.tick.tick(self.commits.len())?;
        }
        let commit = self.store.commit(&id, &mut self.buffer)?;
        let number = u32::try_from(self.commits.len()).map_err(|_| FetchError::Stopped)?;
        self.commits.push(Commit {
            id,
            tree: commit.tree,
            time: commit.time,
            parents: commit.parents,
        });
        Ok(*entry.insert(Node(number)))
    }

    pub(super) fn parents(&mut self, node: Node) -> Result<Vec<Node>, FetchError> {
        let count = self.commits[node.index()].parents.len();
        let mut parents = Vec::with_capacity(count);
        for position in 0..count {
            let id = self.commits[node.index()].parents[position];
            parents.push(self.node(id)?);
        }
        Ok(parents)
    }

    pub(super) fn has_parents(&self, node: Node) -> bool {
        !self.commits[node.index()].parents.is_empty()
    }

    pub(super) fn id(&self, node: Node) -> Oid {
        self.commits[node.index()].id
    }

    pub(super) fn tree(&self, node: Node) -> Oid {
        self.commits[node.index()].tree
    }

    pub(super) fn time(&self, node: Node) -> i64 {
        self.commits[node.index()].time
    }
}

/// A set of nodes, or eight bits for each.
#[derive(Default)]
pub(super) struct Marks(Vec<u8>);

impl Marks {
    pub(super) fn get(&self, node: Node) -> u8 {
        self.0.get(node.index()).copied().unwrap_or(0)
    }

    pub(super) fn has(&self, node: Node, bits: u8) -> bool {
        self.get(node) & bits == bits
    }

    /// Adds `bits`; returns whether any of them is new.
    pub(super) fn add(&mut self, node: Node, bits: u8) -> bool {
        if self.0.len() <= node.index() {
            self.0.resize((node.index() + 1).next_power_of_two(), 0);
        }
        let mark = &mut self.0[node.index()];
        let is_new = *mark & bits != bits;
        *mark |= bits;
        is_new
    }
}
