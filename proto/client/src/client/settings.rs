//! Changing repositories: settings, names, protected refs.

use henge_types::{OwnerName, RepoPath, Topic};
use http::Method;

use super::{ANSWER_BYTES_MAX, Client, Effect, bare, get, in_path, with_body};
use crate::error::ClientError;
use crate::model::{NewOwner, Protection, RepoChange, RuleName, Topics};

impl Client {
    /// Changes the fields of a repository that `change` has, all or nothing.
    ///
    /// # Errors
    /// `not_found`, `already_exists` for a name that is taken, `invalid`, and as every call;
    /// `timeout` means that the change may have been made.
    pub async fn change_repo(
        &self,
        path: &RepoPath,
        change: &RepoChange,
    ) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}");
        let call = with_body(Method::PATCH, path, change);
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Replaces the topics of a repository.
    ///
    /// # Errors
    /// As [`Self::change_repo`].
    pub async fn set_topics(&self, path: &RepoPath, topics: &[Topic]) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}/topics");
        let call = with_body(Method::PUT, path, &Topics { topics });
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Transfers a repository to another owner.
    ///
    /// # Errors
    /// As [`Self::change_repo`].
    pub async fn transfer_repo(
        &self,
        path: &RepoPath,
        new_owner: &OwnerName,
    ) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}/transfer");
        let call = with_body(Method::POST, path, &NewOwner { new_owner });
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// The protected refs of a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn protections(&self, path: &RepoPath) -> Result<Vec<Protection>, ClientError> {
        let path = format!("/api/v1/repos/{path}/branch_protections");
        self.json(&get(path, ANSWER_BYTES_MAX), Effect::Reads).await
    }

    /// Protects refs from deletion and from losing history.
    ///
    /// # Errors
    /// `already_exists`, and as [`Self::change_repo`].
    pub async fn protect(&self, path: &RepoPath, pattern: &str) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}/branch_protections");
        let rule = RuleName { rule_name: pattern };
        let call = with_body(Method::POST, path, &rule);
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Removes that protection; the pattern is written exactly as it was set.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn unprotect(&self, path: &RepoPath, pattern: &str) -> Result<(), ClientError> {
        let pattern = in_path(pattern);
        let path = format!("/api/v1/repos/{path}/branch_protections/{pattern}");
        let call = bare(Method::DELETE, path);
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }
}
