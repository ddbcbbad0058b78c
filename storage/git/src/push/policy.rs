//! Restrictions of a repository on pushes: `receive.*` of git-config(1), refused with git's
//! messages.

use std::borrow::Cow;
use std::collections::BinaryHeap;
use std::sync::Arc;

use gix_hashtable::HashSet;
use gix_object::Kind;
use henge_types::{ObjectId, PreviousValue, RefName, RefPatterns, RefRefusal, RefUpdate};

use crate::hidden::HiddenRefs;
use crate::oid::{Oid, to_gix};
use crate::protocol::Stop;
use crate::push::commands::PushHead;
use crate::push::report::refusal_text;
use crate::reach::ReachError;
use crate::rules::ObjectRules;
use crate::store::{ObjectStore, Objects};

/// Whether an action is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The action is allowed.
    Allowed,
    /// The action is refused.
    Denied,
}

/// The restrictions on pushes to a repository. The default allows and offers everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushPolicy {
    /// The reason to refuse every update, if there is one.
    pub closed: Option<Cow<'static, str>>,
    /// Refs that no push may touch.
    pub hidden: HiddenRefs,
    /// Whether branches may be deleted.
    pub deletes: Rule,
    /// Whether a branch may move to a commit without the old one in its history.
    pub non_fast_forwards: Rule,
    /// Branches that must not be deleted: the target of HEAD.
    pub kept: Vec<RefName>,
    /// Branches that must not change: they are checked out in a work tree.
    pub checked_out: Vec<RefName>,
    /// Whether atomic pushes are offered.
    pub atomic: Rule,
    /// Whether push options are offered.
    pub push_options: Rule,
    /// Whether any ref may change.
    pub updates: Rule,
    /// Refs that must not be deleted or lose history.
    pub protected: RefPatterns,
    /// Rules for every pushed object. With `None` an object must be well-formed, and its tree must
    /// stay out of `.git`.
    pub objects: Option<Arc<ObjectRules>>,
}

impl Default for PushPolicy {
    fn default() -> Self {
        Self {
            closed: None,
            hidden: HiddenRefs::default(),
            deletes: Rule::Allowed,
            non_fast_forwards: Rule::Allowed,
            kept: Vec::new(),
            checked_out: Vec::new(),
            atomic: Rule::Allowed,
            push_options: Rule::Allowed,
            updates: Rule::Allowed,
            protected: RefPatterns::default(),
            objects: None,
        }
    }
}

impl PushPolicy {
    /// The reason to refuse an update, as far as it is known without the objects.
    pub(crate) fn refusal(&self, update: &RefUpdate) -> Option<String> {
        if self.updates == Rule::Denied {
            return Some(refusal_text(&RefRefusal::Archived));
        }
        if let Some(closed) = &self.closed {
            return Some(closed.to_string());
        }
        if let Some(refusal) = self.configured_refusal(update) {
            return Some(refusal.to_owned());
        }
        if update.new.is_some() {
            return None;
        }
        let pattern = self.protected.first_match(&update.name)?.clone();
        Some(refusal_text(&RefRefusal::ProtectedFromDeletion { pattern }))
    }

    fn configured_refusal(&self, update: &RefUpdate) -> Option<&'static str> {
        let name = &update.name;
        let is_delete = update.new.is_none();
        if self.hidden.hides(name.as_str()) {
            return Some(if is_delete {
                "deny deleting a hidden ref"
            } else {
                "deny updating a hidden ref"
            });
        }
        if self.checked_out.contains(name) {
            return Some("branch is currently checked out");
        }
        if is_delete && self.deletes == Rule::Denied && name.is_branch() {
            return Some("deletion prohibited");
        }
        if is_delete && self.kept.contains(name) {
            return Some("deletion of the current branch prohibited");
        }
        None
    }

    /// Refuses updates that are not fast-forwards, where the policy requires fast-forwards.
    pub(crate) fn check_fast_forwards(
        &self,
        store: &ObjectStore,
        head: &PushHead,
        results: &mut [Result<(), String>],
        stop: &Stop,
    ) -> Result<(), ReachError> {
        let format = store.format();
        for (update, result) in head.updates.iter().zip(results) {
            let (PreviousValue::MustExistAndMatch(old), Some(new)) = (update.expected, update.new)
            else {
                continue;
            };
            let (Some(old), Some(new)) = (to_gix(old, format), to_gix(new, format)) else {
                continue;
            };
            if result.is_err() || old == new {
                continue;
            }
            if let Some(pattern) = self.protected.first_match(&update.name).cloned() {
                if !keeps(store, old, new, stop)? {
                    *result = Err(refusal_text(&RefRefusal::ProtectedFromForce { pattern }));
                }
            } else if self.non_fast_forwards == Rule::Denied && update.name.is_branch() {
                if !are_commits(store, old, new)? {
                    *result = Err("bad ref".to_owned());
                } else if !is_ancestor(store, old, new, stop)? {
                    *result = Err("non-fast-forward".to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Whether a move of a ref from `old` to `new` keeps history: both are commits, and `old` is in the
/// history of `new`, or they are equal.
///
/// # Errors
/// When an object cannot be read, and when `stop` is set.
pub fn keeps_history(
    objects: &Objects,
    old: ObjectId,
    new: ObjectId,
    stop: &Stop,
) -> Result<bool, ReachError> {
    let store = objects.open()?;
    let format = store.format();
    let (Some(old), Some(new)) = (to_gix(old, format), to_gix(new, format)) else {
        return Ok(old == new);
    };
    Ok(old == new || keeps(&store, old, new, stop)?)
}

fn keeps(store: &ObjectStore, old: Oid, new: Oid, stop: &Stop) -> Result<bool, ReachError> {
    Ok(are_commits(store, old, new)? && is_ancestor(store, old, new, stop)?)
}

fn are_commits(store: &ObjectStore, old: Oid, new: Oid) -> Result<bool, ReachError> {
    Ok(store.kind(&old)? == Some(Kind::Commit) && store.kind(&new)? == Some(Kind::Commit))
}

/// Whether `old` is `new` or in its history. The walk takes newest commits first: an old tip is
/// usually near.
fn is_ancestor(store: &ObjectStore, old: Oid, new: Oid, stop: &Stop) -> Result<bool, ReachError> {
    let mut buffer = Vec::new();
    let mut queued = HashSet::default();
    let mut queue: BinaryHeap<(i64, Oid, Vec<Oid>)> = BinaryHeap::new();
    let mut next = vec![new];
    loop {
        for id in next {
            if id == old {
                return Ok(true);
            }
            if queued.insert(id) {
                let commit = store.commit(&id, &mut buffer)?;
                queue.push((commit.time, id, commit.parents));
            }
        }
        if stop.is_set() {
            return Err(ReachError::Stopped);
        }
        match queue.pop() {
            Some((_, _, parents)) => next = parents,
            None => return Ok(false),
        }
    }
}
