//! The current readers of each network's store: a store with a reader is not removed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use henge_types::NetworkId;

/// Counts readers per network; clones share the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<BTreeMap<NetworkId, usize>>>);

/// One reader. Create it before the lookup of the repository in the state: a reader that finds it
/// live is then counted before the store can be found without readers.
#[derive(Debug)]
pub(crate) struct Reading {
    readers: Readers,
    network: NetworkId,
}

impl Readers {
    /// Counts a reader until it is dropped.
    pub(crate) fn enter(&self, network: NetworkId) -> Reading {
        *self.lock().entry(network).or_insert(0) += 1;
        Reading {
            readers: self.clone(),
            network,
        }
    }

    /// Whether the network's store has no reader.
    pub(crate) fn are_gone(&self, network: &NetworkId) -> bool {
        !self.lock().contains_key(network)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NetworkId, usize>> {
        self.0.lock().expect("invariant: counting does not panic")
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut counts = self.readers.lock();
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_unread_when_its_last_reader_is_gone() {
        let readers = Readers::default();
        let network = NetworkId::from_bytes([1; 16]);
        assert!(readers.are_gone(&network));
        let one = readers.enter(network);
        let two = readers.enter(network);
        drop(one);
        assert!(!readers.are_gone(&network));
        drop(two);
        assert!(readers.are_gone(&network));
    }
}
