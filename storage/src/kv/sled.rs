//! The store on sled.
//!
//! Keys: group (4 bytes, big-endian), then 0 for the applied position, or 1 and the pair's key.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use henge_types::GroupId;
use rustix::fs::FlockOperation;
use sled::{Batch, Db};

use super::guard::guarded;
use super::marker::{self, Found};
use super::{GroupImage, Kv, KvError, Trust, WipeReason};
use crate::disk::{Disk, OsDisk};

const META: u8 = 0;
const PAIR: u8 = 1;
/// Sled's page cache, bytes.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Pairs per batch when a group is replaced or wiped.
const REPLACE_PAIRS: usize = 1024;

/// The store on sled.
#[derive(Debug)]
pub struct SledKv {
    dir: PathBuf,
    /// Lock file, held while the store is open.
    lock: File,
    db: RwLock<Option<Db>>,
    /// Whether sled failed. Further calls are then refused, and the next start wipes the store.
    broken: AtomicBool,
}

impl SledKv {
    /// Opens the store in `dir`; wipes it first unless the last shutdown was clean. Blocking.
    ///
    /// # Errors
    /// [`KvError::Locked`] when another process has the store open; otherwise the error that
    /// prevented even a new store.
    pub fn open(dir: &Path) -> Result<(Self, Trust), KvError> {
        OsDisk
            .create_dir_all(dir)
            .map_err(io("make its directory"))?;
        let lock = File::create(dir.join("lock")).map_err(io("make its lock file"))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(KvError::Locked);
        }
        let store = dir.join("sled");
        let trust = match judge(dir, &store).map_err(io("read its clean-stop marker"))? {
            Trust::Clean => open_guarded(&store).ok_or(WipeReason::WouldNotOpen),
            Trust::Wiped { reason } => Err(reason),
        };
        let (db, trust) = match trust {
            Ok(db) => (db, Trust::Clean),
            Err(reason) => {
                wipe_directory(&store).map_err(io("wipe it"))?;
                let db = config(&store).open().map_err(refused("open a new store"))?;
                (db, Trust::Wiped { reason })
            }
        };
        let kv = Self {
            dir: dir.to_owned(),
            lock,
            db: RwLock::new(Some(db)),
            broken: AtomicBool::new(false),
        };
        Ok((kv, trust))
    }

    fn with<T>(&self, job: impl FnOnce(&Db) -> Result<T, KvError>) -> Result<T, KvError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(KvError::Broken);
        }
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or(KvError::Closed)?;
        // Sled reports some damage with an error, and some with a panic.
        let done = guarded(|| job(db)).unwrap_or_else(|said| {
            tracing::warn!(said, "the state store is damaged");
            Err(KvError::Broken)
        });
        if done.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        done
    }
}

/// Removes the marker and decides whether the store may be opened.
fn judge(dir: &Path, store: &Path) -> io::Result<Trust> {
    let found = marker::take(dir)?;
    let reason = match found {
        Found::Marker(marker) if store.is_dir() && marker.names(store) => {
            return Ok(Trust::Clean);
        }
        Found::Marker(_) => WipeReason::OtherFiles,
        Found::Damaged => WipeReason::BadMarker,
        Found::Nothing if store.is_dir() => WipeReason::NoMarker,
        Found::Nothing => WipeReason::New,
    };
    Ok(Trust::Wiped { reason })
}

fn config(store: &Path) -> sled::Config {
    sled::Config::new()
        .path(store)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
}

/// Opens sled on possibly damaged files: it panics on some of them.
fn open_guarded(store: &Path) -> Option<Db> {
    let why = match guarded(|| config(store).open()) {
        Ok(Ok(db)) => return Some(db),
        Ok(Err(error)) => error.to_string(),
        Err(said) => said,
    };
    tracing::warn!(why, "the state store does not open: it is built again");
    None
}

fn wipe_directory(store: &Path) -> io::Result<()> {
    match fs::remove_dir_all(store) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn io(doing: &'static str) -> impl Fn(io::Error) -> KvError {
    move |source| KvError::Io { doing, source }
}

fn refused(doing: &'static str) -> impl Fn(sled::Error) -> KvError {
    move |source| KvError::Sled { doing, source }
}

fn key(group: GroupId, kind: u8, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + key.len());
    bytes.extend_from_slice(&group.get().to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(key);
    bytes
}

fn wipe(db: &Db, group: GroupId) -> Result<(), KvError> {
    // The position goes first: readers treat a group without one as empty.
    let removed = db.remove(key(group, META, &[]));
    removed.map_err(refused("remove a position"))?;
    let mut pairs = db.scan_prefix(key(group, PAIR, &[])).keys();
    loop {
        let mut batch = Batch::default();
        let mut count = 0;
        for key in pairs.by_ref().take(REPLACE_PAIRS) {
            batch.remove(key.map_err(refused("read a key"))?);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        db.apply_batch(batch).map_err(refused("remove pairs"))?;
    }
}

impl Kv for SledKv {
    fn load(&self, group: GroupId) -> Result<Option<GroupImage>, KvError> {
        self.with(|db| {
            let meta = db.get(key(group, META, &[]));
            let Some(meta) = meta.map_err(refused("read a position"))? else {
                return Ok(None);
            };
            let mut pairs = Vec::new();
            for pair in db.scan_prefix(key(group, PAIR, &[])) {
                let (key, value) = pair.map_err(refused("read a pair"))?;
                let key = key.get(5..).unwrap_or_default();
                pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value)));
            }
            Ok(Some(GroupImage {
                meta: Bytes::copy_from_slice(&meta),
                pairs,
            }))
        })
    }

    fn commit(
        &self,
        group: GroupId,
        meta: Bytes,
        writes: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), KvError> {
        let mut batch = Batch::default();
        for (name, value) in writes {
            match value {
                Some(value) => batch.insert(key(group, PAIR, name), value.as_ref()),
                None => batch.remove(key(group, PAIR, name)),
            }
        }
        batch.insert(key(group, META, &[]), meta.as_ref());
        self.with(|db| db.apply_batch(batch).map_err(refused("commit")))
    }

    fn replace(
        &self,
        group: GroupId,
        meta: Bytes,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), KvError> {
        self.with(|db| {
            wipe(db, group)?;
            loop {
                let mut batch = Batch::default();
                let mut count = 0;
                for (name, value) in (&mut *pairs).take(REPLACE_PAIRS) {
                    batch.insert(key(group, PAIR, &name), value.as_ref());
                    count += 1;
                }
                if count == 0 {
                    break;
                }
                db.apply_batch(batch).map_err(refused("write pairs"))?;
            }
            let written = db.insert(key(group, META, &[]), meta.as_ref());
            written.map_err(refused("write a position"))?;
            Ok(())
        })
    }

    fn wipe(&self, group: GroupId) -> Result<(), KvError> {
        self.with(|db| wipe(db, group))
    }

    fn close_clean(&self) -> Result<(), KvError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(KvError::Broken);
        }
        let mut open = self.db.write().unwrap_or_else(PoisonError::into_inner);
        let db = open.take().ok_or(KvError::Closed)?;
        db.flush().map_err(refused("flush"))?;
        drop(db);
        let store = self.dir.join("sled");
        // Sled's own threads may still write: its file lock is released by the last of them.
        let file = File::open(store.join("db")).map_err(io("open its file"))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| io("wait for sled's end")(errno.into()))?;
        marker::sync(&store).map_err(io("sync it"))?;
        let listing = marker::list(&store).map_err(io("list its files"))?;
        marker::put(&self.dir, &listing).map_err(io("write its clean-stop marker"))?;
        rustix::fs::flock(&self.lock, FlockOperation::Unlock)
            .map_err(|errno| io("unlock it")(errno.into()))
    }
}
