//! Settings of repositories: changed in the catalogue, then sent to the shards that need them.

use henge_git::http::ServiceError;
use henge_runtime::failpoint;
use henge_types::{
    Command, ConfigureRepo, EditRepo, ErrorCode, GroupId, LogIndex, MetaCommand, NotAccepted,
    Principal, RefName, Refusal, RepoId, RepoPath, RepoRecord, ShardCommand, TopicsEdit,
    UntoldRecord,
};

use crate::catalogue::{Catalogue, Freshness};
use crate::error::{self, from_refusal};

/// Changes of a repository; a `None` field is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepoEdit {
    /// Its owner and name. Former names redirect to it until another repository takes them.
    pub path: Option<RepoPath>,
    /// One line about it.
    pub description: Option<String>,
    /// Whether reads need a token.
    pub private: Option<bool>,
    /// Whether it is read-only.
    pub archived: Option<bool>,
    /// The target of HEAD.
    pub default_branch: Option<RefName>,
    /// Its topics.
    pub topics: TopicsEdit,
}

impl RepoEdit {
    fn command(self, repo: RepoId) -> EditRepo {
        EditRepo {
            repo,
            path: self.path,
            description: self.description,
            private: self.private,
            archived: self.archived,
            default_branch: self.default_branch,
            topics: self.topics,
        }
    }

    /// Whether a shard may need the change.
    const fn concerns_shards(&self) -> bool {
        self.path.is_some() || self.archived.is_some() || self.default_branch.is_some()
    }
}

impl Catalogue {
    /// Changes a repository. Returns when every node and its shard have the change: an archived
    /// repository refuses every later push.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists` for a name that is taken, `Invalid`. `Unavailable` or `Timeout`
    /// when a group does not answer: the meta group's leader sends the committed change to the
    /// shard.
    pub(crate) async fn edit(
        &self,
        principal: &Principal,
        path: &RepoPath,
        edit: RepoEdit,
    ) -> Result<RepoRecord, ServiceError> {
        let repo = self.find(path, Freshness::Linearizable).await?.repo;
        let concerns_shards = edit.concerns_shards();
        let command = Command::Meta(MetaCommand::EditRepo(edit.command(repo)));
        let applied = self
            .call_applied(GroupId::META, command, principal, repo)
            .await?;
        let index = applied.index;
        let record: RepoRecord = match applied.reply.accepted() {
            Ok(record) => record,
            Err(NotAccepted::Refused(refusal)) => return Err(from_refusal(&refusal, path)),
            Err(
                other @ (NotAccepted::Foreign(_)
                | NotAccepted::UnknownOutcome
                | NotAccepted::Recheck),
            ) => return Err(error::unexpected("edit_repo", &other)),
        };
        if concerns_shards {
            let told = self.tell_shards(principal, &repo, index).await;
            told.map_err(|error| {
                let message = format!(
                    "the change is made and goes to the repository's shard by itself: {}",
                    error.message
                );
                let code = ErrorCode::Timeout;
                ServiceError {
                    code,
                    message,
                    ..error
                }
            })?;
        }
        Ok(record)
    }

    /// Sends pending settings to their shards: those of this repository, and those of the entry
    /// `since` of the meta group or a later one.
    pub(crate) async fn tell_shards(
        &self,
        principal: &Principal,
        repo: &RepoId,
        since: LogIndex,
    ) -> Result<(), ServiceError> {
        self.barrier().await?;
        let untold: Vec<_> = self.with_meta(|meta| {
            let untold = meta.untold();
            untold
                .filter(|(record, mark)| mark.revision >= since || record.repo == *repo)
                .collect()
        })?;
        for (record, mark) in untold {
            self.tell_shard(principal, &record, mark).await?;
        }
        Ok(())
    }

    /// Sends a repository's settings, as of the mark, to its shard. Idempotent; concurrent calls
    /// are safe.
    pub(crate) async fn tell_shard(
        &self,
        principal: &Principal,
        record: &RepoRecord,
        mark: UntoldRecord,
    ) -> Result<(), ServiceError> {
        failpoint::hit("settings.changed");
        let repo = record.repo;
        let settings = ConfigureRepo {
            repo,
            generation: record.generation,
            revision: mark.revision,
            archived: record.archived,
            head: mark.head.then(|| record.default_branch.clone()),
        };
        let command = Command::Shard(ShardCommand::ConfigureRepo(settings));
        let shard = self.shard(record);
        let told = self.call(shard, command, principal, repo).await?;
        match error::done("configure_repo", told)? {
            // Refused: the repository was deleted meanwhile.
            Ok(()) | Err(Refusal::NoSuchRepo { .. }) => {}
            Err(refusal) => return Err(from_refusal(&refusal, &record.path)),
        }
        let revision = mark.revision;
        let marked = MetaCommand::MarkRepoTold { repo, revision };
        let marked = self.meta(marked, principal, repo).await?;
        error::done("mark_repo_told", marked)?
            .map_err(|refusal| from_refusal(&refusal, &record.path))
    }
}
