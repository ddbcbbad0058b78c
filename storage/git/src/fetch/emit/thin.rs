//! Thin deltas, made for one client: objects that would be sent whole become deltas on the client's
//! objects at the same paths.

use std::cell::OnceCell;

use gix_hashtable::HashMap;
use gix_object::Kind;

use crate::delta::{DeltaIndex, encode};
use crate::fetch::emit::deflate::Deflater;
use crate::fetch::select::Selection;
use crate::fetch::warm::{self, Delta};
use crate::oid::Oid;
use crate::protocol::Stop;
use crate::store::{Location, ObjectStore, StoreError};

/// Smaller objects are sent whole: a delta saves nothing.
const OBJECT_BYTES_MIN: u64 = 64;
/// Larger objects are sent whole: a delta takes too long.
const OBJECT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Maximum number of versions between an object and the client's version. Contents that recur form
/// circles.
const VERSIONS_MAX: usize = 1000;
/// Deltas longer than the object's size divided by this are not worth their base.
const DELTA_PART: usize = 2;

/// Finds bases and makes deltas on them.
pub(super) struct ThinDeltas<'a> {
    store: &'a ObjectStore,
    selection: &'a Selection,
    stop: &'a Stop,
    /// Earlier results: the base at the client, if there is one.
    found: HashMap<Oid, Option<Oid>>,
    /// The client's object in a chain of deltas, by pack and offset of the chain's root. The
    /// objects of one chain are usually versions of one file.
    families: OnceCell<std::collections::HashMap<(u32, u64), Oid>>,
    /// Number of deltas that were not cached, including useless ones.
    pub(super) made: u64,
}

impl<'a> ThinDeltas<'a> {
    pub(super) fn new(store: &'a ObjectStore, selection: &'a Selection, stop: &'a Stop) -> Self {
        Self {
            store,
            selection,
            stop,
            found: HashMap::default(),
            families: OnceCell::new(),
            made: 0,
        }
    }

    /// The newest older version of the object that the client has. Versions that are sent as well
    /// are skipped: they may be deltas on this very object.
    fn base(&mut self, id: &Oid) -> Option<Oid> {
        let mut passed = Vec::new();
        let mut at = *id;
        let base = loop {
            if let Some(found) = self.found.get(&at) {
                break *found;
            }
            passed.push(at);
            match self.selection.older.get(&at) {
                Some(older) if !self.selection.contains(older) => break Some(*older),
                Some(older) if passed.len() < VERSIONS_MAX => at = *older,
                Some(_) | None => break None,
            }
        };
        for version in passed {
            self.found.insert(version, base);
        }
        base
    }

    /// The client's object whose chain of deltas has the same root, for an object without a
    /// recorded older version.
    fn relative(&self, id: &Oid, location: Location) -> Option<Oid> {
        if !self.selection.has_counted() {
            // A walk records all older versions.
            return None;
        }
        let families = self.families.get_or_init(|| {
            let mut families = std::collections::HashMap::new();
            let mut older: Vec<_> = self.selection.older.iter().collect();
            older.sort_unstable();
            for (version, base) in older {
                // The writer of the next object checks this, too, and gives up.
                if self.stop.is_set() {
                    break;
                }
                let located = self.store.locate(version);
                if let Some(root) = located.and_then(|at| self.store.chain_root(at)) {
                    families.entry(root).or_insert(*base);
                }
            }
            families
        });
        let base = families.get(&self.store.chain_root(location)?)?;
        (base != id && !self.selection.contains(base)).then_some(*base)
    }

    /// A delta for the object, of fewer bytes than `bytes_max`, and its base; `None` if there is
    /// none.
    pub(super) fn make(
        &mut self,
        id: &Oid,
        location: Location,
        bytes_max: u64,
        deflater: &mut Deflater,
    ) -> Result<Option<(Oid, Delta)>, StoreError> {
        let Some(base) = self.base(id).or_else(|| self.relative(id, location)) else {
            return Ok(None);
        };
        let Some(at_client) = self.store.locate(&base) else {
            return Ok(None);
        };
        let delta = match warm::delta(*id, base) {
            Some(known) => known,
            None => {
                let made = self.make_on((id, location), (&base, at_client), deflater)?;
                self.made += 1;
                warm::keep_delta(*id, base, made.clone());
                made
            }
        };
        let fits = delta.filter(|delta| (delta.deflated.len() as u64) < bytes_max);
        Ok(fits.map(|delta| (base, delta)))
    }

    /// A delta for one object on another, if it is useful.
    fn make_on(
        &self,
        (id, location): (&Oid, Location),
        (base, at_client): (&Oid, Location),
        deflater: &mut Deflater,
    ) -> Result<Option<Delta>, StoreError> {
        for id in [id, base] {
            let bytes = self.store.header(id)?.map_or(0, |(_, bytes)| bytes);
            if !(OBJECT_BYTES_MIN..=OBJECT_BYTES_MAX).contains(&bytes) {
                return Ok(None);
            }
        }
        let target = self.store.read_shared(id, location)?;
        let base = self.store.read_shared(base, at_client)?;
        if base.kind != target.kind || base.kind == Kind::Commit {
            return Ok(None);
        }
        let index = DeltaIndex::new(base.data.as_slice());
        let Some(delta) = encode(&index, &target.data, target.data.len() / DELTA_PART) else {
            return Ok(None);
        };
        let mut deflated = Vec::with_capacity(delta.len() / 2 + 32);
        let written = deflater.write(&delta, &mut deflated);
        written.map_err(|_| StoreError::Malformed { id: *id })?;
        Ok(Some(Delta {
            size: delta.len() as u64,
            deflated: deflated.into(),
        }))
    }
}
