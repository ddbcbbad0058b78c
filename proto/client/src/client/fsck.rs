//! Checks of a repository's stores.

use henge_types::status::RepoCheck;
use henge_types::{NodeId, RepoPath};
use http::Method;

use super::{Client, Effect, LIST_BYTES_MAX, get, with_body};
use crate::error::ClientError;
use crate::model::Fsck;

impl Client {
    /// Starts checks of the whole stores of the repository's fork network: on the replicas on
    /// `nodes`, or on all when it is empty. With `repair`, damaged packs are fetched again from
    /// other replicas. Answers at once.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `throttled`, and as every call. A repeated call does no harm.
    pub async fn start_fsck(
        &self,
        path: &RepoPath,
        nodes: &[NodeId],
        repair: bool,
    ) -> Result<RepoCheck, ClientError> {
        let body = Fsck {
            nodes: nodes.to_vec(),
            repair,
        };
        let path = format!("/api/henge/v1/repos/{path}/fsck");
        let call = with_body(Method::POST, path, &body);
        self.json(&call, Effect::Reads).await
    }

    /// The state of the checks of the repository's stores, on all replicas.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn fsck(&self, path: &RepoPath) -> Result<RepoCheck, ClientError> {
        let call = get(format!("/api/henge/v1/repos/{path}/fsck"), LIST_BYTES_MAX);
        self.json(&call, Effect::Reads).await
    }
}
