//! The interface of the protocol to refs: [`RefStore`], and the checked push that it receives.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use henge_types::{
    ObjectFormat, ObjectId, PackId, PushCertificate, RefName, RefUpdate, RefVerdict,
};

use crate::push::{Nonces, PushPolicy};

/// The refs of one repository. Methods block.
///
/// Implemented by a plain bare repository here ([`crate::bare::BareRepository`]) and by replicated
/// state elsewhere.
pub trait RefStore: Send + Sync {
    /// The target of HEAD, which may not exist.
    fn head(&self) -> RefName;

    /// The value of a ref, if it exists and is visible.
    fn get(&self, name: &RefName) -> Option<ObjectId>;

    /// Visits every visible ref whose full name starts with `prefix`, in byte order of the names.
    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId));

    /// The same with names as text: a store of many refs need not validate each name again.
    fn for_each_name(&self, prefix: &str, visit: &mut dyn FnMut(&str, ObjectId)) {
        self.for_each(prefix, &mut |name, id| visit(name.as_str(), id));
    }

    /// Whether `id` was the value of a visible ref until a short while ago: clients may still want
    /// it.
    fn was_tip_recently(&self, id: ObjectId) -> bool;

    /// The object format of the repository: every value here is of this format.
    fn object_format(&self) -> ObjectFormat {
        ObjectFormat::Sha1
    }

    /// A number that changes whenever HEAD or a visible ref changes; `None` where it would be
    /// expensive.
    fn version(&self) -> Option<u64> {
        None
    }

    /// Whether the object store holds, or ever held, objects of other repositories. Then the
    /// presence of an object must not be shown to clients that may see only this repository.
    fn shares_objects(&self) -> bool {
        false
    }

    /// The restrictions on pushes; none by default.
    fn push_policy(&self) -> PushPolicy {
        PushPolicy::default()
    }

    /// The nonces for signed pushes; `None` if signed pushes are not offered.
    fn nonces(&self) -> Option<Nonces> {
        None
    }

    /// Makes a checked push durable: its pack first, then the refs, each against its expected
    /// value.
    ///
    /// Returns one verdict for each update, in their order.
    ///
    /// # Errors
    /// When nothing was done or the outcome is unknown: the push then ends without a report. With
    /// [`CommitError::Partial`] it has a report.
    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError>;
}

/// A push with an indexed pack and a completed connectivity check.
#[derive(Debug)]
pub struct VerifiedPush<'a> {
    /// The completed pack in the quarantine; `None` if the push brought no object.
    pub pack: Option<QuarantinedPack>,
    /// The updates that passed every check before the commit, in the client's order. No ref occurs
    /// twice.
    pub updates: Vec<RefUpdate>,
    /// Whether to apply all updates or none.
    pub atomic: bool,
    /// Push options, as sent.
    pub options: Vec<String>,
    /// The certificate of a signed push. The signature was not verified.
    pub certificate: Option<PushCertificate>,
    /// Counts of the connectivity check.
    pub checked: &'a ClosureCheck,
}

/// A pack and its index in a quarantine. Nothing is fsynced yet.
#[derive(Debug, Clone)]
pub struct QuarantinedPack {
    /// Its trailing checksum.
    pub id: PackId,
    /// The pack file, complete: bases of a thin pack were added.
    pub pack_path: PathBuf,
    /// Its version 2 index.
    pub idx_path: PathBuf,
    /// Bytes of the pack file.
    pub pack_bytes: u64,
    /// Bytes of the index.
    pub idx_bytes: u64,
    /// Number of objects.
    pub objects: u32,
    /// Both files, if they are in memory. The paths then work only within this process and while
    /// the files are held here. They can be read, not renamed.
    pub in_memory: Option<[Arc<File>; 2]>,
}

/// Counts of the connectivity check of a push, for logs and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClosureCheck {
    /// Pushed objects that were read and checked.
    pub objects_walked: u64,
    /// Objects outside the pack that had to be proven reachable.
    pub proven: u64,
    /// Objects of the repository that were read for these proofs.
    pub history_read: u64,
}

/// The outcome of one update of a push that was committed in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// The update was done or refused.
    Judged(RefVerdict),
    /// The update was not done.
    Failed {
        /// The reason, for the user.
        message: String,
    },
    /// It may or may not have been done.
    Unknown {
        /// The error, for the user.
        message: String,
    },
}

/// Reasons for a commit to have no verdicts.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was done.
    #[error("the push cannot be taken now: {message}")]
    Unavailable {
        /// The reason, for the user.
        message: String,
    },
    /// The push may or may not have been done.
    #[error("the outcome of the push is not known: {message}")]
    UnknownOutcome {
        /// The error, for the user.
        message: String,
    },
    /// Some updates were not decided. The others are done or refused, and the push has a report.
    #[error("the push was stored in part")]
    Partial {
        /// One for each update, in their order.
        outcomes: Vec<UpdateOutcome>,
    },
    /// The repository is gone.
    #[error("the repository does not exist any more")]
    NotFound,
    /// The disk failed; the refs were not changed.
    #[error("the push could not be stored: {0}")]
    Io(#[from] std::io::Error),
}
