//! The quotas of a repository, and the rules for pushes to it.

use henge_types::{PushRules, RepoLimits, RepoPath};
use http::Method;

use super::{ANSWER_BYTES_MAX, Client, Effect, get, with_body};
use crate::error::ClientError;

impl Client {
    /// The quotas of a repository beyond the product's own bounds.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn repo_limits(&self, path: &RepoPath) -> Result<RepoLimits, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/limits");
        self.json(&get(path, ANSWER_BYTES_MAX), Effect::Reads).await
    }

    /// Sets the quotas of a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call. A repeated call does no harm.
    pub async fn set_repo_limits(
        &self,
        path: &RepoPath,
        limits: &RepoLimits,
    ) -> Result<RepoLimits, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/limits");
        let call = with_body(Method::PUT, path, limits);
        self.json(&call, Effect::Reads).await
    }

    /// The rules for pushes to a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn push_rules(&self, path: &RepoPath) -> Result<PushRules, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/push-rules");
        self.json(&get(path, ANSWER_BYTES_MAX), Effect::Reads).await
    }

    /// Sets the rules for pushes to a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call. A repeated call does no harm.
    pub async fn set_push_rules(
        &self,
        path: &RepoPath,
        rules: &PushRules,
    ) -> Result<PushRules, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/push-rules");
        let call = with_body(Method::PUT, path, rules);
        self.json(&call, Effect::Reads).await
    }
}
