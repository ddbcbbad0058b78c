//! Replies: the results of applied commands. A refusal is a reply, never an error.

use serde::{Deserialize, Serialize};

mod encoding;
mod typed;

pub use typed::{NotAccepted, ReplyKind, TypedReply};

use crate::ids::{Generation, NetworkId, RepoId};
use crate::names::{RefName, RefPattern, RepoPath};
use crate::object::{ObjectId, PackId};
use crate::records::RepoRecord;
use crate::starts::RegisteredStart;

/// The result of `apply`. Stored with the request id, so its encoding only grows at the end: see
/// `encoding`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, now or by an earlier command.
    Done,
    /// The current record of the repository in the catalogue.
    Repo(RepoRecord),
    /// A push: one verdict per update, in its order.
    RefsUpdated {
        /// The verdicts.
        verdicts: Vec<RefVerdict>,
    },
    /// Nothing was done.
    Refused(Refusal),
    /// The request id is older than its record may be: the command may have been executed or not.
    UnknownOutcome,
    /// The state that was checked at `checked_at` has changed since (a `GcEpoch`, the protected
    /// refs): check and propose again.
    Recheck,
}

/// The reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The name is taken by this repository.
    NameTaken {
        /// The name.
        path: RepoPath,
        /// The repository with this name.
        by: RepoId,
    },
    /// The id was used before.
    IdTaken {
        /// The id.
        repo: RepoId,
    },
    /// There is no such repository, or it is deleted.
    NoSuchRepo {
        /// The id.
        repo: RepoId,
    },
    /// The repository's name has another generation: resolve it again.
    WrongGeneration {
        /// The generation in the command.
        named: Generation,
        /// The current generation.
        current: Generation,
    },
    /// The repository is not in the state that the command needs.
    WrongState {
        /// The id.
        repo: RepoId,
    },
    /// The same request id came with other content or from another principal.
    RequestMismatch,
    /// The cluster is formed already.
    AlreadyFormed,
    /// The node is not a member, or its incarnation is another.
    UnknownNode,
    /// The command breaks a limit or its own rules. A proposer that checks its commands never gets
    /// this reply.
    Invalid,
    /// The network has no live repository.
    NoSuchNetwork {
        /// The network.
        network: NetworkId,
    },
    /// The network's manifest does not name the pack, or no longer does.
    NoSuchPack {
        /// The pack.
        pack: PackId,
    },
    /// The pattern of refs is protected already.
    ProtectionExists,
    /// The pattern of refs is not protected.
    NoSuchProtection,
    /// The repository has the allowed number of these.
    TooMany,
    /// The data directory does not have the latest registered start of its node.
    LaterStart {
        /// The registered one.
        registered: RegisteredStart,
    },
}

/// The result of one ref update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefVerdict {
    /// The ref.
    pub name: RefName,
    /// Its value before, if there was one.
    pub old: Option<ObjectId>,
    /// `Ok` when the ref now has the new value.
    pub result: Result<(), RefRefusal>,
}

/// Why a ref update was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefRefusal {
    /// The ref has another value than expected; git reports it as `fetch first` / `stale info`.
    Stale {
        /// Its current value.
        current: Option<ObjectId>,
    },
    /// The ref exists and must not.
    Exists {
        /// Its current value.
        current: ObjectId,
    },
    /// The ref does not exist and must.
    Missing,
    /// `refs/heads/a` and `refs/heads/a/b` cannot both exist.
    NameConflict {
        /// The ref in the way.
        with: RefName,
    },
    /// Another update of the same atomic push was refused.
    AtomicAborted,
    /// The repository is archived: it is read-only.
    Archived,
    /// The ref is protected: it must not be deleted.
    ProtectedFromDeletion {
        /// The pattern that protects it.
        pattern: RefPattern,
    },
    /// The ref is protected: it must keep its history.
    ProtectedFromForce {
        /// The pattern that protects it.
        pattern: RefPattern,
    },
    /// The repository is at its quota of refs.
    TooManyRefs {
        /// The quota.
        max: u64,
    },
    /// The network of the repository is at its quota of pack bytes.
    PacksFull {
        /// Bytes of its packs.
        used: u64,
        /// The quota, bytes.
        max: u64,
        /// Bytes that the packs of the push and their indexes need.
        bytes: u64,
    },
}
