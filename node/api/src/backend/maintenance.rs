//! The packs of a repository: figures, compaction, and checks of their content.

use henge_types::status::{CompactionDepth, RepoCheck, RepoStats};
use henge_types::{NodeId, Principal, RepoPath};

use super::answer::Answer;

/// The packs of a repository's fork network.
pub trait Maintenance {
    /// The disk use of the repository's fork network; linearizable. Errors: `not_found`,
    /// `unavailable`.
    fn stats<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoStats>;

    /// Queues a compaction of the fork network; returns at once. Errors: `not_found`, `forbidden`,
    /// `throttled`, `unavailable`.
    fn compact<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        depth: CompactionDepth,
    ) -> Answer<'a, RepoStats>;

    /// Queues checks of replicas' stores, those on `nodes` or all when it is empty; with `repair`
    /// damaged packs are fetched again. Returns at once. Errors: `not_found`, `forbidden`,
    /// `invalid`, `throttled`.
    fn start_check<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        nodes: &'a [NodeId],
        repair: bool,
    ) -> Answer<'a, RepoCheck>;

    /// The state of those checks. Errors: `not_found`, `invalid`.
    fn checks<'a>(&'a self, path: &'a RepoPath, nodes: &'a [NodeId]) -> Answer<'a, RepoCheck>;
}
