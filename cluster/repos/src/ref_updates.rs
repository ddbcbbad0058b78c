//! Changes of refs that bring no objects: from the API, not from a push.
//!
//! One pass over the refs checks whether they are allowed, on the blocking pool.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::{
    Command, ErrorCode, Generation, LogIndex, ObjectId, Principal, RefUpdate, RefVerdict, RepoId,
    RepoPath, ShardCommand, UpdateRefs, limits,
};

use crate::catalogue::{Freshness, QUORUM_WAIT};
use crate::error::{self, from_cluster};
use crate::protection::{lost_a_race, verdicts_of};
use crate::reads::Target;
use crate::repos::Inner;

/// Attempts to check updates against refs and rules that change meanwhile.
const LOOKS_MAX: usize = 4;

/// Whether one refused update refuses the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Atomicity {
    /// One refusal refuses all updates.
    AllOrNothing,
    /// Each update is accepted or refused alone.
    EachByItself,
}

impl Inner {
    pub(crate) async fn update_refs(
        &self,
        principal: &Principal,
        path: &RepoPath,
        updates: Vec<RefUpdate>,
        atomicity: Atomicity,
    ) -> Result<Vec<RefVerdict>, ServiceError> {
        if updates.is_empty() || updates.len() > limits::REF_UPDATES_MAX {
            return Err(error::invalid(format!(
                "between 1 and {} refs can be updated at once",
                limits::REF_UPDATES_MAX
            )));
        }
        let updates: Arc<[RefUpdate]> = updates.into();
        let fresh = [Freshness::Linearizable; LOOKS_MAX - 1];
        for freshness in [Freshness::Local].into_iter().chain(fresh) {
            let record = self.catalogue.find(path, freshness).await?;
            let target = self.target(&record);
            let Some(checked_at) = self.check_values(path, &target, &updates).await? else {
                continue;
            };
            let looked = self.look_at_updates(path, &target, &updates, checked_at);
            let looked = looked.await?;
            let allowed = looked.allowed(atomicity == Atomicity::AllOrNothing);
            if allowed.is_empty() {
                return Ok(looked.verdicts(Vec::new()));
            }
            let command = command(
                target.repo,
                target.generation,
                &allowed,
                atomicity,
                principal,
                looked.checked_at,
            );
            let request = self
                .catalogue
                .binding(target.group, &command, principal, target.repo);
            let called = self
                .cluster
                .call(target.group, command, request, QUORUM_WAIT)
                .await;
            let reply = called.map_err(|error| from_cluster(&error))?.reply;
            let Some(verdicts) = verdicts_of(reply, path)? else {
                continue;
            };
            let verdicts = looked.verdicts(verdicts);
            // None of an atomic request was applied: it may be checked again.
            if atomicity == Atomicity::AllOrNothing && lost_a_race(&updates, &verdicts) {
                continue;
            }
            return Ok(verdicts);
        }
        Err(error::failed(
            ErrorCode::Conflict,
            format!("repository {path} changes all the time: try again"),
        ))
    }

    /// Checks the new values against the current refs. A node with a replica reads its own state:
    /// otherwise all refs are sent between nodes. Returns the index of the state; `None` when the
    /// repository must be resolved again.
    async fn check_values(
        &self,
        path: &RepoPath,
        target: &Target,
        updates: &Arc<[RefUpdate]>,
    ) -> Result<Option<LogIndex>, ServiceError> {
        let (target, updates) = (*target, Arc::clone(updates));
        let Some(view) = self.cluster.view(target.group) else {
            let before = self.refs(path, "refs/").await?;
            let looking = self.work.blocking("values of refs", move || {
                let refs = before.refs.iter();
                check_values(&updates, refs.map(|(name, value)| (name.as_str(), *value)))?;
                Ok::<_, ServiceError>(Some(before.applied))
            });
            return looked(looking.await)?;
        };
        let barrier = self.cluster.read_barrier(target.group, QUORUM_WAIT).await;
        barrier.map_err(|error| from_cluster(&error))?;
        let at = view.now();
        let looking = self.work.blocking("values of refs", move || {
            let shard = ShardView::new(&at.state);
            if shard.live_repo(&target.repo, target.generation).is_err() {
                return Ok(None);
            }
            check_values(&updates, shard.ref_texts(&target.repo, "refs/"))?;
            Ok::<_, ServiceError>(Some(at.applied))
        });
        looked(looking.await)?
    }
}

/// The result of a check on the blocking pool.
///
/// # Errors
/// `Internal` when it panicked.
pub(crate) fn looked<T>(looked: io::Result<T>) -> Result<T, ServiceError> {
    looked.map_err(|error| {
        tracing::error!(%error, "updates of refs cannot be looked at");
        error::internal("the updates cannot be looked at: the node's log says more")
    })
}

/// Whether a value still has to be found: at any ref, and at a branch.
#[derive(Debug, Clone, Copy)]
struct Sought {
    any: bool,
    branch: bool,
}

/// Checks that every new value is complete, and a branch's new value a commit. Both hold if a ref,
/// and for a branch some branch, has the value already. One pass over the refs, until all values
/// are found.
fn check_values<'a>(
    updates: &[RefUpdate],
    refs: impl Iterator<Item = (&'a str, ObjectId)>,
) -> Result<(), ServiceError> {
    let mut sought: BTreeMap<ObjectId, Sought> = BTreeMap::new();
    for update in updates {
        let Some(new) = update.new else { continue };
        let nothing = Sought {
            any: true,
            branch: false,
        };
        sought.entry(new).or_insert(nothing).branch |= update.name.is_branch();
    }
    for (name, value) in refs {
        if sought.is_empty() {
            return Ok(());
        }
        let Some(still) = sought.get_mut(&value) else {
            continue;
        };
        still.any = false;
        still.branch &= !name.starts_with("refs/heads/");
        if !still.branch {
            sought.remove(&value);
        }
    }
    for update in updates {
        let Some(new) = update.new else { continue };
        let any_ref_will_do = !update.name.is_branch();
        let is_sought = sought.get(&new).is_some_and(|still| match any_ref_will_do {
            true => still.any,
            false => still.branch,
        });
        if is_sought {
            let what = if any_ref_will_do { "ref" } else { "branch" };
            return Err(error::invalid(format!(
                "no {what} of the repository is at {new}: push it first"
            )));
        }
    }
    Ok(())
}

fn command(
    repo: RepoId,
    generation: Generation,
    updates: &[RefUpdate],
    atomicity: Atomicity,
    principal: &Principal,
    checked_at: LogIndex,
) -> Command {
    Command::Shard(ShardCommand::UpdateRefs(UpdateRefs {
        repo,
        generation,
        packs: Vec::new(),
        updates: updates.to_vec(),
        atomic: atomicity == Atomicity::AllOrNothing,
        pusher: principal.to_string(),
        options: Vec::new(),
        checked_at,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::PreviousValue;

    fn update(name: &str, new: Option<u8>) -> RefUpdate {
        RefUpdate {
            name: name.parse().unwrap(),
            expected: PreviousValue::Any,
            new: new.map(|byte| ObjectId::Sha1([byte; 20])),
        }
    }

    fn before() -> impl Iterator<Item = (&'static str, ObjectId)> {
        let main = ("refs/heads/main", ObjectId::Sha1([1; 20]));
        [main, ("refs/tags/v1", ObjectId::Sha1([2; 20]))].into_iter()
    }

    #[test]
    fn a_new_value_must_be_one_that_a_ref_has() {
        assert!(check_values(&[update("refs/heads/x", Some(1))], before()).is_ok());
        assert!(check_values(&[update("refs/tags/x", Some(2))], before()).is_ok());
        assert!(check_values(&[update("refs/heads/x", None)], before()).is_ok());
        assert!(check_values(&[update("refs/heads/x", Some(3))], before()).is_err());
    }

    #[test]
    fn a_branch_takes_only_what_a_branch_has() {
        assert!(check_values(&[update("refs/heads/x", Some(2))], before()).is_err());
        assert!(check_values(&[update("refs/tags/x", Some(1))], before()).is_ok());
        let both = [
            update("refs/tags/y", Some(2)),
            update("refs/heads/y", Some(2)),
        ];
        let refused = check_values(&both, before()).expect_err("no branch has it");
        assert!(refused.message.starts_with("no branch "), "{refused:?}");
        assert!(check_values(&both[..1], before()).is_ok());
    }

    /// Every update caused a pass over all refs of the repository.
    #[test]
    fn the_refs_are_looked_through_once_for_all_updates() {
        let looked_at = std::cell::Cell::new(0);
        let values = (0..=u8::MAX).map(|byte| ObjectId::Sha1([byte; 20]));
        let refs = values.map(|value| {
            looked_at.set(looked_at.get() + 1);
            ("refs/heads/one-of-many", value)
        });
        let updates: Vec<_> = (0..200)
            .map(|byte| update(&format!("refs/heads/n{byte}"), Some(byte)))
            .collect();
        check_values(&updates, refs).expect("all are found");
        assert!(looked_at.get() <= 201, "{} refs", looked_at.get());
    }
}
