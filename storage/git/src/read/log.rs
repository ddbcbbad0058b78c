//! History in pages, of a repository or of a path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use gix_hashtable::HashSet;
use henge_types::ObjectId;

use crate::object::Commit;
use crate::oid::{Oid, from_gix};
use crate::read::ReadError;
use crate::read::commit::{CommitDetails, details};
use crate::read::source::{Found, Source};

/// The place where a page of a log begins: the commits whose turn is next.
///
/// A cursor that left the process is a claim like any id from a client. The caller proves all of
/// [`LogCursor::commits`] again, or keeps cursors where clients cannot change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCursor {
    pending: Vec<ObjectId>,
}

impl LogCursor {
    /// The beginning of the history of a commit.
    pub fn at(commit: ObjectId) -> Self {
        Self {
            pending: vec![commit],
        }
    }

    /// A cursor with the commits of an earlier one, in their order.
    pub const fn of_commits(commits: Vec<ObjectId>) -> Self {
        Self { pending: commits }
    }

    /// The commits whose turn is next, in the order of the log.
    pub fn commits(&self) -> &[ObjectId] {
        &self.pending
    }
}

/// Some commits of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The commits, newest first.
    pub commits: Vec<CommitDetails>,
    /// What follows them.
    pub next: LogNext,
}

/// What follows a page of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogNext {
    /// Nothing: history begins here.
    End,
    /// Another page, which may be empty.
    Page(LogCursor),
    /// More commits, with more lines of history side by side than a cursor holds.
    TooWide,
}

/// See [`Reader::log`](super::Reader::log).
pub(super) fn log(
    source: &Source<'_>,
    from: &LogCursor,
    path: &[u8],
    commits_max: usize,
) -> Result<LogPage, ReadError> {
    let limits = source.limits();
    let commits_max = commits_max.min(limits.log_commits_max).max(1);
    let names = source.names(path)?;
    let mut walk = LogWalk::new(source, (!names.is_empty()).then_some(&names[..]));
    walk.begin(from)?;
    let mut commits = Vec::new();
    for _ in 0..limits.log_walked_max.max(1) {
        let Some(step) = walk.step()? else { break };
        if step.is_shown {
            commits.push(details(source, &step.id)?);
        }
        if commits.len() == commits_max {
            break;
        }
    }
    Ok(LogPage {
        commits,
        next: walk.next(limits.log_pending_max),
    })
}

/// A commit of a walk.
struct Step {
    id: Oid,
    /// Whether it changes the path.
    is_shown: bool,
}

/// A commit whose turn comes.
struct Waiting {
    id: Oid,
    commit: Commit,
    /// The entry at the path of the log; `None` where there is none.
    at_path: Option<Found>,
}

/// A walk by date. Of commits with the same date the one that was found first comes first, as in
/// git.
struct LogWalk<'a, 's> {
    source: &'a Source<'s>,
    /// The names of the path; `None` for a log of everything.
    path: Option<&'a [&'a [u8]]>,
    seen: HashSet<Oid>,
    queue: BinaryHeap<(i64, Reverse<u64>)>,
    /// By the number in the queue.
    waiting: BTreeMap<u64, Waiting>,
    found: u64,
}

impl<'a, 's> LogWalk<'a, 's> {
    fn new(source: &'a Source<'s>, path: Option<&'a [&'a [u8]]>) -> Self {
        Self {
            source,
            path,
            seen: HashSet::default(),
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            found: 0,
        }
    }

    fn begin(&mut self, from: &LogCursor) -> Result<(), ReadError> {
        let commits_max = self.source.limits().log_pending_max;
        let commits = from.pending.len();
        if commits == 0 || commits > commits_max {
            return Err(ReadError::Cursor {
                commits,
                commits_max,
            });
        }
        for id in &from.pending {
            let (id, commit) = self.source.start(*id)?;
            let waiting = self.at_path(id, commit)?;
            self.queue(waiting);
        }
        Ok(())
    }

    fn at_path(&self, id: Oid, commit: Commit) -> Result<Waiting, ReadError> {
        let at_path = match self.path {
            Some(names) => self.source.lookup(commit.tree, names)?,
            None => None,
        };
        Ok(Waiting {
            id,
            commit,
            at_path,
        })
    }

    fn queue(&mut self, waiting: Waiting) {
        if self.seen.insert(waiting.id) {
            self.queue.push((waiting.commit.time, Reverse(self.found)));
            self.waiting.insert(self.found, waiting);
            self.found += 1;
        }
    }

    /// Takes the next commit and queues those of its parents that are followed.
    fn step(&mut self) -> Result<Option<Step>, ReadError> {
        let Some((_, Reverse(number))) = self.queue.pop() else {
            return Ok(None);
        };
        let waiting = self.waiting.remove(&number);
        let Waiting {
            id,
            commit,
            at_path,
        } = waiting.expect("invariant: every number in the queue has its commit");
        let mut parents = Vec::with_capacity(commit.parents.len());
        for parent in &commit.parents {
            if self.path.is_none() && self.seen.contains(parent) {
                continue;
            }
            let parent = self.at_path(*parent, self.source.commit(parent)?)?;
            if self.path.is_some() && parent.at_path == at_path {
                // The path comes from this parent: git follows no other one.
                self.queue(parent);
                return Ok(Some(Step {
                    id,
                    is_shown: false,
                }));
            }
            parents.push(parent);
        }
        for parent in parents {
            self.queue(parent);
        }
        let is_root = commit.parents.is_empty();
        Ok(Some(Step {
            id,
            is_shown: self.path.is_none() || !is_root || at_path.is_some(),
        }))
    }

    /// The place behind the last step.
    fn next(mut self, pending_max: usize) -> LogNext {
        if self.queue.is_empty() {
            return LogNext::End;
        }
        if self.queue.len() > pending_max {
            return LogNext::TooWide;
        }
        let mut pending = Vec::with_capacity(self.queue.len());
        while let Some((_, Reverse(number))) = self.queue.pop() {
            let waiting = self.waiting.get(&number);
            pending.extend(waiting.map(|waiting| from_gix(&waiting.id)));
        }
        LogNext::Page(LogCursor { pending })
    }
}
