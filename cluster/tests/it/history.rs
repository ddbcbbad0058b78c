//! The clients' writes and their acknowledgements, and the nodes that led.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use henge_cluster::{LeaderTask, LeaderTerm, Next, StateAt, Step, TaskGroups, View};
use henge_state::ShardView;
use henge_types::{GroupId, NodeId, RepoId};

/// The clients' writes and their acknowledgements. Each write creates a repository of its own.
#[derive(Debug, Default)]
pub(crate) struct History {
    writes: Mutex<Writes>,
    terms: Terms,
}

#[derive(Debug, Default)]
struct Writes {
    begun: u64,
    /// In the order of their acknowledgements, each with the node that gave it.
    acknowledged: Vec<(RepoId, usize)>,
}

impl History {
    /// The repository of the next write.
    pub(crate) fn begin(&self) -> RepoId {
        let mut writes = self.writes();
        writes.begun += 1;
        let mut id = [0; 16];
        for (byte, number) in id.iter_mut().zip(writes.begun.to_be_bytes()) {
            *byte = number;
        }
        RepoId::from_bytes(id)
    }

    /// A node acknowledged a write.
    pub(crate) fn acknowledge(&self, repo: RepoId, by: usize) {
        self.writes().acknowledged.push((repo, by));
    }

    /// The number of writes acknowledged by nodes for which `counts` holds.
    pub(crate) fn count(&self, counts: impl Fn(usize) -> bool) -> usize {
        let writes = self.writes();
        let by = writes.acknowledged.iter().map(|(_, by)| *by);
        by.filter(|by| counts(*by)).count()
    }

    /// The last acknowledged writes, at most `most`.
    pub(crate) fn newest(&self, most: usize) -> Vec<RepoId> {
        let writes = self.writes();
        let newest = writes.acknowledged.iter().rev().take(most);
        newest.map(|(repo, _)| *repo).collect()
    }

    /// Panics where an acknowledged write is not in this state.
    pub(crate) fn check(&self, node: usize, at: &StateAt) {
        let lost = lacking(at, self.newest(usize::MAX));
        assert!(lost.is_empty(), "node {node} lacks {lost:?}");
    }

    /// Panics where two nodes led a group in the same term.
    pub(crate) fn check_terms(&self) {
        for (term, leaders) in self.terms.lock().iter() {
            assert!(leaders.len() == 1, "{term:?} has the leaders {leaders:?}");
        }
    }

    /// The notes of the terms of a node.
    pub(crate) fn terms_of(&self, node: NodeId) -> TermNotes {
        let terms = self.terms.clone();
        TermNotes { node, terms }
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of the repositories that are missing in a state.
pub(crate) fn lacking(at: &StateAt, mut repos: Vec<RepoId>) -> Vec<RepoId> {
    repos.retain(|repo| ShardView::new(&at.state).repo(repo).is_none());
    repos
}

/// The nodes that led, by group and term.
type Leaders = BTreeMap<(GroupId, u64), BTreeSet<NodeId>>;

/// The nodes that led a group in a term; clones share it.
#[derive(Debug, Clone, Default)]
struct Terms(Arc<Mutex<Leaders>>);

impl Terms {
    fn lock(&self) -> MutexGuard<'_, Leaders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the terms in which a node leads.
pub(crate) struct TermNotes {
    node: NodeId,
    terms: Terms,
}

impl LeaderTask for TermNotes {
    const NAME: &'static str = "terms of the test";
    const GROUPS: TaskGroups = TaskGroups::All;
    type State = ();

    fn begin(&self, term: LeaderTerm, _view: &View) {
        let mut terms = self.terms.lock();
        let leaders = terms.entry((term.group, term.term)).or_default();
        leaders.insert(self.node);
    }

    async fn step(&self, _step: Step<'_>, (): &mut ()) -> Next {
        Next::notified()
    }
}
