//! What a repository may hold: kept in its shard, refused by by whoever leads a push.

use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::{Command, Refusal, Reply, RepoLimits, RepoPath, ShardCommand};

use crate::catalogue::{Freshness, QUORUM_WAIT};
use crate::error::{self, from_cluster, from_refusal};
use crate::frames::{MaintainAnswer, MaintainVerb};
use crate::maintain::ask::unexpected;
use crate::repos::Inner;

impl Inner {
    /// Read by the leader of the shard.
    pub(crate) async fn repo_limits(
        self: &std::sync::Arc<Self>,
        path: &RepoPath,
    ) -> Result<RepoLimits, ServiceError> {
        match self.ask_maintenance(path, MaintainVerb::Limits).await? {
            MaintainAnswer::Limits(limits) => Ok(limits),
            other @ (MaintainAnswer::Stats(_)
            | MaintainAnswer::Mirrors(_)
            | MaintainAnswer::NotLeader
            | MaintainAnswer::WrongGeneration
            | MaintainAnswer::Refused(..)) => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn set_repo_limits(
        &self,
        principal: &str,
        path: &RepoPath,
        limits: RepoLimits,
    ) -> Result<(), ServiceError> {
        for freshness in [Freshness::Local, Freshness::Linearizable] {
            let record = self.catalogue.find(path, freshness).await?;
            let target = self.target(&record);
            let command = Command::Shard(ShardCommand::SetLimits {
                repo: target.repo,
                generation: target.generation,
                limits,
            });
            let request = self
                .catalogue
                .binding(target.group, &command, principal, target.repo);
            let called = self
                .cluster
                .call(target.group, command, request, QUORUM_WAIT)
                .await;
            match called.map_err(|error| from_cluster(&error))?.reply {
                Reply::Done => return Ok(()),
                Reply::Refused(Refusal::WrongGeneration { .. } | Refusal::NoSuchRepo { .. }) => {}
                Reply::Refused(refusal) => return Err(from_refusal(&refusal, path)),
                other @ (Reply::RefsUpdated { .. }
                | Reply::Recheck
                | Reply::Repo(_)
                | Reply::UnknownOutcome) => return Err(error::unexpected("set_limits", &other)),
            }
        }
        Err(error::not_found(path))
    }
}

impl Inner {
    /// What the state says now; asked of whoever leads.
    pub(crate) fn limits_here(
        view: ShardView<'_, henge_state::State>,
        repo: &henge_types::RepoId,
    ) -> MaintainAnswer {
        MaintainAnswer::Limits(view.limits(repo))
    }
}
