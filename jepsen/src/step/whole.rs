//! Checks of pushes and fetches during a fault and after it.

use std::time::Duration;

use super::{Runner, SERVE_LIMIT, Scene, wrong};
use crate::checker::Served;
use crate::clock;
use crate::faults::Bite;
use crate::ledger::Sort;
use crate::pushers::Progress;

/// Time limit for acknowledged pushes to every repository, and through every node.
const PUSH_LIMIT: Duration = Duration::from_secs(60);
/// The same through the other nodes while one has a fault.
const PUSH_MEANWHILE_LIMIT: Duration = Duration::from_secs(30);

impl Runner<'_> {
    /// Clones from every node during the fault: an error is allowed, wrong content never is.
    pub(super) fn look_at_content(&self, scene: &mut Scene) {
        let running: Vec<u64> = self.ring.ids();
        let running: Vec<u64> = running
            .into_iter()
            .filter(|id| self.ring.runs(*id))
            .collect();
        // Without a majority each request takes until its deadline: one repository is enough.
        let at = usize::try_from(scene.step.seed).unwrap_or(0) % self.repos.len().max(1);
        let mut checker = self.checker();
        checker.repos = self.repos.get(at..=at).unwrap_or_default();
        let left = checker.everything(&running, Duration::ZERO);
        for served in left.into_values().flatten() {
            if let Served::Wrong(texts) = served {
                wrong(scene, texts);
            }
        }
    }

    /// Checks that pushes through the other nodes continue while a single node has a fault.
    pub(super) fn pushed_meanwhile(&self, scene: &mut Scene, bite: &Bite, before: &Progress) {
        let missing = || {
            let now = self.shared.progress();
            let pushed = |repo: &String| {
                now.iter().any(|((name, node), count)| {
                    name == repo
                        && !bite.affected.contains(node)
                        && before.get(&(name.clone(), *node)).copied().unwrap_or(0) < *count
                })
            };
            let missing: Vec<String> = self.repos.iter().filter(|r| !pushed(r)).cloned().collect();
            missing
        };
        let all = clock::wait_for(PUSH_MEANWHILE_LIMIT, || missing().is_empty().then_some(()));
        if all.is_none() {
            let text = format!(
                "no push through the other nodes for {}: {}",
                missing().join(", "),
                bite.proof
            );
            scene.found(Sort::Unavailable, text);
        }
    }

    /// Checks pushes and fetches once the status is ok.
    pub(super) fn check_everything(&self, scene: &mut Scene) -> bool {
        let mut whole = true;
        let before = self.shared.progress();
        let ids = self.ring.ids();
        for served in self
            .checker()
            .everything(&ids, SERVE_LIMIT)
            .into_values()
            .flatten()
        {
            whole = false;
            match served {
                Served::Wrong(texts) => wrong(scene, texts),
                Served::Refused(text) => {
                    let text = format!("status ok, every node ready, and a fetch fails: {text}");
                    scene.found(Sort::Unserved, text);
                }
                Served::Right => {}
            }
        }
        let missing = || {
            let now = self.shared.progress();
            let more = |wanted: &dyn Fn(&str, u64) -> bool| {
                now.iter().any(|((repo, node), count)| {
                    wanted(repo, *node)
                        && before.get(&(repo.clone(), *node)).copied().unwrap_or(0) < *count
                })
            };
            let repos = self.repos.iter().filter(|repo| !more(&|r, _| r == *repo));
            let nodes = ids.iter().filter(|id| !more(&|_, node| node == **id));
            let repos = repos.map(|repo| format!("to {repo}"));
            let nodes = nodes.map(|node| format!("through node {node}"));
            repos.chain(nodes).collect::<Vec<String>>()
        };
        let pushed = clock::wait_for(PUSH_LIMIT, || missing().is_empty().then_some(()));
        if pushed.is_none() {
            let text = format!(
                "status ok, every node ready, and no push was acknowledged {} in {}s",
                missing().join(", "),
                PUSH_LIMIT.as_secs()
            );
            scene.found(Sort::Unavailable, text);
            whole = false;
        }
        whole
    }
}
