//! A push at the leader of its shard: barrier, lookup of the request, quarantine, checks, commit,
//! report.

use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::{BulkStream, ClusterError, Handling, StateAt};
use henge_git::{
    IngestError, Objects, PushLimits, PushSummary, ReachError, ReceiveError, StoreError,
    parse_push, receive_pack, report,
};
use henge_runtime::failpoint;
use henge_state::{RecordedRequest, ShardView};
use henge_storage::objects::ObjectStore;
use henge_types::{
    ErrorCode, GroupId, NetworkId, NodeId, NotAccepted, ObjectFormat, PackRecord, RefVerdict,
    Refusal, Reply, RequestBinding, limits,
};
use tokio::io::WriteHalf;
use tokio::runtime::Handle;

use crate::asking::Request;
use crate::catalogue::QUORUM_WAIT;
use crate::damage::lengths_of;
use crate::frames::{self, PushAnswer, PushRequest};
use crate::metrics::{self, PackPath, PushResult};
use crate::push::commit::{Commit, LeaderRefs};
use crate::push::input::{Lent, Source};
use crate::refs::StateRefs;
use crate::replica::quarantine;
use crate::repos::Inner;
use crate::space::Room;

/// How often a leader reports that it is still at work.
const WORKING_EVERY: Duration = Duration::from_secs(1);
/// How long a leader waits for packs that it lacks. After this the receiving node retries the push,
/// with another leader if a better one is known.
const PARKED_WAIT: Duration = Duration::from_secs(2);

impl PushRequest {
    /// The binding of the request id in the shard's state.
    pub(crate) fn binding(&self) -> RequestBinding {
        RequestBinding {
            id: self.request,
            principal: self.principal.to_string(),
            repo: Some(self.repo),
            digest: self.digest,
        }
    }
}

impl Inner {
    /// Leads one push. All failures are in the answer.
    pub(crate) async fn lead(self: &Arc<Self>, request: PushRequest, source: Source) -> PushAnswer {
        let Ok(_permit) = self.pushes.acquire().await else {
            return PushAnswer::Again("the node is stopping".to_owned());
        };
        failpoint::hit("push.received");
        let answer = Box::pin(self.lead_admitted(request, source)).await;
        if !matches!(answer, PushAnswer::Report(_)) {
            metrics::push_led(PushResult::Failed, PackPath::None);
        }
        answer
    }

    async fn lead_admitted(self: &Arc<Self>, request: PushRequest, source: Source) -> PushAnswer {
        let group = request.group;
        let handling = self.cluster.handle(group, &request.request);
        let Some(leadership) = self.cluster.leadership(group) else {
            return PushAnswer::NotLeader(self.cluster.leader(group).await);
        };
        match self.cluster.read_barrier(group, QUORUM_WAIT / 2).await {
            Ok(_) => {}
            Err(ClusterError::NoReplica(_)) => return PushAnswer::NotLeader(None),
            Err(error) => return PushAnswer::Again(error.to_string()),
        }
        let Some(at) = self.cluster.state(group) else {
            return PushAnswer::NotLeader(None);
        };
        if let Some(record) = ShardView::new(&at.state).request(&request.request) {
            let repo = ShardView::new(&at.state).repo(&request.repo);
            // A request for a repository that was dropped since has a record as well.
            let format = repo.map(|repo| repo.object_format).unwrap_or_default();
            return self.answer_again(&request, format, record, source).await;
        }
        // A record of that time may have been dropped: its absence proves nothing.
        let named = request.request.generation();
        let kept_since = henge_state::request_generation(&at.state);
        if named
            .zip(kept_since)
            .is_some_and(|(named, now)| named.saturating_add(1) < now)
        {
            return too_old();
        }
        match self
            .room_to_lead(group, &leadership.voters, request.bytes)
            .await
        {
            Room::Here => {}
            Room::Elsewhere => {
                let own = self.cluster.node();
                let why = format!("disk space is low on node {own}: another node takes the lead");
                return PushAnswer::Again(why);
            }
            Room::Nowhere(message) => {
                return PushAnswer::Refused(ErrorCode::Unavailable, message);
            }
        }
        let led = (leadership.term, handling);
        Box::pin(self.lead_new(request, led, at, source)).await
    }

    /// Answers a request that was answered before, without reading its pack.
    async fn answer_again(
        &self,
        request: &PushRequest,
        format: ObjectFormat,
        record: RecordedRequest,
        mut source: Source,
    ) -> PushAnswer {
        if !record.binds(&request.binding()) {
            let message = "the request id came with another push before: push again";
            return PushAnswer::Refused(ErrorCode::Conflict, message.to_owned());
        }
        let verdicts = match recorded(record.reply) {
            Ok(verdicts) => verdicts,
            Err(answer) => return answer,
        };
        let limits = PushLimits::default();
        let bytes = request.bytes;
        let reported = self.work.blocking("push report", move || {
            let mut input = source.open(bytes).map_err(ReceiveError::Output)?;
            let head = parse_push(&mut input, format, &limits)?;
            let mut bytes = Vec::new();
            report(&head, Ok(()), &verdicts, &mut bytes).map_err(ReceiveError::Output)?;
            Ok::<_, ReceiveError>(bytes)
        });
        match reported.await {
            Ok(Ok(bytes)) => {
                metrics::push_led(PushResult::Known, PackPath::None);
                PushAnswer::Report(bytes.into())
            }
            Ok(Err(error)) => PushAnswer::InDoubt(error.to_string()),
            Err(error) => PushAnswer::InDoubt(error.to_string()),
        }
    }

    async fn lead_new(
        self: &Arc<Self>,
        request: PushRequest,
        (term, handling): (u64, Handling),
        at: StateAt,
        source: Source,
    ) -> PushAnswer {
        let now_ms = self.cluster.now_ms(request.group);
        let state = at.state.clone();
        let refs = match StateRefs::open(at, &request.repo, request.generation, now_ms) {
            Ok(refs) => refs,
            Err(Refusal::NoSuchRepo { .. } | Refusal::WrongGeneration { .. }) => {
                return PushAnswer::WrongGeneration;
            }
            Err(refusal) => {
                return PushAnswer::Refused(ErrorCode::Internal, format!("{refusal:?}"));
            }
        };
        let (network, format) = (refs.repo().network, refs.repo().object_format);
        let group = request.group;
        let reading = self.effects.readers().enter(network);
        if let Err(why) = self.wait_for_packs(group, &network).await {
            return PushAnswer::Again(why.to_owned());
        }
        let bytes = request.bytes;
        let commit = Commit::new(
            Arc::clone(self),
            request,
            network,
            term,
            (refs.applied(), handling),
        );
        let limits = PushLimits {
            stop: self.deadline(),
            ..refs.push_limits()
        };
        let store = self.objects().clone();
        let objects = self.opened(&network, format);
        let leader = LeaderRefs::new(refs, commit, Handle::current());
        let (inner, handle) = (Arc::clone(self), Handle::current());
        let job = move || {
            // Objects in missing files would look like objects that the push lacks.
            let packs = ShardView::new(&state).packs(&network);
            let gone = |record: &PackRecord| {
                !store.has_lengths(&network, &record.pack, lengths_of(record))
            };
            let on_fault = OnFault {
                store: &|error| inner.object_failed((group, network), error),
                // On a thread of the blocking pool: waiting here blocks no task.
                disk: &|error| handle.block_on(inner.cannot_store(group, error)),
            };
            if packs.into_iter().any(|record| gone(&record)) && inner.park_faults(group, network) {
                return damaged_at_leader();
            }
            let answer = receive(
                &store,
                &objects,
                &leader,
                &limits,
                (source, bytes),
                &on_fault,
            );
            drop(reading);
            answer
        };
        match self.work.blocking("push", job).await {
            Ok(answer) => answer,
            Err(error) => PushAnswer::InDoubt(error.to_string()),
        }
    }
}

impl Inner {
    /// Waits until this leader has all packs of a network, at most [`PARKED_WAIT`]. A leader that
    /// cannot write a pack, or that still lacks one after this, hands the group over if it can.
    ///
    /// # Errors
    /// The reason why the push has to be retried.
    async fn wait_for_packs(
        &self,
        group: GroupId,
        network: &NetworkId,
    ) -> Result<(), &'static str> {
        let parking = self.effects.parking();
        if parking.is_unwritten(network) && self.hand_over_lacking(group).await {
            return Err(
                "the leader cannot write packs of this repository: another node takes the lead",
            );
        }
        let served = parking.wait_until_served(network);
        if tokio::time::timeout(PARKED_WAIT, served).await.is_ok() {
            return Ok(());
        }
        Err(match self.hand_over_lacking(group).await {
            true => "the leader lacks packs of this repository: another node takes the lead",
            false => "the leader still fetches packs of this repository",
        })
    }
}

/// The answer to a request whose record may have been dropped.
fn too_old() -> PushAnswer {
    PushAnswer::Refused(
        ErrorCode::Timeout,
        "the push is too old to know what became of it: look before pushing again".to_owned(),
    )
}

/// The verdicts in a recorded reply.
fn recorded(reply: Reply) -> Result<Vec<RefVerdict>, PushAnswer> {
    match reply.accepted() {
        Ok(verdicts) => Ok(verdicts),
        Err(NotAccepted::Refused(Refusal::NoSuchRepo { .. } | Refusal::WrongGeneration { .. })) => {
            Err(PushAnswer::WrongGeneration)
        }
        Err(NotAccepted::UnknownOutcome) => Err(too_old()),
        Err(other @ (NotAccepted::Refused(_) | NotAccepted::Foreign(_) | NotAccepted::Recheck)) => {
            Err(PushAnswer::Refused(
                ErrorCode::Internal,
                format!("the push was answered with {other:?}"),
            ))
        }
    }
}

/// The handlers of errors that are this node's fault, and not the push's.
struct OnFault<'a> {
    /// Handles an error of reading the repository's store. Returns whether the network is parked
    /// now.
    store: &'a dyn Fn(&StoreError) -> bool,
    /// Handles an error of writing to the disk. Returns the answer to the push.
    disk: &'a dyn Fn(&io::Error) -> PushAnswer,
}

/// Quarantine, checks, commit, report. Blocking.
fn receive(
    store: &ObjectStore,
    objects: &Objects,
    leader: &LeaderRefs,
    limits: &PushLimits,
    (mut source, bytes): (Source, u64),
    on_fault: &OnFault<'_>,
) -> PushAnswer {
    let quarantine = OwnQuarantine {
        store,
        made: OnceCell::new(),
    };
    let mut input = match source.open(bytes) {
        Ok(input) => input,
        Err(error) => return (on_fault.disk)(&error),
    };
    let broken = input.broken();
    let mut report = Vec::new();
    let outcome = receive_pack(
        leader,
        objects,
        &quarantine,
        &mut input,
        &mut report,
        limits,
    );
    if let Some(answer) = leader.commit_failure() {
        return answer;
    }
    match outcome {
        // A broken connection looks like a broken pack; nothing was committed.
        Ok(summary) if broken.is_set() && summary.verdicts.is_empty() => broke_off(),
        Ok(summary) => {
            count(&summary, leader.pack_path());
            PushAnswer::Report(report.into())
        }
        Err(_) if broken.is_set() => broke_off(),
        Err(ReceiveError::Ingest(IngestError::Disk(error))) => (on_fault.disk)(&error),
        Err(error) => match store_fault(&error) {
            Some(fault) if (on_fault.store)(fault) => damaged_at_leader(),
            Some(_) | None => failed(&error),
        },
    }
}

/// A quarantine whose directory is created for large packs only: small ones are assembled in
/// memory.
struct OwnQuarantine<'a> {
    store: &'a ObjectStore,
    made: OnceCell<henge_storage::objects::Quarantine>,
}

impl henge_git::Quarantine for OwnQuarantine<'_> {
    fn dir(&self) -> io::Result<&Path> {
        if let Some(made) = self.made.get() {
            return Ok(made.path());
        }
        let new = quarantine(self.store)?;
        Ok(self.made.get_or_init(|| new).path())
    }

    fn memory_bytes_max(&self) -> u64 {
        limits::INLINE_PACK_BYTES_MAX as u64
    }
}

/// The error of reading this repository's store, if that is why a push failed.
fn store_fault(error: &ReceiveError) -> Option<&StoreError> {
    if let ReceiveError::Store(error) | ReceiveError::Check(ReachError::Store(error)) = error {
        return Some(error);
    }
    None
}

fn damaged_at_leader() -> PushAnswer {
    PushAnswer::Again("the leader fetches damaged packs of this repository again".to_owned())
}

fn broke_off() -> PushAnswer {
    PushAnswer::Again("the push broke off on its way to the leader".to_owned())
}

fn count(summary: &PushSummary, path: PackPath) {
    let taken = summary
        .verdicts
        .iter()
        .any(|verdict| verdict.result.is_ok());
    let result = if taken {
        PushResult::Ok
    } else {
        PushResult::Refused
    };
    metrics::push_led(result, path);
}

fn failed(error: &ReceiveError) -> PushAnswer {
    match error {
        limit if limit.is_limit() => PushAnswer::Refused(ErrorCode::Forbidden, limit.to_string()),
        ReceiveError::NotAPush
        | ReceiveError::Truncated
        | ReceiveError::TooManyUpdates { .. }
        | ReceiveError::TooManyOptions { .. }
        | ReceiveError::TooManyShallow { .. }
        | ReceiveError::NameTooLong { .. }
        | ReceiveError::Certificate { .. }
        | ReceiveError::CertificateTooLarge { .. }
        | ReceiveError::UnsignedCommands
        | ReceiveError::ObjectFormat { .. }
        | ReceiveError::Pkt(_) => PushAnswer::Refused(ErrorCode::Invalid, error.to_string()),
        ReceiveError::Store(_)
        | ReceiveError::Check(_)
        | ReceiveError::Ingest(_)
        | ReceiveError::Commit(_)
        | ReceiveError::Output(_) => {
            tracing::error!(%error, "push failed at its leader");
            PushAnswer::Refused(ErrorCode::Internal, error.to_string())
        }
    }
}

/// A push that another node received.
impl Request for PushRequest {
    const SERVICE: &'static str = frames::PUSH;

    async fn serve(self, inner: Arc<Inner>, peer: NodeId, stream: BulkStream) -> io::Result<()> {
        let bytes = self.bytes;
        tracing::debug!(%peer, group = %self.group, request = %self.request, bytes, "push to lead");
        let (read, mut write) = tokio::io::split(stream);
        let (lent, returned) = Lent::new(read);
        let leading = inner.lead(self, Source::Stream(lent));
        let answer = while_working(leading, &mut write).await;
        frames::write(&mut write, &answer).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut write).await?;
        // The other side stops sending as soon as it has the answer.
        if let Ok(reading) = returned.await {
            tokio::io::copy(&mut reading.into_inner(), &mut tokio::io::sink()).await?;
        }
        Ok(())
    }
}

/// Sends `Working` every second. The work goes on when the receiving node is gone.
async fn while_working(
    leading: impl Future<Output = PushAnswer>,
    write: &mut WriteHalf<BulkStream>,
) -> PushAnswer {
    let mut leading = std::pin::pin!(leading);
    let mut gone = false;
    loop {
        match tokio::time::timeout(WORKING_EVERY, &mut leading).await {
            Ok(answer) => return answer,
            Err(_) if gone => {}
            Err(_) => gone = frames::write(write, &PushAnswer::Working).await.is_err(),
        }
    }
}
