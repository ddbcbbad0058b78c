//! Repositories: the catalogue.

use henge_types::{
    GroupId, NodeId, ObjectFormat, OwnerName, Principal, RefName, RepoPath, RepoRecord, TopicsEdit,
};

use super::answer::Answer;

/// The initial state of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRepo {
    /// The target of HEAD; the cluster's own choice when `None`.
    pub default_branch: Option<RefName>,
    /// Whether only its owner sees it. A repository that is not private is readable without a
    /// token.
    pub private: bool,
    /// A description of one line.
    pub description: String,
    /// The hash of its object ids.
    pub object_format: ObjectFormat,
}

/// Changes of a repository; a field that is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepoEdit {
    /// Its owner and name. The former ones redirect to it until another repository takes them.
    pub path: Option<RepoPath>,
    /// A description of one line.
    pub description: Option<String>,
    /// Whether only its owner sees it.
    pub private: Option<bool>,
    /// Whether it is read-only.
    pub archived: Option<bool>,
    /// The target of HEAD.
    pub default_branch: Option<RefName>,
    /// Its topics.
    pub topics: TopicsEdit,
}

/// The home of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The group that owns it.
    pub shard: GroupId,
    /// The group's leader, as far as this node knows it.
    pub leader: Option<NodeId>,
}

/// The catalogue of repositories.
pub trait Repositories {
    /// Creates a repository for `principal`. Errors: `already_exists`, `invalid`, `unavailable`,
    /// `timeout`.
    fn create<'a>(
        &'a self,
        principal: &'a Principal,
        path: RepoPath,
        new: NewRepo,
    ) -> Answer<'a, RepoRecord>;

    /// Forks a repository for `principal`. Errors: `not_found` for the parent, and as `create`.
    fn fork<'a>(
        &'a self,
        principal: &'a Principal,
        parent: &'a RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Answer<'a, RepoRecord>;

    /// A repository that is ready. Errors: `not_found`, `unavailable`.
    fn get<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord>;

    /// A public repository that is ready, for a client without a token. Errors: `unauthenticated`,
    /// both for a private and for a missing repository; `unavailable`.
    fn get_public<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord>;

    /// Changes a repository, all or nothing. Errors: `not_found`, `already_exists`, `invalid`,
    /// `unavailable`, `timeout`.
    fn edit<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        edit: RepoEdit,
    ) -> Answer<'a, RepoRecord>;

    /// Ready repositories in the order of [`RepoPath::key`], at most `limit`, from the one after
    /// `after`.
    fn list<'a>(
        &'a self,
        owner: Option<&'a OwnerName>,
        after: Option<&'a RepoPath>,
        limit: usize,
    ) -> Answer<'a, Vec<RepoRecord>>;

    /// Deletes a repository. Errors: `not_found`, `unavailable`, `timeout`.
    fn delete<'a>(&'a self, principal: &'a Principal, path: &'a RepoPath) -> Answer<'a, ()>;

    /// The parent of a fork, if that is ready, and the forks of a repository, from local memory.
    fn family(&self, repo: &RepoRecord) -> (Option<RepoRecord>, Vec<RepoRecord>);

    /// The home of a repository, from local memory.
    fn home(&self, repo: &RepoRecord) -> Home;
}
