//! The commits that the client lacks: reachable from its wants and not from its haves.

use std::collections::BinaryHeap;

use crate::fetch::FetchError;
use crate::fetch::graph::{Graph, Marks, Node};
use crate::oid::ClaimedIds;

const SEEN: u8 = 1;
/// The client has it.
const COMMON: u8 = 2;
/// Removed from the queue.
const DONE: u8 = 4;

/// Number of common commits that are still visited once no other is queued, because dates may be
/// skewed.
const SLOP: u32 = 8;

/// The shallow boundaries of a walk.
pub(super) struct Ends<'a> {
    /// Commits that will have no parents at the client.
    pub(super) after: &'a ClaimedIds,
    /// Commits that have no parents at the client now.
    pub(super) before: &'a ClaimedIds,
}

/// A commit to send.
pub(super) struct Missing {
    pub(super) node: Node,
    /// Its parents as the client will have them: sent as well, or present already.
    pub(super) parents: Vec<Node>,
}

struct Walk<'a, 'b> {
    graph: &'b mut Graph<'a>,
    ends: &'b Ends<'b>,
    marks: Marks,
    queue: BinaryHeap<(i64, Node)>,
    /// Commits in the queue that are not common.
    open: usize,
}

/// The commits to send, newest first; `None` when more than `max` commits would have to be visited.
pub(super) fn missing_commits(
    graph: &mut Graph<'_>,
    wants: &[Node],
    haves: &[Node],
    ends: &Ends<'_>,
    max: usize,
) -> Result<Option<Vec<Missing>>, FetchError> {
    let mut walk = Walk {
        graph,
        ends,
        marks: Marks::default(),
        queue: BinaryHeap::new(),
        open: 0,
    };
    for have in haves {
        walk.mark_common(*have)?;
    }
    for want in wants {
        walk.push(*want);
    }
    let Some(mut found) = walk.run(max)? else {
        return Ok(None);
    };
    found.retain(|missing| !walk.marks.has(missing.node, COMMON));
    Ok(Some(found))
}

impl Walk<'_, '_> {
    fn push(&mut self, node: Node) {
        if self.marks.add(node, SEEN) {
            self.queue.push((self.graph.time(node), node));
            if !self.marks.has(node, COMMON) {
                self.open += 1;
            }
        }
    }

    fn run(&mut self, max: usize) -> Result<Option<Vec<Missing>>, FetchError> {
        let mut found = Vec::new();
        let mut looked_at = 0;
        let mut slop = SLOP;
        let mut oldest = i64::MAX;
        while let Some((time, node)) = self.queue.pop() {
            looked_at += 1;
            if looked_at > max {
                return Ok(None);
            }
            if self.marks.has(node, COMMON) {
                if self.open == 0 {
                    if time >= oldest {
                        slop = SLOP;
                    } else if slop == 0 {
                        break;
                    } else {
                        slop -= 1;
                    }
                    if found.is_empty() {
                        break;
                    }
                }
                self.marks.add(node, DONE);
                for parent in self.parents_before(node)? {
                    self.mark_common(parent)?;
                }
                continue;
            }
            self.open -= 1;
            self.marks.add(node, DONE);
            oldest = oldest.min(time);
            let parents = if self.ends.after.contains(&self.graph.id(node)) {
                Vec::new()
            } else {
                self.graph.parents(node)?
            };
            for parent in &parents {
                self.push(*parent);
            }
            found.push(Missing { node, parents });
        }
        Ok(Some(found))
    }

    fn parents_before(&mut self, node: Node) -> Result<Vec<Node>, FetchError> {
        if self.ends.before.contains(&self.graph.id(node)) {
            return Ok(Vec::new());
        }
        self.graph.parents(node)
    }

    /// Marks a commit as common. If the walk has visited it before, its ancestors are marked, too.
    fn mark_common(&mut self, node: Node) -> Result<(), FetchError> {
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            let before = self.marks.get(node);
            if before & COMMON != 0 {
                continue;
            }
            self.marks.add(node, COMMON);
            if before & SEEN == 0 {
                self.push(node);
            } else if before & DONE == 0 {
                self.open -= 1;
            } else {
                pending.extend(self.parents_before(node)?);
            }
        }
        Ok(())
    }
}
