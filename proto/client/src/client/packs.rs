//! The disk use of a repository, and its compaction.

use henge_types::RepoPath;
use henge_types::status::CompactionDepth;
use http::Method;

use super::{ANSWER_BYTES_MAX, Client, Effect, get, with_body};
use crate::error::ClientError;
use crate::model::{Gc, RepoStats};

impl Client {
    /// The disk use of the repository's fork network, and the state of its compaction.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn repo_stats(&self, path: &RepoPath) -> Result<RepoStats, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/stats");
        self.json(&get(path, ANSWER_BYTES_MAX), Effect::Reads).await
    }

    /// Starts a compaction of the repository's fork network; answers at once, with the figures
    /// before.
    ///
    /// # Errors
    /// `not_found`, `throttled`, and as every call. A repeated call does no harm.
    pub async fn compact(
        &self,
        path: &RepoPath,
        depth: CompactionDepth,
    ) -> Result<RepoStats, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/gc");
        let call = with_body(Method::POST, path, &Gc::from(depth));
        self.json(&call, Effect::Reads).await
    }
}
