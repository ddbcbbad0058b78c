//! The handle on a node's repositories, and the state that all parts of it share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use henge_cluster::Cluster;
use henge_git::http::{PlaceBounds, Places, ServiceError};
use henge_git::{Bundles, Deadline, Objects, ObjectsPool, Responses, Stop};
use henge_runtime::{Clock, Scope};
use henge_storage::objects::ObjectStore;
use henge_types::status::{CompactionDepth, RepoCheck, RepoStats};
use henge_types::{
    NetworkId, NodeId, ObjectFormat, ObjectId, OwnerName, Principal, RefName, RefUpdate,
    RefVerdict, RepoPath, RepoRecord, RepoState, limits,
};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::access::allow;
use crate::admission::Admissions;
use crate::arriving::Arrivals;
use crate::catalogue::{Catalogue, CreateOptions, Freshness, Reader};
use crate::damage::FoundSound;
use crate::effects::PackEffects;
use crate::frames::{
    self, CheckRequest, MaintainRequest, MaintainVerb, PackRequest, PushRequest, ReadRequest,
    ReadVerb, ReleaseRequest, StageRequest, WireRefs,
};
use crate::handover::HandedOver;
use crate::maintain::Maintenance;
use crate::maintain::check::Checks;
use crate::maintain::check_ask::Start;
use crate::mirrors::Looks;
use crate::reads::{Found, broke_off, wire_refs};
use crate::reconcile::Reconciler;
use crate::space::Space;
use crate::{asking, damage, fetcher, freshen, maintain, ref_updates};

mod settings;

/// Maximum number of blocking jobs of a node as a replica (staging, fetching packs). They have a
/// pool of their own: pushes wait for them on other nodes, so they must never wait for pushes.
const REPLICA_JOBS_MAX: usize = 32;
/// Maximum number of blocking jobs besides pushes and fetches (advertisements, reports).
const SMALL_JOBS_MAX: usize = 32;

/// Refs at one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefsPage {
    /// The target of HEAD; it need not exist.
    pub head: RefName,
    /// The refs, by name.
    pub refs: Vec<(RefName, ObjectId)>,
    /// When a ref or HEAD changed last, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// The state that all parts share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) cluster: Cluster,
    pub(crate) catalogue: Catalogue,
    pub(crate) effects: Arc<PackEffects>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) scope: Scope,
    /// Blocking work for clients.
    pub(crate) work: Scope,
    /// Blocking work for other nodes.
    pub(crate) work_of_replica: Scope,
    /// Compaction, one at a time.
    pub(crate) work_of_maintenance: Scope,
    /// Bitmaps and commit-graphs, one network at a time.
    pub(crate) work_of_freshening: Scope,
    /// Bundles, one at a time.
    pub(crate) work_of_bundles: Scope,
    pub(crate) maintenance: Maintenance,
    pub(crate) checks: Checks,
    pub(crate) pushes: Semaphore,
    pub(crate) fetches: Admissions,
    /// Permits of fetches without a token: they are fewer than all permits, so that requests with a
    /// token always find a free one.
    pub(crate) anonymous_fetches: Places,
    pub(crate) space: Space,
    /// The directory of pushes that are being received.
    pub(crate) spool_dir: PathBuf,
    /// The packs that requests have opened.
    opened: ObjectsPool,
    /// The response cache of fetches.
    pub(crate) responses: Responses,
    /// The bundles; unset where they are switched off.
    pub(crate) bundles: OnceLock<Bundles>,
    /// The connection to the other sides of mirrors; unset where mirrors are not run.
    pub(crate) mirror_looks: OnceLock<Looks>,
    pub(crate) found_sound: FoundSound,
    pub(crate) arrivals: Arrivals,
    pub(crate) handed_over: HandedOver,
}

impl Inner {
    pub(crate) fn objects(&self) -> &ObjectStore {
        self.effects.objects()
    }

    /// The network's object directory, with its packs opened by earlier requests.
    pub(crate) fn opened(&self, network: &NetworkId, format: ObjectFormat) -> Objects {
        self.opened
            .get(&self.objects().objects_dir(network), format)
    }

    /// Whether packs of a network are open.
    pub(crate) fn has_opened(&self, network: &NetworkId) -> bool {
        self.opened.has(&self.objects().objects_dir(network))
    }

    /// The deadline of a fetch or a push that begins now.
    pub(crate) fn deadline(&self) -> Stop {
        let within = Duration::from_millis(limits::GIT_REQUEST_MS_MAX);
        Stop::at(Deadline::after(Arc::clone(&self.clock), within))
    }

    /// Closes the packs of a network whose store changed or is being removed.
    pub(crate) fn close(&self, network: &NetworkId) {
        self.opened.forget(&self.objects().objects_dir(network));
    }
}

/// The repositories of a node; clones share it.
#[derive(Debug, Clone)]
pub struct Repos {
    pub(crate) inner: Arc<Inner>,
}

impl Repos {
    /// Serves repositories over a started cluster. `effects` must be those the cluster was started
    /// with. Runs on the runtime of the caller.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn start(
        cluster: Cluster,
        effects: Arc<PackEffects>,
        scope: &Scope,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        crate::metrics::describe();
        let scope = scope.child("repos");
        let handle = Handle::current();
        let spool = effects.objects().spool();
        let spool_dir = spool.path().parent().map(Path::to_owned);
        let spool_dir = spool_dir.ok_or_else(|| io::Error::other("the spool has no directory"))?;
        let fetches = limits::FETCHES_AT_ONCE + limits::FETCHES_WAITING_MAX;
        let jobs = limits::PUSHES_AT_ONCE + fetches + SMALL_JOBS_MAX;
        let inner = Arc::new(Inner {
            catalogue: Catalogue::new(cluster.clone()),
            cluster: cluster.clone(),
            effects,
            responses: Responses::new(&spool_dir),
            spool_dir,
            clock: Arc::clone(&clock),
            work: Scope::root("git", handle.clone(), jobs),
            work_of_replica: Scope::root("replica", handle.clone(), REPLICA_JOBS_MAX),
            work_of_maintenance: Scope::root("maintenance", handle.clone(), 1),
            work_of_freshening: Scope::root("bitmaps", handle.clone(), 1),
            work_of_bundles: Scope::root("bundles", handle, 1),
            maintenance: Maintenance::default(),
            checks: Checks::default(),
            pushes: Semaphore::new(limits::PUSHES_AT_ONCE),
            fetches: Admissions::default(),
            anonymous_fetches: Places::new(PlaceBounds {
                in_all: limits::ANONYMOUS_FETCHES_AT_ONCE,
                per_address: limits::ANONYMOUS_FETCHES_PER_ADDRESS,
                per_connection: limits::ANONYMOUS_FETCHES_PER_CONNECTION,
            }),
            space: Space::default(),
            opened: ObjectsPool::default(),
            bundles: OnceLock::new(),
            mirror_looks: OnceLock::new(),
            found_sound: FoundSound::default(),
            arrivals: Arrivals::default(),
            handed_over: HandedOver::default(),
            scope: scope.clone(),
        });
        asking::serve::<PushRequest>(&inner);
        asking::serve::<StageRequest>(&inner);
        asking::serve::<ReleaseRequest>(&inner);
        asking::serve::<PackRequest>(&inner);
        asking::serve::<MaintainRequest>(&inner);
        asking::serve::<CheckRequest>(&inner);
        asking::serve::<ReadRequest>(&inner);
        fetcher::start(&inner);
        damage::start(&inner);
        maintain::start(&inner);
        freshen::start(&inner);
        Reconciler::start(&cluster, inner.catalogue.clone(), clock, &scope);
        inner.space.watch(cluster, &scope);
        Ok(Self { inner })
    }

    /// Creates a repository. Returns when it is in service.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `Forbidden`; `Unavailable` or `Timeout` without a quorum: the
    /// meta group's leader then completes or rolls back the creation.
    pub async fn create(
        &self,
        principal: &Principal,
        path: RepoPath,
        options: CreateOptions,
    ) -> Result<RepoRecord, ServiceError> {
        let principal = allow(principal)?;
        self.inner.catalogue.create(principal, path, options).await
    }

    /// Forks a repository: the fork has the parent's visibility, its refs at one moment, and shares
    /// its objects. Returns when it is in service.
    ///
    /// # Errors
    /// `NotFound` for the parent, and as [`Repos::create`].
    pub async fn fork(
        &self,
        principal: &Principal,
        parent: &RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Result<RepoRecord, ServiceError> {
        let principal = allow(principal)?;
        let catalogue = &self.inner.catalogue;
        catalogue.fork(principal, parent, path, description).await
    }

    /// The repository of this name. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn get(&self, path: &RepoPath) -> Result<RepoRecord, ServiceError> {
        self.inner
            .catalogue
            .find(path, Freshness::Linearizable)
            .await
    }

    /// The public repository of this name. Linearizable.
    ///
    /// # Errors
    /// `Unauthenticated` for one that is private or missing; `Unavailable`.
    pub async fn get_public(&self, path: &RepoPath) -> Result<RepoRecord, ServiceError> {
        self.inner.catalogue.find_public(path).await
    }

    /// A page of repositories by name, behind `after`; at most 1,000. Linearizable.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list(
        &self,
        owner: Option<&OwnerName>,
        after: Option<&RepoPath>,
        limit: usize,
    ) -> Result<Vec<RepoRecord>, ServiceError> {
        self.inner.catalogue.list(owner, after, limit).await
    }

    /// Deletes a repository. Returns when no node serves it.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`; `Unavailable` or `Timeout` without a quorum.
    pub async fn delete(&self, principal: &Principal, path: &RepoPath) -> Result<(), ServiceError> {
        let principal = allow(principal)?;
        self.inner.catalogue.delete(principal, path).await
    }

    /// HEAD and the refs whose names start with `prefix`. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn refs(&self, path: &RepoPath, prefix: &str) -> Result<RefsPage, ServiceError> {
        let WireRefs {
            head,
            refs,
            updated_at_ms,
            ..
        } = self.inner.refs(path, prefix).await?;
        Ok(RefsPage {
            head,
            refs,
            updated_at_ms,
        })
    }

    /// The parent of a fork, if it is in service, and the forks of a repository, from this node's
    /// copy of the catalogue.
    pub fn family(&self, repo: &RepoRecord) -> (Option<RepoRecord>, Vec<RepoRecord>) {
        let found = self.inner.catalogue.with_meta(|meta| {
            let parent = repo.forked_from.and_then(|parent| meta.repo(&parent));
            let parent = parent.filter(|parent| parent.state == RepoState::Ready);
            (parent, meta.forks_of(&repo.repo).collect())
        });
        found.unwrap_or_default()
    }

    /// Fetches that hold a permit on this node: those that it answers, those that it forwards, and
    /// those that wait for an equal one.
    pub fn fetches_admitted(&self) -> usize {
        self.inner.fetches.held()
    }

    /// Statistics of the packs of the repository's fork network. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn stats(&self, path: &RepoPath) -> Result<RepoStats, ServiceError> {
        self.inner.maintenance(path, MaintainVerb::Stats).await
    }

    /// Queues a compaction of the repository's fork network at the leader of its shard. Returns at
    /// once, with the statistics before it; [`Repos::stats`] shows when it is done. A change of
    /// leader drops the request.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Unavailable`; `Throttled` when too many wait already.
    pub async fn compact(
        &self,
        principal: &Principal,
        path: &RepoPath,
        depth: CompactionDepth,
    ) -> Result<RepoStats, ServiceError> {
        allow(principal)?;
        let verb = MaintainVerb::Compact { depth };
        self.inner.maintenance(path, verb).await
    }

    /// Queues a check of the complete store of the repository's fork network at all replicas, or at
    /// those on these nodes. With `repair`, damaged packs are fetched again from other replicas.
    /// Returns at once; [`Repos::checks`] shows when the checks are done. A restart of a node drops
    /// its request.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`; `Invalid` for a node without a replica; `Throttled` when too many
    /// wait already.
    pub async fn start_check(
        &self,
        principal: &Principal,
        path: &RepoPath,
        nodes: &[NodeId],
        repair: bool,
    ) -> Result<RepoCheck, ServiceError> {
        allow(principal)?;
        self.inner
            .checks_of(path, nodes, Some(Start { repair }))
            .await
    }

    /// The state of the checks of the repository's stores, on all replicas or those on these nodes.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a node without a replica.
    pub async fn checks(
        &self,
        path: &RepoPath,
        nodes: &[NodeId],
    ) -> Result<RepoCheck, ServiceError> {
        self.inner.checks_of(path, nodes, None).await
    }

    /// Changes refs without bringing objects: every new value must be the value of a ref already,
    /// and a branch's new value that of a branch. One verdict per update, in order.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Invalid`; `Unavailable` or `Timeout` without a quorum.
    pub async fn update_refs(
        &self,
        principal: &Principal,
        path: &RepoPath,
        updates: Vec<RefUpdate>,
        atomic: bool,
    ) -> Result<Vec<RefVerdict>, ServiceError> {
        let principal = allow(principal)?;
        let atomicity = if atomic {
            ref_updates::Atomicity::AllOrNothing
        } else {
            ref_updates::Atomicity::EachByItself
        };
        self.inner
            .update_refs(principal, path, updates, atomicity)
            .await
    }
}

impl Inner {
    /// HEAD and refs, from this node or from another one.
    pub(crate) async fn refs(
        &self,
        path: &RepoPath,
        prefix: &str,
    ) -> Result<WireRefs, ServiceError> {
        let verb = ReadVerb::Refs {
            prefix: prefix.to_owned(),
        };
        match self
            .find_reader(Reader::Known, path, &verb, &Bytes::new())
            .await?
        {
            Found::Here(local) => Ok(wire_refs(&local, prefix)),
            Found::There(mut stream) => {
                let page = frames::read(&mut stream)
                    .await
                    .map_err(|error| broke_off(&error))?;
                // Nothing follows; reading the end lets the stream close.
                let mut rest = [0];
                if stream.read(&mut rest).await.is_err() {
                    tracing::debug!("a stream of refs was not closed");
                }
                Ok(page)
            }
        }
    }
}
