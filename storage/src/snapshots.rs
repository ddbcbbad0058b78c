//! Snapshot files: one group's state at one position, durable before use.
//!
//! A file is `header | body | meta | footer`; `format` describes the bytes. A file without its name
//! (`unnamed`) is not a snapshot yet: it is removed with its last handle, and at every start. It is
//! named after it was synced and read back, and only when it covers more than the group's latest;
//! the other files are removed after that. The latest snapshot is the one that covers the most
//! entries, independent of the order of arrival. When it is found damaged (`at_rest`), any other
//! snapshot replaces it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use henge_types::GroupId;
use thiserror::Error;

use crate::disk::{Disk, OsDisk};

mod at_rest;
mod format;
mod unnamed;

use format::{Digesting, HEADER};
use unnamed::Unnamed;

/// Reads the index of the last covered entry from a snapshot's meta; `None` for an invalid meta.
pub type IndexOf = fn(&[u8]) -> Option<u64>;

/// Errors of writing, installing or reading a snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// An operation of the file system failed. After a failed sync the file must be written from
    /// the beginning.
    #[error("snapshot: cannot {doing}: {source}")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The file system's error.
        #[source]
        source: io::Error,
    },
    /// The bytes are not a complete, undamaged snapshot.
    #[error(
        "snapshot {path:?} is damaged: its bytes do not match their checksum, or it is of another release"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

fn io(doing: &'static str) -> impl Fn(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io { doing, source }
}

/// A complete, verified snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    /// The creator's metadata; opaque here except for [`IndexOf`].
    pub meta: Bytes,
    /// The file including header and footer, as it is sent to a peer.
    pub path: PathBuf,
    /// The body's length.
    pub body_bytes: u64,
    /// Present while the file has no name: the last clone removes the file on drop.
    unnamed: Option<Arc<Unnamed>>,
}

impl SnapshotFile {
    /// An empty value for "no snapshot".
    pub fn nothing() -> Self {
        Self::named(Bytes::new(), PathBuf::new(), 0)
    }

    fn named(meta: Bytes, path: PathBuf, body_bytes: u64) -> Self {
        Self {
            meta,
            path,
            body_bytes,
            unnamed: None,
        }
    }
}

impl PartialEq for SnapshotFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.meta, &self.path, self.body_bytes) == (&other.meta, &other.path, other.body_bytes)
    }
}

impl Eq for SnapshotFile {}

/// The snapshots of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    index_of: IndexOf,
    /// Held while a file is named and while names are read, so that an older file is never listed
    /// beside a newer one.
    naming: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Verified or just named snapshots, each with the last index that it covers.
    latest: BTreeMap<GroupId, (u64, SnapshotFile)>,
    /// Files that were found damaged and are not replaced yet.
    damaged: BTreeMap<GroupId, PathBuf>,
    next_number: u64,
}

impl SnapshotStore {
    /// Opens the snapshots in `dir`; `index_of` reads the covered index from a meta. Removes files
    /// without a name. Blocking.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn open(dir: &Path, index_of: IndexOf) -> Result<Self, SnapshotError> {
        OsDisk
            .create_dir_all(dir)
            .map_err(io("make their directory"))?;
        let mut state = State::default();
        for entry in fs::read_dir(dir).map_err(io("list their directory"))? {
            let entry = entry.map_err(io("list their directory"))?;
            if !entry.path().is_dir() {
                continue;
            }
            for path in OsDisk.list(&entry.path()).map_err(io("list a group's"))? {
                if number(&path).is_none() {
                    fs::remove_file(&path).map_err(io("remove an unfinished one"))?;
                }
                state.next_number = state.next_number.max(number(&path).unwrap_or(0) + 1);
            }
            // A killed process may have named a file without syncing the name.
            OsDisk
                .sync_dir(&entry.path())
                .map_err(io("sync their directory"))?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                index_of,
                naming: Mutex::default(),
                state: Mutex::new(state),
            }),
        })
    }

    /// Starts a snapshot of a group.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn writer(&self, group: GroupId) -> Result<SnapshotWriter, SnapshotError> {
        let unnamed = self.unnamed(group)?;
        let mut file = Digesting::new(unnamed.file().map_err(io("start one"))?);
        file.write_all(&HEADER).map_err(io("start one"))?;
        Ok(SnapshotWriter {
            unnamed,
            file,
            body_bytes: 0,
        })
    }

    /// Starts to receive a peer's snapshot file, byte for byte.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn receiver(&self, group: GroupId) -> Result<SnapshotReceiver, SnapshotError> {
        let unnamed = self.unnamed(group)?;
        let file = unnamed.file().map_err(io("start one"))?;
        Ok(SnapshotReceiver { unnamed, file })
    }

    /// The snapshot of a group that covers the most. Blocking: the first call reads the files
    /// completely. The file is removed when one that covers more is named: a caller that then fails
    /// to open it must call again.
    ///
    /// A snapshot that a later check found damaged stays the latest until another one is named.
    ///
    /// # Errors
    /// Errors of the file system. Damaged files are skipped with a warning.
    pub fn latest(&self, group: GroupId) -> Result<Option<SnapshotFile>, SnapshotError> {
        if let Some((_, known)) = self.shared.lock().latest.get(&group) {
            return Ok(Some(known.clone()));
        }
        let _turn = self.shared.lock_naming();
        Ok(self.find_latest(group)?.map(|(_, file)| file))
    }

    /// Bytes of a group's latest snapshot if it was read or named in this run; otherwise 0.
    pub fn known_bytes(&self, group: GroupId) -> u64 {
        let state = self.shared.lock();
        state
            .latest
            .get(&group)
            .map_or(0, |(_, file)| file.body_bytes)
    }

    /// The snapshot that covers the most, and the last index that it covers. The caller holds
    /// `naming`.
    fn find_latest(&self, group: GroupId) -> Result<Option<(u64, SnapshotFile)>, SnapshotError> {
        if let Some(known) = self.shared.lock().latest.get(&group) {
            return Ok(Some(known.clone()));
        }
        let mut found: Option<(u64, SnapshotFile)> = None;
        for path in self.files(group)? {
            let verified = format::verify(&path).map_err(io("verify one"))?;
            let whole = verified.and_then(|(meta, body_bytes)| {
                let index = (self.shared.index_of)(&meta)?;
                Some((index, meta, body_bytes))
            });
            match whole {
                Some((index, meta, body_bytes)) => {
                    if found.as_ref().is_none_or(|(best, _)| *best <= index) {
                        found = Some((index, SnapshotFile::named(meta, path, body_bytes)));
                    }
                }
                None => {
                    tracing::warn!(%group, ?path, "snapshot is damaged: its bytes do not match their checksum, an older one is tried");
                    self.shared.lock().damaged.insert(group, path);
                }
            }
        }
        if let Some(found) = &found {
            self.shared.lock().latest.insert(group, found.clone());
        }
        Ok(found)
    }

    /// Makes `file` durable and the group's latest, and returns the group's latest. When a named
    /// file covers as much, `file` stays unnamed and is removed with its last handle. Blocking.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] when its meta has no covered index, or when the disk returns
    /// other bytes than were written; errors of the file system.
    pub fn name(&self, group: GroupId, file: &SnapshotFile) -> Result<SnapshotFile, SnapshotError> {
        let damaged = || SnapshotError::Damaged {
            path: file.path.clone(),
        };
        let index = (self.shared.index_of)(&file.meta).ok_or_else(damaged)?;
        let own = file.unnamed.as_ref();
        if let Some(own) = own.filter(|own| own.is_of(self, group)) {
            return self.name_own(group, index, file, own);
        }
        // A file of another store, or a named one: it is copied unless it is the latest.
        if let Some(latest) = self.latest(group)?
            && !self.is_damaged(group, &latest)
            && (latest.path == file.path || (self.shared.index_of)(&latest.meta) >= Some(index))
        {
            return Ok(latest);
        }
        let mut copy = self.receiver(group)?;
        let mut source = File::open(&file.path).map_err(io("open one"))?;
        io::copy(&mut source, &mut copy).map_err(io("copy one"))?;
        self.name(group, &copy.finish()?)
    }

    fn name_own(
        &self,
        group: GroupId,
        index: u64,
        file: &SnapshotFile,
        own: &Unnamed,
    ) -> Result<SnapshotFile, SnapshotError> {
        own.sync().map_err(io("sync one"))?;
        at_rest::read_back(file)?;
        let _turn = self.shared.lock_naming();
        if let Some((covered, latest)) = self.find_latest(group)?
            && covered >= index
            && !self.is_damaged(group, &latest)
        {
            self.keep_only(group, &latest)?;
            return Ok(latest);
        }
        // Numbers grow with the covered index: releases that order by number find the same latest
        // file.
        let dir = self.shared.group_dir(group);
        let path = dir.join(format!("{:020}.snap", self.shared.next_number()));
        own.rename(&path).map_err(io("name one"))?;
        OsDisk.sync_dir(&dir).map_err(io("sync their directory"))?;
        let named = SnapshotFile::named(file.meta.clone(), path, file.body_bytes);
        let latest = (index, named.clone());
        self.shared.lock().latest.insert(group, latest);
        self.keep_only(group, &named)?;
        Ok(named)
    }

    /// Removes the files that `latest` replaces, damaged or not. The caller holds `naming`.
    fn keep_only(&self, group: GroupId, latest: &SnapshotFile) -> Result<(), SnapshotError> {
        self.shared.lock().damaged.remove(&group);
        for other in self.files(group)? {
            if other != latest.path {
                fs::remove_file(&other).map_err(io("remove an older one"))?;
            }
        }
        Ok(())
    }

    /// Reads the body of a snapshot.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn reader(&self, file: &SnapshotFile) -> Result<SnapshotReader, SnapshotError> {
        let mut opened = File::open(&file.path).map_err(io("open one"))?;
        opened
            .seek(SeekFrom::Start(HEADER.len() as u64))
            .map_err(io("open one"))?;
        Ok(SnapshotReader {
            body: opened.take(file.body_bytes),
        })
    }

    /// Removes all snapshots of a group.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn remove(&self, group: GroupId) -> Result<(), SnapshotError> {
        let _turn = self.shared.lock_naming();
        {
            let mut state = self.shared.lock();
            state.latest.remove(&group);
            state.damaged.remove(&group);
        }
        for path in self.files(group)? {
            fs::remove_file(&path).map_err(io("remove one"))?;
        }
        let dir = self.shared.group_dir(group);
        if dir.is_dir() {
            OsDisk.sync_dir(&dir).map_err(io("sync their directory"))?;
        }
        Ok(())
    }

    /// A group's files, oldest first.
    fn files(&self, group: GroupId) -> Result<Vec<PathBuf>, SnapshotError> {
        let dir = self.shared.group_dir(group);
        let mut files = match OsDisk.list(&dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("list a group's")(error)),
        };
        files.retain(|path| number(path).is_some());
        Ok(files)
    }

    fn unnamed(&self, group: GroupId) -> Result<Unnamed, SnapshotError> {
        let dir = self.shared.group_dir(group);
        OsDisk
            .create_dir_all(&dir)
            .map_err(io("make a group's directory"))?;
        let path = dir.join(format!("{:020}.new", self.shared.next_number()));
        Unnamed::create(path).map_err(io("start one"))
    }
}

impl Shared {
    fn group_dir(&self, group: GroupId) -> PathBuf {
        self.dir.join(group.to_string())
    }

    fn next_number(&self) -> u64 {
        let mut state = self.lock();
        state.next_number += 1;
        state.next_number
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number in a finished file's name; newer files have larger numbers.
fn number(path: &Path) -> Option<u64> {
    let finished = path
        .extension()
        .is_some_and(|extension| extension == "snap");
    let stem = path.file_stem()?.to_str()?;
    stem.parse().ok().filter(|_| finished)
}

/// Writes the body of a new snapshot. A drop before [`SnapshotWriter::finish`] removes the file.
#[derive(Debug)]
pub struct SnapshotWriter {
    unnamed: Unnamed,
    file: Digesting,
    body_bytes: u64,
}

impl SnapshotWriter {
    /// Completes the file; [`SnapshotStore::name`] makes it durable and the group's latest.
    /// Blocking.
    ///
    /// # Errors
    /// Errors of the file system; the file is then removed.
    pub fn finish(mut self, meta: Bytes) -> Result<SnapshotFile, SnapshotError> {
        self.file
            .finish(&meta, self.body_bytes)
            .map_err(io("finish one"))?;
        Ok(self.unnamed.finish(meta, self.body_bytes))
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.body_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Receives the bytes of a peer's snapshot file.
#[derive(Debug)]
pub struct SnapshotReceiver {
    unnamed: Unnamed,
    file: File,
}

impl SnapshotReceiver {
    /// Verifies the bytes. The file stays unnamed and replaces nothing until the accepting replica
    /// calls [`SnapshotStore::name`]. Blocking.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`], or errors of the file system; the file is then removed.
    pub fn finish(self) -> Result<SnapshotFile, SnapshotError> {
        let path = self.unnamed.path();
        let verified = format::verify(path).map_err(io("verify one"))?;
        let damaged = || SnapshotError::Damaged {
            path: path.to_owned(),
        };
        let (meta, body_bytes) = verified.ok_or_else(damaged)?;
        Ok(self.unnamed.finish(meta, body_bytes))
    }
}

impl Write for SnapshotReceiver {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads the body of a snapshot.
#[derive(Debug)]
pub struct SnapshotReader {
    body: Take<File>,
}

impl Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}
