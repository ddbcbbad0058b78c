//! Limits and rules for pushes.

use henge_api::{Answer, Limits};
use henge_types::{Principal, PushRules, RepoLimits, RepoPath};

use super::{Memory, no_such};

impl Limits for Memory {
    fn limits<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoLimits> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.limits)
        })
    }

    fn set_limits<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        limits: RepoLimits,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            repo.limits = limits;
            Ok(())
        })
    }

    fn push_rules<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, PushRules> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.push_rules)
        })
    }

    fn set_push_rules<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        rules: PushRules,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            repo.push_rules = rules;
            Ok(())
        })
    }
}
