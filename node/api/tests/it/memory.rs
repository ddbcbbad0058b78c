//! A cluster in memory: one map of repositories, and injected faults.

mod limits;
mod maintenance;
mod mirrors;
mod references;
mod repositories;
mod status;

pub(crate) use mirrors::FULL_URL;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use henge_api::Answer;
use henge_git::http::ServiceError;
use henge_types::status::CompactionDepth;
use henge_types::{
    ErrorCode, GroupId, Mirror, ObjectId, PushCertificateRecord, PushRules, RefName, RefProtection,
    RepoId, RepoLimits, RepoPath, RepoRecord,
};

/// The creation time of every repository: 2026-01-02T03:04:05Z.
pub(crate) const CREATED_AT_MS: u64 = 1_767_323_045_000;
/// The time of the last change of every ref: a minute later.
pub(crate) const UPDATED_AT_MS: u64 = CREATED_AT_MS + 60_000;

/// The injected fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every call fails with this code.
    Fails(ErrorCode, Option<u32>),
    /// Only reading the refs of this repository fails.
    ShardLost(&'static str),
    /// Only queries of replicas' findings fail.
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

    /// Runs `answer` unless a fault is injected.
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

/// The shard of the repository whose id repeats this byte.
pub(crate) fn shard_of(id_byte: u8) -> GroupId {
    RepoId::from_bytes([id_byte; 16]).root_network().shard(8)
}
