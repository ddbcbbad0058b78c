//! All pairs of one group, in memory.

use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use crate::hash::StateHash;
use crate::view::{View, Write};

/// The state of one group: copy-on-write, so that a clone is a cheap view of one point in time, for
/// snapshots and readers, while the original changes.
#[derive(Clone, Default)]
pub struct State {
    pairs: OrdMap<Bytes, Bytes>,
    hash: StateHash,
}

impl State {
    /// No pairs.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The state of these pairs, with its hash computed from them. A duplicate key has its last
    /// value.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (Bytes, Bytes)>) -> Self {
        let mut state = Self::empty();
        for (key, value) in pairs {
            state.put(&key, value);
        }
        state
    }

    /// Applies the writes of one outcome in their order, and updates the hash.
    pub fn commit(&mut self, writes: &[Write]) {
        for write in writes {
            match &write.value {
                Some(value) => self.put(&write.key, value.clone()),
                None => self.remove(&write.key),
            }
        }
    }

    /// The hash, as maintained.
    pub fn hash(&self) -> [u8; 32] {
        self.hash.to_bytes()
    }

    /// The hash, recomputed from all pairs: the scrub compares it with [`Self::hash`].
    pub fn recompute_hash(&self) -> [u8; 32] {
        let mut hash = StateHash::default();
        for (key, value) in self.iter() {
            hash.add(key, value);
        }
        hash.to_bytes()
    }

    /// All pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.pairs.iter()
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn put(&mut self, key: &Bytes, value: Bytes) {
        self.hash.add(key, &value);
        if let Some(old) = self.pairs.insert(key.clone(), value) {
            self.hash.remove(key, &old);
        }
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(old) = self.pairs.remove(key) {
            self.hash.remove(key, &old);
        }
    }
}

impl View for State {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.pairs.get(key).cloned()
    }

    fn range<'v>(
        &'v self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = (&'v Bytes, &'v Bytes)> + use<'v> {
        let start = from.max(prefix);
        let end = successor(prefix);
        // A range that ends before it starts panics in some maps and is empty here.
        let possible = end.as_deref().is_none_or(|end| start < end);
        let end = match &end {
            Some(end) => Bound::Excluded(end.as_slice()),
            None => Bound::Unbounded,
        };
        possible
            .then(|| self.pairs.range::<_, [u8]>((Bound::Included(start), end)))
            .into_iter()
            .flatten()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("pairs", &self.pairs.len())
            .field("hash", &Bytes::copy_from_slice(&self.hash()))
            .finish()
    }
}

/// The lowest key above every key that starts with `prefix`; none without such a key.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    let byte = end.last_mut()?;
    *byte += 1;
    Some(end)
}
