//! What the protocol needs of refs: [`RefStore`], and what a checked push hands to it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use henge_types::{
    ObjectFormat, ObjectId, PackId, PushCertificate, RefName, RefUpdate, RefVerdict,
};

use crate::push::{Nonces, PushPolicy};

/// The refs of one repository. Blocking.
///
/// Implemented by a plain bare repository here ([`crate::bare::BareRepository`]) and by replicated state elsewhere.
pub trait RefStore: Send + Sync {
    /// What HEAD points at; it may not exist.
    fn head(&self) -> RefName;

    /// The value of a ref, if it is there and visible.
    fn get(&self, name: &RefName) -> Option<ObjectId>;

    /// Visits every visible ref whose full name starts with `prefix`, in byte order of the names.
    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId));

    /// The same with names as text: what lies in a state in great numbers need not be checked anew.
    fn for_each_name(&self, prefix: &str, visit: &mut dyn FnMut(&str, ObjectId)) {
        self.for_each(prefix, &mut |name, id| visit(name.as_str(), id));
    }

    /// Whether `id` was the value of a visible ref until a short while ago: such a value may still be wanted.
    fn was_tip_recently(&self, id: ObjectId) -> bool;

    /// How the repository names its objects: every value here is of this format.
    fn object_format(&self) -> ObjectFormat {
        ObjectFormat::Sha1
    }

    /// A number that changes whenever HEAD or a visible ref does; `None` where that is not known cheaply.
    fn version(&self) -> Option<u64> {
        None
    }

    /// Whether the object store holds, or ever held, what belongs to other repositories: then that an object is there must
    /// not be told to who may only see this one.
    fn shares_objects(&self) -> bool {
        false
    }

    /// What the owner allows of pushes; everything, unless said otherwise.
    fn push_policy(&self) -> PushPolicy {
        PushPolicy::default()
    }

    /// What signed pushes are asked to sign; none where they are not offered.
    fn nonces(&self) -> Option<Nonces> {
        None
    }

    /// Makes a checked push durable: its pack first, then the refs, each against its expected value.
    ///
    /// One verdict per update, in their order.
    ///
    /// # Errors
    /// When nothing was done or when it is not known what was done; the push then ends without a report.
    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError>;
}

/// A push whose pack was indexed and whose closure was checked.
#[derive(Debug)]
pub struct VerifiedPush<'a> {
    /// The completed pack in the quarantine; none when the push brought no object.
    pub pack: Option<QuarantinedPack>,
    /// The updates that passed every check before the commit, in the client's order. No ref twice.
    pub updates: Vec<RefUpdate>,
    /// All or nothing.
    pub atomic: bool,
    /// Push options, as sent.
    pub options: Vec<String>,
    /// What was signed of it. The signature was not verified.
    pub certificate: Option<PushCertificate>,
    /// What the check of the closure did.
    pub checked: &'a ClosureCheck,
}

/// A pack and its index in a quarantine. Nothing of it is fsynced yet.
#[derive(Debug, Clone)]
pub struct QuarantinedPack {
    /// Its trailing checksum.
    pub id: PackId,
    /// The pack file, complete (a thin pack's bases were added).
    pub pack_path: PathBuf,
    /// Its version 2 index.
    pub idx_path: PathBuf,
    /// Bytes of the pack file.
    pub pack_bytes: u64,
    /// Bytes of the index.
    pub idx_bytes: u64,
    /// Objects in it.
    pub objects: u32,
    /// Both files where they lie in memory: the paths lead to them while they are held here, and nowhere else. They can be
    /// read, not renamed.
    pub in_memory: Option<[Arc<File>; 2]>,
}

/// What checking a push's closure did, for logs and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClosureCheck {
    /// Pushed objects that were read and checked.
    pub objects_walked: u64,
    /// Objects outside the pack that had to be proven reachable.
    pub proven: u64,
    /// Objects of the repository that were read to prove it.
    pub history_read: u64,
}

/// What became of one update where not all of them have verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// It was done or refused.
    Judged(RefVerdict),
    /// It was not done.
    Failed {
        /// Why, for the person.
        message: String,
    },
    /// It may or may not have been done.
    Unknown {
        /// What went wrong, for the person.
        message: String,
    },
}

/// Why a commit has no verdicts.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was done.
    #[error("the push cannot be taken now: {message}")]
    Unavailable {
        /// What to tell the person.
        message: String,
    },
    /// It may or may not have been done.
    #[error("the outcome of the push is not known: {message}")]
    UnknownOutcome {
        /// What to tell the person.
        message: String,
    },
    /// Some updates could not be decided: the others are done or refused, and the push has a report.
    #[error("the push was stored in part")]
    Partial {
        /// One per update, in their order.
        outcomes: Vec<UpdateOutcome>,
    },
    /// The repository is gone.
    #[error("the repository does not exist any more")]
    NotFound,
    /// The disk failed; the refs were not changed.
    #[error("the push could not be stored: {0}")]
    Io(#[from] std::io::Error),
}
