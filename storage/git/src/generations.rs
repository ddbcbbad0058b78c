//! A size-bounded cache in two generations.

use std::hash::{BuildHasher, Hash};

/// A cache with a limit in bytes. Once the younger generation exceeds half of the limit, it becomes
/// the older one, and the entries of the former older one are dropped.
#[derive(Debug)]
pub(crate) struct Generations<K, V, S> {
    young: std::collections::HashMap<K, V, S>,
    old: std::collections::HashMap<K, V, S>,
    young_bytes: usize,
    bytes_max: usize,
}

impl<K: Eq + Hash, V: Clone, S: BuildHasher + Default> Generations<K, V, S> {
    /// Creates an empty cache of at most `bytes_max` bytes plus one value for each generation.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            young: std::collections::HashMap::default(),
            old: std::collections::HashMap::default(),
            young_bytes: 0,
            bytes_max,
        }
    }

    /// The value of a key, moved to the younger generation. `bytes` returns the size of a value.
    pub(crate) fn get(&mut self, key: &K, bytes: impl FnOnce(&V) -> usize) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        let bytes = bytes(&value);
        self.put(key, value.clone(), bytes);
        Some(value)
    }

    /// Inserts a value of `bytes` bytes.
    pub(crate) fn put(&mut self, key: K, value: V, bytes: usize) {
        if self.young_bytes > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::hash_map::RandomState;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut kept: Generations<u32, u32, RandomState> = Generations::new(100);
        for number in 0..1000 {
            kept.put(number, number * 2, 10);
            assert_eq!(kept.get(&0, |_| 10), Some(0));
            assert_eq!(kept.get(&number, |_| 10), Some(number * 2));
            assert!(kept.young.len() + kept.old.len() <= 13);
        }
        assert_eq!(kept.get(&500, |_| 10), None);
    }
}
