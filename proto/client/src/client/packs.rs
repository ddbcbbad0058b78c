//! What a repository takes on disk, and its compaction.

use henge_types::RepoPath;
use henge_types::status::CompactionDepth;
use http::Method;

use super::{ANSWER_BYTES_MAX, Client, Effect, get, with_body};
use crate::error::ClientError;
use crate::model::{Gc, RepoStats};

impl Client {
    /// What the repository's fork network takes on disk, and how its compaction stands.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn repo_stats(&self, path: &RepoPath) -> Result<RepoStats, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/stats");
        self.json(&get(path, ANSWER_BYTES_MAX), Effect::Reads).await
    }

    /// Has the repository's fork network compacted; answers at once, with the figures before.
    ///
    /// # Errors
    /// `not_found`, `throttled`, and as every call. Asking again does no harm.
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
