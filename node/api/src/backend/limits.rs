//! The quotas of a repository, and the rules for pushes to it.

use henge_types::{Principal, PushRules, RepoLimits, RepoPath};

use super::answer::Answer;

/// The quotas of a repository, and the rules for pushes to it.
pub trait Limits {
    /// The quotas of a repository; linearizable. Errors: `not_found`, `unavailable`.
    fn limits<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoLimits>;

    /// Sets the quotas of a repository. Errors: `not_found`, `forbidden`, `unavailable`, `timeout`.
    fn set_limits<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        limits: RepoLimits,
    ) -> Answer<'a, ()>;

    /// The rules for pushes to a repository; linearizable. Errors: `not_found`, `unavailable`.
    fn push_rules<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, PushRules>;

    /// Sets the rules for pushes to a repository. Errors: `not_found`, `forbidden`, `unavailable`,
    /// `timeout`.
    fn set_push_rules<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        rules: PushRules,
    ) -> Answer<'a, ()>;
}
