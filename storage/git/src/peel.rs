//! Targets of annotated tags, cached for the life of the process.
//!
//! Entries never become stale: an id names its content, so the target is the same in every
//! repository. Refs are listed far more often than tags are made, and reading a tag costs more than
//! everything else in its line.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gix_hashtable::HashMap;
use gix_object::Kind;
use henge_types::ObjectId;

use crate::object::parse_tag;
use crate::oid::{Oid, from_gix, oid, to_gix};
use crate::store::{ObjectStore, Objects, StoreError};

/// The maximum number of cached ids, about 60 bytes each. At the maximum the cache is cleared.
const REMEMBERED_MAX: usize = 200_000;

type Remembered = HashMap<Oid, Option<Oid>>;

fn remembered() -> MutexGuard<'static, Remembered> {
    static REMEMBERED: OnceLock<Mutex<Remembered>> = OnceLock::new();
    REMEMBERED
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Peels the refs of one listing. The first unknown id opens the store.
pub(crate) struct Peeler<'a> {
    objects: &'a Objects,
    store: Option<ObjectStore>,
    buffer: Vec<u8>,
    /// The last value and its result: neighbouring refs often have the same value.
    last: Option<(ObjectId, Option<ObjectId>)>,
}

impl<'a> Peeler<'a> {
    pub(crate) const fn new(objects: &'a Objects) -> Self {
        Self {
            objects,
            store: None,
            buffer: Vec::new(),
            last: None,
        }
    }

    /// The final target of an annotated tag; `None` for any other object.
    pub(crate) fn peel(&mut self, id: ObjectId) -> Result<Option<ObjectId>, StoreError> {
        match self.last {
            Some((last, peeled)) if last == id => Ok(peeled),
            Some(_) | None => {
                let peeled = self.look_up(id)?;
                self.last = Some((id, peeled));
                Ok(peeled)
            }
        }
    }

    fn look_up(&mut self, id: ObjectId) -> Result<Option<ObjectId>, StoreError> {
        let Some(gix) = to_gix(id, self.objects.format()) else {
            return Ok(None);
        };
        if let Some(known) = remembered().get(&gix) {
            return Ok(known.map(|target| from_gix(&target)));
        }
        let store = match &mut self.store {
            Some(store) => store,
            None => self.store.insert(self.objects.open()?),
        };
        let peeled = read_and_remember(store, &gix, &mut self.buffer)?;
        Ok(peeled.map(|target| from_gix(&target)))
    }
}

/// The final target of an annotated tag; `None` for any other object, and for a missing one.
pub(crate) fn tag_target(
    store: &ObjectStore,
    id: &oid,
    buffer: &mut Vec<u8>,
) -> Result<Option<Oid>, StoreError> {
    if let Some(known) = remembered().get(id) {
        return Ok(*known);
    }
    read_and_remember(store, id, buffer)
}

fn read_and_remember(
    store: &ObjectStore,
    id: &oid,
    buffer: &mut Vec<u8>,
) -> Result<Option<Oid>, StoreError> {
    // All tags of a chain are cached. Otherwise refs to each of them would each cost a walk of the
    // chain.
    let mut tags = Vec::new();
    let mut at = id.to_owned();
    let target = loop {
        if let Some(known) = remembered().get(&at) {
            break known.unwrap_or(at);
        }
        match store.kind(&at)? {
            // The object is missing, perhaps only so far: the result is not cached.
            None => return Ok(None),
            Some(Kind::Tag) => {
                store.get(&at, buffer)?;
                let target = parse_tag(buffer, store.format());
                let (target, _) = target.ok_or(StoreError::Malformed { id: at })?;
                tags.push(at);
                at = target;
            }
            Some(Kind::Commit | Kind::Tree | Kind::Blob) => break at,
        }
    };
    let mut remembered = remembered();
    if remembered.len() + tags.len() >= REMEMBERED_MAX {
        remembered.clear();
    }
    if tags.is_empty() {
        remembered.insert(target, None);
        return Ok(None);
    }
    let tags = tags.into_iter().take(REMEMBERED_MAX);
    remembered.extend(tags.map(|tag| (tag, Some(target))));
    Ok(Some(target))
}
