//! The vocabulary of Henge: the types that every other crate uses, without any behaviour.
//!
//! - [`ids`]: numbers and random bytes that name nodes, groups, repositories, requests.
//! - [`names`]: validated owner, repository and ref names.
//! - [`object`]: git object ids and pack ids.
//! - [`limits`]: every bound of the product, in one file.
//! - [`command`], [`reply`]: the proposals to a group and the replies of `apply`.
//! - [`mirrors`]: repositories that follow others on a schedule.
//! - [`certificates`]: signed pushes.
//! - [`conditions`]: the faults of a node, with their duration and the advice.
//! - [`health`]: the judgement of a status, for `cluster status` and for readiness.
//! - [`principal`]: the subject of an action.
//! - [`records`]: the records of the state machines. [`starts`]: the starts of a node, in order.
//! - [`status`]: the status report of a cluster.
//! - [`stored`]: the envelope of all stored bytes: number, version, body; the table of records.
//! - [`tasks`]: the report of a node's background work.
//! - [`error`]: the one list of error codes.
//!
//! It is pure: no clock, no randomness, no files, no sockets, no protobuf.

pub mod certificates;
pub mod command;
pub mod conditions;
pub mod error;
pub mod health;
pub mod ids;
pub mod limits;
pub mod mirrors;
pub mod names;
pub mod object;
pub mod principal;
pub mod records;
pub mod reply;
pub mod starts;
pub mod status;
pub mod stored;
pub mod tasks;

pub use certificates::{
    CertifiedRef, NonceSeed, NonceStatus, PushCertificate, PushCertificateRecord, RecordedRef,
    SignatureKind,
};
pub use command::{
    Command, ConfigureRepo, CreateRepo, EditRepo, ForkRepo, InlinePack, MarkFound, MetaCommand,
    PackRef, PreviousValue, Proposal, PrunePacks, RefUpdate, ReplacePacks, RequestBinding,
    ShardCommand, SignedUpdate, TopicsEdit, TypedCommand, UpdateRefs, VoterClock,
};
pub use conditions::{Condition, ConditionKind, Severity};
pub use error::ErrorCode;
pub use ids::{
    ClusterId, Generation, GroupId, Incarnation, LogIndex, MirrorId, NetworkId, NodeId, RepoId,
    RequestId, StartId,
};
pub use mirrors::{
    BeginMirror, ChangeMirror, EditMirror, Mirror, MirrorChange, MirrorKind, MirrorLast,
    MirrorOutcome, MirrorPusher, MirrorRemoval, MirrorRemovalRecord, MirrorRun, MirrorSecret,
    MirrorSettings, MirrorWord, RecordMirror, SecretEdit, SetMirror,
};
pub use names::{OwnerName, RefName, RefPattern, RefPatterns, RepoName, RepoPath, Topic};
pub use object::{ObjectFormat, ObjectId, PackId};
pub use principal::{InvalidPrincipal, Principal, TokenScope, UserName};
pub use records::{
    ClusterRecord, FsckLevel, InvalidFsckLevel, NodeRecord, PackRecord, PruneMark, PushRules,
    RefProtection, RefProtections, RepoLimits, RepoRecord, RepoState, ShardPlacement, ShardRepo,
    ShardRepoState, UntoldRecord,
};
pub use reply::{NotAccepted, RefRefusal, RefVerdict, Refusal, Reply, ReplyKind, TypedReply};
pub use starts::{KnownStart, RegisterStart, RegisteredStart, StartClaim, StartPlace, StartRecord};
pub use stored::StoredRecord;
