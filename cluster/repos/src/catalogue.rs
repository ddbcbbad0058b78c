//! Names and generations of repositories: looked up in the meta group, created and dropped there
//! and in their shard.

use std::time::Duration;

use henge_cluster::{Applied, Cluster};
use henge_git::http::ServiceError;
use henge_state::MetaView;
use henge_types::{
    Command, CreateRepo, ErrorCode, ForkRepo, GroupId, MetaCommand, NotAccepted, ObjectFormat,
    OwnerName, Principal, RefName, Refusal, Reply, RepoId, RepoPath, RepoRecord, RepoState,
    RequestBinding, ShardCommand, limits,
};
use sha2::{Digest, Sha256};

use crate::error::{self, failed, from_cluster, from_refusal};

/// A command or barrier is answered within this time, if only with "no quorum".
pub(crate) const QUORUM_WAIT: Duration = Duration::from_millis(limits::QUORUM_WAIT_MS);
/// How long a request waits for a repository that another request is creating.
const READY_WAIT: Duration = Duration::from_secs(3);
/// How long a request without a token waits for the meta group.
const PUBLIC_WAIT: Duration = Duration::from_secs(2);
/// Repositories in one page.
const PAGE_MAX: usize = 1000;

/// Settings of a new repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// The target of HEAD; `refs/heads/main` by default.
    pub default_branch: Option<RefName>,
    /// Whether reads need a token.
    pub private: bool,
    /// One line about it.
    pub description: String,
    /// The hash of its object ids.
    pub object_format: ObjectFormat,
}

impl Default for CreateOptions {
    /// Private: a repository becomes public only on request.
    fn default() -> Self {
        Self {
            default_branch: None,
            private: true,
            description: String::new(),
            object_format: ObjectFormat::default(),
        }
    }
}

/// How fresh an answer of the catalogue must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// From this node's copy; the meta group answers for a name that the copy lacks.
    Local,
    /// No older than this call.
    Linearizable,
}

/// Who reads a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A reader with a token.
    Known,
    /// A reader without a token: only public repositories are found.
    Anybody,
}

/// The catalogue of repositories; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue {
    cluster: Cluster,
}

impl Catalogue {
    pub(crate) const fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// The shard of a repository.
    pub(crate) fn shard(&self, record: &RepoRecord) -> GroupId {
        record.network.shard(self.cluster.shards())
    }

    /// The repository of this name, in service.
    ///
    /// # Errors
    /// `NotFound`. `Unavailable` when the meta group has to be asked and does not answer, or the
    /// repository is still being created.
    pub(crate) async fn find(
        &self,
        path: &RepoPath,
        freshness: Freshness,
    ) -> Result<RepoRecord, ServiceError> {
        if freshness == Freshness::Local
            && let Some(record) = self.look(path)?
            && record.state == RepoState::Ready
        {
            return Ok(record);
        }
        self.barrier().await?;
        match self.look(path)? {
            Some(record) if record.state == RepoState::Ready => Ok(record),
            Some(_) => self.wait_until_ready(path).await,
            None => Err(error::not_found(path)),
        }
    }

    /// The public repository of this name, in service; no older than this call.
    ///
    /// # Errors
    /// `Unauthenticated` for one that is private, missing or not yet in service: a reader without a
    /// token cannot distinguish these cases. The same when the meta group does not answer within
    /// [`PUBLIC_WAIT`]: git retries with its token, and that request does not need the meta group.
    pub(crate) async fn find_public(&self, path: &RepoPath) -> Result<RepoRecord, ServiceError> {
        let barrier = self.cluster.read_barrier(GroupId::META, PUBLIC_WAIT);
        if let Err(error) = barrier.await {
            tracing::debug!(%error, "nobody knows what is public");
            return Err(error::log_in_first());
        }
        self.look(path)?
            .filter(|record| record.state == RepoState::Ready && !record.private)
            .ok_or_else(error::log_in_first)
    }

    /// The repository of this name, in service, for this reader. For a reader without a token every
    /// call looks it up again: since the last call it may have been made private, or another
    /// repository may have taken its name.
    ///
    /// # Errors
    /// As [`Catalogue::find`] or [`Catalogue::find_public`].
    pub(crate) async fn find_for(
        &self,
        reader: Reader,
        path: &RepoPath,
        freshness: Freshness,
    ) -> Result<RepoRecord, ServiceError> {
        match reader {
            Reader::Known => self.find(path, freshness).await,
            Reader::Anybody => self.find_public(path).await,
        }
    }

    async fn wait_until_ready(&self, path: &RepoPath) -> Result<RepoRecord, ServiceError> {
        let still =
            || error::unavailable(format!("repository {path} is still being made: try again"));
        let view = self.cluster.view(GroupId::META).ok_or_else(still)?;
        let mut applied = view.applied();
        let ready = async {
            loop {
                applied.borrow_and_update();
                match self.look(path)? {
                    Some(record) if record.state == RepoState::Ready => return Ok(record),
                    Some(_) => applied.changed().await.map_err(|_| still())?,
                    None => return Err(error::not_found(path)),
                }
            }
        };
        tokio::time::timeout(READY_WAIT, ready)
            .await
            .map_err(|_| still())?
    }

    pub(crate) async fn barrier(&self) -> Result<(), ServiceError> {
        let barrier = self.cluster.read_barrier(GroupId::META, QUORUM_WAIT).await;
        barrier.map(|_| ()).map_err(|error| from_cluster(&error))
    }

    /// The repository that has the name, or else the one that had it last.
    fn look(&self, path: &RepoPath) -> Result<Option<RepoRecord>, ServiceError> {
        self.with_meta(|meta| {
            let now = meta.repo_by_path(path);
            now.or_else(|| meta.repo_by_former_path(path))
        })
    }

    pub(crate) fn with_meta<T>(
        &self,
        look: impl FnOnce(MetaView<'_, henge_state::State>) -> T,
    ) -> Result<T, ServiceError> {
        let view = self.cluster.view(GroupId::META);
        let view =
            view.ok_or_else(|| error::unavailable("this node is still starting: try again"))?;
        Ok(view.with(|state, _| look(MetaView::new(state))))
    }

    /// A page of the repositories in service, by name.
    pub(crate) async fn list(
        &self,
        owner: Option<&OwnerName>,
        after: Option<&RepoPath>,
        limit: usize,
    ) -> Result<Vec<RepoRecord>, ServiceError> {
        self.barrier().await?;
        let limit = limit.min(PAGE_MAX);
        let mut page = Vec::new();
        let mut after = after.map(RepoPath::key);
        // Reserved repositories are listed in the state but not returned: the loop runs until the
        // page is full.
        loop {
            let found = self.with_meta(|meta| meta.repos(owner, after.as_deref(), limit))?;
            let last = found.len() < limit;
            after = found.last().map(|record| record.path.key());
            page.extend(
                found
                    .into_iter()
                    .filter(|record| record.state == RepoState::Ready),
            );
            if last || page.len() >= limit {
                page.truncate(limit);
                return Ok(page);
            }
        }
    }

    /// Creates a repository: reserved in meta, created in its shard, marked ready in meta.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`; `Unavailable` or `Timeout` when a group does not answer: the
    /// meta group's leader then completes or rolls back the creation.
    pub(crate) async fn create(
        &self,
        principal: &Principal,
        path: RepoPath,
        options: CreateOptions,
    ) -> Result<RepoRecord, ServiceError> {
        let repo = RepoId::from_bytes(self.cluster.random().bytes());
        let main = || RefName::branch("main").expect("invariant: main is a valid branch name");
        let create = CreateRepo {
            repo,
            network: repo.root_network(),
            path: path.clone(),
            default_branch: options.default_branch.unwrap_or_else(main),
            private: options.private,
            description: options.description,
            object_format: options.object_format,
            forked_from: None,
        };
        if !create.default_branch.is_branch() {
            return Err(error::invalid(
                "the default branch must lie below refs/heads/",
            ));
        }
        self.reserve(principal, create).await
    }

    /// Forks a repository: the fork has the refs of its parent at one moment, and shares its
    /// objects.
    ///
    /// # Errors
    /// As [`Catalogue::create`]; `NotFound` when there is no such parent.
    pub(crate) async fn fork(
        &self,
        principal: &Principal,
        parent: &RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Result<RepoRecord, ServiceError> {
        let parent = self.find(parent, Freshness::Linearizable).await?;
        let create = CreateRepo {
            repo: RepoId::from_bytes(self.cluster.random().bytes()),
            network: parent.network,
            path,
            default_branch: parent.default_branch.clone(),
            // A user without access to the parent must not read it through its fork.
            private: parent.private,
            description: description.unwrap_or_else(|| parent.description.clone()),
            object_format: parent.object_format,
            forked_from: Some(parent.repo),
        };
        self.reserve(principal, create).await
    }

    async fn reserve(
        &self,
        principal: &Principal,
        create: CreateRepo,
    ) -> Result<RepoRecord, ServiceError> {
        let (repo, path) = (create.repo, create.path.clone());
        let command = MetaCommand::ReserveRepo(create);
        let applied = self
            .call_applied(GroupId::META, Command::Meta(command), principal, repo)
            .await?;
        let index = applied.index;
        let record: RepoRecord = match applied.reply.accepted() {
            Ok(record) => record,
            Err(NotAccepted::Refused(refusal)) => return Err(from_refusal(&refusal, &path)),
            Err(
                other @ (NotAccepted::Foreign(_)
                | NotAccepted::Recheck
                | NotAccepted::UnknownOutcome),
            ) => return Err(error::unexpected("reserve_repo", &other)),
        };
        // Another repository had the name before: the shards must not confuse the two.
        if record.generation.get() > 1 {
            self.tell_shards(principal, &repo, index).await?;
        }
        self.finish_create(principal, record).await
    }

    /// The remaining steps for a reserved repository. Idempotent; concurrent calls are safe.
    pub(crate) async fn finish_create(
        &self,
        principal: &Principal,
        record: RepoRecord,
    ) -> Result<RepoRecord, ServiceError> {
        let repo = record.repo;
        let command = match record.forked_from {
            Some(parent) => ShardCommand::ForkRepo(ForkRepo {
                repo,
                network: record.network,
                generation: record.generation,
                parent,
            }),
            None => ShardCommand::CreateRepo {
                repo,
                network: record.network,
                generation: record.generation,
                head: record.default_branch.clone(),
                object_format: record.object_format,
            },
        };
        let shard = self.shard(&record);
        let made = Command::Shard(command);
        let made = self.call(shard, made, principal, repo).await?;
        // The shard holds a tombstone, or always refuses the repository: it will never be created.
        if let Err(refusal) = error::done("create_repo", made)? {
            self.meta(MetaCommand::AbandonRepo { repo }, principal, repo)
                .await?;
            return Err(from_refusal(&refusal, &record.path));
        }
        let ready = MetaCommand::MarkRepoReady { repo };
        let ready = self.meta(ready, principal, repo).await?;
        match error::done("mark_repo_ready", ready)? {
            Ok(()) => Ok(RepoRecord {
                state: RepoState::Ready,
                ..record
            }),
            Err(refusal) => Err(from_refusal(&refusal, &record.path)),
        }
    }

    /// Deletes the repository of this name: a tombstone in meta, then dropped in its shard. Returns
    /// when no node serves it.
    ///
    /// # Errors
    /// `NotFound`. `Unavailable` or `Timeout` when a group does not answer: once the tombstone is
    /// committed the meta group's leader completes the deletion.
    pub(crate) async fn delete(
        &self,
        principal: &Principal,
        path: &RepoPath,
    ) -> Result<(), ServiceError> {
        self.barrier().await?;
        let now = self.with_meta(|meta| meta.repo_by_path(path))?;
        let Some(record) = now else {
            // A former name is refused: the caller may mean another repository.
            return Err(match self.look(path)? {
                Some(moved) => failed(
                    ErrorCode::NotFound,
                    format!("there is no repository {path}: it is {} now", moved.path),
                ),
                None => error::not_found(path),
            });
        };
        let repo = record.repo;
        let buried = MetaCommand::DeleteRepo { repo };
        let buried = self.meta(buried, principal, repo).await?;
        if let Err(refusal) = error::done("delete_repo", buried)? {
            return Err(from_refusal(&refusal, path));
        }
        self.finish_delete(principal, &record)
            .await
            .map_err(|error| {
                let message = format!(
                    "deletion has begun and goes on by itself: {}",
                    error.message
                );
                ServiceError { message, ..error }
            })
    }

    /// The remaining steps for a repository with a tombstone. Idempotent.
    pub(crate) async fn finish_delete(
        &self,
        principal: &Principal,
        record: &RepoRecord,
    ) -> Result<(), ServiceError> {
        let repo = record.repo;
        let drop = Command::Shard(ShardCommand::DropRepo { repo });
        let dropped = self.call(self.shard(record), drop, principal, repo).await?;
        if let Err(refusal) = error::done("drop_repo", dropped)? {
            return Err(from_refusal(&refusal, &record.path));
        }
        let marked = MetaCommand::MarkRepoDropped { repo };
        let marked = self.meta(marked, principal, repo).await?;
        match error::done("mark_repo_dropped", marked)? {
            // Refused: a concurrent call came first, and the record went on from there.
            Ok(()) | Err(Refusal::WrongState { .. }) => Ok(()),
            Err(refusal) => Err(from_refusal(&refusal, &record.path)),
        }
    }

    pub(crate) async fn meta(
        &self,
        command: MetaCommand,
        principal: &Principal,
        repo: RepoId,
    ) -> Result<Reply, ServiceError> {
        self.call(GroupId::META, Command::Meta(command), principal, repo)
            .await
    }

    pub(crate) async fn call(
        &self,
        group: GroupId,
        command: Command,
        principal: &Principal,
        repo: RepoId,
    ) -> Result<Reply, ServiceError> {
        let applied = self.call_applied(group, command, principal, repo).await?;
        Ok(applied.reply)
    }

    pub(crate) async fn call_applied(
        &self,
        group: GroupId,
        command: Command,
        principal: &Principal,
        repo: RepoId,
    ) -> Result<Applied, ServiceError> {
        let request = self.binding(group, &command, principal, repo);
        let called = self
            .cluster
            .call(group, command, request, QUORUM_WAIT)
            .await;
        let applied = called.map_err(|error| from_cluster(&error))?;
        if applied.reply == Reply::UnknownOutcome {
            return Err(failed(
                ErrorCode::Timeout,
                "the request is too old to know what became of it: look before trying again",
            ));
        }
        Ok(applied)
    }

    /// Binds a new request id for this group to this command.
    pub(crate) fn binding(
        &self,
        group: GroupId,
        command: &Command,
        principal: &Principal,
        repo: RepoId,
    ) -> RequestBinding {
        RequestBinding {
            id: self.cluster.next_request_id(group),
            principal: principal.to_string(),
            repo: Some(repo),
            digest: Sha256::digest(command.encode()).into(),
        }
    }
}
