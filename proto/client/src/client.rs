//! The calls, and which address is asked when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use henge_types::status::ClusterStatus;
use henge_types::tasks::NodeTasks;
use henge_types::{ErrorCode, OwnerName, PushRules, RepoLimits, RepoPath, limits};
use http::{HeaderValue, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::{Address, InvalidAddress};
use crate::error::{Attempt, ClientError, code_of_status};
use crate::model::{
    Branch, ErrorBody, Fork, NewRepo, RefChange, RefChanges, RefResult, RefResults, RepoInfo,
    RepoPage, Version,
};
use crate::secret::Secret;
use crate::transport::{Answer, Call, Failure, Transport};

mod certificates;
mod mirrors;
mod packs;
mod settings;

/// An answer that is about one thing.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// An answer that lists things.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a call waits, per address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the connection.
    pub connect: Duration,
    /// For the whole answer, connection included.
    pub answer: Duration,
    /// For the answer to [`Client::cluster`]: nodes answer it without waiting for a quorum.
    pub status: Duration,
}

impl Default for Deadlines {
    /// Longer than a node waits for a quorum before it says that there is none.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            answer: Duration::from_millis(limits::QUORUM_WAIT_MS + 4_000),
            status: Duration::from_secs(4),
        }
    }
}

/// What a node says of its readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It answers, and says why it does not serve yet.
    NotYet(String),
    /// It does not answer.
    Silent(String),
}

/// Whether a call may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
}

/// A cluster, by the addresses of some of its nodes. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct Client {
    addresses: Arc<[Address]>,
    /// The address that answered last: asked first the next time.
    preferred: Arc<AtomicUsize>,
    token: Option<Secret>,
    deadlines: Deadlines,
    transport: Transport,
}

impl Client {
    /// A client that asks these addresses in turn.
    ///
    /// # Errors
    /// When there is no address, or one of them is not `http://HOST:PORT`.
    pub fn new(base_urls: &[String], token: Option<Secret>) -> Result<Self, InvalidAddress> {
        let addresses = Address::parse_list(&base_urls.join(","))?;
        Ok(Self::with_deadlines(addresses, token, Deadlines::default()))
    }

    /// The same with other deadlines than the default ones. At least one address must be given: with
    /// none every call fails as unreachable.
    pub fn with_deadlines(
        addresses: Vec<Address>,
        token: Option<Secret>,
        deadlines: Deadlines,
    ) -> Self {
        Self {
            addresses: addresses.into(),
            preferred: Arc::new(AtomicUsize::new(0)),
            token,
            deadlines,
            transport: Transport::new(deadlines.connect),
        }
    }

    /// The addresses, in the order given.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The release of the node that answers.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn version(&self) -> Result<String, ClientError> {
        let call = get("/api/v1/version".to_owned(), ANSWER_BYTES_MAX);
        let version: Version = self.json(&call, Effect::Reads).await?;
        Ok(version.version)
    }

    /// Creates a repository.
    ///
    /// # Errors
    /// `already_exists`; `timeout` means that it may have been created.
    pub async fn create_repo(&self, repo: &NewRepo) -> Result<RepoInfo, ClientError> {
        let call = post("/api/henge/v1/repos".to_owned(), repo);
        self.json(&call, Effect::Changes).await
    }

    /// A repository and where it lives.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn get_repo(&self, path: &RepoPath) -> Result<RepoInfo, ClientError> {
        let call = get(format!("/api/henge/v1/repos/{path}"), ANSWER_BYTES_MAX);
        self.json(&call, Effect::Reads).await
    }

    /// Repositories in the order of their lower-case paths, at most `limit`, from the one after `after`.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_repos(
        &self,
        owner: Option<&OwnerName>,
        after: Option<&RepoPath>,
        limit: usize,
    ) -> Result<Vec<RepoInfo>, ClientError> {
        let mut path = format!("/api/henge/v1/repos?limit={limit}");
        if let Some(owner) = owner {
            path.push_str(&format!("&owner={owner}"));
        }
        if let Some(after) = after {
            path.push_str(&format!("&after={after}"));
        }
        let page: RepoPage = self.json(&get(path, LIST_BYTES_MAX), Effect::Reads).await?;
        Ok(page.repositories)
    }

    /// Deletes a repository.
    ///
    /// # Errors
    /// `not_found`; `timeout` means that it may have been deleted.
    pub async fn delete_repo(&self, path: &RepoPath) -> Result<(), ClientError> {
        let call = Call {
            method: Method::DELETE,
            path: format!("/api/v1/repos/{path}"),
            body: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Makes a repository of another one: with its refs, on the same objects.
    ///
    /// # Errors
    /// `not_found`, `already_exists`, and as every call; `timeout` means that it may have been made.
    pub async fn fork_repo(&self, parent: &RepoPath, path: &RepoPath) -> Result<(), ClientError> {
        let body = Fork {
            organization: &path.owner,
            name: &path.name,
        };
        let call = post(format!("/api/v1/repos/{parent}/forks"), &body);
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// What a repository may hold beyond the product's own bounds.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn repo_limits(&self, path: &RepoPath) -> Result<RepoLimits, ClientError> {
        let call = get(
            format!("/api/henge/v1/repos/{path}/limits"),
            ANSWER_BYTES_MAX,
        );
        self.json(&call, Effect::Reads).await
    }

    /// Sets what a repository may hold.
    ///
    /// # Errors
    /// `not_found`, and as every call. Asking again does no harm.
    pub async fn set_repo_limits(
        &self,
        path: &RepoPath,
        limits: &RepoLimits,
    ) -> Result<RepoLimits, ClientError> {
        let mut call = post(format!("/api/henge/v1/repos/{path}/limits"), limits);
        call.method = Method::PUT;
        self.json(&call, Effect::Reads).await
    }

    /// What is asked of pushes to a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn push_rules(&self, path: &RepoPath) -> Result<PushRules, ClientError> {
        let call = get(
            format!("/api/henge/v1/repos/{path}/push-rules"),
            ANSWER_BYTES_MAX,
        );
        self.json(&call, Effect::Reads).await
    }

    /// Sets what is asked of pushes to a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call. Asking again does no harm.
    pub async fn set_push_rules(
        &self,
        path: &RepoPath,
        rules: &PushRules,
    ) -> Result<PushRules, ClientError> {
        let mut call = post(format!("/api/henge/v1/repos/{path}/push-rules"), rules);
        call.method = Method::PUT;
        self.json(&call, Effect::Reads).await
    }

    /// The branches of a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn branches(&self, path: &RepoPath) -> Result<Vec<Branch>, ClientError> {
        let call = get(format!("/api/v1/repos/{path}/branches"), LIST_BYTES_MAX);
        self.json(&call, Effect::Reads).await
    }

    /// Changes refs to objects that the repository already reaches; answers one verdict per change.
    ///
    /// # Errors
    /// As every call; `timeout` means that the changes may have been made.
    pub async fn update_refs(
        &self,
        path: &RepoPath,
        updates: &[RefChange],
        atomic: bool,
    ) -> Result<Vec<RefResult>, ClientError> {
        let body = RefChanges { updates, atomic };
        let mut call = post(format!("/api/henge/v1/repos/{path}/refs"), &body);
        call.answer_bytes_max = LIST_BYTES_MAX;
        let results: RefResults = self.json(&call, Effect::Changes).await?;
        Ok(results.results)
    }

    /// The cluster, as the first node that answers sees it.
    ///
    /// # Errors
    /// As every call.
    pub async fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        let call = get("/api/henge/v1/cluster".to_owned(), LIST_BYTES_MAX);
        let (address, answer) = self
            .ask_within(&call, Effect::Reads, self.deadlines.status)
            .await?;
        decode(&address, &answer.body)
    }

    /// What the first node that answers does in the background.
    ///
    /// # Errors
    /// As every call.
    pub async fn tasks(&self) -> Result<NodeTasks, ClientError> {
        let call = get("/api/henge/v1/node/tasks".to_owned(), LIST_BYTES_MAX);
        let (address, answer) = self
            .ask_within(&call, Effect::Reads, self.deadlines.status)
            .await?;
        decode(&address, &answer.body)
    }

    /// Asks one node whether it serves. Never fails: a node that does not answer is one of the answers.
    pub async fn readiness(&self, address: &Address) -> Readiness {
        let call = get("/readyz".to_owned(), ANSWER_BYTES_MAX);
        let within = self.deadlines.status;
        match self.transport.send(address, &call, None, within).await {
            Ok(answer) if answer.status.is_success() => Readiness::Ready,
            Ok(answer) => Readiness::NotYet(
                String::from_utf8_lossy(&answer.body)
                    .trim()
                    .chars()
                    .take(300)
                    .collect(),
            ),
            Err(Failure::Connect(reason) | Failure::Broken(reason)) => Readiness::Silent(reason),
            Err(Failure::Timeout) => Readiness::Silent("no answer in time".to_owned()),
            Err(Failure::TooLong) => Readiness::Silent("the answer is too long".to_owned()),
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        call: &Call,
        effect: Effect,
    ) -> Result<T, ClientError> {
        let (address, answer) = self.ask(call, effect).await?;
        decode(&address, &answer.body)
    }

    async fn ask(&self, call: &Call, effect: Effect) -> Result<(Address, Answer), ClientError> {
        self.ask_within(call, effect, self.deadlines.answer).await
    }

    /// Asks the addresses in turn, from the one that answered last, until one gives an answer that
    /// another one would not better.
    async fn ask_within(
        &self,
        call: &Call,
        effect: Effect,
        within: Duration,
    ) -> Result<(Address, Answer), ClientError> {
        let authorization = self.authorization()?;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut unreachable = Vec::new();
        let mut failed = None;
        for step in 0..self.addresses.len() {
            let place = (first + step) % self.addresses.len();
            let Some(address) = self.addresses.get(place) else {
                continue;
            };
            let sent = self
                .transport
                .send(address, call, authorization.as_ref(), within);
            let (error, go_on) = match sent.await {
                Ok(answer) if answer.status.is_success() => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Ok((address.clone(), answer));
                }
                Ok(answer) => refusal(address, &answer, effect),
                Err(Failure::Connect(reason)) => {
                    unreachable.push(Attempt {
                        address: address.clone(),
                        reason,
                    });
                    continue;
                }
                Err(failure) => broken(address, call, failure, effect, within),
            };
            if !go_on {
                return Err(error);
            }
            failed = Some(error);
        }
        Err(failed.unwrap_or(ClientError::Unreachable {
            attempts: unreachable,
        }))
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
            .map_err(|_| ClientError::Token)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The error that an answer stands for, and whether the next address may be asked: a read after every
/// `unavailable`, a change only where a node itself said it, which means that nothing was done.
fn refusal(address: &Address, answer: &Answer, effect: Effect) -> (ClientError, bool) {
    let body: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_default();
    let status = answer.status.as_u16();
    let code = body.code.unwrap_or_else(|| code_of_status(status));
    let said_unavailable = body.code == Some(ErrorCode::Unavailable);
    let go_on = said_unavailable || (effect == Effect::Reads && code == ErrorCode::Unavailable);
    let message = if body.message.is_empty() {
        format!("{address} answered with HTTP status {status}")
    } else {
        body.message
    };
    let error = ClientError::Refused {
        address: address.clone(),
        code,
        status,
        message,
        retry_after_s: answer.retry_after_s,
    };
    (error, go_on)
}

fn broken(
    address: &Address,
    call: &Call,
    failure: Failure,
    effect: Effect,
    waited: Duration,
) -> (ClientError, bool) {
    let address = address.clone();
    let reads = effect == Effect::Reads;
    match failure {
        Failure::Connect(reason) | Failure::Broken(reason) => {
            let error = ClientError::Broken {
                attempt: Attempt { address, reason },
                changes: !reads,
            };
            (error, reads)
        }
        Failure::Timeout => (ClientError::Timeout { address, waited }, reads),
        Failure::TooLong => {
            let bytes_max = call.answer_bytes_max;
            (ClientError::TooLong { address, bytes_max }, false)
        }
    }
}

fn decode<T: DeserializeOwned>(address: &Address, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Malformed {
        address: address.clone(),
        detail: error.to_string(),
    })
}

fn get(path: String, answer_bytes_max: usize) -> Call {
    Call {
        method: Method::GET,
        path,
        body: None,
        answer_bytes_max,
    }
}

fn post(path: String, body: &impl Serialize) -> Call {
    let body = serde_json::to_vec(body).expect("invariant: the request bodies have string keys");
    Call {
        method: Method::POST,
        path,
        body: Some(Bytes::from(body)),
        answer_bytes_max: ANSWER_BYTES_MAX,
    }
}
