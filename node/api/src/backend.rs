//! What the API asks of the cluster.

use futures::future::BoxFuture;
use henge_git::http::ServiceError;
use henge_types::status::{ClusterStatus, CompactionDepth, NodeReport, RepoCheck, RepoStats};
use henge_types::tasks::NodeTasks;
use henge_types::{
    GroupId, Mirror, MirrorChange, MirrorId, MirrorKind, MirrorRemoval, NodeId, ObjectFormat,
    ObjectId, OwnerName, Principal, PushCertificateRecord, PushRules, RefName, RefPattern,
    RefProtection, RefUpdate, RefVerdict, RepoLimits, RepoPath, RepoRecord, TopicsEdit,
};

/// What a repository starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRepo {
    /// What HEAD points at; the cluster's own choice when `None`.
    pub default_branch: Option<RefName>,
    /// Whether only its owner sees it; else everybody reads it without a token.
    pub private: bool,
    /// One line about it.
    pub description: String,
    /// The hash that its objects are named by.
    pub object_format: ObjectFormat,
}

/// Changes of a repository; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepoEdit {
    /// Its owner and name. The former ones go on leading to it until somebody takes them.
    pub path: Option<RepoPath>,
    /// One line about it.
    pub description: Option<String>,
    /// Whether only its owner sees it.
    pub private: Option<bool>,
    /// Whether it is read-only.
    pub archived: Option<bool>,
    /// What HEAD points at.
    pub default_branch: Option<RefName>,
    /// What it is about.
    pub topics: TopicsEdit,
}

/// A mirror to make.
#[derive(Clone, PartialEq, Eq)]
pub struct NewMirror {
    /// Which way.
    pub kind: MirrorKind,
    /// The other repository; credentials in it are taken out.
    pub url: String,
    /// The user to ask as.
    pub user: Option<String>,
    /// The password or token.
    pub password: Option<String>,
    /// From one firing to the next, milliseconds.
    pub interval_ms: u64,
    /// Whether it is due whenever a ref changed; only for one that pushes.
    pub on_push: bool,
    /// Whether its first run may take something from the side that it writes to.
    pub replace: Replace,
}

/// Whether somebody agreed that a mirror takes from one side what the other one does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replace {
    /// Nobody did: it is refused.
    #[default]
    Refused,
    /// It may.
    Agreed,
}

impl Replace {
    /// As `replace` and `force` of a request say it.
    pub const fn said(agreed: bool) -> Self {
        match agreed {
            true => Self::Agreed,
            false => Self::Refused,
        }
    }

    /// What runs may remove.
    pub const fn removal(self) -> MirrorRemoval {
        match self {
            Self::Refused => MirrorRemoval::Nothing,
            Self::Agreed => MirrorRemoval::Everything,
        }
    }
}

/// Changes of a mirror; what is `None` stays. A new URL comes with its own credentials, or none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MirrorEdit {
    /// The other repository; credentials in it are taken out.
    pub url: Option<String>,
    /// The user to ask as.
    pub user: Option<String>,
    /// The password or token.
    pub password: Option<String>,
    /// From one firing to the next, milliseconds.
    pub interval_ms: Option<u64>,
    /// Whether it is due whenever a ref changed.
    pub on_push: Option<bool>,
    /// Whether the first run at a new URL may take something from the side that it writes to.
    pub replace: Replace,
}

/// Shows nothing that may be secret, the URL included.
impl std::fmt::Debug for MirrorEdit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MirrorEdit")
            .field("interval_ms", &self.interval_ms)
            .field("on_push", &self.on_push)
            .finish_non_exhaustive()
    }
}

/// Shows nothing that may be secret, the URL included.
impl std::fmt::Debug for NewMirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewMirror")
            .field("kind", &self.kind)
            .field("interval_ms", &self.interval_ms)
            .finish_non_exhaustive()
    }
}

/// Refs of a repository, read at one point in time that is not before the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refs {
    /// What HEAD points at; it need not exist.
    pub head: RefName,
    /// The refs below the prefix asked for, by name.
    pub refs: Vec<(RefName, ObjectId)>,
    /// When a ref was last changed, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// Push certificates of a repository, read at one point in time that is not before the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushCertificates {
    /// How many there are of what was asked for.
    pub total: u64,
    /// A page of them, the newest first.
    pub certificates: Vec<PushCertificateRecord>,
}

/// Where a repository lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The group that owns it.
    pub shard: GroupId,
    /// The group's leader, as far as this node knows it.
    pub leader: Option<NodeId>,
}

/// A future answer of a [`Backend`].
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ServiceError>>;

/// What the API asks of the cluster: repositories, and the cluster's own state.
///
/// Every method has its own deadline and answers `unavailable` when there is no quorum in time.
pub trait Backend: Send + Sync + 'static {
    /// Creates a repository for `principal`. Errors: `already_exists`, `invalid`, `unavailable`, `timeout`.
    fn create<'a>(
        &'a self,
        principal: &'a Principal,
        path: RepoPath,
        new: NewRepo,
    ) -> Answer<'a, RepoRecord>;

    /// Makes a repository of another one, for `principal`. Errors: `not_found` for the parent, and as `create`.
    fn fork<'a>(
        &'a self,
        principal: &'a Principal,
        parent: &'a RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Answer<'a, RepoRecord>;

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

    /// A repository that is ready. Errors: `not_found`, `unavailable`.
    fn get<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord>;

    /// The same for somebody without a token: one that everybody may read. Errors: `unauthenticated` whether it is
    /// private or not there; `unavailable`.
    fn get_public<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord>;

    /// Changes a repository, all or nothing. Errors: `not_found`, `already_exists`, `invalid`, `unavailable`, `timeout`.
    fn edit<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        edit: RepoEdit,
    ) -> Answer<'a, RepoRecord>;

    /// The protected refs of a repository, by pattern; linearizable. Errors: `not_found`, `unavailable`.
    fn protections<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<RefProtection>>;

    /// Protects refs from deletion and from losing history. Errors: `not_found`, `already_exists`, `invalid`,
    /// `unavailable`, `timeout`.
    fn protect<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()>;

    /// The opposite; the pattern as it was set. Errors: `not_found`, `unavailable`, `timeout`.
    fn unprotect<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()>;

    /// Ready repositories in the order of [`RepoPath::key`], at most `limit`, from the one after `after`.
    fn list<'a>(
        &'a self,
        owner: Option<&'a OwnerName>,
        after: Option<&'a RepoPath>,
        limit: usize,
    ) -> Answer<'a, Vec<RepoRecord>>;

    /// Deletes a repository. Errors: `not_found`, `unavailable`, `timeout`.
    fn delete<'a>(&'a self, principal: &'a Principal, path: &'a RepoPath) -> Answer<'a, ()>;

    /// The refs whose names start with `prefix`; linearizable. Errors: `not_found`, `unavailable`.
    fn refs<'a>(&'a self, path: &'a RepoPath, prefix: &'a str) -> Answer<'a, Refs>;

    /// The push certificates that a repository keeps, of one ref or of all: at most `limit` behind the newest `skip`;
    /// linearizable. Errors: `not_found`, `unavailable`.
    fn push_certificates<'a>(
        &'a self,
        path: &'a RepoPath,
        reference: Option<&'a RefName>,
        skip: usize,
        limit: usize,
    ) -> Answer<'a, PushCertificates>;

    /// Changes refs to objects that are reachable already; one verdict per update, in their order.
    /// Errors: `not_found`, `invalid`, `unavailable`, `timeout`.
    fn update_refs<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        updates: Vec<RefUpdate>,
        atomic: bool,
    ) -> Answer<'a, Vec<RefVerdict>>;

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
    /// The mirrors of a repository, without passwords; linearizable. Errors: `not_found`, `unavailable`.
    fn mirrors<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<Mirror>>;

    /// Makes a mirror, which is due at once. Errors: `not_found`, `forbidden`, `invalid`, `conflict`, `unavailable`,
    /// `timeout`.
    fn add_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        new: NewMirror,
    ) -> Answer<'a, MirrorId>;

    /// Changes what a mirror is told, and makes it due. Errors: `not_found`, `forbidden`, `invalid`, `unavailable`,
    /// `timeout`.
    fn edit_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        edit: MirrorEdit,
    ) -> Answer<'a, ()>;

    /// Removes a mirror or makes it due. Errors: `not_found`, `forbidden`, `unavailable`, `timeout`.
    fn change_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        change: MirrorChange,
    ) -> Answer<'a, ()>;

    /// What a fork was made of, if that serves, and the forks made of a repository, from local memory.
    fn family(&self, repo: &RepoRecord) -> (Option<RepoRecord>, Vec<RepoRecord>);

    /// Where a repository lives, from local memory.
    fn home(&self, repo: &RepoRecord) -> Home;

    /// The cluster, as far as its members answer in about a second; needs no quorum.
    fn status(&self) -> BoxFuture<'_, ClusterStatus>;

    /// What this node says of itself.
    fn report(&self) -> NodeReport;

    /// What this node does in the background.
    fn tasks(&self) -> NodeTasks;

    /// Whether this node serves; else why not.
    ///
    /// # Errors
    /// The reason, for a person.
    fn ready(&self) -> Result<(), String>;

    /// Whether the node may serve clients at all: its start is registered with the cluster.
    ///
    /// # Errors
    /// The reason, for a person.
    fn serving(&self) -> Result<(), String> {
        Ok(())
    }
}
