//! A store in memory, for tests and simulation.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use henge_types::GroupId;

use super::{GroupImage, Kv, KvError};

#[derive(Debug, Default)]
struct Group {
    meta: Bytes,
    pairs: BTreeMap<Bytes, Bytes>,
}

/// A store in memory, without persistence.
#[derive(Debug, Default)]
pub struct MemoryKv {
    groups: Mutex<Option<BTreeMap<GroupId, Group>>>,
}

impl MemoryKv {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            groups: Mutex::new(Some(BTreeMap::new())),
        }
    }

    fn with<T>(&self, job: impl FnOnce(&mut BTreeMap<GroupId, Group>) -> T) -> Result<T, KvError> {
        self.lock().as_mut().map(job).ok_or(KvError::Closed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<GroupId, Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kv for MemoryKv {
    fn load(&self, group: GroupId) -> Result<Option<GroupImage>, KvError> {
        self.with(|groups| {
            groups.get(&group).map(|group| GroupImage {
                meta: group.meta.clone(),
                pairs: group
                    .pairs
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            })
        })
    }

    fn commit(
        &self,
        group: GroupId,
        meta: Bytes,
        writes: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), KvError> {
        self.with(|groups| {
            let group = groups.entry(group).or_default();
            group.meta = meta;
            for (key, value) in writes {
                match value {
                    Some(value) => group.pairs.insert(key.clone(), value.clone()),
                    None => group.pairs.remove(key),
                };
            }
        })
    }

    fn replace(
        &self,
        group: GroupId,
        meta: Bytes,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), KvError> {
        let pairs = pairs.collect();
        self.with(|groups| {
            groups.insert(group, Group { meta, pairs });
        })
    }

    fn wipe(&self, group: GroupId) -> Result<(), KvError> {
        self.with(|groups| {
            groups.remove(&group);
        })
    }

    fn close_clean(&self) -> Result<(), KvError> {
        let groups = self.lock().take();
        groups.map(drop).ok_or(KvError::Closed)
    }
}
