//! Shallow history: its new shallow boundary, and the changes for the client.

use std::collections::BTreeSet;

use henge_types::ObjectFormat;

use crate::fetch::FetchError;
use crate::fetch::graph::{Graph, Marks, Node};
use crate::fetch::request::{DEPTH_INFINITE, Deepen};
use crate::oid::{ClaimedIds, Oid, to_gix};
use crate::refs::RefStore;

const VISITED: u8 = 1;
const END: u8 = 2;
const EXCLUDED: u8 = 4;

/// The result of a request for more or less history.
#[derive(Default)]
pub(super) struct Cut {
    /// Commits that will have no parents at the client.
    pub(super) ends: ClaimedIds,
    /// Those of them that are new to the client's shallow boundary.
    pub(super) shallow: Vec<Oid>,
    /// Commits that had no parents at the client and will have them.
    pub(super) unshallow: Vec<Oid>,
    /// The parents of those commits, which have to be sent.
    pub(super) uncovered: Vec<Node>,
}

/// Computes the shallow boundary of `wants` for a client whose shallow boundary is `client`.
pub(super) fn cut(
    graph: &mut Graph<'_>,
    refs: &dyn RefStore,
    wants: &[Node],
    deepen: &Deepen,
    client: &BTreeSet<Oid>,
) -> Result<Cut, FetchError> {
    let mut client: Vec<_> = client.iter().copied().collect();
    // If the walk starts at the client's shallow boundary, a commit of it counts only if a want
    // reaches it: the store may hold it for another repository, and deepening would send its
    // parents.
    let starts_there = deepen.relative || deepen.depth == Some(DEPTH_INFINITE);
    let known = if starts_there {
        reached(graph, wants, &client)?
    } else {
        ClaimedIds::default()
    };
    let mut stopped = Ok(());
    client.retain(|id| {
        if starts_there {
            return known.contains(id);
        }
        if stopped.is_ok() {
            stopped = graph.tick();
        }
        stopped.is_ok() && matches!(graph.store.kind(id), Ok(Some(gix_object::Kind::Commit)))
    });
    stopped?;
    let mut marks = Marks::default();
    let mut ends = BTreeSet::new();
    match deepen.depth {
        Some(DEPTH_INFINITE) if !deepen.relative => {
            for id in &client {
                let node = graph.node(*id)?;
                marks.add(node, VISITED);
            }
        }
        Some(depth) if deepen.relative => {
            let starts = client
                .iter()
                .map(|id| graph.node(*id))
                .collect::<Result<Vec<_>, _>>()?;
            by_depth(
                graph,
                &starts,
                depth.saturating_add(1),
                &mut marks,
                &mut ends,
            )?;
        }
        Some(depth) => by_depth(graph, wants, depth, &mut marks, &mut ends)?,
        None => {
            exclude(graph, refs, &deepen.not, &mut marks)?;
            by_rule(graph, wants, deepen.since, &mut marks, &mut ends)?;
        }
    }
    let mut result = Cut::default();
    for id in client {
        let node = graph.node(id)?;
        if marks.has(node, VISITED) && !marks.has(node, END) {
            result.unshallow.push(id);
            result.uncovered.extend(graph.parents(node)?);
        } else {
            result.ends.insert(id);
        }
    }
    for node in ends {
        let id = graph.id(node);
        if result.ends.insert(id) {
            result.shallow.push(id);
        }
    }
    Ok(result)
}

/// The members of `ids` that `wants` reach.
fn reached(graph: &mut Graph<'_>, wants: &[Node], ids: &[Oid]) -> Result<ClaimedIds, FetchError> {
    let mut sought: ClaimedIds = ids.iter().copied().collect();
    let mut found = ClaimedIds::default();
    let mut marks = Marks::default();
    let mut pending: std::collections::VecDeque<Node> = wants.iter().copied().collect();
    while let Some(node) = pending.pop_front() {
        if sought.is_empty() {
            break;
        }
        if !marks.add(node, VISITED) {
            continue;
        }
        let id = graph.id(node);
        if sought.remove(&id) {
            found.insert(id);
        }
        pending.extend(graph.parents(node)?);
    }
    Ok(found)
}

/// Walks level by level: a commit belongs to the level at which it is first reached.
fn by_depth(
    graph: &mut Graph<'_>,
    starts: &[Node],
    depth: u32,
    marks: &mut Marks,
    ends: &mut BTreeSet<Node>,
) -> Result<(), FetchError> {
    let mut level: Vec<Node> = Vec::new();
    for start in starts {
        if marks.add(*start, VISITED) {
            level.push(*start);
        }
    }
    for _ in 1..depth {
        let mut next = Vec::new();
        for node in &level {
            for parent in graph.parents(*node)? {
                if marks.add(parent, VISITED) {
                    next.push(parent);
                }
            }
        }
        if next.is_empty() {
            return Ok(());
        }
        level = next;
    }
    for node in level {
        if graph.has_parents(node) {
            marks.add(node, END);
            ends.insert(node);
        }
    }
    Ok(())
}

fn exclude(
    graph: &mut Graph<'_>,
    refs: &dyn RefStore,
    names: &[String],
    marks: &mut Marks,
) -> Result<(), FetchError> {
    let mut pending = Vec::new();
    let mut buffer = Vec::new();
    for name in names {
        graph.tick()?;
        let unknown = || FetchError::UnknownRef { name: name.clone() };
        let id = resolve(refs, name, graph.store.format()).ok_or_else(unknown)?;
        let id = graph.store.peel(&id, &mut buffer)?.ok_or_else(unknown)?;
        pending.push(graph.node(id)?);
    }
    while let Some(node) = pending.pop() {
        if marks.add(node, EXCLUDED) {
            pending.extend(graph.parents(node)?);
        }
    }
    Ok(())
}

/// Resolves a name like git: the full name, a tag, a branch.
pub(super) fn resolve(refs: &dyn RefStore, name: &str, format: ObjectFormat) -> Option<Oid> {
    ["", "refs/tags/", "refs/heads/"]
        .into_iter()
        .find_map(|prefix| {
            let full = format!("{prefix}{name}").parse().ok()?;
            refs.get(&full).and_then(|id| to_gix(id, format))
        })
}

/// Walks all commits that are neither excluded nor too old. History ends where a parent is excluded
/// or too old.
fn by_rule(
    graph: &mut Graph<'_>,
    wants: &[Node],
    since: Option<i64>,
    marks: &mut Marks,
    ends: &mut BTreeSet<Node>,
) -> Result<(), FetchError> {
    let is_out = |graph: &Graph<'_>, marks: &Marks, node: Node| {
        marks.has(node, EXCLUDED) || since.is_some_and(|since| graph.time(node) < since)
    };
    // A want that is excluded or too old itself keeps all of its history, as with git.
    let mut pending = wants.to_vec();
    pending.retain(|want| !is_out(graph, marks, *want));
    if pending.is_empty() {
        return Err(FetchError::NothingSelected);
    }
    while let Some(node) = pending.pop() {
        if !marks.add(node, VISITED) {
            continue;
        }
        let mut parents = graph.parents(node)?;
        let count = parents.len();
        parents.retain(|parent| !is_out(graph, marks, *parent));
        if parents.len() < count {
            marks.add(node, END);
            ends.insert(node);
        }
        // A merge with such a parent is followed to its other parents: git reports their ends, too.
        pending.extend(parents);
    }
    Ok(())
}
