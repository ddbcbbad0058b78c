//! Prewarming of fetches: the comparisons and deltas for clients that follow a branch are made
//! before their requests arrive.
//!
//! Without it, the first client waits for tree comparisons and deltas that all later ones find in
//! the cache ([`warm`](crate::fetch::warm)). Each client lacks the commits since some older commit.
//! A delta on that commit's version of a file serves all clients that have the same version.

use std::io;

use henge_types::{ObjectFormat, ObjectId, RefName, RefVerdict};

use crate::fetch::FetchError;
use crate::fetch::graph::Graph;
use crate::fetch::request::Fetch;
use crate::fetch::serve::Session;
use crate::oid::{Oid, to_gix};
use crate::peel::tag_target;
use crate::protocol::{FetchLimits, Stop};
use crate::refs::{CommitError, RefStore, VerifiedPush};
use crate::store::Objects;

/// Distances of the assumed clients behind the branch, in commits along first parents.
const BEHIND: [usize; 9] = [1, 2, 5, 10, 20, 35, 50, 100, 200];
/// Maximum number of refs whose tags are read: half of the number that is cached in all.
const TIPS_MAX: usize = 100_000;
/// Interval of deadline checks, in refs.
const STOP_EVERY: usize = 1024;

/// Prewarms the fetches of clients that have some of the history of the branch `head` and want the
/// rest: serves their requests and discards the responses. Returns the number of requests.
///
/// # Errors
/// When the objects cannot be read or the deadline passes.
pub fn rehearse_fetches(
    objects: &Objects,
    head: ObjectId,
    stop: &Stop,
) -> Result<usize, FetchError> {
    let Some(tip) = to_gix(head, objects.format()) else {
        return Ok(0);
    };
    let refs = OneBranch {
        head: "refs/heads/rehearsal"
            .parse()
            .expect("invariant: a valid name"),
        id: head,
    };
    let limits = FetchLimits {
        stop: stop.clone(),
        ..FetchLimits::default()
    };
    let ancestors = ancestors(objects, tip, stop)?;
    for ancestor in &ancestors {
        let mut session = Session::new(&refs, objects, &limits);
        let request = Fetch {
            wants: vec![tip],
            haves: vec![*ancestor],
            done: true,
            thin_pack: true,
            ofs_delta: true,
            no_progress: true,
            ..Fetch::default()
        };
        session.fetch(&request, &mut io::sink())?;
    }
    Ok(ancestors.len())
}

/// Prewarms the annotated tags among `tips`, the values of refs: every listing and most fetches
/// need them. They stay cached for the life of the process. Returns the number of tags.
///
/// # Errors
/// When the objects cannot be read or the deadline passes.
pub fn rehearse_tags(
    objects: &Objects,
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<usize, FetchError> {
    let store = objects.open()?;
    let mut buffer = Vec::new();
    let mut found = 0;
    for (number, tip) in tips.iter().take(TIPS_MAX).enumerate() {
        if number.is_multiple_of(STOP_EVERY) && stop.is_set() {
            return Err(FetchError::Stopped);
        }
        if let Some(id) = to_gix(*tip, store.format()) {
            let target = tag_target(&store, &id, &mut buffer)?;
            found += usize::from(target.is_some());
        }
    }
    Ok(found)
}

/// The newest commits of the assumed clients, newest first.
fn ancestors(objects: &Objects, tip: Oid, stop: &Stop) -> Result<Vec<Oid>, FetchError> {
    let store = objects.open()?;
    let mut graph = Graph::new(&store, stop);
    let mut found = Vec::new();
    let mut node = graph.node(tip)?;
    let mut behind = 0;
    for wanted in BEHIND {
        while behind < wanted {
            let Some(parent) = graph.parents(node)?.first().copied() else {
                return Ok(found);
            };
            node = parent;
            behind += 1;
        }
        found.push(graph.id(node));
    }
    Ok(found)
}

/// A repository with one branch.
struct OneBranch {
    head: RefName,
    id: ObjectId,
}

impl RefStore for OneBranch {
    fn head(&self) -> RefName {
        self.head.clone()
    }

    fn get(&self, name: &RefName) -> Option<ObjectId> {
        (*name == self.head).then_some(self.id)
    }

    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId)) {
        if self.head.as_str().starts_with(prefix) {
            visit(&self.head, self.id);
        }
    }

    fn was_tip_recently(&self, _: ObjectId) -> bool {
        false
    }

    fn object_format(&self) -> ObjectFormat {
        self.id.format()
    }

    fn commit(&self, _: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        Err(CommitError::NotFound)
    }
}
