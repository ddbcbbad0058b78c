//! Packs: figures, compaction, checks.

use futures::FutureExt;
use henge_api::{Answer, Maintenance};
use henge_git::http::ServiceError;
use henge_types::status::{
    CheckOutcome, CompactionDepth, CompactionState, LastCompaction, ReplicaCheck, RepoCheck,
    RepoStats,
};
use henge_types::{ErrorCode, NodeId, Principal, RepoPath};

use super::{CREATED_AT_MS, Fault, Memory, Repo, UPDATED_AT_MS, lock, no_such};

/// The figures of a repository: a requested compaction stays queued, and the figures show its
/// depth.
fn stats_of(repo: &Repo) -> RepoStats {
    RepoStats {
        leader: NodeId::new(2),
        packs: 3,
        objects: 10,
        pack_bytes: 2000,
        idx_bytes: 1400,
        bitmap: false,
        compaction: match repo.asked {
            Some(_) => CompactionState::Queued,
            None => CompactionState::Idle,
        },
        last_compaction: repo.asked.map(|depth| LastCompaction {
            at_ms: UPDATED_AT_MS,
            took_ms: 12,
            replaced: match depth {
                CompactionDepth::Geometric => 2,
                CompactionDepth::Everything => 3,
                CompactionDepth::Prune { .. } => 4,
            },
            bytes: 900,
            failed: None,
            dropped: match depth {
                CompactionDepth::Prune { grace_ms } => Some(grace_ms),
                CompactionDepth::Geometric | CompactionDepth::Everything => None,
            },
            run: 4,
        }),
        prune_mark_ms: repo.asked.map(|_| CREATED_AT_MS),
    }
}

fn check_of(node: NodeId, repair: bool) -> RepoCheck {
    let outcome = CheckOutcome {
        run: 7,
        objects: 10,
        reachable: Some(9),
        unreachable: Some(1),
        repaired: repair.then(|| "ab".repeat(20)).into_iter().collect(),
        ..CheckOutcome::default()
    };
    let check = ReplicaCheck {
        node,
        state: CompactionState::Idle,
        run: 7,
        progress: None,
        last: Some(outcome),
        failed: None,
    };
    RepoCheck {
        replicas: vec![check],
    }
}

impl Maintenance for Memory {
    fn stats<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoStats> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(stats_of(repo))
        })
    }

    fn compact<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        depth: CompactionDepth,
    ) -> Answer<'a, RepoStats> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            repo.asked = Some(depth);
            Ok(stats_of(repo))
        })
    }

    fn start_check<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        nodes: &'a [NodeId],
        repair: bool,
    ) -> Answer<'a, RepoCheck> {
        self.unless_broken(move |repos| {
            repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            let node = nodes.first().copied().unwrap_or(NodeId::new(1));
            Ok(check_of(node, repair))
        })
    }

    fn checks<'a>(&'a self, path: &'a RepoPath, _: &'a [NodeId]) -> Answer<'a, RepoCheck> {
        if *lock(&self.fault) == Fault::ReplicasSilent {
            let error = ServiceError::new(ErrorCode::Unavailable, "nobody answers".to_owned());
            return async move { Err(error) }.boxed();
        }
        self.unless_broken(move |repos| {
            repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(check_of(NodeId::new(1), false))
        })
    }
}
