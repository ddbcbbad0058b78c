//! A bare repository as one service shows it: without the refs that its configuration hides.

use henge_types::{ObjectFormat, ObjectId, RefName, RefVerdict};

use crate::bare::BareRepository;
use crate::hidden::HiddenRefs;
use crate::push::{Nonces, PushPolicy};
use crate::refs::{CommitError, RefStore, VerifiedPush};

/// The refs of a repository except those hidden from a service.
///
/// For readers a hidden ref does not exist: it is not listed, a HEAD that points at it is unborn,
/// and objects that only it reaches are not served. Pushes alone collide with it.
#[derive(Debug, Clone, Copy)]
pub struct VisibleRefs<'a> {
    pub(super) repository: &'a BareRepository,
    pub(super) hidden: &'a HiddenRefs,
    /// Whether clients may want the tips of hidden refs nevertheless.
    pub(super) gives_hidden_tips: bool,
    /// Seconds since the Unix epoch, for the nonces of signed pushes; `None` for fetches.
    pub(super) now_s: Option<u64>,
}

impl RefStore for VisibleRefs<'_> {
    fn head(&self) -> RefName {
        self.repository.head()
    }

    fn object_format(&self) -> ObjectFormat {
        self.repository.object_format()
    }

    fn get(&self, name: &RefName) -> Option<ObjectId> {
        if self.hidden.hides(name.as_str()) {
            return None;
        }
        self.repository.get(name)
    }

    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId)) {
        self.repository.for_each(prefix, &mut |name, id| {
            if !self.hidden.hides(name.as_str()) {
                visit(name, id);
            }
        });
    }

    fn was_tip_recently(&self, id: ObjectId) -> bool {
        let mut found = false;
        if self.gives_hidden_tips && !self.hidden.is_empty() {
            self.repository.for_each("", &mut |name, tip| {
                found |= tip == id && self.hidden.hides(name.as_str());
            });
        }
        found
    }

    fn push_policy(&self) -> PushPolicy {
        self.repository.push_policy()
    }

    fn nonces(&self) -> Option<Nonces> {
        self.repository.nonces_at(self.now_s?)
    }

    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        self.repository.commit(push)
    }
}
