//! A cluster in memory: one map of repositories, and faults to order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use henge_api::{
    Answer, Backend, Home, MirrorEdit, NewMirror, NewRepo, PushCertificates, Refs, Replace,
    RepoEdit,
};
use henge_git::http::ServiceError;
use henge_types::status::{
    CheckOutcome, ClusterStatus, CompactionDepth, CompactionState, LastCompaction, NodeReport,
    NodeStatus, ReplicaCheck, RepoCheck, RepoStats,
};
use henge_types::tasks::{LeaderTaskReport, LeaderTaskState, NodeTasks};
use henge_types::{
    ClusterId, ErrorCode, Generation, GroupId, Incarnation, LogIndex, Mirror, MirrorChange,
    MirrorId, MirrorLast, MirrorOutcome, MirrorSecret, MirrorSettings, NodeId, ObjectId, OwnerName,
    PreviousValue, Principal, PushCertificateRecord, PushRules, RefName, RefPattern, RefProtection,
    RefRefusal, RefUpdate, RefVerdict, RepoId, RepoLimits, RepoPath, RepoRecord, RepoState,
    TopicsEdit,
};

/// When every repository was made: 2026-01-02T03:04:05Z.
pub(crate) const CREATED_AT_MS: u64 = 1_767_323_045_000;
/// When every ref was changed: a minute later.
pub(crate) const UPDATED_AT_MS: u64 = CREATED_AT_MS + 60_000;

/// What is wrong with the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every call fails so.
    Fails(ErrorCode, Option<u32>),
    /// Only reading the refs of this repository fails.
    ShardLost(&'static str),
    /// Only asking replicas what they found fails.
    ReplicasSilent,
    /// No call ever answers.
    Hangs,
    /// Every call panics.
    Panics,
}

#[derive(Debug, Clone)]
struct Repo {
    record: RepoRecord,
    mirrors: Vec<Mirror>,
    certificates: Vec<PushCertificateRecord>,
    refs: BTreeMap<RefName, ObjectId>,
    asked: Option<CompactionDepth>,
    limits: RepoLimits,
    push_rules: PushRules,
    protected: Vec<RefProtection>,
    /// Whether the last mirror that was made due may remove everything.
    forced: bool,
}

#[derive(Debug)]
pub(crate) struct Memory {
    repos: Mutex<BTreeMap<String, Repo>>,
    fault: Mutex<Fault>,
    created_by: Mutex<Vec<String>>,
}

/// Waits when it was asked for, and tells in its figures for what.
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

/// A mirror of this takes something.
pub(crate) const FULL_URL: &str = "https://example.org/full.git";

fn refuse_losses(url: &str, replace: Replace) -> Result<(), ServiceError> {
    match replace {
        Replace::Refused if url == FULL_URL => {
            let message = "1 of 2 refs would be deleted: refs/heads/mine";
            Err(ServiceError::new(ErrorCode::Conflict, message.to_owned()))
        }
        Replace::Refused | Replace::Agreed => Ok(()),
    }
}

fn no_such(path: &RepoPath) -> ServiceError {
    ServiceError::new(
        ErrorCode::NotFound,
        format!("there is no repository {path}"),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            repos: Mutex::new(BTreeMap::new()),
            fault: Mutex::new(Fault::None),
            created_by: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        *lock(&self.fault) = fault;
    }

    pub(crate) fn is_forced(&self, path: &str) -> bool {
        lock(&self.repos).get(path).expect("a repository").forced
    }

    pub(crate) fn created_by(&self) -> Vec<String> {
        lock(&self.created_by).clone()
    }

    pub(crate) fn add_certificate(&self, path: &str, record: PushCertificateRecord) {
        let mut repos = lock(&self.repos);
        let repo = repos.get_mut(path).expect("a repository");
        repo.certificates.push(record);
    }

    pub(crate) fn set_ref(&self, path: &str, name: &str, id: &str) {
        let path: RepoPath = path.parse().expect("a path");
        let mut repos = lock(&self.repos);
        let repo = repos.get_mut(&path.key()).expect("the repository exists");
        let name = name.parse().expect("a ref");
        repo.refs.insert(name, id.parse().expect("an object id"));
    }

    /// Runs `answer` unless a fault says otherwise.
    fn unless_broken<'a, T: Send + 'a>(
        &'a self,
        answer: impl FnOnce(&mut BTreeMap<String, Repo>) -> Result<T, ServiceError> + Send + 'a,
    ) -> Answer<'a, T> {
        async move {
            let fault = lock(&self.fault).clone();
            match fault {
                Fault::None | Fault::ShardLost(_) | Fault::ReplicasSilent => {
                    answer(&mut lock(&self.repos))
                }
                Fault::Fails(code, retry_after_s) => Err(ServiceError {
                    code,
                    message: "the cluster is broken".to_owned(),
                    retry_after_s,
                }),
                Fault::Hangs => std::future::pending().await,
                Fault::Panics => panic!("ordered by a test"),
            }
        }
        .boxed()
    }
}

fn verdict(refs: &BTreeMap<RefName, ObjectId>, update: &RefUpdate) -> RefVerdict {
    let current = refs.get(&update.name).copied();
    let result = match (update.expected, current) {
        (PreviousValue::Any, _)
        | (PreviousValue::MustNotExist, None)
        | (PreviousValue::MustExist, Some(_)) => Ok(()),
        (PreviousValue::MustNotExist, Some(current)) => Err(RefRefusal::Exists { current }),
        (PreviousValue::MustExist, None) => Err(RefRefusal::Missing),
        (PreviousValue::MustExistAndMatch(wanted), current) => match current {
            Some(current) if current == wanted => Ok(()),
            _ => Err(RefRefusal::Stale { current }),
        },
    };
    RefVerdict {
        name: update.name.clone(),
        old: current,
        result,
    }
}

impl Backend for Memory {
    fn create<'a>(
        &'a self,
        principal: &'a Principal,
        path: RepoPath,
        new: NewRepo,
    ) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            if repos.contains_key(&path.key()) {
                let text = format!("there is a repository {path} already");
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            lock(&self.created_by).push(principal.to_string());
            let count = u8::try_from(repos.len()).expect("few repositories");
            let repo = RepoId::from_bytes([count + 1; 16]);
            let main = RefName::branch("main").expect("a branch");
            let record = RepoRecord {
                repo,
                network: repo.root_network(),
                path: path.clone(),
                generation: Generation::new(1),
                state: RepoState::Ready,
                private: new.private,
                description: new.description,
                default_branch: new.default_branch.unwrap_or(main),
                created_at_ms: CREATED_AT_MS,
                updated_at_ms: CREATED_AT_MS,
                topics: Vec::new(),
                archived: false,
                object_format: new.object_format,
                forked_from: None,
                former_paths: Vec::new(),
            };
            let made = Repo {
                record: record.clone(),
                refs: BTreeMap::new(),
                asked: None,
                limits: RepoLimits::default(),
                push_rules: PushRules::default(),
                protected: Vec::new(),
                mirrors: Vec::new(),
                certificates: Vec::new(),
                forced: false,
            };
            repos.insert(path.key(), made);
            Ok(record)
        })
    }

    fn fork<'a>(
        &'a self,
        _: &'a Principal,
        parent: &'a RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let mut fork = repos
                .get(&parent.key())
                .ok_or_else(|| no_such(parent))?
                .clone();
            if repos.contains_key(&path.key()) {
                let text = format!("there is a repository {path} already");
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            let count = u8::try_from(repos.len()).expect("few repositories");
            fork.record.forked_from = Some(fork.record.repo);
            fork.record.repo = RepoId::from_bytes([count + 1; 16]);
            fork.record.path = path.clone();
            fork.record.description = description.unwrap_or(fork.record.description);
            let record = fork.record.clone();
            repos.insert(path.key(), fork);
            Ok(record)
        })
    }

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

    fn get<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.record.clone())
        })
    }

    fn get_public<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let record = repos.get(&path.key()).map(|repo| repo.record.clone());
            record.filter(|record| !record.private).ok_or_else(|| {
                ServiceError::new(ErrorCode::Unauthenticated, "log in first".to_owned())
            })
        })
    }

    fn edit<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        edit: RepoEdit,
    ) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let mut repo = repos.remove(&path.key()).ok_or_else(|| no_such(path))?;
            let record = &mut repo.record;
            let to = edit.path.unwrap_or_else(|| path.clone());
            if repos.contains_key(&to.key()) {
                repos.insert(path.key(), repo);
                let text = format!("there is a repository {to} already");
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            record.path = to.clone();
            record.description = edit
                .description
                .unwrap_or_else(|| record.description.clone());
            record.private = edit.private.unwrap_or(record.private);
            record.archived = edit.archived.unwrap_or(record.archived);
            record.default_branch = edit
                .default_branch
                .unwrap_or_else(|| record.default_branch.clone());
            match edit.topics {
                TopicsEdit::Keep => {}
                TopicsEdit::Set(topics) => record.topics = topics,
                TopicsEdit::Add(topic) => record.topics.push(topic),
                TopicsEdit::Remove(gone) => record.topics.retain(|topic| *topic != gone),
            }
            let record = record.clone();
            repos.insert(to.key(), repo);
            Ok(record)
        })
    }

    fn protections<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<RefProtection>> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.protected.clone())
        })
    }

    fn protect<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            if repo.protected.iter().any(|rule| rule.pattern == *pattern) {
                let text = "these refs are protected already".to_owned();
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            repo.protected.push(RefProtection {
                pattern: pattern.clone(),
                created_at_ms: CREATED_AT_MS,
            });
            Ok(())
        })
    }

    fn unprotect<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let before = repo.protected.len();
            repo.protected.retain(|rule| rule.pattern != *pattern);
            if repo.protected.len() == before {
                let text = "no refs are protected by this".to_owned();
                return Err(ServiceError::new(ErrorCode::NotFound, text));
            }
            Ok(())
        })
    }

    fn list<'a>(
        &'a self,
        owner: Option<&'a OwnerName>,
        after: Option<&'a RepoPath>,
        limit: usize,
    ) -> Answer<'a, Vec<RepoRecord>> {
        self.unless_broken(move |repos| {
            let after = after.map(RepoPath::key);
            let records = repos
                .iter()
                .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                .map(|(_, repo)| repo.record.clone())
                .filter(|record| owner.is_none_or(|owner| record.path.owner == *owner));
            Ok(records.take(limit).collect())
        })
    }

    fn delete<'a>(&'a self, _: &'a Principal, path: &'a RepoPath) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let gone = repos.remove(&path.key());
            gone.map(drop).ok_or_else(|| no_such(path))
        })
    }

    fn refs<'a>(&'a self, path: &'a RepoPath, prefix: &'a str) -> Answer<'a, Refs> {
        if let Fault::ShardLost(lost) = *lock(&self.fault)
            && path.to_string() == lost
        {
            let error =
                ServiceError::new(ErrorCode::Unavailable, "the shard has no leader".to_owned());
            return async move { Err(error) }.boxed();
        }
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            let refs = repo.refs.iter().map(|(name, tip)| (name.clone(), *tip));
            let below = refs.filter(|(name, _)| name.as_str().starts_with(prefix));
            let updated_at_ms = if repo.refs.is_empty() {
                0
            } else {
                UPDATED_AT_MS
            };
            Ok(Refs {
                head: repo.record.default_branch.clone(),
                refs: below.collect(),
                updated_at_ms,
            })
        })
    }

    fn stats<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoStats> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(stats_of(repo))
        })
    }

    fn push_certificates<'a>(
        &'a self,
        path: &'a RepoPath,
        reference: Option<&'a RefName>,
        skip: usize,
        limit: usize,
    ) -> Answer<'a, PushCertificates> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            let covers = |record: &&PushCertificateRecord| {
                let mut refs = record.refs.iter();
                reference.is_none_or(|name| refs.any(|found| found.certified.name == *name))
            };
            let found: Vec<_> = repo.certificates.iter().filter(covers).collect();
            let page = found.iter().rev().skip(skip).take(limit);
            Ok(PushCertificates {
                total: u64::try_from(found.len()).expect("few"),
                certificates: page.map(|record| (*record).clone()).collect(),
            })
        })
    }

    fn mirrors<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<Mirror>> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.mirrors.clone())
        })
    }

    /// The first one that is made has failed already, the others never ran.
    fn add_mirror<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        new: NewMirror,
    ) -> Answer<'a, MirrorId> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            refuse_losses(&new.url, new.replace)?;
            let first = repo.mirrors.is_empty();
            let id = MirrorId::from_bytes([u8::try_from(repo.mirrors.len()).expect("few"); 16]);
            repo.mirrors.push(Mirror {
                id,
                repo: repo.record.repo,
                settings: MirrorSettings {
                    kind: new.kind,
                    url: new.url,
                    secret: new.password.map(|password| MirrorSecret {
                        user: new.user.unwrap_or_default(),
                        password,
                    }),
                    interval_ms: new.interval_ms,
                    on_push: new.on_push,
                },
                made_ms: CREATED_AT_MS,
                next_due_ms: UPDATED_AT_MS,
                fence: LogIndex::new(1),
                run: None,
                failures: u32::from(first),
                last: first.then(|| MirrorLast {
                    scheduled_at_ms: CREATED_AT_MS,
                    ended_ms: CREATED_AT_MS,
                    outcome: MirrorOutcome::Failed {
                        why: "nobody answers".to_owned(),
                    },
                }),
            });
            Ok(id)
        })
    }

    fn edit_mirror<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        edit: MirrorEdit,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let known = repo.mirrors.iter_mut().find(|known| known.id == mirror);
            let settings = &mut known.ok_or_else(|| no_such(path))?.settings;
            refuse_losses(edit.url.as_deref().unwrap_or_default(), edit.replace)?;
            let secret = edit.password.map(|password| MirrorSecret {
                user: edit.user.unwrap_or_default(),
                password,
            });
            if secret.is_some() || edit.url.is_some() {
                settings.secret = secret;
            }
            settings.url = edit.url.unwrap_or_else(|| settings.url.clone());
            settings.interval_ms = edit.interval_ms.unwrap_or(settings.interval_ms);
            settings.on_push = edit.on_push.unwrap_or(settings.on_push);
            Ok(())
        })
    }

    fn change_mirror<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        change: MirrorChange,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let known = repo.mirrors.iter_mut().find(|known| known.id == mirror);
            let known = known.ok_or_else(|| no_such(path))?;
            match change {
                MirrorChange::Due => {
                    known.next_due_ms = CREATED_AT_MS;
                    repo.forced = false;
                }
                MirrorChange::DueWhateverItRemoves => {
                    known.next_due_ms = CREATED_AT_MS;
                    repo.forced = true;
                }
                MirrorChange::Remove => repo.mirrors.retain(|known| known.id != mirror),
            }
            Ok(())
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

    fn update_refs<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        updates: Vec<RefUpdate>,
        atomic: bool,
    ) -> Answer<'a, Vec<RefVerdict>> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let verdicts = updates.iter().map(|update| verdict(&repo.refs, update));
            let mut verdicts: Vec<_> = verdicts.collect();
            if atomic && verdicts.iter().any(|verdict| verdict.result.is_err()) {
                let accepted = verdicts.iter_mut().filter(|verdict| verdict.result.is_ok());
                for verdict in accepted {
                    verdict.result = Err(RefRefusal::AtomicAborted);
                }
            }
            for (update, verdict) in updates.iter().zip(&verdicts) {
                match (&verdict.result, update.new) {
                    (Ok(()), Some(new)) => drop(repo.refs.insert(update.name.clone(), new)),
                    (Ok(()), None) => drop(repo.refs.remove(&update.name)),
                    (Err(_), _) => {}
                }
            }
            Ok(verdicts)
        })
    }

    fn family(&self, repo: &RepoRecord) -> (Option<RepoRecord>, Vec<RepoRecord>) {
        let repos = lock(&self.repos);
        let records = repos.values().map(|known| &known.record);
        let forks = records
            .clone()
            .filter(|known| known.forked_from == Some(repo.repo));
        let parent = records
            .clone()
            .find(|known| Some(known.repo) == repo.forked_from);
        (parent.cloned(), forks.cloned().collect())
    }

    fn home(&self, repo: &RepoRecord) -> Home {
        Home {
            shard: repo.network.shard(8),
            leader: Some(NodeId::new(2)),
        }
    }

    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        let report = self.report();
        async move {
            ClusterStatus {
                cluster_id: ClusterId::from_bytes([0xcc; 16]),
                asked: NodeId::new(1),
                healthy: true,
                shards: 8,
                nodes: vec![NodeStatus {
                    node: NodeId::new(1),
                    incarnation: Incarnation::from_bytes([0x11; 16]),
                    http: "127.0.0.1:7401".to_owned(),
                    rpc: "127.0.0.1:7441".to_owned(),
                    report: Some(report),
                }],
                placements: Vec::new(),
            }
        }
        .boxed()
    }

    fn report(&self) -> NodeReport {
        NodeReport {
            version: "1.2.3".to_owned(),
            level: 3,
            uptime_ms: 5,
            low_space: false,
            not_ready: None,
            starting: false,
            now_ms: 7,
            clock: None,
            replicas: Vec::new(),
            conditions: Vec::new(),
            conditions_left_out: 0,
        }
    }

    fn tasks(&self) -> NodeTasks {
        NodeTasks {
            node: NodeId::new(1),
            leader_tasks: vec![LeaderTaskReport {
                name: "compaction".to_owned(),
                group: GroupId::new(3),
                term: 7,
                steps: 12,
                state: LeaderTaskState::Waiting {
                    within_ms: None,
                    for_entry: true,
                },
                state_ms: 1_500,
            }],
        }
    }

    fn ready(&self) -> Result<(), String> {
        let fault = lock(&self.fault);
        if *fault == Fault::None {
            return Ok(());
        }
        Err(format!("not serving: {fault:?}"))
    }
}

/// The shard of the repository whose id repeats this byte.
pub(crate) fn shard_of(id_byte: u8) -> GroupId {
    RepoId::from_bytes([id_byte; 16]).root_network().shard(8)
}
