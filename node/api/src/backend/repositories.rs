//! Repositories: the catalogue.

use henge_types::{
    GroupId, NodeId, ObjectFormat, OwnerName, Principal, RefName, RepoPath, RepoRecord, TopicsEdit,
};

use super::answer::Answer;

/// What a repository starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRepo {
    /// What HEAD points at; the cluster's own choice when `None`.
    pub default_branch: Option<RefName>,
    /// Whether only its owner sees it; else everybody reads it without a token.
    pub private: bool,
    /// One line about it.
    pub description: String,
    /// The hash that its objects are named by.
    pub object_format: ObjectFormat,
}

/// Changes of a repository; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepoEdit {
    /// Its owner and name. The former ones go on leading to it until another repository takes them.
    pub path: Option<RepoPath>,
    /// One line about it.
    pub description: Option<String>,
    /// Whether only its owner sees it.
    pub private: Option<bool>,
    /// Whether it is read-only.
    pub archived: Option<bool>,
    /// What HEAD points at.
    pub default_branch: Option<RefName>,
    /// What it is about.
    pub topics: TopicsEdit,
}

/// Where a repository lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The group that owns it.
    pub shard: GroupId,
    /// The group's leader, as far as this node knows it.
    pub leader: Option<NodeId>,
}

/// The catalogue of repositories.
pub trait Repositories {
    /// Creates a repository for `principal`. Errors: `already_exists`, `invalid`, `unavailable`, `timeout`.
    fn create<'a>(
        &'a self,
        principal: &'a Principal,
        path: RepoPath,
        new: NewRepo,
    ) -> Answer<'a, RepoRecord>;

    /// Makes a repository of another one, for `principal`. Errors: `not_found` for the parent, and as `create`.
    fn fork<'a>(
        &'a self,
        principal: &'a Principal,
        parent: &'a RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Answer<'a, RepoRecord>;

    /// A repository that is ready. Errors: `not_found`, `unavailable`.
    fn get<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord>;

    /// A public repository that is ready, for a client without a token. Errors: `unauthenticated` whether it is private
    /// or not there; `unavailable`.
    fn get_public<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord>;

    /// Changes a repository, all or nothing. Errors: `not_found`, `already_exists`, `invalid`, `unavailable`, `timeout`.
    fn edit<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        edit: RepoEdit,
    ) -> Answer<'a, RepoRecord>;

    /// Ready repositories in the order of [`RepoPath::key`], at most `limit`, from the one after `after`.
    fn list<'a>(
        &'a self,
        owner: Option<&'a OwnerName>,
        after: Option<&'a RepoPath>,
        limit: usize,
    ) -> Answer<'a, Vec<RepoRecord>>;

    /// Deletes a repository. Errors: `not_found`, `unavailable`, `timeout`.
    fn delete<'a>(&'a self, principal: &'a Principal, path: &'a RepoPath) -> Answer<'a, ()>;

    /// What a fork was made of, if that serves, and the forks made of a repository, from local memory.
    fn family(&self, repo: &RepoRecord) -> (Option<RepoRecord>, Vec<RepoRecord>);

    /// Where a repository lives, from local memory.
    fn home(&self, repo: &RepoRecord) -> Home;
}
