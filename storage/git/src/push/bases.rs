//! Lookup of the delta bases of a thin pack.

use std::cell::RefCell;
use std::io;

use gix_hashtable::HashSet;

use crate::oid::{Oid, oid};
use crate::protocol::Stop;
use crate::reach::{Reach, ReachError};
use crate::store::ObjectStore;

/// Looks up the bases of a thin pack and records the ones used.
///
/// The store may hold objects of other repositories. Then an object that is unreachable from this
/// repository's refs is no base: the result of the push must not depend on its presence.
pub(super) struct Bases<'a> {
    pub(super) store: &'a ObjectStore,
    stop: &'a Stop,
    /// Proofs from the repository's refs; `None` where the repository owns the whole store.
    reach: Option<RefCell<Reach<'a>>>,
    used: RefCell<HashSet<Oid>>,
    /// The error of a proof that failed.
    failure: RefCell<Option<ReachError>>,
}

impl<'a> Bases<'a> {
    pub(super) fn new(store: &'a ObjectStore, stop: &'a Stop, reach: Option<Reach<'a>>) -> Self {
        Self {
            store,
            stop,
            reach: reach.map(RefCell::new),
            used: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// The error of a proof that failed, if one did.
    pub(super) fn failure(&self) -> Option<ReachError> {
        self.failure.take()
    }

    /// The bases that were used.
    pub(super) fn into_used(self) -> HashSet<Oid> {
        self.used.into_inner()
    }

    fn may_be_seen(&self, id: &oid) -> gix_error::Result<bool> {
        let Some(reach) = &self.reach else {
            return Ok(true);
        };
        match reach.borrow_mut().proves(id) {
            Ok(is_proven) => Ok(is_proven),
            Err(error) => {
                *self.failure.borrow_mut() = Some(error);
                let stopped = io::Error::other("the base of a delta could not be checked");
                Err(gix_error::Error::from_error(stopped))
            }
        }
    }
}

impl gix_object::Find for Bases<'_> {
    fn try_find<'b>(
        &self,
        id: &oid,
        buffer: &'b mut Vec<u8>,
    ) -> gix_error::Result<Option<gix_object::Data<'b>>> {
        if self.stop.is_set() {
            return Err(gix_error::Error::from_error(too_long()));
        }
        if !self.may_be_seen(id)? {
            return Ok(None);
        }
        let found = gix_object::Find::try_find(self.store, id, buffer)?;
        if found.is_some() {
            self.used.borrow_mut().insert(id.to_owned());
        }
        Ok(found)
    }
}

pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the push took too long")
}
