//! Protected refs: their patterns, and the checks of API changes against them.
//!
//! The leader checks pushes, with the policy in its refs.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use henge_git::http::ServiceError;
use henge_git::{Deadline, ReachError, RefStore, Stop, keeps_history};
use henge_state::ShardView;
use henge_types::{
    Command, ErrorCode, LogIndex, NotAccepted, ObjectId, PreviousValue, Principal, RefName,
    RefPattern, RefRefusal, RefUpdate, RefVerdict, Refusal, Reply, RepoPath, ShardCommand, limits,
};

use crate::catalogue::{Freshness, Reader};
use crate::error::{self, from_refusal};
use crate::frames::{self, ReadVerb, WireMove, WireProtected};
use crate::push::commit::NOT_TAKEN;
use crate::reads::{Found, Local, Target, broke_off};
use crate::ref_updates::looked;
use crate::repos::Inner;

/// Attempts to resolve a change of the protected refs to another generation of the repository.
const LIVES_MAX: usize = 3;

/// The error when the checks take too long.
const TAKES_TOO_LONG: &str =
    "the histories of these refs take too long to look through: change fewer at once";

/// Whether a pattern is added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Protect,
    Unprotect,
}

impl Inner {
    /// The protected refs, and the effect of these moves.
    pub(crate) async fn protected(
        &self,
        path: &RepoPath,
        moves: &[(RefName, ObjectId)],
    ) -> Result<WireProtected, ServiceError> {
        let body: Bytes = postcard::to_stdvec(moves)
            .map_err(|error| error::internal(error.to_string()))?
            .into();
        match self
            .find_reader(Reader::Known, path, &ReadVerb::Protected, &body)
            .await?
        {
            Found::Here(local) => {
                let looked = self.look_at_moves(local, moves.to_vec()).await;
                looked.map_err(|error| {
                    if error.kind() == io::ErrorKind::TimedOut {
                        return error::failed(ErrorCode::Timeout, TAKES_TOO_LONG);
                    }
                    tracing::error!(%error, "the history of a repository cannot be read");
                    error::internal("the repository cannot be read: tell its operator")
                })
            }
            Found::There(mut stream) => frames::read(&mut stream)
                .await
                .map_err(|error| broke_off(&error)),
        }
    }

    /// The effect of these moves on a repository that is served here.
    pub(crate) async fn look_at_moves(
        &self,
        local: Local,
        moves: Vec<(RefName, ObjectId)>,
    ) -> io::Result<WireProtected> {
        let repo = local.refs.repo();
        let objects = self.opened(&repo.network, repo.object_format);
        // Later the API request has timed out in any case.
        let within = Duration::from_millis(limits::API_REQUEST_MS_MAX);
        let stop = Stop::at(Deadline::after(Arc::clone(&self.clock), within));
        let looking = self.work.blocking("history", move || {
            let look = |(name, new): &(RefName, ObjectId)| {
                let old = local.refs.get(name);
                let keeps = match old {
                    Some(old) => keeps_history(&objects, old, *new, &stop),
                    None => Ok(true),
                };
                let keeps = keeps.map_err(|error| match error {
                    ReachError::Stopped => io::ErrorKind::TimedOut.into(),
                    error @ ReachError::Store(_) => io::Error::other(error),
                })?;
                Ok(WireMove { old, keeps })
            };
            let moves: io::Result<_> = moves.iter().map(look).collect();
            Ok(WireProtected {
                protections: local.refs.protections(),
                applied: local.refs.applied(),
                moves: moves?,
            })
        });
        looking.await?
    }

    /// Adds or removes a protection. Linearizable: later pushes obey the pattern.
    pub(crate) async fn change_protection(
        &self,
        principal: &Principal,
        path: &RepoPath,
        pattern: &RefPattern,
        change: Change,
    ) -> Result<(), ServiceError> {
        for _ in 0..LIVES_MAX {
            let record = self.catalogue.find(path, Freshness::Linearizable).await?;
            let (repo, generation, pattern) = (record.repo, record.generation, pattern.clone());
            let command = Command::Shard(match change {
                Change::Protect => ShardCommand::ProtectRefs {
                    repo,
                    generation,
                    pattern,
                },
                Change::Unprotect => ShardCommand::UnprotectRefs {
                    repo,
                    generation,
                    pattern,
                },
            });
            let shard = self.catalogue.shard(&record);
            let reply = self.catalogue.call(shard, command, principal, repo).await?;
            match error::done("protect_refs", reply)? {
                Ok(()) => return Ok(()),
                Err(Refusal::WrongGeneration { .. } | Refusal::NoSuchRepo { .. }) => {}
                Err(refusal) => return Err(from_refusal(&refusal, path)),
            }
        }
        Err(error::not_found(path))
    }

    /// Whether the repository has no protected refs, according to this node's replica. `false`
    /// without a replica.
    fn protects_nothing(&self, target: &Target) -> bool {
        let view = self.cluster.view(target.group);
        view.is_some_and(|view| {
            view.with(|state, _| {
                let shard = ShardView::new(state);
                shard.protections(&target.repo).rules.is_empty()
            })
        })
    }

    /// Determines which of these updates the protected refs forbid. Must come after a read barrier
    /// of the shard.
    pub(crate) async fn look_at_updates(
        &self,
        path: &RepoPath,
        target: &Target,
        updates: &Arc<[RefUpdate]>,
        checked_at: LogIndex,
    ) -> Result<Looked, ServiceError> {
        let unprotected = Looked {
            updates: updates.to_vec(),
            refused: BTreeMap::new(),
            checked_at,
        };
        let moves: Vec<_> = updates
            .iter()
            .filter_map(|update| Some((update.name.clone(), update.new?)))
            .collect();
        // Deletions are refused at apply.
        if moves.is_empty() || self.protects_nothing(target) {
            return Ok(unprotected);
        }
        let rules = self.protected(path, &[]).await?.protections;
        let sorting = self.work.blocking("protected refs", move || {
            let patterns = rules.patterns();
            let is_protected =
                |(name, _): &(RefName, ObjectId)| patterns.first_match(name).is_some();
            moves.into_iter().filter(is_protected).collect::<Vec<_>>()
        });
        let of_protected = looked(sorting.await)?;
        if of_protected.is_empty() {
            return Ok(unprotected);
        }
        let seen = self.protected(path, &of_protected).await?;
        let updates = Arc::clone(updates);
        let judging = self.work.blocking("protected refs", move || {
            judge(&updates, &of_protected, &seen)
        });
        looked(judging.await)
    }
}

/// Checked updates.
pub(crate) struct Looked {
    /// All updates; those of protected refs are pinned to the value they were checked against.
    pub updates: Vec<RefUpdate>,
    /// The positions of the forbidden updates, with the values they were checked against.
    pub refused: BTreeMap<usize, (RefRefusal, Option<ObjectId>)>,
    /// The index of the state they were checked against.
    pub checked_at: LogIndex,
}

fn judge(updates: &[RefUpdate], moves: &[(RefName, ObjectId)], looked: &WireProtected) -> Looked {
    let by_name: BTreeMap<_, _> = moves
        .iter()
        .zip(&looked.moves)
        .map(|((name, _), moved)| (name, *moved))
        .collect();
    let patterns = looked.protections.patterns();
    let mut refused = BTreeMap::new();
    let mut checked = updates.to_vec();
    for (at, update) in checked.iter_mut().enumerate() {
        let moved = by_name.get(&update.name);
        let Some(WireMove {
            old: Some(old),
            keeps,
        }) = moved.copied()
        else {
            continue;
        };
        let stale =
            matches!(update.expected, PreviousValue::MustExistAndMatch(value) if value != old);
        if !keeps
            && !stale
            && let Some(pattern) = patterns.first_match(&update.name).cloned()
        {
            let refusal = RefRefusal::ProtectedFromForce { pattern };
            refused.insert(at, (refusal, Some(old)));
        }
        if matches!(
            update.expected,
            PreviousValue::Any | PreviousValue::MustExist
        ) {
            update.expected = PreviousValue::MustExistAndMatch(old);
        }
    }
    Looked {
        updates: checked,
        refused,
        checked_at: looked.applied,
    }
}

impl Looked {
    /// The updates to propose; empty when one refusal refuses all.
    pub(crate) fn allowed(&self, atomic: bool) -> Vec<RefUpdate> {
        if atomic && !self.refused.is_empty() {
            return Vec::new();
        }
        let updates = self.updates.iter().enumerate();
        updates
            .filter(|(at, _)| !self.refused.contains_key(at))
            .map(|(_, update)| update.clone())
            .collect()
    }

    /// One verdict per update: those of the proposed updates, and the refusals in their places.
    pub(crate) fn verdicts(&self, proposed: Vec<RefVerdict>) -> Vec<RefVerdict> {
        if self.refused.is_empty() {
            return proposed;
        }
        let mut proposed = proposed.into_iter();
        let updates = self.updates.iter().enumerate();
        updates
            .map(|(at, update)| {
                let aborted = (RefRefusal::AtomicAborted, None);
                let verdict = |(refusal, old): (RefRefusal, Option<ObjectId>)| RefVerdict {
                    name: update.name.clone(),
                    old,
                    result: Err(refusal),
                };
                match self.refused.get(&at) {
                    Some(refused) => verdict(refused.clone()),
                    None => proposed.next().unwrap_or_else(|| verdict(aborted)),
                }
            })
            .collect()
    }
}

/// Whether an update lost a race that its sender did not ask to detect: the sender gave no expected
/// value, and the check pinned it to one.
pub(crate) fn lost_a_race(asked: &[RefUpdate], verdicts: &[RefVerdict]) -> bool {
    asked.iter().zip(verdicts).any(|(update, verdict)| {
        let open = matches!(
            update.expected,
            PreviousValue::Any | PreviousValue::MustExist
        );
        open && matches!(verdict.result, Err(RefRefusal::Stale { .. }))
    })
}

/// The verdicts in the reply of an update of refs. `None` when the updates have to be resolved and
/// checked again.
///
/// # Errors
/// The error of any other refusal.
pub(crate) fn verdicts_of(
    reply: Reply,
    path: &RepoPath,
) -> Result<Option<Vec<RefVerdict>>, ServiceError> {
    match reply.accepted::<Vec<RefVerdict>>() {
        Ok(verdicts) => Ok(Some(verdicts)),
        Err(
            NotAccepted::Recheck
            | NotAccepted::Refused(Refusal::WrongGeneration { .. } | Refusal::NoSuchRepo { .. }),
        ) => Ok(None),
        Err(NotAccepted::Refused(Refusal::WrongState { .. })) => {
            Err(error::failed(ErrorCode::Conflict, NOT_TAKEN))
        }
        Err(NotAccepted::Refused(refusal)) => Err(from_refusal(&refusal, path)),
        Err(other @ (NotAccepted::Foreign(_) | NotAccepted::UnknownOutcome)) => {
            Err(error::unexpected("update_refs", &other))
        }
    }
}
