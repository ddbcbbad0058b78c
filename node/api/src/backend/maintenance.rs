//! The packs of a repository: figures, compaction, and checks of what is in them.

use henge_types::status::{CompactionDepth, RepoCheck, RepoStats};
use henge_types::{NodeId, Principal, RepoPath};

use super::answer::Answer;

/// The packs of a repository's fork network.
pub trait Maintenance {
    /// What the repository's fork network takes on disk; linearizable. Errors: `not_found`, `unavailable`.
    fn stats<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoStats>;

    /// Has the fork network compacted as soon as it is its turn; answers at once. Errors: `not_found`, `forbidden`,
    /// `throttled`, `unavailable`.
    fn compact<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        depth: CompactionDepth,
    ) -> Answer<'a, RepoStats>;

    /// Has replicas check their stores as soon as it is their turn, those on `nodes` or all when it is empty; `repair` has
    /// damaged packs fetched again. Answers at once. Errors: `not_found`, `forbidden`, `invalid`, `throttled`.
    fn start_check<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        nodes: &'a [NodeId],
        repair: bool,
    ) -> Answer<'a, RepoCheck>;

    /// How those checks stand. Errors: `not_found`, `invalid`.
    fn checks<'a>(&'a self, path: &'a RepoPath, nodes: &'a [NodeId]) -> Answer<'a, RepoCheck>;
}
