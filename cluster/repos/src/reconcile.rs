//! The meta group's leader completes or rolls back abandoned operations: creations, deletions, and
//! settings that a shard lacks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_cluster::{Cluster, LeaderTask, LeaderTerm, Next, Step, TaskGroups, View, Wakes};
use henge_git::http::ServiceError;
use henge_runtime::{Clock, Scope};
use henge_state::{Action, MetaView, pending_actions};
use henge_types::Principal;

use crate::catalogue::Catalogue;

/// Pause between two looks, and between two attempts at one action.
const PERIOD: Duration = Duration::from_secs(1);
/// How long an action must have been pending: the request that started it usually completes it.
const GRACE: Duration = Duration::from_secs(4);
/// The principal of these actions.
const PRINCIPAL: Principal = Principal::System;

/// Executes pending actions of the catalogue.
#[derive(Debug)]
pub(crate) struct Reconciler {
    catalogue: Catalogue,
    clock: Arc<dyn Clock>,
}

impl Reconciler {
    /// Starts the leader task of the meta group.
    pub(crate) fn start(
        cluster: &Cluster,
        catalogue: Catalogue,
        clock: Arc<dyn Clock>,
        scope: &Scope,
    ) {
        let reconciler = Self { catalogue, clock };
        cluster.lead(reconciler, Wakes::default(), scope);
    }

    /// After a failure the action stays pending.
    async fn carry_out(&self, view: &View, action: Action) {
        let (repo, what) = match action {
            Action::TellShard { repo, .. } => (repo, "settings of a repository for its shard"),
            Action::FinishCreate { repo } => (repo, "creation of a repository"),
            Action::FinishDelete { repo } => (repo, "deletion of a repository"),
        };
        match self.finish(view, action).await {
            Ok(()) => tracing::info!(%repo, what, "pending work of the catalogue was finished"),
            Err(error) => {
                tracing::warn!(%repo, what, %error, "work of the catalogue stays pending");
            }
        }
    }

    async fn finish(&self, view: &View, action: Action) -> Result<(), ServiceError> {
        let (Action::TellShard { repo, .. }
        | Action::FinishCreate { repo }
        | Action::FinishDelete { repo }) = action;
        let (record, mark) = view.with(|state, _| {
            let meta = MetaView::new(state);
            (meta.repo(&repo), meta.untold_of(&repo))
        });
        // A record is never removed.
        let Some(record) = record else { return Ok(()) };
        match action {
            Action::TellShard { .. } => match mark {
                Some(mark) => self.catalogue.tell_shard(&PRINCIPAL, &record, mark).await,
                None => Ok(()),
            },
            Action::FinishCreate { .. } => {
                let made = self.catalogue.finish_create(&PRINCIPAL, record).await;
                made.map(|_| ())
            }
            Action::FinishDelete { .. } => self.catalogue.finish_delete(&PRINCIPAL, &record).await,
        }
    }
}

impl LeaderTask for Reconciler {
    const NAME: &'static str = "catalogue reconciler";
    const GROUPS: TaskGroups = TaskGroups::Meta;
    /// When each pending action was first seen.
    type State = BTreeMap<Action, Instant>;

    fn begin(&self, _term: LeaderTerm, _view: &View) -> Self::State {
        BTreeMap::new()
    }

    async fn step(&self, step: Step<'_>, seen: &mut Self::State) -> Next {
        let view = step.view;
        let pending = view.with(|state, _| pending_actions(state));
        let now = self.clock.instant();
        let before = std::mem::take(seen);
        for action in &pending {
            let since = before.get(action).copied().unwrap_or(now);
            seen.insert(*action, since);
        }
        // In their order: a repository with another one's former name serves only after that one's
        // shard has the new settings.
        for action in pending {
            if seen
                .get(&action)
                .is_some_and(|since| now.duration_since(*since) >= GRACE)
            {
                self.carry_out(view, action).await;
            }
        }
        let next = Next::applied(PERIOD);
        match seen.is_empty() {
            true => next,
            false => next.or_after(PERIOD),
        }
    }
}
