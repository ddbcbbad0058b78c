//! Older versions of the objects that bitmaps selected: the newest trees that the client gets are
//! compared with those that it has, and nothing between them.
//!
//! Packs hold the newest version of a file whole and older ones as deltas on it. Therefore the
//! objects that a client lacks and that the pack cannot give as deltas are mostly files and trees
//! of the wanted commits.

use gix_hashtable::HashSet;

use crate::fetch::FetchError;
use crate::fetch::graph::{Graph, Node};
use crate::fetch::select::Selector;
use crate::fetch::walk::Missing;
use crate::fetch::warm::Difference;
use crate::oid::Oid;

/// Maximum number of wanted commits whose trees are compared, newest first.
const WANTS_MAX: usize = 16;
/// Maximum number of the client's commits whose trees they are compared with, newest first.
const BASES_MAX: usize = 2;

/// The newest commits that the client has: parents of its missing commits, if those are known, or
/// else the common commits.
pub(super) fn newest_at_client(
    graph: &mut Graph<'_>,
    missing: Option<&[Missing]>,
    common: &[Node],
) -> Vec<Node> {
    let mut nodes: Vec<Node> = match missing {
        Some(missing) => {
            let lacked: std::collections::HashSet<Node> =
                missing.iter().map(|commit| commit.node).collect();
            let parents = missing.iter().flat_map(|commit| &commit.parents);
            let known = parents.filter(|parent| !lacked.contains(parent));
            known.copied().collect()
        }
        None => common.to_vec(),
    };
    newest_first(graph, &mut nodes);
    nodes.truncate(BASES_MAX);
    nodes
}

fn newest_first(graph: &Graph<'_>, nodes: &mut Vec<Node>) {
    nodes.sort_unstable_by_key(|node| (std::cmp::Reverse(graph.time(*node)), *node));
    nodes.dedup();
}

impl Selector<'_> {
    /// Records the objects of the commits `at_client` at the paths of selected objects, for the
    /// newest of `wanted`.
    pub(super) fn note_older(
        &mut self,
        graph: &Graph<'_>,
        wanted: &[Node],
        missing: Option<&[Missing]>,
        at_client: &[Node],
    ) -> Result<(), FetchError> {
        let mut wanted = wanted.to_vec();
        newest_first(graph, &mut wanted);
        let bases: Vec<Oid> = at_client.iter().map(|node| graph.tree(*node)).collect();
        if bases.is_empty() {
            return Ok(());
        }
        let mut seen = HashSet::default();
        let newest = bases[0];
        for commit in missing.unwrap_or_default() {
            // Not traversed: only the tree itself is sent as a delta.
            let tree = graph.tree(commit.node);
            if tree != newest && self.selection.contains(&tree) {
                self.selection.add_older(tree, &[newest]);
            }
        }
        for want in wanted.iter().take(WANTS_MAX) {
            self.note_older_below(graph.tree(*want), bases.clone(), &mut seen)?;
        }
        Ok(())
    }

    /// The same for one tree and all selected objects below it.
    fn note_older_below(
        &mut self,
        tree: Oid,
        bases: Vec<Oid>,
        seen: &mut HashSet<Oid>,
    ) -> Result<(), FetchError> {
        let mut pending = Vec::new();
        // Objects below a tree that the client has were not selected either.
        if self.selection.contains(&tree) && seen.insert(tree) {
            pending.push((tree, bases));
        }
        while let Some(of) = pending.pop() {
            self.selection.add_older(of.0, &of.1);
            self.each_difference(&of, false, &mut |selector, difference| {
                let Difference { is_tree, id, below } = difference;
                if !selector.selection.contains(id) {
                    return Ok(());
                }
                if !*is_tree {
                    selector.selection.add_older(*id, below);
                } else if !below.is_empty() && seen.insert(*id) {
                    pending.push((*id, below.clone()));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
