//! Changes of refs that bring no objects: from the API, not from a push.

use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::{
    Command, ErrorCode, Generation, LogIndex, ObjectId, RefUpdate, RefVerdict, RepoId, RepoPath,
    ShardCommand, UpdateRefs, limits,
};

use crate::catalogue::{Freshness, QUORUM_WAIT};
use crate::error::{self, from_cluster};
use crate::protection::{lost_a_race, verdicts_of};
use crate::reads::Target;
use crate::repos::Inner;

/// Times that updates are checked against refs and rules that changed meanwhile.
const LOOKS_MAX: usize = 4;

/// Whether one refused update refuses the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Atomicity {
    /// It does.
    AllOrNothing,
    /// It does not.
    EachByItself,
}

impl Inner {
    pub(crate) async fn update_refs(
        &self,
        principal: &str,
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
            // Nothing of an atomic request was done: it may be looked at again.
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

    /// Checks the new values against the refs as they are now: in this node's own state where it has a
    /// replica, so that a repository of very many refs costs no more than one of few. The index that was
    /// checked at; `None` when the repository must be resolved again.
    async fn check_values(
        &self,
        path: &RepoPath,
        target: &Target,
        updates: &[RefUpdate],
    ) -> Result<Option<LogIndex>, ServiceError> {
        let Some(view) = self.cluster.view(target.group) else {
            let before = self.refs(path, "refs/").await?;
            check_values(updates, || {
                before
                    .refs
                    .iter()
                    .map(|(name, value)| (name.as_str(), *value))
            })?;
            return Ok(Some(before.applied));
        };
        let barrier = self.cluster.read_barrier(target.group, QUORUM_WAIT).await;
        barrier.map_err(|error| from_cluster(&error))?;
        view.with(|state, applied| {
            let shard = ShardView::new(state);
            if shard.live_repo(&target.repo, target.generation).is_err() {
                return Ok(None);
            }
            check_values(updates, || shard.ref_texts(&target.repo, "refs/"))?;
            Ok(Some(applied))
        })
    }
}

/// A new value must be known to be whole, and a branch's to be a commit: both are if a ref, and for a
/// branch a branch, has it.
fn check_values<'a, R>(updates: &[RefUpdate], refs: impl Fn() -> R) -> Result<(), ServiceError>
where
    R: Iterator<Item = (&'a str, ObjectId)>,
{
    for update in updates {
        let Some(new) = update.new else { continue };
        let mut holders = refs().filter(|(_, value)| *value == new);
        let any_ref_will_do = !update.name.is_branch();
        let known = holders.any(|(name, _)| any_ref_will_do || name.starts_with("refs/heads/"));
        if !known {
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
    principal: &str,
    checked_at: LogIndex,
) -> Command {
    Command::Shard(ShardCommand::UpdateRefs(UpdateRefs {
        repo,
        generation,
        packs: Vec::new(),
        updates: updates.to_vec(),
        atomic: atomicity == Atomicity::AllOrNothing,
        pusher: principal.to_owned(),
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
        assert!(check_values(&[update("refs/heads/x", Some(1))], before).is_ok());
        assert!(check_values(&[update("refs/tags/x", Some(2))], before).is_ok());
        assert!(check_values(&[update("refs/heads/x", None)], before).is_ok());
        assert!(check_values(&[update("refs/heads/x", Some(3))], before).is_err());
    }

    #[test]
    fn a_branch_takes_only_what_a_branch_has() {
        assert!(check_values(&[update("refs/heads/x", Some(2))], before).is_err());
        assert!(check_values(&[update("refs/tags/x", Some(1))], before).is_ok());
    }
}
