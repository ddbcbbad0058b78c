//! Each pushed object by itself, against the repository's rules: as the walk reads it, and what no tip reaches behind it.

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

/// Why the tips of a push have no results of their own.
#[derive(Debug)]
pub(crate) enum NoResults {
    /// All are refused for one object.
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

/// What was checked so far.
pub(super) struct CheckedObjects<'a> {
    check: ObjectCheck<'a>,
    /// Pushed objects that were looked at, by their places in the index of their pack.
    done: Bits,
    /// Blobs that are still to be checked. All of them may be read: they were pushed, or were proven reachable.
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

    /// Checks what the walk has not come to.
    fn check_unreached(
        &mut self,
        store: &ObjectStore,
        pushed: &Pushed,
        stop: &Stop,
    ) -> Result<(), NoResults> {
        let index = &store.pack(pushed.slot).index;
        let is_sent = |id: &Oid| index.lookup(id).is_some() && !pushed.external.contains(id);
        // In the order of the file, where a delta follows its base: in that of ids each would be made from its whole chain.
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
            // Nothing proves that the repository may see the others.
            named.retain(is_sent);
            self.named.append(named);
        }
        Ok(())
    }

    /// Checks what trees call `.gitmodules` and `.gitattributes`.
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

/// What has a name, unless it is larger than is read for this.
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
    /// Whether rules say which names a tree may hold.
    pub(super) const fn has_rules(&self) -> bool {
        self.objects.is_some()
    }

    /// Checks a pushed object that the walk has read: the one at `place` in the index.
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

    /// Notes a pushed object that has nothing to be checked by itself.
    pub(super) fn note_object(&mut self, place: u32) {
        if let Some(objects) = &mut self.objects {
            objects.done.insert(place);
        }
    }

    /// What trees name may be read: the walk that came across it has proven all of it.
    pub(super) fn take_named(&mut self, named: NamedBlobs) {
        if let Some(objects) = &mut self.objects {
            objects.named.append(named);
        }
    }

    /// Checks the pushed objects that no tip reaches, and the blobs that trees give a meaning. To be asked when all tips
    /// were checked.
    pub(crate) fn check_other_objects(&mut self) -> Result<(), NoResults> {
        let (Some(objects), Some(pushed)) = (&mut self.objects, &self.pushed) else {
            return Ok(());
        };
        objects.check_unreached(self.store, pushed, &self.limits.stop)?;
        objects.check_named(self.store, &self.limits.stop)
    }

    /// What was found in pushed objects and does not refuse them: lines for the person.
    pub(crate) fn warnings(&self) -> String {
        let objects = self.objects.as_ref();
        objects.map_or_else(String::new, |objects| objects.check.warnings.text())
    }
}
