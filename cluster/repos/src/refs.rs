//! The refs of a replicated repository, for the git protocol.

use std::sync::Arc;

use henge_cluster::StateAt;
use henge_git::{
    CommitError, Nonces, ObjectRules, PushLimits, PushPolicy, Quota, RefStore, Rule, VerifiedPush,
};
use henge_state::ShardView;
use henge_types::{
    FsckLevel, Generation, LogIndex, NonceSeed, ObjectFormat, ObjectId, PushCertificateRecord,
    RefName, RefProtections, RefVerdict, Refusal, RepoId, ShardRepo, limits,
};

/// One repository at one point in time; read only.
#[derive(Debug, Clone)]
pub(crate) struct StateRefs {
    at: StateAt,
    repo: ShardRepo,
    now_ms: u64,
    seed: Option<Arc<NonceSeed>>,
}

impl StateRefs {
    /// The repository in this state, if this generation of it is in service.
    ///
    /// # Errors
    /// When the shard does not have it, has dropped it, or has another generation of it.
    pub(crate) fn open(
        at: StateAt,
        repo: &RepoId,
        generation: Generation,
        now_ms: u64,
    ) -> Result<Self, Refusal> {
        let view = ShardView::new(&at.state);
        let repo = view.live_repo(repo, generation)?;
        let seed = view.nonce_seed().map(Arc::new);
        Ok(Self {
            at,
            repo,
            now_ms,
            seed,
        })
    }

    /// The repository's record.
    pub(crate) const fn repo(&self) -> &ShardRepo {
        &self.repo
    }

    /// The limits of a push: the quotas of the repository, and the space it uses.
    pub(crate) fn push_limits(&self) -> PushLimits {
        let view = ShardView::new(&self.at.state);
        let own = view.limits(&self.repo.repo);
        let product = PushLimits::default();
        let bytes = || {
            let packs = view.packs(&self.repo.network);
            let bytes = packs.map(|pack| pack.pack_bytes.saturating_add(pack.idx_bytes));
            bytes.fold(0, u64::saturating_add)
        };
        let refs = || view.ref_texts(&self.repo.repo, "").count();
        PushLimits {
            pack_bytes_max: min(product.pack_bytes_max, own.push_bytes_max),
            objects_max: min(product.objects_max, own.push_objects_max),
            object_bytes_max: min(product.object_bytes_max, own.object_bytes_max),
            quota: own
                .network_bytes_max
                .map(|max| Quota { used: bytes(), max }),
            refs: own.refs_max.map(|max| Quota {
                used: u64::try_from(refs()).unwrap_or(u64::MAX),
                max,
            }),
            ..product
        }
    }

    /// The index of the state.
    pub(crate) const fn applied(&self) -> LogIndex {
        self.at.applied
    }

    /// The rules for pushed objects.
    fn object_rules(&self) -> Arc<ObjectRules> {
        let rules = ShardView::new(&self.at.state).push_rules(&self.repo.repo);
        Arc::new(match rules.fsck {
            FsckLevel::Strict => ObjectRules::strict(),
            FsckLevel::Lenient => ObjectRules::lenient(),
        })
    }

    pub(crate) fn protections(&self) -> RefProtections {
        ShardView::new(&self.at.state).protections(&self.repo.repo)
    }

    /// Whether it is a pull mirror: only its own runs may push to it.
    pub(crate) fn follows_another(&self) -> bool {
        let shard = ShardView::new(&self.at.state);
        shard.pull_mirror(&self.repo.repo).is_some()
    }

    /// Whether nonces for signed pushes can be made.
    pub(crate) const fn has_nonce_seed(&self) -> bool {
        self.seed.is_some()
    }

    /// Sets the seed that the shard got since.
    pub(crate) fn set_nonce_seed(&mut self, seed: NonceSeed) {
        self.seed = Some(Arc::new(seed));
    }

    /// The stored push certificates, the oldest first.
    pub(crate) fn push_certificates(&self) -> Vec<PushCertificateRecord> {
        ShardView::new(&self.at.state)
            .push_certificates(&self.repo.repo)
            .collect()
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

    fn shares_objects(&self) -> bool {
        ShardView::new(&self.at.state).is_shared(&self.repo.network)
    }

    fn push_policy(&self) -> PushPolicy {
        PushPolicy {
            updates: match self.repo.archived {
                true => Rule::Denied,
                false => Rule::Allowed,
            },
            protected: self.protections().patterns(),
            objects: Some(self.object_rules()),
            ..PushPolicy::default()
        }
    }

    /// Derived from the repository's id: its name may change, or belong to another repository,
    /// between advertisement and push.
    fn nonces(&self) -> Option<Nonces> {
        let seed = self.seed.as_ref()?;
        Some(Nonces::new(
            seed.as_bytes(),
            self.repo.repo.as_bytes(),
            self.now_ms / 1000,
            limits::CERTIFICATE_NONCE_SLOP_S,
        ))
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

/// The smaller of the product's limit and the repository's own.
fn min<T: Ord>(product: T, own: Option<T>) -> T {
    match own {
        Some(own) => product.min(own),
        None => product,
    }
}
