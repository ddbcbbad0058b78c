//! Creating, finding, forking and deleting repositories.

use henge_types::{OwnerName, RepoPath};
use http::Method;

use super::{ANSWER_BYTES_MAX, Client, Effect, LIST_BYTES_MAX, bare, get, with_body};
use crate::error::ClientError;
use crate::model::{Fork, NewRepo, RepoInfo, RepoPage};

impl Client {
    /// Creates a repository.
    ///
    /// # Errors
    /// `already_exists`; `timeout` means that it may have been created.
    pub async fn create_repo(&self, repo: &NewRepo) -> Result<RepoInfo, ClientError> {
        let call = with_body(Method::POST, "/api/henge/v1/repos".to_owned(), repo);
        self.json(&call, Effect::Changes).await
    }

    /// A repository and its home.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn get_repo(&self, path: &RepoPath) -> Result<RepoInfo, ClientError> {
        let call = get(format!("/api/henge/v1/repos/{path}"), ANSWER_BYTES_MAX);
        self.json(&call, Effect::Reads).await
    }

    /// Repositories in the order of their lower-case paths, at most `limit`, from the one after
    /// `after`.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_repos(
        &self,
        owner: Option<&OwnerName>,
        after: Option<&RepoPath>,
        limit: usize,
    ) -> Result<Vec<RepoInfo>, ClientError> {
        let mut path = format!("/api/henge/v1/repos?limit={limit}");
        if let Some(owner) = owner {
            path.push_str(&format!("&owner={owner}"));
        }
        if let Some(after) = after {
            path.push_str(&format!("&after={after}"));
        }
        let page: RepoPage = self.json(&get(path, LIST_BYTES_MAX), Effect::Reads).await?;
        Ok(page.repositories)
    }

    /// Deletes a repository.
    ///
    /// # Errors
    /// `not_found`; `timeout` means that it may have been deleted.
    pub async fn delete_repo(&self, path: &RepoPath) -> Result<(), ClientError> {
        let call = bare(Method::DELETE, format!("/api/v1/repos/{path}"));
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Forks a repository: the new one has its refs, on the same objects.
    ///
    /// # Errors
    /// `not_found`, `already_exists`, and as every call; `timeout` means that it may have been
    /// made.
    pub async fn fork_repo(&self, parent: &RepoPath, path: &RepoPath) -> Result<(), ClientError> {
        let body = Fork {
            organization: &path.owner,
            name: &path.name,
        };
        let call = with_body(Method::POST, format!("/api/v1/repos/{parent}/forks"), &body);
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }
}
