//! The wire format of bulk streams between nodes: heads and frames.
//!
//! A frame is a big-endian `u32` length and that many bytes of postcard. Variants and fields are
//! only ever appended, so that nodes of two releases understand each other.

use std::io;

use bytes::Bytes;
use henge_git::http::ByteRange;
use henge_types::status::{CompactionDepth, ReplicaCheck, RepoStats};
use henge_types::{
    ErrorCode, Generation, GroupId, Incarnation, Mirror, NetworkId, NodeId, ObjectId, PackId,
    Principal, PushCertificateRecord, PushRules, RefName, RefProtections, RepoId, RepoLimits,
    RequestId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Pushes, to the leader of their shard.
pub(crate) const PUSH: &str = "push";
/// Packs that must be durable on replicas before the leader proposes them.
pub(crate) const STAGE: &str = "stage";
/// Staged packs that will not be proposed.
pub(crate) const RELEASE: &str = "release";
/// Packs that a replica lacks.
pub(crate) const PACK: &str = "pack";
/// Reads, to a node that holds the repository.
pub(crate) const GIT: &str = "git";

/// Compaction and statistics, served by the leader of a shard.
pub(crate) const MAINTAIN: &str = "maintain";

/// Checks of a replica's store, served by that replica.
pub(crate) const CHECK: &str = "check";

/// The largest frame: the report of the largest push, or the refs of a very large repository.
const FRAME_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Head of a [`PUSH`] stream; the push as the client sent it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushRequest {
    /// The shard of the repository.
    pub group: GroupId,
    /// The repository.
    pub repo: RepoId,
    /// The generation that the push was resolved to.
    pub generation: Generation,
    /// The request id; the same for every attempt.
    pub request: RequestId,
    /// The pusher.
    pub principal: Principal,
    /// SHA-256 of the push's commands, capabilities and options.
    pub digest: [u8; 32],
    /// Bytes that follow.
    pub bytes: u64,
}

/// Frames of a [`PUSH`] stream, towards the receiving node. Every frame but `Working` ends the
/// stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PushAnswer {
    /// Work goes on.
    Working,
    /// The report for the client.
    Report(Bytes),
    /// This node does not lead; the leader, if known.
    NotLeader(Option<NodeId>),
    /// Nothing was done: the same request may be tried again.
    Again(String),
    /// The repository has another generation, or is gone from the shard.
    WrongGeneration,
    /// Nothing was done, and an immediate retry would not help.
    Refused(ErrorCode, String),
    /// The outcome is unknown: only the same request may be tried again.
    InDoubt(String),
}

/// Head of a [`STAGE`] stream; the pack's bytes follow, then the index's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageRequest {
    /// The network of the store.
    pub network: NetworkId,
    /// The pack.
    pub pack: PackId,
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// Bytes of its index.
    pub idx_bytes: u64,
    /// The push that needs it.
    pub claim: Claim,
}

/// The term of a fetch's claim: no leader has this term.
const FETCH_TERM: u64 = u64::MAX;

/// Why a staged pack is kept: until the push is decided, or until its leader's term is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// The shard.
    pub group: GroupId,
    /// The term of the leader that made the claim.
    pub term: u64,
    /// The push.
    pub request: RequestId,
}

impl Claim {
    /// A claim without a request, for example a compaction's. It ends with an entry that answers no
    /// request.
    pub(crate) const fn of_no_request(group: GroupId, term: u64) -> Self {
        let request = RequestId {
            made_at_ms: 0,
            incarnation: Incarnation::from_bytes([0; 16]),
            counter: 0,
        };
        Self {
            group,
            term,
            request,
        }
    }

    /// The claim of a fetched pack, from its arrival until it is in the store.
    pub(crate) const fn of_fetch(group: GroupId) -> Self {
        Self::of_no_request(group, FETCH_TERM)
    }

    /// Whether this is [`Claim::of_fetch`]: no entry will name the pack for it.
    pub(crate) const fn is_of_fetch(&self) -> bool {
        self.term == FETCH_TERM
    }

    /// Whether the pack stays staged for this claim when an entry that answers `request` takes it.
    pub(crate) fn outlasts(&self, request: Option<RequestId>) -> bool {
        !self.is_of_fetch() && !self.is_for(request)
    }

    /// Whether an entry that answers `request` is the one that this claim was made for.
    pub(crate) fn is_for(&self, request: Option<RequestId>) -> bool {
        let none = Self::of_no_request(self.group, self.term).request;
        self.request.is_same(&request.unwrap_or(none))
    }
}

/// The answer on a [`STAGE`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StageAnswer {
    /// Verified and durable: it survives a power cut.
    Durable {
        /// The pack.
        pack: PackId,
        /// The term of the claim.
        term: u64,
    },
    /// It is not kept.
    Refused(String),
}

/// Head of a [`RELEASE`] stream; nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReleaseRequest {
    /// The network of the store.
    pub network: NetworkId,
    /// The pack.
    pub pack: PackId,
    /// The claim to release.
    pub claim: Claim,
}

/// Head of a [`PACK`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackRequest {
    /// The network of the store.
    pub network: NetworkId,
    /// The pack.
    pub pack: PackId,
}

/// The answer on a [`PACK`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PackAnswer {
    /// The pack's bytes follow, then the index's.
    Here {
        /// Bytes of the pack.
        pack_bytes: u64,
        /// Bytes of its index.
        idx_bytes: u64,
    },
    /// Not here either.
    Missing,
}

/// Head of a [`GIT`] stream; the body of the client's request follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadRequest {
    /// The repository's shard.
    pub group: GroupId,
    /// The repository.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// The generation that the request was resolved to.
    pub generation: Generation,
    /// The kind of read.
    pub verb: ReadVerb,
}

/// The kinds of reads that a holder serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadVerb {
    /// The advertisement.
    InfoRefs {
        /// `git-upload-pack` or `git-receive-pack`.
        service: String,
        /// The protocol's version.
        version: u8,
    },
    /// `ls-refs` or `fetch`.
    UploadPack {
        /// The protocol's version.
        version: u8,
    },
    /// Head and refs below a prefix, as one [`WireRefs`] frame.
    Refs {
        /// The prefix.
        prefix: String,
    },
    /// The protected refs, and whether some moves would keep history: one [`WireProtected`] frame.
    /// The body holds the moves, postcard of `Vec<(RefName, ObjectId)>`.
    Protected,
    /// Push certificates, the newest first, as one [`WireCertificates`] frame.
    PushCertificates {
        /// Only those that cover this ref.
        reference: Option<RefName>,
        /// How many of the newest are skipped.
        skip: u64,
        /// How many at most.
        limit: u32,
    },
    /// A bundle that this holder has: its length as a frame of `u64`, then the requested bytes.
    Bundle {
        /// Its id.
        id: [u8; 32],
        /// The requested bytes.
        range: WireRange,
    },
    /// One of the others, for a reader without a token. From release level
    /// [`VERSION_READS_OF_ANYBODY`](henge_types::command::VERSION_READS_OF_ANYBODY) on.
    OfAnybody(Box<Self>),
}

/// A [`henge_git::http::ByteRange`], in its wire form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireRange {
    /// All of it.
    Whole,
    /// From this byte on.
    From(u64),
    /// From the first byte to the second one, both included.
    Between(u64, u64),
    /// So many bytes at its end.
    Last(u64),
}

impl From<ByteRange> for WireRange {
    fn from(range: ByteRange) -> Self {
        match range {
            ByteRange::Whole => Self::Whole,
            ByteRange::From(first) => Self::From(first),
            ByteRange::Between(first, last) => Self::Between(first, last),
            ByteRange::Last(count) => Self::Last(count),
        }
    }
}

impl From<WireRange> for ByteRange {
    fn from(range: WireRange) -> Self {
        match range {
            WireRange::Whole => Self::Whole,
            WireRange::From(first) => Self::From(first),
            WireRange::Between(first, last) => Self::Between(first, last),
            WireRange::Last(count) => Self::Last(count),
        }
    }
}

/// The first frame of the answer on a [`GIT`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadAnswer {
    /// The answer for the client follows.
    Serving,
    /// This node cannot serve it now: ask another one.
    Elsewhere(String),
    /// The repository has another generation, or is gone from the shard.
    WrongGeneration,
    /// The request is malformed or not allowed.
    Refused(ErrorCode, String),
}

/// Head of a [`MAINTAIN`] stream; nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MaintainRequest {
    /// The repository's shard.
    pub group: GroupId,
    /// The repository.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// The generation that the request was resolved to.
    pub generation: Generation,
    /// The kind of request.
    pub verb: MaintainVerb,
}

/// The kinds of requests that a leader serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MaintainVerb {
    /// The statistics.
    Stats,
    /// The mirrors.
    Mirrors,
    /// Compacts when a permit is free; the answer is the statistics.
    Compact {
        /// How much is merged.
        depth: CompactionDepth,
    },
    /// The quotas of the repository.
    Limits,
    /// The push rules.
    PushRules,
}

/// The answer on a [`MAINTAIN`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MaintainAnswer {
    /// The statistics now.
    Stats(RepoStats),
    /// The mirrors now, without secrets.
    Mirrors(Vec<Mirror>),
    /// This node does not lead.
    NotLeader,
    /// The repository has another generation, or is gone from the shard.
    WrongGeneration,
    /// Refused for now.
    Refused(ErrorCode, String),
    /// The quotas of the repository.
    Limits(RepoLimits),
    /// The push rules.
    PushRules(PushRules),
}

/// Head of a [`CHECK`] stream; nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckRequest {
    /// The repository's shard.
    pub group: GroupId,
    /// The repository.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// The generation that the request was resolved to.
    pub generation: Generation,
    /// The kind of request.
    pub verb: CheckVerb,
}

/// The kinds of requests about a replica's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CheckVerb {
    /// The state of the check.
    Look,
    /// Starts a check when a permit is free; the answer is the state of the check.
    Start {
        /// Fetch packs that are damaged from other replicas.
        repair: bool,
    },
}

/// The answer on a [`CHECK`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CheckAnswer {
    /// The state of the check now.
    Stands(Box<ReplicaCheck>),
    /// The repository has another generation, or is gone from the shard.
    WrongGeneration,
    /// Refused for now.
    Refused(ErrorCode, String),
}

/// Refs at one point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireRefs {
    /// The target of HEAD.
    pub head: RefName,
    /// The refs, by name.
    pub refs: Vec<(RefName, ObjectId)>,
    /// When a ref or HEAD changed last, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
    /// The index they were read at.
    pub applied: henge_types::LogIndex,
}

/// Push certificates at one point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireCertificates {
    /// The number of matching certificates.
    pub total: u64,
    /// A page of them, the newest first.
    pub certificates: Vec<PushCertificateRecord>,
}

/// The protected refs at one point in time, and the effect of some moves of refs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireProtected {
    /// The patterns.
    pub protections: RefProtections,
    /// The index they and the refs were read at.
    pub applied: henge_types::LogIndex,
    /// One per move, in their order.
    pub moves: Vec<WireMove>,
}

/// The effect of a move of a ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireMove {
    /// The value of the ref now.
    pub old: Option<ObjectId>,
    /// Whether it keeps its history.
    pub keeps: bool,
}

/// The bytes of a head.
pub(crate) fn head<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value)
        .expect("invariant: heads are representable in postcard")
        .into()
}

/// Reads a head.
pub(crate) fn open_head<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one frame and flushes it.
pub(crate) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &T,
) -> io::Result<()> {
    let body = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|len| *len <= FRAME_BYTES_MAX);
    let len = len.ok_or_else(|| too_long(body.len()))?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(&body).await?;
    stream.flush().await
}

/// Reads one frame.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let len = stream.read_u32().await?;
    if len > FRAME_BYTES_MAX {
        return Err(too_long(usize::try_from(len).unwrap_or(usize::MAX)));
    }
    // The buffer grows with the received bytes: a length alone makes no node allocate.
    let mut body = Vec::new();
    (&mut *stream)
        .take(u64::from(len))
        .read_to_end(&mut body)
        .await?;
    if u32::try_from(body.len()) != Ok(len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    open_head(&body)
}

fn too_long(bytes: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a frame of {bytes} bytes: {FRAME_BYTES_MAX} are allowed"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::Incarnation;

    fn request() -> PushRequest {
        PushRequest {
            group: GroupId::new(3),
            repo: RepoId::from_bytes([1; 16]),
            generation: Generation::new(2),
            request: RequestId {
                made_at_ms: 5,
                incarnation: Incarnation::from_bytes([2; 16]),
                counter: 9,
            },
            principal: Principal::admin(),
            digest: [3; 32],
            bytes: 77,
        }
    }

    #[test]
    fn heads_come_back_as_they_were() {
        assert_eq!(
            open_head::<PushRequest>(&head(&request())).unwrap(),
            request()
        );
        assert!(open_head::<PushRequest>(b"\xff").is_err());
    }

    #[tokio::test]
    async fn frames_come_back_in_their_order() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let report = PushAnswer::Report(Bytes::from(vec![7; 1000]));
        let sent = report.clone();
        let writer = async move {
            write(&mut near, &PushAnswer::Working).await.unwrap();
            write(&mut near, &sent).await.unwrap();
        };
        let reader = async move {
            assert_eq!(
                read::<PushAnswer>(&mut far).await.unwrap(),
                PushAnswer::Working
            );
            assert_eq!(read::<PushAnswer>(&mut far).await.unwrap(), report);
            let end = read::<PushAnswer>(&mut far).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        };
        tokio::join!(writer, reader);
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_off_or_too_long_is_an_error() {
        let mut cut: &[u8] = &[0, 0, 0, 9, 1];
        let error = read::<PushAnswer>(&mut cut).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut long: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1];
        let error = read::<PushAnswer>(&mut long).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
