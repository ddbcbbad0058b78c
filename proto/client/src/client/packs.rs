//! What a repository takes on disk, and looking after it.

use henge_types::status::{CompactionDepth, RepoCheck};
use henge_types::{NodeId, RepoPath};

use super::{ANSWER_BYTES_MAX, Client, Effect, LIST_BYTES_MAX, get, post};
use crate::error::ClientError;
use crate::model::{Fsck, Gc, RepoStats};

impl Client {
    /// What the repository's fork network takes on disk, and how its compaction stands.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn repo_stats(&self, path: &RepoPath) -> Result<RepoStats, ClientError> {
        let call = get(
            format!("/api/henge/v1/repos/{path}/stats"),
            ANSWER_BYTES_MAX,
        );
        self.json(&call, Effect::Reads).await
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
        let body = Gc {
            aggressive: depth == CompactionDepth::Everything,
            prune: match depth {
                CompactionDepth::Prune { grace_ms } => Some(grace_ms / 1000),
                CompactionDepth::Geometric | CompactionDepth::Everything => None,
            },
        };
        let call = post(format!("/api/henge/v1/repos/{path}/gc"), &body);
        self.json(&call, Effect::Reads).await
    }

    /// Has replicas check their whole stores of the repository's fork network: those on `nodes`, or all when it is empty.
    /// With `repair`, damaged packs are fetched again from other replicas. Answers at once.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `throttled`, and as every call. Asking again does no harm.
    pub async fn start_fsck(
        &self,
        path: &RepoPath,
        nodes: &[NodeId],
        repair: bool,
    ) -> Result<RepoCheck, ClientError> {
        let body = Fsck { nodes, repair };
        let call = post(format!("/api/henge/v1/repos/{path}/fsck"), &body);
        self.json(&call, Effect::Reads).await
    }

    /// How the checks of the repository's stores stand, on all replicas.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn fsck(&self, path: &RepoPath) -> Result<RepoCheck, ClientError> {
        let call = get(format!("/api/henge/v1/repos/{path}/fsck"), LIST_BYTES_MAX);
        self.json(&call, Effect::Reads).await
    }
}
