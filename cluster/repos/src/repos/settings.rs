//! What people set: settings, limits, protected refs.

use henge_git::http::ServiceError;
use henge_types::{
    Principal, PushRules, RefName, RefPattern, RefProtection, RepoLimits, RepoPath, RepoRecord,
};

use super::Repos;
use crate::access::allow;
use crate::error::invalid;
use crate::protection::Change;
use crate::settings::RepoEdit;

impl Repos {
    /// What the repository may hold beyond the product's own bounds. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn limits(&self, path: &RepoPath) -> Result<RepoLimits, ServiceError> {
        self.inner.repo_limits(path).await
    }

    /// Sets what the repository may hold; pushes that were begun before may still exceed it.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`; `Unavailable` or `Timeout` without a quorum.
    pub async fn set_limits(
        &self,
        principal: &Principal,
        path: &RepoPath,
        limits: RepoLimits,
    ) -> Result<(), ServiceError> {
        let principal = allow(principal)?;
        self.inner.set_repo_limits(principal, path, limits).await
    }

    /// What is asked of pushes to the repository. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn push_rules(&self, path: &RepoPath) -> Result<PushRules, ServiceError> {
        self.inner.push_rules(path).await
    }

    /// Sets what is asked of pushes that begin from here on. What the repository holds already is not looked at.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`; `Unavailable` or `Timeout` without a quorum.
    pub async fn set_push_rules(
        &self,
        principal: &Principal,
        path: &RepoPath,
        rules: PushRules,
    ) -> Result<(), ServiceError> {
        let principal = allow(principal)?;
        self.inner.set_push_rules(principal, path, rules).await
    }

    /// Changes a repository, all or nothing. Returns when every node knows.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Invalid`, `AlreadyExists` for a name that is taken; `Unavailable` or `Timeout` without a
    /// quorum: what was begun is then finished by itself.
    pub async fn edit(
        &self,
        principal: &Principal,
        path: &RepoPath,
        edit: RepoEdit,
    ) -> Result<RepoRecord, ServiceError> {
        let principal = allow(principal)?;
        if let Some(branch) = &edit.default_branch {
            self.check_default_branch(path, branch).await?;
        }
        self.inner.catalogue.edit(principal, path, edit).await
    }

    /// A branch that is not there is a typing error, unless there are none at all yet.
    async fn check_default_branch(
        &self,
        path: &RepoPath,
        branch: &RefName,
    ) -> Result<(), ServiceError> {
        if !branch.is_branch() {
            return Err(invalid("the default branch must lie below refs/heads/"));
        }
        let branches = self.inner.refs(path, "refs/heads/").await?.refs;
        if branches.is_empty() || branches.iter().any(|(name, _)| name == branch) {
            return Ok(());
        }
        Err(invalid(format!(
            "there is no branch {:?} to be the default one: push it first",
            branch.short()
        )))
    }

    /// The protected refs of a repository, by pattern. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn protections(&self, path: &RepoPath) -> Result<Vec<RefProtection>, ServiceError> {
        Ok(self.inner.protected(path, &[]).await?.protections.rules)
    }

    /// No push deletes these refs or takes history from them, from here on.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `AlreadyExists`, `Invalid` for one pattern too many; `Unavailable` or `Timeout` without a
    /// quorum.
    pub async fn protect(
        &self,
        principal: &Principal,
        path: &RepoPath,
        pattern: &RefPattern,
    ) -> Result<(), ServiceError> {
        let principal = allow(principal)?;
        self.inner
            .change_protection(principal, path, pattern, Change::Protect)
            .await
    }

    /// The opposite. The pattern is written as it was set.
    ///
    /// # Errors
    /// `NotFound` for the repository and for the pattern, `Forbidden`; `Unavailable` or `Timeout` without a quorum.
    pub async fn unprotect(
        &self,
        principal: &Principal,
        path: &RepoPath,
        pattern: &RefPattern,
    ) -> Result<(), ServiceError> {
        let principal = allow(principal)?;
        self.inner
            .change_protection(principal, path, pattern, Change::Unprotect)
            .await
    }
}
