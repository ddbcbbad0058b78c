//! Checks of single pushed objects against the repository's rules: of those on the walk as they are
//! read, then of those that no tip reaches.

use gix_object::Kind;

use crate::bitmap::Bits;
use crate::oid::Oid;
use crate::protocol::Stop;
use crate::push::closure::{Closure, ClosureError, Pushed};
use crate::reach::ReachError;
use crate::rules::{
    ATTRIBUTES_BYTES_MAX, MODULES_BYTES_MAX, Named, NamedBlobs, ObjectCheck, ObjectRules, Pass,
    Unsound,
};
use crate::store::{ObjectStore, StoreError};

/// Reasons for the tips of a push to have no results of their own.
#[derive(Debug)]
pub(crate) enum NoResults {
    /// One object refuses all tips.
    Unsound(Unsound),
    /// The check could not be finished.
    Failed(ReachError),
}

impl From<Unsound> for NoResults {
    fn from(unsound: Unsound) -> Self {
        Self::Unsound(unsound)
    }
}

impl From<ReachError> for NoResults {
    fn from(error: ReachError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for NoResults {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// The state of the checks.
pub(super) struct CheckedObjects<'a> {
    check: ObjectCheck<'a>,
    /// Checked objects, by their position in the index of their pack.
    done: Bits,
    /// Blobs to be checked. All of them may be read: they were pushed, or were proven reachable.
    named: NamedBlobs,
}

impl<'a> CheckedObjects<'a> {
    pub(super) fn new(
        rules: &'a ObjectRules,
        store: &ObjectStore,
        pushed: Option<&Pushed>,
    ) -> Self {
        let objects = pushed.map_or(0, |pushed| store.pack(pushed.slot).index.num_objects());
        Self {
            check: ObjectCheck::new(rules, store.format()),
            done: Bits::new(objects),
            named: NamedBlobs::default(),
        }
    }

    /// Checks the objects that the walk did not reach.
    fn check_unreached(
        &mut self,
        store: &ObjectStore,
        pushed: &Pushed,
        stop: &Stop,
    ) -> Result<(), NoResults> {
        let index = &store.pack(pushed.slot).index;
        let is_sent = |id: &Oid| index.lookup(id).is_some() && !pushed.external.contains(id);
        // In file order a delta follows its base. In the order of ids each object would be rebuilt
        // from its whole chain.
        let mut places: Vec<(u64, u32)> = (0..index.num_objects())
            .filter(|place| !self.done.contains(*place))
            .map(|place| (index.pack_offset_at_index(place), place))
            .collect();
        places.sort_unstable();
        let mut buffer = Vec::new();
        for (_, place) in places {
            let id = index.oid_at_index(place).to_owned();
            if pushed.external.contains(&id) {
                continue;
            }
            check_stop(stop)?;
            let kind = store.kind(&id)?.ok_or(StoreError::Missing { id })?;
            if kind == Kind::Blob {
                continue;
            }
            store.get(&id, &mut buffer)?;
            let mut named = NamedBlobs::default();
            self.check
                .object(&id, kind, &buffer, &mut named, Pass::First)?;
            // Without a proof the repository must not read the others.
            named.retain(is_sent);
            self.named.append(named);
        }
        Ok(())
    }

    /// Checks the blobs that trees name `.gitmodules` and `.gitattributes`.
    fn check_named(&mut self, store: &ObjectStore, stop: &Stop) -> Result<(), NoResults> {
        let mut buffer = Vec::new();
        for id in &self.named.modules {
            check_stop(stop)?;
            let blob = read_named(store, id, MODULES_BYTES_MAX, &mut buffer)?;
            self.check.modules(id, &blob)?;
        }
        for id in &self.named.attributes {
            check_stop(stop)?;
            let blob = read_named(store, id, ATTRIBUTES_BYTES_MAX, &mut buffer)?;
            self.check.attributes(id, &blob)?;
        }
        Ok(())
    }
}

fn check_stop(stop: &Stop) -> Result<(), ReachError> {
    match stop.is_set() {
        true => Err(ReachError::Stopped),
        false => Ok(()),
    }
}

/// Reads a named object. A blob over the limit of this check is not read.
fn read_named<'b>(
    store: &ObjectStore,
    id: &Oid,
    bytes_max: u64,
    buffer: &'b mut Vec<u8>,
) -> Result<Named<'b>, StoreError> {
    match store.header(id)? {
        None => Ok(Named::Missing),
        Some((Kind::Blob, bytes)) if bytes > bytes_max => Ok(Named::LargeBlob),
        Some((Kind::Blob, _)) => {
            store.get(id, buffer)?;
            Ok(Named::Blob(buffer))
        }
        Some((Kind::Tree | Kind::Commit | Kind::Tag, _)) => Ok(Named::Other),
    }
}

impl Closure<'_> {
    /// Whether there are rules, which also cover the names in a tree.
    pub(super) const fn has_rules(&self) -> bool {
        self.objects.is_some()
    }

    /// Checks a pushed object that the walk has read, at `place` in the index.
    pub(super) fn check_object(
        &mut self,
        (id, place): (&Oid, u32),
        kind: Kind,
        data: &[u8],
        named: &mut NamedBlobs,
    ) -> Result<(), ClosureError> {
        let Some(objects) = &mut self.objects else {
            return Ok(());
        };
        let pass = match objects.done.insert(place) {
            true => Pass::First,
            false => Pass::Again,
        };
        let outcome = objects.check.object(id, kind, data, named, pass);
        outcome.map_err(|unsound| ClosureError::NoResults(unsound.into()))
    }

    /// Records a pushed object that needs no check of its own.
    pub(super) fn note_object(&mut self, place: u32) {
        if let Some(objects) = &mut self.objects {
            objects.done.insert(place);
        }
    }

    /// Adds blobs that trees name. They may be read: the walk that reached them is complete, so all
    /// of it is proven.
    pub(super) fn take_named(&mut self, named: NamedBlobs) {
        if let Some(objects) = &mut self.objects {
            objects.named.append(named);
        }
    }

    /// Checks the pushed objects that no tip reaches, and the blobs with a name of special meaning.
    /// Call it after the check of all tips.
    pub(crate) fn check_other_objects(&mut self) -> Result<(), NoResults> {
        let (Some(objects), Some(pushed)) = (&mut self.objects, &self.pushed) else {
            return Ok(());
        };
        objects.check_unreached(self.store, pushed, &self.limits.stop)?;
        objects.check_named(self.store, &self.limits.stop)
    }

    /// Findings in pushed objects that do not refuse them, as lines for the user.
    pub(crate) fn warnings(&self) -> String {
        let objects = self.objects.as_ref();
        objects.map_or_else(String::new, |objects| objects.check.warnings.text())
    }
}
