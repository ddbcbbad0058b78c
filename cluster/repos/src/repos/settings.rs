//! An operator's settings: repository settings, quotas, push rules, protected refs.

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
    /// The quotas of the repository, below the product's own limits. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn limits(&self, path: &RepoPath) -> Result<RepoLimits, ServiceError> {
        self.inner.repo_limits(path).await
    }

    /// Sets the quotas of the repository. Pushes that began before may still exceed them.
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

    /// The push rules of the repository. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn push_rules(&self, path: &RepoPath) -> Result<PushRules, ServiceError> {
        self.inner.push_rules(path).await
    }

    /// Sets the rules for pushes that begin from now on. Existing objects are not checked.
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

    /// Changes a repository, all or nothing. Returns when every node has the change.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Invalid`, `AlreadyExists` for a name that is taken. `Unavailable`
    /// or `Timeout` without a quorum: the meta group's leader completes a change that was begun.
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

    /// Refuses a missing branch as a typing error, unless the repository has no branch at all.
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

    /// Protects the refs of a pattern: from now on no push deletes them or takes history from them.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `AlreadyExists`, `Invalid` for one pattern too many; `Unavailable`
    /// or `Timeout` without a quorum.
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

    /// Removes a protection. `pattern` must be equal to the one that was set.
    ///
    /// # Errors
    /// `NotFound` for the repository and for the pattern, `Forbidden`; `Unavailable` or `Timeout`
    /// without a quorum.
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
