//! What nodes say to each other over bulk streams: the heads of streams and the frames in them.
//!
//! A frame is a big-endian `u32` of bytes and that many bytes of postcard. Variants and fields are only
//! ever added at the end, so that nodes of two releases understand each other.

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
/// Packs that the leader wants durable before it proposes them.
pub(crate) const STAGE: &str = "stage";
/// Staged packs that nobody will propose any more.
pub(crate) const RELEASE: &str = "release";
/// Packs that a replica lacks.
pub(crate) const PACK: &str = "pack";
/// Reads, to a node that holds the repository.
pub(crate) const GIT: &str = "git";

/// Compaction and figures, asked of the leader of a shard.
pub(crate) const MAINTAIN: &str = "maintain";

/// Checks of a replica's store, asked of that replica.
pub(crate) const CHECK: &str = "check";

/// The largest frame: the report of the largest push, or the refs of a very large repository.
const FRAME_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Head of a [`PUSH`] stream; the push as the client sent it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushRequest {
    /// The repository's shard.
    pub group: GroupId,
    /// The repository.
    pub repo: RepoId,
    /// The life of it that the push was resolved to.
    pub generation: Generation,
    /// The same for every attempt.
    pub request: RequestId,
    /// Who pushes.
    pub principal: Principal,
    /// SHA-256 of the push's commands and of its pack's trailer.
    pub digest: [u8; 32],
    /// Bytes that follow.
    pub bytes: u64,
}

/// Frames of a [`PUSH`] stream, towards the receiving node. All but `Working` end it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PushAnswer {
    /// Still at it.
    Working,
    /// The report for the client.
    Report(Bytes),
    /// Another node leads, perhaps this one.
    NotLeader(Option<NodeId>),
    /// Nothing was done: the same request may be tried again.
    Again(String),
    /// The repository has another life, or is gone from the shard.
    WrongGeneration,
    /// Nothing was done, and trying again at once would not help.
    Refused(ErrorCode, String),
    /// It may or may not have been done: only the same request may be tried again.
    InDoubt(String),
}

/// Head of a [`STAGE`] stream; the pack's bytes follow, then the index's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageRequest {
    /// Whose store.
    pub network: NetworkId,
    /// The pack.
    pub pack: PackId,
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// Bytes of its index.
    pub idx_bytes: u64,
    /// The push that wants it.
    pub claim: Claim,
}

/// The term of a fetch's claim: no leader has it.
const FETCH_TERM: u64 = u64::MAX;

/// Why a staged pack is kept: until the push is decided, or its leader's term is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// The shard.
    pub group: GroupId,
    /// The term of the leader that asked.
    pub term: u64,
    /// The push.
    pub request: RequestId,
}

impl Claim {
    /// A claim for what no request asked for, as a compaction. It ends with an entry that answers no request.
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

    /// The claim of a fetched pack, between its arrival and its way into the store.
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

    /// Whether an entry that answers `request` is what this claim was made for.
    pub(crate) fn is_for(&self, request: Option<RequestId>) -> bool {
        let none = Self::of_no_request(self.group, self.term).request;
        self.request.is_same(&request.unwrap_or(none))
    }
}

/// The answer on a [`STAGE`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StageAnswer {
    /// Verified, and it survives a power cut from here on.
    Durable {
        /// The pack.
        pack: PackId,
        /// The term it was asked for in.
        term: u64,
    },
    /// It is not kept.
    Refused(String),
}

/// Head of a [`RELEASE`] stream; nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReleaseRequest {
    /// Whose store.
    pub network: NetworkId,
    /// The pack.
    pub pack: PackId,
    /// The push that wanted it.
    pub claim: Claim,
}

/// Head of a [`PACK`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackRequest {
    /// Whose store.
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
    /// The life of it that the request was resolved to.
    pub generation: Generation,
    /// What is asked.
    pub verb: ReadVerb,
}

/// What is asked of a holder.
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
    /// The protected refs, and whether some moves would keep history: one [`WireProtected`] frame. The body is the
    /// moves, postcard of `Vec<(RefName, ObjectId)>`.
    Protected,
    /// Push certificates, the newest first, as one [`WireCertificates`] frame.
    PushCertificates {
        /// Only those that cover this ref.
        reference: Option<RefName>,
        /// How many of the newest are left out.
        skip: u64,
        /// How many at most.
        limit: u32,
    },
    /// A bundle that this holder has: its length as a frame of `u64`, then what of it was asked for.
    Bundle {
        /// Its id.
        id: [u8; 32],
        /// What of it.
        range: WireRange,
    },
    /// One of the others, asked by somebody of whom nothing is known. From release level
    /// [`VERSION_READS_OF_ANYBODY`](henge_types::command::VERSION_READS_OF_ANYBODY) on.
    OfAnybody(Box<Self>),
}

/// A [`henge_git::http::ByteRange`], as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireRange {
    /// All of it.
    Whole,
    /// From this byte on.
    From(u64),
    /// From the first byte to the second one, both included.
    Between(u64, u64),
    /// So many at its end.
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
    /// The repository has another life, or is gone from the shard.
    WrongGeneration,
    /// The request makes no sense or may not be answered.
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
    /// The life of it that the request was resolved to.
    pub generation: Generation,
    /// What is asked.
    pub verb: MaintainVerb,
}

/// What is asked of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MaintainVerb {
    /// The figures.
    Stats,
    /// The mirrors.
    Mirrors,
    /// Compact as soon as it is its turn; then the figures.
    Compact {
        /// How much is merged.
        depth: CompactionDepth,
    },
    /// What the repository may hold.
    Limits,
    /// What is asked of pushes to it.
    PushRules,
}

/// The answer on a [`MAINTAIN`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MaintainAnswer {
    /// The figures now.
    Stats(RepoStats),
    /// The mirrors now, without what is secret.
    Mirrors(Vec<Mirror>),
    /// Another node leads, perhaps.
    NotLeader,
    /// The repository has another life, or is gone from the shard.
    WrongGeneration,
    /// It may not be done now.
    Refused(ErrorCode, String),
    /// What the repository may hold.
    Limits(RepoLimits),
    /// What is asked of pushes to it.
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
    /// The life of it that the request was resolved to.
    pub generation: Generation,
    /// What is asked.
    pub verb: CheckVerb,
}

/// What is asked of a replica about its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CheckVerb {
    /// How the check stands.
    Look,
    /// Check it as soon as it is its turn; then as above.
    Start {
        /// Fetch packs that are damaged from other replicas.
        repair: bool,
    },
}

/// The answer on a [`CHECK`] stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CheckAnswer {
    /// How it stands now.
    Stands(Box<ReplicaCheck>),
    /// The repository has another life, or is gone from the shard.
    WrongGeneration,
    /// It may not be done now.
    Refused(ErrorCode, String),
}

/// Refs at one point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireRefs {
    /// What HEAD points at.
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
    /// How many there are of what was asked for.
    pub total: u64,
    /// Some of them, the newest first.
    pub certificates: Vec<PushCertificateRecord>,
}

/// The protected refs at one point in time, and what moves of refs would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireProtected {
    /// The patterns.
    pub protections: RefProtections,
    /// The index they and the refs were read at.
    pub applied: henge_types::LogIndex,
    /// One per move, in their order.
    pub moves: Vec<WireMove>,
}

/// What a move of a ref would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireMove {
    /// What the ref is at.
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
    // Grows with what arrives: a length alone makes nobody allocate.
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
