//! The refs of a replicated repository, as the git protocol asks for them.

use henge_cluster::StateAt;
use henge_git::{CommitError, RefStore, VerifiedPush};
use henge_state::ShardView;
use henge_types::{
    Generation, LogIndex, ObjectFormat, ObjectId, RefName, RefVerdict, Refusal, RepoId, ShardRepo,
};

/// One repository at one point in time. Reads only.
#[derive(Debug, Clone)]
pub(crate) struct StateRefs {
    at: StateAt,
    repo: ShardRepo,
    now_ms: u64,
}

impl StateRefs {
    /// The repository in this state, if this life of it is served.
    ///
    /// # Errors
    /// When the shard does not know it, has dropped it, or knows another life of it.
    pub(crate) fn open(
        at: StateAt,
        repo: &RepoId,
        generation: Generation,
        now_ms: u64,
    ) -> Result<Self, Refusal> {
        let repo = ShardView::new(&at.state).live_repo(repo, generation)?;
        Ok(Self { at, repo, now_ms })
    }

    /// The repository's record.
    pub(crate) const fn repo(&self) -> &ShardRepo {
        &self.repo
    }

    /// The index of the state.
    pub(crate) const fn applied(&self) -> LogIndex {
        self.at.applied
    }

    /// All visible refs below a prefix.
    pub(crate) fn list(&self, prefix: &str) -> Vec<(RefName, ObjectId)> {
        ShardView::new(&self.at.state)
            .refs(&self.repo.repo, prefix)
            .collect()
    }
}

impl RefStore for StateRefs {
    fn head(&self) -> RefName {
        self.repo.head.clone()
    }

    fn object_format(&self) -> ObjectFormat {
        self.repo.object_format
    }

    fn get(&self, name: &RefName) -> Option<ObjectId> {
        ShardView::new(&self.at.state).ref_value(&self.repo.repo, name)
    }

    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId)) {
        for (name, value) in ShardView::new(&self.at.state).refs(&self.repo.repo, prefix) {
            visit(&name, value);
        }
    }

    fn for_each_name(&self, prefix: &str, visit: &mut dyn FnMut(&str, ObjectId)) {
        for (name, value) in ShardView::new(&self.at.state).ref_texts(&self.repo.repo, prefix) {
            visit(name, value);
        }
    }

    fn was_tip_recently(&self, id: ObjectId) -> bool {
        ShardView::new(&self.at.state).was_tip_recently(&self.repo.repo, &id, self.now_ms)
    }

    fn version(&self) -> Option<u64> {
        Some(self.repo.updated_at.get())
    }

    fn commit(&self, _push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        Err(CommitError::Unavailable {
            message: "these refs can only be read".to_owned(),
        })
    }
}
