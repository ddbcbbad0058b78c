//! The API's backend: this node's repositories and its part in the cluster.

use futures::future::BoxFuture;
use henge_api::{
    Answer, Home, Limits, Maintenance, Mirrors, NewRepo, PushCertificates, References, Refs,
    RepoEdit, Repositories, Status,
};
use henge_client::model::{MirrorEdit, NewMirror};
use henge_cluster::Cluster;
use henge_repos::{CreateOptions, MirrorAddress, Repos};
use henge_types::status::{ClusterStatus, CompactionDepth, NodeReport, RepoCheck, RepoStats};
use henge_types::tasks::NodeTasks;
use henge_types::{
    Mirror, MirrorChange, MirrorId, MirrorRemoval, MirrorSettings, NodeId, OwnerName, Principal,
    PushRules, RefName, RefPattern, RefProtection, RefUpdate, RefVerdict, RepoLimits, RepoPath,
    RepoRecord,
};

/// The implementation of [`Backend`](henge_api::Backend) in a node.
#[derive(Debug, Clone)]
pub(crate) struct NodeBackend {
    pub(crate) repos: Repos,
    pub(crate) cluster: Cluster,
}

impl Repositories for NodeBackend {
    fn create<'a>(
        &'a self,
        principal: &'a Principal,
        path: RepoPath,
        new: NewRepo,
    ) -> Answer<'a, RepoRecord> {
        let options = CreateOptions {
            default_branch: new.default_branch,
            private: new.private,
            description: new.description,
            object_format: new.object_format,
        };
        Box::pin(self.repos.create(principal, path, options))
    }

    fn fork<'a>(
        &'a self,
        principal: &'a Principal,
        parent: &'a RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Answer<'a, RepoRecord> {
        Box::pin(self.repos.fork(principal, parent, path, description))
    }

    fn get<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord> {
        Box::pin(self.repos.get(path))
    }

    fn get_public<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord> {
        Box::pin(self.repos.get_public(path))
    }

    fn edit<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        edit: RepoEdit,
    ) -> Answer<'a, RepoRecord> {
        let edit = henge_repos::RepoEdit {
            path: edit.path,
            description: edit.description,
            private: edit.private,
            archived: edit.archived,
            default_branch: edit.default_branch,
            topics: edit.topics,
        };
        Box::pin(self.repos.edit(principal, path, edit))
    }

    fn list<'a>(
        &'a self,
        owner: Option<&'a OwnerName>,
        after: Option<&'a RepoPath>,
        limit: usize,
    ) -> Answer<'a, Vec<RepoRecord>> {
        Box::pin(self.repos.list(owner, after, limit))
    }

    fn delete<'a>(&'a self, principal: &'a Principal, path: &'a RepoPath) -> Answer<'a, ()> {
        Box::pin(self.repos.delete(principal, path))
    }

    fn family(&self, repo: &RepoRecord) -> (Option<RepoRecord>, Vec<RepoRecord>) {
        self.repos.family(repo)
    }

    fn home(&self, repo: &RepoRecord) -> Home {
        let shard = repo.network.shard(self.cluster.shards());
        Home {
            shard,
            leader: self.cluster.leader_here(shard),
        }
    }
}

impl Limits for NodeBackend {
    fn limits<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoLimits> {
        Box::pin(self.repos.limits(path))
    }

    fn set_limits<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        limits: RepoLimits,
    ) -> Answer<'a, ()> {
        Box::pin(self.repos.set_limits(principal, path, limits))
    }

    fn push_rules<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, PushRules> {
        Box::pin(self.repos.push_rules(path))
    }

    fn set_push_rules<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        rules: PushRules,
    ) -> Answer<'a, ()> {
        Box::pin(self.repos.set_push_rules(principal, path, rules))
    }
}

impl References for NodeBackend {
    fn refs<'a>(&'a self, path: &'a RepoPath, prefix: &'a str) -> Answer<'a, Refs> {
        Box::pin(async move {
            let page = self.repos.refs(path, prefix).await?;
            Ok(Refs {
                head: page.head,
                refs: page.refs,
                updated_at_ms: page.updated_at_ms,
            })
        })
    }

    fn update_refs<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        updates: Vec<RefUpdate>,
        atomic: bool,
    ) -> Answer<'a, Vec<RefVerdict>> {
        Box::pin(self.repos.update_refs(principal, path, updates, atomic))
    }

    fn protections<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<RefProtection>> {
        Box::pin(self.repos.protections(path))
    }

    fn protect<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()> {
        Box::pin(self.repos.protect(principal, path, pattern))
    }

    fn unprotect<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()> {
        Box::pin(self.repos.unprotect(principal, path, pattern))
    }

    fn push_certificates<'a>(
        &'a self,
        path: &'a RepoPath,
        reference: Option<&'a RefName>,
        skip: usize,
        limit: usize,
    ) -> Answer<'a, PushCertificates> {
        Box::pin(async move {
            let repos = &self.repos;
            let page = repos
                .push_certificates(path, reference, skip, limit)
                .await?;
            Ok(PushCertificates {
                total: page.total,
                certificates: page.certificates,
            })
        })
    }
}

impl Maintenance for NodeBackend {
    fn stats<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoStats> {
        Box::pin(self.repos.stats(path))
    }

    fn compact<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        depth: CompactionDepth,
    ) -> Answer<'a, RepoStats> {
        Box::pin(self.repos.compact(principal, path, depth))
    }

    fn start_check<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        nodes: &'a [NodeId],
        repair: bool,
    ) -> Answer<'a, RepoCheck> {
        Box::pin(self.repos.start_check(principal, path, nodes, repair))
    }

    fn checks<'a>(&'a self, path: &'a RepoPath, nodes: &'a [NodeId]) -> Answer<'a, RepoCheck> {
        Box::pin(self.repos.checks(path, nodes))
    }
}

/// The removals that the first run of a mirror may make, from `replace` of a request.
const fn removal(replace: bool) -> MirrorRemoval {
    match replace {
        true => MirrorRemoval::Everything,
        false => MirrorRemoval::Nothing,
    }
}

const fn milliseconds(seconds: u64) -> u64 {
    seconds.saturating_mul(1000)
}

impl Mirrors for NodeBackend {
    fn mirrors<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<Mirror>> {
        Box::pin(self.repos.mirrors(path))
    }

    fn add_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        new: NewMirror,
    ) -> Answer<'a, MirrorId> {
        Box::pin(async move {
            let MirrorAddress { url, secret } =
                MirrorAddress::parse(&new.url, new.user, new.password)?;
            let settings = MirrorSettings {
                kind: new.kind,
                url,
                secret,
                interval_ms: milliseconds(new.interval_s),
                on_push: new.on_push,
            };
            let removal = removal(new.replace);
            self.repos
                .add_mirror(principal, path, settings, removal)
                .await
        })
    }

    fn edit_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        edit: MirrorEdit,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let (user, password) = (edit.user, edit.password);
            let (address, secret) = match &edit.url {
                Some(url) => (Some(MirrorAddress::parse(url, user, password)?), None),
                None => (None, MirrorAddress::secret_of(user, password)),
            };
            let edit = henge_repos::MirrorEdit {
                address,
                secret,
                interval_ms: edit.interval_s.map(milliseconds),
                on_push: edit.on_push,
                removal: removal(edit.replace),
            };
            self.repos.edit_mirror(principal, path, mirror, edit).await
        })
    }

    fn change_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        change: MirrorChange,
    ) -> Answer<'a, ()> {
        Box::pin(self.repos.change_mirror(principal, path, mirror, change))
    }
}

impl Status for NodeBackend {
    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        Box::pin(self.cluster.status())
    }

    fn report(&self) -> NodeReport {
        self.cluster.report()
    }

    fn tasks(&self) -> NodeTasks {
        NodeTasks {
            node: self.cluster.node(),
            leader_tasks: self.cluster.leader_tasks(),
        }
    }

    fn ready(&self) -> Result<(), String> {
        self.cluster.is_ready()
    }

    fn serving(&self) -> Result<(), String> {
        self.cluster.serving()
    }
}
