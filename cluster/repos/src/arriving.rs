//! Packs that a leader is sending to this node now. A pack on this list is not fetched when an
//! entry names it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use henge_types::{NetworkId, PackId};

/// Counts the streams per pack; clones share the counts. A stalled stream ends by its idle
/// time-out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<BTreeMap<(NetworkId, PackId), usize>>>);

/// One stream; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Arriving {
    arrivals: Arrivals,
    pack: (NetworkId, PackId),
}

impl Arrivals {
    /// Counts a stream until it is dropped.
    pub(crate) fn begin(&self, network: NetworkId, pack: PackId) -> Arriving {
        *self.lock().entry((network, pack)).or_insert(0) += 1;
        Arriving {
            arrivals: self.clone(),
            pack: (network, pack),
        }
    }

    /// Whether a stream of the pack is open.
    pub(crate) fn has(&self, network: &NetworkId, pack: &PackId) -> bool {
        self.lock().contains_key(&(*network, *pack))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NetworkId, PackId), usize>> {
        self.0.lock().expect("invariant: counting does not panic")
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut counts = self.arrivals.lock();
        if let Some(count) = counts.get_mut(&self.pack) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.pack);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ObjectId;

    #[test]
    fn a_pack_arrives_until_its_last_stream_ends() {
        let arrivals = Arrivals::default();
        let (network, other) = (
            NetworkId::from_bytes([1; 16]),
            NetworkId::from_bytes([2; 16]),
        );
        let pack = PackId::new(ObjectId::Sha1([7; 20]));
        let first = arrivals.begin(network, pack);
        let second = arrivals.begin(network, pack);
        assert!(!arrivals.has(&other, &pack));
        drop(first);
        assert!(arrivals.has(&network, &pack));
        drop(second);
        assert!(!arrivals.has(&network, &pack));
    }
}
