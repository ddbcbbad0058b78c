//! A push at the node that received it: spooled completely, and sent to the leader of its shard.
//! After the loss of that leader it is sent again under the same request id, until there is an
//! answer or no quorum.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use henge_cluster::{BulkStream, ClockState};
use henge_git::http::{ServiceError, Spool};
use henge_git::{PushHead, PushLimits, parse_push};
use henge_types::{ErrorCode, NodeId, ObjectFormat, Principal, RepoRecord, RequestId, limits};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::asking::OPEN_TIMEOUT;
use crate::catalogue::QUORUM_WAIT;
use crate::error::{self, failed};
use crate::frames::{self, PUSH, PushAnswer, PushRequest};
use crate::metrics;
use crate::push::input::{IDLE_TIMEOUT, Source};
use crate::repos::Inner;

/// Longest silence of a leader at work.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const RETRY_PAUSE_MS: std::ops::Range<u64> = 20..80;
/// Leaders lost during one push before it is given up: a push that crashes its leaders must end.
const LEADERS_LOST_MAX: u32 = 6;
/// Bytes read from the spool at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks queued for the leader.
const CHUNKS_MAX: usize = 4;
/// Seconds a client should wait before it retries a push that was refused for now.
const RETRY_AFTER_S: u32 = 5;
/// Upper bound of an update's size in a log entry, besides its name.
const UPDATE_BYTES: usize = 96;

/// The parsed head of a push.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its commands.
    pub head: PushHead,
    /// SHA-256 of its commands, capabilities and options. The new ids in the commands stand for the
    /// pack.
    pub digest: [u8; 32],
}

/// Reads the head of a spooled push to a repository of this format. Blocking.
///
/// # Errors
/// `Invalid` when it is no push; `Forbidden` when it is above a limit or too large for one entry;
/// `Internal` when the spool cannot be read.
pub(crate) fn prepare(spool: &Spool, format: ObjectFormat) -> Result<Prepared, ServiceError> {
    let mut reader = Hashing {
        inner: spool.reader().map_err(|error| unreadable(&error))?,
        hasher: Sha256::new(),
    };
    let head = parse_push(&mut reader, format, &PushLimits::default()).map_err(|error| {
        // Not `Invalid`: the push is well-formed, and git has to show the reason.
        let code = if error.is_limit() {
            ErrorCode::Forbidden
        } else {
            ErrorCode::Invalid
        };
        failed(code, error.to_string())
    })?;
    check_entry_size(&head)?;
    Ok(Prepared {
        head,
        digest: reader.hasher.finalize().into(),
    })
}

fn unreadable(error: &io::Error) -> ServiceError {
    error::internal(format!("the spooled push cannot be read: {error}"))
}

/// Hashes what is consumed.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // The bytes to consume are in the buffer: `fill_buf` reads nothing.
        if let Ok(buffered) = self.inner.fill_buf() {
            self.hasher
                .update(buffered.get(..amount).unwrap_or(buffered));
        }
        self.inner.consume(amount);
    }
}

/// Refuses a push whose updates do not fit into one log entry.
fn check_entry_size(head: &PushHead) -> Result<(), ServiceError> {
    let updates = head
        .updates
        .iter()
        .map(|update| update.name.as_str().len() + UPDATE_BYTES);
    let options = head
        .options
        .iter()
        .map(|option| option.len() + UPDATE_BYTES);
    let signed = head.certificate.as_ref();
    // Twice: the entry holds the commands beside the text.
    let signed = signed.map_or(0, |certificate| certificate.text().len().saturating_mul(2));
    let bytes: usize = updates.chain(options).chain([signed]).sum();
    if bytes <= limits::ENTRY_BYTES_MAX - 2 * limits::INLINE_PACK_BYTES_MAX {
        return Ok(());
    }
    Err(failed(
        ErrorCode::Forbidden,
        "the ref names and options of this push are too long together: push in smaller steps",
    ))
}

/// The outcome of one attempt.
enum Attempt {
    /// The client's answer.
    Report(Bytes),
    /// Undecided: try again.
    Again(Undecided),
    /// The catalogue and the shard disagree about the repository's generation.
    Resolve,
    /// A retry would not help.
    Failed(ServiceError),
}

/// An attempt without an answer.
struct Undecided {
    why: String,
    /// A leader was at work on it.
    worked: bool,
    /// The outcome is unknown.
    doubt: bool,
}

/// The outcome of a push.
pub(crate) enum Verdict {
    /// The client's answer.
    Report(Bytes),
    /// The repository has another generation than the push was resolved to: nothing was done.
    Resolve,
}

/// A push until its answer.
pub(crate) struct Receiving {
    inner: Arc<Inner>,
    spool: Arc<Spool>,
    request: PushRequest,
    /// The time of the last sign of a leader at work on it.
    heard: Instant,
    /// Leaders lost while they were at work on it.
    lost: u32,
    /// The outcome of an attempt is unknown.
    doubt: bool,
}

/// The leader's refusal of the last attempt as an error with unknown outcome: an earlier attempt
/// may have been committed.
fn in_doubt(refused: &ServiceError) -> ServiceError {
    let message = format!(
        "{}; an earlier attempt of this push may be in: look before pushing again",
        refused.message
    );
    ServiceError {
        code: ErrorCode::Timeout,
        message,
        ..*refused
    }
}

impl Receiving {
    /// A push to this generation of the repository. Every generation needs a new request id.
    pub(crate) fn new(
        inner: &Arc<Inner>,
        spool: Arc<Spool>,
        record: &RepoRecord,
        id: RequestId,
        principal: &Principal,
        digest: [u8; 32],
    ) -> Self {
        let request = PushRequest {
            group: record.network.shard(inner.cluster.shards()),
            repo: record.repo,
            generation: record.generation,
            request: id,
            principal: principal.clone(),
            digest,
            bytes: spool.bytes(),
        };
        Self::of(inner, spool, request)
    }

    /// A push of this request; its bytes are in the spool.
    pub(crate) fn of(inner: &Arc<Inner>, spool: Arc<Spool>, request: PushRequest) -> Self {
        let heard = inner.clock.instant();
        Self {
            inner: Arc::clone(inner),
            spool,
            request,
            heard,
            lost: 0,
            doubt: false,
        }
    }

    /// Sends the push to the leader until there is an answer.
    ///
    /// # Errors
    /// `Unavailable` when no leader with a quorum was at work on it for [`QUORUM_WAIT`], or when
    /// [`LEADERS_LOST_MAX`] leaders were lost; `Timeout` in place of it when the outcome is
    /// unknown. The leader's refusal.
    pub(crate) async fn run(mut self) -> Result<Verdict, ServiceError> {
        loop {
            let undecided = match Box::pin(self.attempt()).await {
                Attempt::Report(bytes) => return Ok(Verdict::Report(bytes)),
                Attempt::Resolve => return Ok(Verdict::Resolve),
                Attempt::Failed(error) if self.doubt => return Err(in_doubt(&error)),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(undecided) => undecided,
            };
            let Undecided { why, worked, doubt } = undecided;
            let now = self.inner.clock.instant();
            self.doubt |= doubt;
            if worked {
                self.heard = now;
                self.lost += 1;
            }
            let request = &self.request;
            tracing::debug!(group = %request.group, request = %request.request, why, "push goes to the leader again");
            if now.duration_since(self.heard) >= QUORUM_WAIT || self.lost >= LEADERS_LOST_MAX {
                return Err(self.gave_up(&why));
            }
            metrics::push_retried();
            let pause = self.inner.cluster.random().within(RETRY_PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn gave_up(&self, why: &str) -> ServiceError {
        // If no other node accepts the push, a node that leads no group because of its clock gives
        // this as the reason.
        let clock = self.inner.cluster.clock_state();
        let is_wrong = matches!(clock, ClockState::Wrong { .. });
        let clock = clock.fault().filter(|_| is_wrong);
        let why = clock.as_deref().unwrap_or(why);
        let group = self.request.group;
        tracing::warn!(%group, why, doubt = self.doubt, "push given up");
        let nothing = error::no_quorum(group);
        if self.doubt {
            let message = format!(
                "no quorum for this repository ({why}): the push may or may not be in, look before pushing again"
            );
            return ServiceError {
                code: ErrorCode::Timeout,
                message,
                ..nothing
            };
        }
        let message =
            format!("no quorum for this repository ({why}): nothing was changed, try again");
        ServiceError { message, ..nothing }
    }

    async fn attempt(&self) -> Attempt {
        let leader = self.inner.cluster.leader(self.request.group).await;
        match leader {
            None => again("no node leads its shard"),
            Some(leader) if leader == self.inner.cluster.node() => {
                let source = Source::Spool(Arc::clone(&self.spool));
                judge(self.inner.lead(self.request.clone(), source).await, false)
            }
            Some(leader) => self.remotely(leader).await,
        }
    }

    async fn remotely(&self, leader: NodeId) -> Attempt {
        let head = frames::head(&self.request);
        let opened = self
            .inner
            .cluster
            .bulk()
            .open(leader, PUSH, head, OPEN_TIMEOUT)
            .await;
        match opened {
            Ok(stream) => self.converse(leader, stream).await,
            Err(error) => again(error.to_string()),
        }
    }

    /// Sends the push and reads the answer concurrently: the answer may come before the last byte
    /// was sent.
    async fn converse(&self, leader: NodeId, stream: BulkStream) -> Attempt {
        let (read, write) = tokio::io::split(stream);
        let send = self.send(write);
        let listen = listen(leader, read);
        tokio::pin!(send, listen);
        tokio::select! {
            biased;
            attempt = &mut listen => attempt,
            sent = &mut send => {
                if let Err(error) = sent {
                    tracing::debug!(%leader, %error, "the leader stopped reading the push");
                }
                listen.await
            }
        }
    }

    async fn send(&self, mut write: WriteHalf<BulkStream>) -> io::Result<()> {
        let (sender, mut chunks) = mpsc::channel(CHUNKS_MAX);
        let spool = Arc::clone(&self.spool);
        let read = self
            .inner
            .work_of_replica
            .blocking("read spool", move || read_chunks(&spool, &sender));
        // Owns the channel: the reader ends with the writer.
        let write = async move {
            while let Some(chunk) = chunks.recv().await {
                tokio::time::timeout(IDLE_TIMEOUT, write.write_all(&chunk))
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            // The reader of this end compares the byte count with the announced one.
            write.shutdown().await
        };
        let (read, write) = tokio::join!(read, write);
        read??;
        write
    }
}

/// Ends without an error when the receiver of the chunks is gone.
fn read_chunks(spool: &Spool, chunks: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut reader = spool.reader()?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let most = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        (&mut reader).take(most).read_to_end(&mut chunk)?;
        if chunk.is_empty() || chunks.blocking_send(chunk.into()).is_err() {
            return Ok(());
        }
    }
}

async fn listen(leader: NodeId, mut read: ReadHalf<BulkStream>) -> Attempt {
    let mut worked = false;
    loop {
        let frame = tokio::time::timeout(SILENCE_MAX, frames::read(&mut read)).await;
        let frame = frame.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match frame {
            Ok(PushAnswer::Working) => worked = true,
            Ok(answer) => return judge(answer, worked),
            // The leader may have received the push: the next attempt finds out whether it was
            // committed.
            Err(error) => {
                let why = format!("node {leader} was lost: {error}");
                return Attempt::Again(Undecided {
                    why,
                    worked,
                    doubt: true,
                });
            }
        }
    }
}

fn again(why: impl Into<String>) -> Attempt {
    Attempt::Again(Undecided {
        why: why.into(),
        worked: false,
        doubt: false,
    })
}

fn judge(answer: PushAnswer, worked: bool) -> Attempt {
    match answer {
        PushAnswer::Report(bytes) => Attempt::Report(bytes),
        PushAnswer::Working => again("the leader said nothing but that it works"),
        PushAnswer::NotLeader(_) => again("the leader changed"),
        PushAnswer::Again(why) => again(why),
        PushAnswer::InDoubt(why) => Attempt::Again(Undecided {
            why,
            worked,
            doubt: true,
        }),
        PushAnswer::WrongGeneration => Attempt::Resolve,
        PushAnswer::Refused(code, message) => Attempt::Failed(ServiceError {
            retry_after_s: (code == ErrorCode::Unavailable).then_some(RETRY_AFTER_S),
            ..failed(code, message)
        }),
    }
}
