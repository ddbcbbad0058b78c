//! Fetches that nobody has asked for yet: what those who follow a branch will need is compared and made before they come.
//!
//! The first of them would otherwise wait for trees to be compared and deltas to be made that everybody after it finds
//! ready ([`warm`](crate::fetch::warm)). Whoever comes lacks what was committed since some commit or other; deltas on that
//! commit's version of a file serve everybody who has the same version.

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

/// How far behind the branch the clients are, in commits along first parents.
const BEHIND: [usize; 9] = [1, 2, 5, 10, 20, 35, 50, 100, 200];
/// Refs whose tags are read: half as many as are remembered in all.
const TIPS_MAX: usize = 100_000;
/// How often the deadline is looked at, in refs.
const STOP_EVERY: usize = 1024;

/// Answers, to nobody, what clients would ask that have some of the history of the branch `head` and want the rest. The
/// fetches that were answered.
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

/// Reads the annotated tags among what refs stand at, which every listing and most fetches ask for: to be remembered for the life
/// of the process. The tags that were found.
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

/// The commits that clients are at, the newest first.
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

/// A repository of one branch.
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
