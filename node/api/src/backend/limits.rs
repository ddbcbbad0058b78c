//! What a repository may hold, and what is asked of pushes to it.

use henge_types::{Principal, PushRules, RepoLimits, RepoPath};

use super::answer::Answer;

/// What a repository may hold, and what is asked of pushes to it.
pub trait Limits {
    /// What a repository may hold; linearizable. Errors: `not_found`, `unavailable`.
    fn limits<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoLimits>;

    /// Sets what a repository may hold. Errors: `not_found`, `forbidden`, `unavailable`, `timeout`.
    fn set_limits<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        limits: RepoLimits,
    ) -> Answer<'a, ()>;

    /// What is asked of pushes to a repository; linearizable. Errors: `not_found`, `unavailable`.
    fn push_rules<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, PushRules>;

    /// Sets what is asked of pushes to a repository. Errors: `not_found`, `forbidden`, `unavailable`, `timeout`.
    fn set_push_rules<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        rules: PushRules,
    ) -> Answer<'a, ()>;
}
