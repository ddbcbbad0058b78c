//! The commit of a checked push at the leader: packs durable on a quorum if they are large, then
//! one entry.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use henge_cluster::{Handling, ProposeError};
use henge_git::{CommitError, Nonces, PushPolicy, QuarantinedPack, RefStore, VerifiedPush};
use henge_runtime::failpoint;
use henge_types::{
    Command, ErrorCode, InlinePack, LogIndex, NetworkId, NotAccepted, ObjectFormat, ObjectId,
    PackRef, Principal, RefName, RefRefusal, RefVerdict, Refusal, Reply, ShardCommand,
    SignedUpdate, UpdateRefs, limits,
};
use tokio::runtime::Handle;

use crate::frames::{Claim, PushAnswer, PushRequest, StageRequest};
use crate::metrics::PackPath;
use crate::push::replicate::{NotDurable, make_durable, release};
use crate::refs::StateRefs;
use crate::repos::Inner;
use crate::staging::{KeepError, Trust};

/// How long an entry may take to be applied before the outcome of the push is unknown.
const PROPOSE_WAIT: Duration = Duration::from_secs(5);

/// Commits one push. On failure it keeps the answer for the receiving node.
#[derive(Debug)]
pub(crate) struct Commit {
    inner: Arc<Inner>,
    request: PushRequest,
    network: NetworkId,
    term: u64,
    checked_at: LogIndex,
    /// Handling of the request, since before the lookup of its record.
    _handling: Handling,
}

/// The answer to the receiving node for a push that was not committed.
type Failure = Box<PushAnswer>;

impl Commit {
    /// A commit by the leader of `term`, checked against the state at `checked_at`.
    pub(crate) fn new(
        inner: Arc<Inner>,
        request: PushRequest,
        network: NetworkId,
        term: u64,
        (checked_at, handling): (LogIndex, Handling),
    ) -> Self {
        Self {
            inner,
            request,
            network,
            term,
            checked_at,
            _handling: handling,
        }
    }

    async fn run(&self, push: VerifiedPush<'_>) -> (PackPath, Result<Vec<RefVerdict>, Failure>) {
        match push.pack.clone() {
            None => (PackPath::None, self.propose(push, None).await),
            Some(pack) if is_small(&pack) => match inline(&pack).await {
                Ok(inline) => (PackPath::Inline, self.propose(push, Some(inline)).await),
                Err(error) => (PackPath::Inline, Err(self.disk(&error).await)),
            },
            Some(pack) => (PackPath::Staged, self.staged(push, &pack).await),
        }
    }

    /// The pack is durable on a quorum before the entry names it.
    async fn staged(
        &self,
        push: VerifiedPush<'_>,
        pack: &QuarantinedPack,
    ) -> Result<Vec<RefVerdict>, Failure> {
        let stage = self.stage_request(pack);
        let (effects, own, quarantined) =
            (Arc::clone(&self.inner.effects), stage.clone(), pack.clone());
        let staged = self.inner.work_of_replica.blocking("stage", move || {
            let files = (
                quarantined.pack_path.as_path(),
                quarantined.idx_path.as_path(),
            );
            effects.staging().keep(&own, files, Trust::Made)
        });
        match staged.await {
            Ok(Ok(())) => {}
            Ok(Err(error @ KeepError::Busy)) => {
                return Err(Box::new(PushAnswer::Again(error.to_string())));
            }
            Ok(Err(error)) => return Err(self.disk(&io::Error::other(error)).await),
            Err(error) => return Err(self.disk(&error).await),
        }
        if let Err(not_durable) = make_durable(&self.inner, &stage).await {
            release(&self.inner, &stage);
            return Err(Box::new(match not_durable {
                NotDurable::NotLeader => PushAnswer::NotLeader(None),
                NotDurable::NoQuorum { why } => PushAnswer::Again(why),
            }));
        }
        failpoint::hit("push.durable");
        let proposed = self.propose(push, Some(by_reference(pack))).await;
        let named = match &proposed {
            Ok(verdicts) => {
                let full = |result: &_| matches!(result, Err(RefRefusal::PacksFull { .. }));
                verdicts.iter().any(|verdict| verdict.result.is_ok())
                    && !verdicts.iter().any(|verdict| full(&verdict.result))
            }
            // An entry may name it yet: the claim ends with the term.
            Err(answer) => matches!(**answer, PushAnswer::InDoubt(_)),
        };
        if !named {
            release(&self.inner, &stage);
        }
        proposed
    }

    fn stage_request(&self, pack: &QuarantinedPack) -> StageRequest {
        StageRequest {
            network: self.network,
            pack: pack.id,
            pack_bytes: pack.pack_bytes,
            idx_bytes: pack.idx_bytes,
            claim: Claim {
                group: self.request.group,
                term: self.term,
                request: self.request.request,
            },
        }
    }

    async fn propose(
        &self,
        push: VerifiedPush<'_>,
        pack: Option<PackRef>,
    ) -> Result<Vec<RefVerdict>, Failure> {
        let group = self.request.group;
        let leads = self.inner.cluster.leadership(group);
        if leads.is_none_or(|leadership| leadership.term != self.term) {
            return Err(Box::new(PushAnswer::NotLeader(None)));
        }
        let certificate = push.certificate;
        let push = UpdateRefs {
            repo: self.request.repo,
            generation: self.request.generation,
            packs: pack.into_iter().collect(),
            updates: push.updates,
            atomic: push.atomic,
            pusher: self.request.principal.to_string(),
            options: push.options,
            checked_at: self.checked_at,
        };
        let command = Command::Shard(match certificate {
            None => ShardCommand::UpdateRefs(push),
            Some(certificate) => ShardCommand::UpdateSignedRefs(SignedUpdate { push, certificate }),
        });
        let cluster = &self.inner.cluster;
        let renewed = cluster.renew(group, self.term, self.request.binding());
        let request = Some(renewed.request.clone());
        let proposed = cluster
            .propose_in_term(group, self.term, command, request, PROPOSE_WAIT)
            .await;
        if !matches!(
            proposed,
            Err(ProposeError::UnknownOutcome | ProposeError::Stopped(_))
        ) {
            cluster.settle(&renewed);
        }
        let applied = proposed.map_err(|error| Box::new(not_proposed(&error)))?;
        failpoint::hit("push.committed");
        judge(applied.reply).map_err(Box::new)
    }

    async fn disk(&self, error: &io::Error) -> Failure {
        Box::new(self.inner.cannot_store(self.request.group, error).await)
    }
}

/// Whether the pack fits into an entry.
pub(crate) fn is_small(pack: &QuarantinedPack) -> bool {
    let bytes = pack.pack_bytes.saturating_add(pack.idx_bytes);
    usize::try_from(bytes).is_ok_and(|bytes| bytes <= limits::INLINE_PACK_BYTES_MAX)
}

/// A pack whose bytes the entry contains.
///
/// # Errors
/// When the files cannot be read.
pub(crate) async fn inline(pack: &QuarantinedPack) -> io::Result<PackRef> {
    let (pack_path, idx_path) = (&pack.pack_path, &pack.idx_path);
    let (bytes, idx) = match pack.in_memory {
        // The files are in memory: reading them does not block.
        Some(_) => (std::fs::read(pack_path)?, std::fs::read(idx_path)?),
        None => (
            tokio::fs::read(pack_path).await?,
            tokio::fs::read(idx_path).await?,
        ),
    };
    let inline = InlinePack {
        pack: bytes.into(),
        idx: idx.into(),
    };
    Ok(PackRef {
        inline: Some(inline),
        ..by_reference(pack)
    })
}

/// A pack by reference: it is durable on a quorum before the entry.
pub(crate) const fn by_reference(pack: &QuarantinedPack) -> PackRef {
    PackRef {
        pack: pack.id,
        pack_bytes: pack.pack_bytes,
        idx_bytes: pack.idx_bytes,
        objects: pack.objects,
        inline: None,
    }
}

fn not_proposed(error: &ProposeError) -> PushAnswer {
    match error {
        ProposeError::NotLeader { leader } => PushAnswer::NotLeader(*leader),
        ProposeError::UnknownOutcome => PushAnswer::InDoubt(error.to_string()),
        ProposeError::NoReplica(_) | ProposeError::OtherRelease(_) => {
            PushAnswer::Again(error.to_string())
        }
        ProposeError::LogFull(_) => PushAnswer::Refused(ErrorCode::Unavailable, error.to_string()),
        // A group that fails to apply stops: the entry may be in the log.
        ProposeError::Stopped(_) => PushAnswer::InDoubt(error.to_string()),
        ProposeError::TooLarge { .. } => PushAnswer::Refused(
            ErrorCode::Forbidden,
            "the push is larger than one change may be: push in smaller steps".to_owned(),
        ),
    }
}

/// The error of a push to a repository that follows another one.
pub(crate) const NOT_TAKEN: &str = "this repository is a mirror of another one: push there";

fn judge(reply: Reply) -> Result<Vec<RefVerdict>, PushAnswer> {
    match reply.accepted() {
        Ok(verdicts) => Ok(verdicts),
        Err(NotAccepted::Recheck) => Err(PushAnswer::Again(
            "what it was checked against changed meanwhile".to_owned(),
        )),
        Err(NotAccepted::Refused(Refusal::NoSuchRepo { .. } | Refusal::WrongGeneration { .. })) => {
            Err(PushAnswer::WrongGeneration)
        }
        Err(NotAccepted::UnknownOutcome) => Err(PushAnswer::Refused(
            ErrorCode::Timeout,
            "the push is too old to know what became of it: look before pushing again".to_owned(),
        )),
        // Since the first check of the push the repository became a mirror, or the mirror's run was
        // fenced off.
        Err(NotAccepted::Refused(Refusal::WrongState { .. })) => Err(PushAnswer::Refused(
            ErrorCode::Conflict,
            NOT_TAKEN.to_owned(),
        )),
        Err(other @ (NotAccepted::Refused(_) | NotAccepted::Foreign(_))) => {
            tracing::error!(reply = ?other, "a push was answered with what it never is");
            Err(PushAnswer::Refused(
                ErrorCode::Internal,
                format!("the push was answered with {other:?}"),
            ))
        }
    }
}

/// The repository's refs at the leader: read at one point in time, committed through the group.
#[derive(Debug)]
pub(crate) struct LeaderRefs {
    reads: StateRefs,
    commit: Commit,
    handle: Handle,
    path: Mutex<PackPath>,
    failure: Mutex<Option<PushAnswer>>,
}

impl LeaderRefs {
    /// Reads from `reads`, commits with `commit` on the runtime `handle`.
    pub(crate) const fn new(reads: StateRefs, commit: Commit, handle: Handle) -> Self {
        Self {
            reads,
            commit,
            handle,
            path: Mutex::new(PackPath::None),
            failure: Mutex::new(None),
        }
    }

    /// The answer for a failed commit.
    pub(crate) fn commit_failure(&self) -> Option<PushAnswer> {
        self.failure
            .lock()
            .expect("invariant: keeping an answer does not panic")
            .take()
    }

    /// How the pack was replicated.
    pub(crate) fn pack_path(&self) -> PackPath {
        *self
            .path
            .lock()
            .expect("invariant: keeping a word does not panic")
    }
}

impl RefStore for LeaderRefs {
    fn head(&self) -> RefName {
        self.reads.head()
    }

    fn object_format(&self) -> ObjectFormat {
        self.reads.object_format()
    }

    fn get(&self, name: &RefName) -> Option<ObjectId> {
        self.reads.get(name)
    }

    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId)) {
        self.reads.for_each(prefix, visit);
    }

    fn for_each_name(&self, prefix: &str, visit: &mut dyn FnMut(&str, ObjectId)) {
        self.reads.for_each_name(prefix, visit);
    }

    fn shares_objects(&self) -> bool {
        self.reads.shares_objects()
    }

    fn was_tip_recently(&self, id: ObjectId) -> bool {
        self.reads.was_tip_recently(id)
    }

    fn nonces(&self) -> Option<Nonces> {
        self.reads.nonces()
    }

    fn push_policy(&self) -> PushPolicy {
        let of_a_run = matches!(self.commit.request.principal, Principal::Mirror(_));
        let closed = !of_a_run && self.reads.follows_another();
        PushPolicy {
            closed: closed.then_some(NOT_TAKEN.into()),
            ..self.reads.push_policy()
        }
    }

    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        // On a thread of the blocking pool: waiting here blocks no task.
        let (path, outcome) = self.handle.block_on(self.commit.run(push));
        *self
            .path
            .lock()
            .expect("invariant: keeping a word does not panic") = path;
        outcome.map_err(|failure| {
            let message = format!("{failure:?}");
            *self
                .failure
                .lock()
                .expect("invariant: keeping an answer does not panic") = Some(*failure);
            CommitError::Unavailable { message }
        })
    }
}
