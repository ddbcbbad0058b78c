//! Branches, and changes of refs without a push.

use henge_types::RepoPath;
use http::Method;

use super::{Call, Client, Effect, LIST_BYTES_MAX, get, with_body};
use crate::error::ClientError;
use crate::model::{Branch, RefChange, RefChanges, RefResult, RefResults};

impl Client {
    /// The branches of a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn branches(&self, path: &RepoPath) -> Result<Vec<Branch>, ClientError> {
        let call = get(format!("/api/v1/repos/{path}/branches"), LIST_BYTES_MAX);
        self.json(&call, Effect::Reads).await
    }

    /// Changes refs to objects that the repository already reaches; answers one verdict per change.
    ///
    /// # Errors
    /// As every call; `timeout` means that the changes may have been made.
    pub async fn update_refs(
        &self,
        path: &RepoPath,
        updates: &[RefChange],
        atomic: bool,
    ) -> Result<Vec<RefResult>, ClientError> {
        let body = RefChanges {
            updates: updates.to_vec(),
            atomic,
        };
        let path = format!("/api/henge/v1/repos/{path}/refs");
        let call = Call {
            answer_bytes_max: LIST_BYTES_MAX,
            ..with_body(Method::POST, path, &body)
        };
        let results: RefResults = self.json(&call, Effect::Changes).await?;
        Ok(results.results)
    }
}
