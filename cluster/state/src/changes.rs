//! The writes that one apply collects.

use std::collections::BTreeMap;

use bytes::Bytes;
use henge_types::StoredRecord;

use crate::view::{View, Write};

/// A view with the changes of one apply on top: `get` sees them, [`Self::before`] does not.
#[derive(Debug)]
pub(crate) struct Changes<'v, V> {
    view: &'v V,
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

impl<'v, V: View> Changes<'v, V> {
    pub(crate) const fn new(view: &'v V) -> Self {
        Self {
            view,
            writes: BTreeMap::new(),
        }
    }

    /// The state before the entry.
    pub(crate) const fn before(&self) -> &'v V {
        self.view
    }

    /// The value after the entry's changes so far.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.writes.get(key) {
            Some(value) => value.clone(),
            None => self.view.get(key),
        }
    }

    pub(crate) fn put(&mut self, key: Bytes, value: impl Into<Bytes>) {
        self.writes.insert(key, Some(value.into()));
    }

    /// Puts a record in its stored form.
    pub(crate) fn put_record(&mut self, key: Bytes, record: &impl StoredRecord) {
        self.put(key, record.encode());
    }

    pub(crate) fn delete(&mut self, key: Bytes) {
        self.writes.insert(key, None);
    }

    /// The writes, in the order of their keys.
    pub(crate) fn into_writes(self) -> Vec<Write> {
        self.writes
            .into_iter()
            .map(|(key, value)| Write { key, value })
            .collect()
    }
}
