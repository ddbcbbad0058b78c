//! Negotiation: the commits that client and server have in common, and whether they are enough.

use gix_hashtable::HashSet;
use gix_object::Kind;

use crate::fetch::FetchError;
use crate::fetch::answer::Answer;
use crate::fetch::graph::{Graph, Marks, Node};
use crate::oid::Oid;
use crate::protocol::Stop;
use crate::reach::Reach;
use crate::refs::RefStore;

/// The repository whose commits are acknowledged.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) refs: &'a dyn RefStore,
    pub(super) stop: &'a Stop,
}

/// The client's commits that exist here, too, in its order. In a shared store, only those that the
/// repository's own refs reach: the acknowledgment of another commit would reveal that another
/// repository has it.
pub(super) fn common(
    graph: &mut Graph<'_>,
    whose: Whose<'_>,
    haves: &[Oid],
) -> Result<Vec<Node>, FetchError> {
    let mut here = Vec::with_capacity(haves.len());
    for have in haves {
        // The kind of an object may need a long chain of delta bases.
        graph.tick()?;
        if graph.store.kind(have)? == Some(Kind::Commit) {
            here.push(*have);
        }
    }
    let mut foreign: HashSet<Oid> = HashSet::default();
    if whose.refs.shares_objects() && !here.is_empty() {
        foreign.extend(here.iter().copied());
        let mut reach = Reach::new(whose.refs, graph.store, HashSet::default(), whose.stop);
        reach.prove_commits(&mut foreign)?;
    }
    let mut found = Vec::new();
    let mut marks = Marks::default();
    for have in &here {
        if !foreign.contains(have) {
            let node = graph.node(*have)?;
            if marks.add(node, 1) {
                found.push(node);
            }
        }
    }
    Ok(found)
}

const VISITED: u8 = 1;
const REACHES: u8 = 2;

/// Whether every want reaches a common commit. Then more haves would hardly make the pack smaller.
pub(super) fn is_enough(
    graph: &mut Graph<'_>,
    wants: &[Node],
    common: &[Node],
) -> Result<bool, FetchError> {
    let Some(oldest) = common.iter().map(|node| graph.time(*node)).min() else {
        return Ok(false);
    };
    let mut marks = Marks::default();
    for node in common {
        marks.add(*node, VISITED | REACHES);
    }
    for want in wants {
        if !reaches(graph, *want, oldest, &mut marks)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Searches depth first. The result of every finished commit stays in `marks`.
fn reaches(
    graph: &mut Graph<'_>,
    want: Node,
    oldest: i64,
    marks: &mut Marks,
) -> Result<bool, FetchError> {
    let mut stack: Vec<(Node, Vec<Node>)> = Vec::new();
    let mut next = Some(want);
    loop {
        if let Some(node) = next.take() {
            if marks.add(node, VISITED) && graph.time(node) >= oldest {
                let parents = graph.parents(node)?;
                stack.push((node, parents));
            } else if marks.has(node, REACHES) {
                for (ancestor, _) in &stack {
                    marks.add(*ancestor, REACHES);
                }
                return Ok(true);
            }
        }
        match stack.last_mut() {
            None => return Ok(marks.has(want, REACHES)),
            Some((_, parents)) => match parents.pop() {
                Some(parent) => next = Some(parent),
                None => {
                    stack.pop();
                }
            },
        }
    }
}

/// Writes the section that acknowledges the common commits.
pub(super) fn acknowledge(
    graph: &Graph<'_>,
    common: &[Node],
    answer: &Answer<'_>,
) -> Result<(), FetchError> {
    answer.line("acknowledgments\n")?;
    if common.is_empty() {
        answer.line("NAK\n")?;
    }
    for node in common {
        answer.line(&format!("ACK {}\n", graph.id(*node)))?;
    }
    Ok(())
}
