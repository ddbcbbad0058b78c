//! Replies: what applying a command answers. A refusal is a reply, never an error.

use serde::{Deserialize, Serialize};

mod encoding;
mod typed;

pub use typed::{NotAccepted, ReplyKind, TypedReply};

use crate::ids::{Generation, NetworkId, RepoId};
use crate::names::{RefName, RefPattern, RepoPath};
use crate::object::{ObjectId, PackId};
use crate::records::RepoRecord;
use crate::starts::RegisteredStart;

/// The answer of `apply`. Recorded with the request id, so its encoding only grows at the end: see `encoding`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, or already so.
    Done,
    /// The repository as the catalogue has it now.
    Repo(RepoRecord),
    /// A push: one verdict per update, in its order.
    RefsUpdated {
        /// The verdicts.
        verdicts: Vec<RefVerdict>,
    },
    /// Nothing was done.
    Refused(Refusal),
    /// The request id is older than its record may be: whether it was ever executed is not known.
    UnknownOutcome,
    /// What was checked has changed since `checked_at` (a `GcEpoch`, the protected refs): check and propose again.
    Recheck,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The name is taken by this repository.
    NameTaken {
        /// The name.
        path: RepoPath,
        /// Who has it.
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
    /// The repository's name has started another life: resolve it again.
    WrongGeneration {
        /// What the command named.
        named: Generation,
        /// What it is.
        current: Generation,
    },
    /// The repository is not in the state that the command needs.
    WrongState {
        /// The id.
        repo: RepoId,
    },
    /// The same request id came with other content or from somebody else.
    RequestMismatch,
    /// The cluster is formed already.
    AlreadyFormed,
    /// The node is not a member, or its incarnation is another.
    UnknownNode,
    /// The command breaks a limit or its own rules; a proposer that checks never sees it.
    Invalid,
    /// The network has no live repository.
    NoSuchNetwork {
        /// The network.
        network: NetworkId,
    },
    /// The network's manifest does not name the pack, or no longer.
    NoSuchPack {
        /// The pack.
        pack: PackId,
    },
    /// The pattern of refs is protected already.
    ProtectionExists,
    /// The pattern of refs is not protected.
    NoSuchProtection,
    /// The repository has as many of these as it may have.
    TooMany,
    /// A later start of the node is registered than any that its data directory knows.
    LaterStart {
        /// The registered one.
        registered: RegisteredStart,
    },
}

/// What became of one ref update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefVerdict {
    /// The ref.
    pub name: RefName,
    /// Its value before, where there was one.
    pub old: Option<ObjectId>,
    /// `Ok` when the ref now has the new value.
    pub result: Result<(), RefRefusal>,
}

/// Why a ref update was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefRefusal {
    /// The ref has another value than expected; git's users know it as `fetch first` / `stale info`.
    Stale {
        /// What it is.
        current: Option<ObjectId>,
    },
    /// It exists and must not.
    Exists {
        /// What it is.
        current: ObjectId,
    },
    /// It must exist and does not.
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
        /// By this.
        pattern: RefPattern,
    },
    /// The ref is protected: it must keep its history.
    ProtectedFromForce {
        /// By this.
        pattern: RefPattern,
    },
    /// The repository holds as many refs as it may.
    TooManyRefs {
        /// How many that is.
        max: u64,
    },
    /// The network of the repository holds as many bytes of packs as it may.
    PacksFull {
        /// Bytes that it holds.
        used: u64,
        /// Bytes that it may hold.
        max: u64,
        /// Bytes that the packs of the push and their indexes need.
        bytes: u64,
    },
}
