//! Quotas and push rules of a repository: stored in its shard, enforced by the leader of a push.

use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::command::VERSION_PUSH_RULES;
use henge_types::{
    Command, Generation, NotAccepted, Principal, PushRules, Refusal, RepoId, RepoLimits, RepoPath,
    ShardCommand,
};

use crate::catalogue::{Freshness, QUORUM_WAIT, Reader};
use crate::error::{self, from_cluster, from_refusal};
use crate::frames::{MaintainAnswer, MaintainVerb};
use crate::maintain::ask::unexpected;
use crate::repos::Inner;

impl Inner {
    /// The quotas of a repository, from the leader of the shard.
    pub(crate) async fn repo_limits(
        self: &std::sync::Arc<Self>,
        path: &RepoPath,
    ) -> Result<RepoLimits, ServiceError> {
        match self.ask_maintenance(path, MaintainVerb::Limits).await? {
            MaintainAnswer::Limits(limits) => Ok(limits),
            other @ (MaintainAnswer::Stats(_)
            | MaintainAnswer::Mirrors(_)
            | MaintainAnswer::PushRules(_)
            | MaintainAnswer::NotLeader
            | MaintainAnswer::WrongGeneration
            | MaintainAnswer::Refused(..)) => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn set_repo_limits(
        &self,
        principal: &Principal,
        path: &RepoPath,
        limits: RepoLimits,
    ) -> Result<(), ServiceError> {
        let set = |repo, generation| ShardCommand::SetLimits {
            repo,
            generation,
            limits,
        };
        self.set_in_shard(principal, path, set).await
    }

    /// The push rules of a repository, from the leader of the shard. Before the cluster has reached
    /// the level every repository has the default rules, and the leader may be of a release without
    /// this request.
    pub(crate) async fn push_rules(
        self: &std::sync::Arc<Self>,
        path: &RepoPath,
    ) -> Result<PushRules, ServiceError> {
        if !self.cluster.all_have_said(VERSION_PUSH_RULES) {
            // The known level may be stale: this read updates it.
            self.catalogue.find(path, Freshness::Linearizable).await?;
            if !self.cluster.all_have_said(VERSION_PUSH_RULES) {
                return Ok(PushRules::default());
            }
        }
        match self.ask_maintenance(path, MaintainVerb::PushRules).await? {
            MaintainAnswer::PushRules(rules) => Ok(rules),
            other @ (MaintainAnswer::Stats(_)
            | MaintainAnswer::Mirrors(_)
            | MaintainAnswer::Limits(_)
            | MaintainAnswer::NotLeader
            | MaintainAnswer::WrongGeneration
            | MaintainAnswer::Refused(..)) => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn set_push_rules(
        &self,
        principal: &Principal,
        path: &RepoPath,
        rules: PushRules,
    ) -> Result<(), ServiceError> {
        let set = |repo, generation| ShardCommand::SetPushRules {
            repo,
            generation,
            rules,
        };
        self.set_in_shard(principal, path, set).await
    }

    /// Proposes a command for settings that are stored in the repository's shard only.
    pub(crate) async fn set_in_shard(
        &self,
        principal: &Principal,
        path: &RepoPath,
        set: impl Fn(RepoId, Generation) -> ShardCommand + Sync,
    ) -> Result<(), ServiceError> {
        let set = &set;
        self.in_life(Reader::Known, path, |target| async move {
            let command = Command::Shard(set(target.repo, target.generation));
            let request = self
                .catalogue
                .binding(target.group, &command, principal, target.repo);
            let called = self
                .cluster
                .call(target.group, command, request, QUORUM_WAIT)
                .await;
            let applied = called.map_err(|error| from_cluster(&error))?;
            match applied.reply.accepted() {
                Ok(()) => Ok(Some(())),
                Err(NotAccepted::Refused(
                    Refusal::WrongGeneration { .. } | Refusal::NoSuchRepo { .. },
                )) => Ok(None),
                Err(NotAccepted::Refused(refusal)) => Err(from_refusal(&refusal, path)),
                Err(
                    other @ (NotAccepted::Foreign(_)
                    | NotAccepted::Recheck
                    | NotAccepted::UnknownOutcome),
                ) => Err(error::unexpected("settings", &other)),
            }
        })
        .await
    }
}

impl Inner {
    /// The quotas in the state of the leader.
    pub(crate) fn limits_here(
        view: ShardView<'_, henge_state::State>,
        repo: &RepoId,
    ) -> MaintainAnswer {
        MaintainAnswer::Limits(view.limits(repo))
    }
}
