//! Snapshot files: one group's state at one position, durable before anybody relies on it.
//!
//! A file is `header | body | meta | footer`; `format` has the bytes. It gets its name only after it was
//! synced, and the ones before it go only after the name was.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use henge_types::GroupId;
use thiserror::Error;

use crate::disk::{Disk, OsDisk};

mod format;

use format::{Digesting, HEADER};

/// Why a snapshot was not written, installed or read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file system refused. After a failed sync the file must be written anew.
    #[error("snapshot: cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are not a whole, undamaged snapshot.
    #[error("snapshot {path:?} is damaged or of another release: take or fetch it again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

fn io(doing: &'static str) -> impl Fn(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io { doing, source }
}

/// A whole, verified snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// What its maker says about it, opaque here.
    pub meta: Bytes,
    /// The file, header and footer included: what is sent to a peer.
    pub path: PathBuf,
    /// The body's length.
    pub body_bytes: u64,
}

/// The snapshots of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was verified, or just written.
    latest: BTreeMap<GroupId, SnapshotFile>,
    next_number: u64,
}

impl SnapshotStore {
    /// The snapshots in `dir`; removes unfinished files. Blocking.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
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
            // A process that was killed may have named one and not synced the name.
            OsDisk
                .sync_dir(&entry.path())
                .map_err(io("sync their directory"))?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                state: Mutex::new(state),
            }),
        })
    }

    /// Starts a snapshot of a group.
    ///
    /// # Errors
    /// What the file system says.
    pub fn writer(&self, group: GroupId) -> Result<SnapshotWriter, SnapshotError> {
        let unfinished = self.unfinished(group)?;
        let mut file = Digesting::new(unfinished.file.try_clone().map_err(io("start one"))?);
        file.write_all(&HEADER).map_err(io("start one"))?;
        Ok(SnapshotWriter {
            unfinished,
            file,
            body_bytes: 0,
        })
    }

    /// Starts to receive a snapshot file of a peer, byte for byte.
    ///
    /// # Errors
    /// What the file system says.
    pub fn receiver(&self, group: GroupId) -> Result<SnapshotReceiver, SnapshotError> {
        let unfinished = self.unfinished(group)?;
        Ok(SnapshotReceiver { unfinished })
    }

    /// The newest whole snapshot of a group. Blocking: it is read through the first time. Its file goes
    /// when a newer one is finished: whoever then fails to open it asks again.
    ///
    /// # Errors
    /// What the file system says; damaged files are passed over, with a warning.
    pub fn latest(&self, group: GroupId) -> Result<Option<SnapshotFile>, SnapshotError> {
        if let Some(known) = self.shared.lock().latest.get(&group) {
            return Ok(Some(known.clone()));
        }
        let mut found = None;
        for path in self.files(group)?.into_iter().rev() {
            match format::verify(&path).map_err(io("verify one"))? {
                Some((meta, body_bytes)) => {
                    found = Some(SnapshotFile {
                        meta,
                        path,
                        body_bytes,
                    });
                    break;
                }
                None => tracing::warn!(?path, "snapshot is damaged, an older one is tried"),
            }
        }
        if let Some(file) = &found {
            let mut state = self.shared.lock();
            let newest = state.latest.entry(group).or_insert_with(|| file.clone());
            return Ok(Some(newest.clone()));
        }
        Ok(None)
    }

    /// Reads the body of a snapshot.
    ///
    /// # Errors
    /// What the file system says.
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
    /// What the file system says.
    pub fn remove(&self, group: GroupId) -> Result<(), SnapshotError> {
        self.shared.lock().latest.remove(&group);
        for path in self.files(group)? {
            fs::remove_file(&path).map_err(io("remove one"))?;
        }
        let dir = self.shared.group_dir(group);
        if dir.is_dir() {
            OsDisk.sync_dir(&dir).map_err(io("sync their directory"))?;
        }
        Ok(())
    }

    /// A group's files by age, oldest first.
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

    fn unfinished(&self, group: GroupId) -> Result<Unfinished, SnapshotError> {
        let dir = self.shared.group_dir(group);
        OsDisk
            .create_dir_all(&dir)
            .map_err(io("make a group's directory"))?;
        let number = {
            let mut state = self.shared.lock();
            state.next_number += 1;
            state.next_number
        };
        let path = dir.join(format!("{number:020}.new"));
        let file = File::create_new(&path).map_err(io("start one"))?;
        Ok(Unfinished {
            store: self.clone(),
            group,
            path,
            name: dir.join(format!("{number:020}.snap")),
            file,
            installed: false,
        })
    }
}

impl Shared {
    fn group_dir(&self, group: GroupId) -> PathBuf {
        self.dir.join(group.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number in a finished file's name: newer ones are larger.
fn number(path: &Path) -> Option<u64> {
    let finished = path
        .extension()
        .is_some_and(|extension| extension == "snap");
    let stem = path.file_stem()?.to_str()?;
    stem.parse().ok().filter(|_| finished)
}

/// A file without its name yet; removed when it never gets it.
#[derive(Debug)]
struct Unfinished {
    store: SnapshotStore,
    group: GroupId,
    path: PathBuf,
    name: PathBuf,
    file: File,
    installed: bool,
}

impl Unfinished {
    /// Sync, rename, sync the name, then remove older ones.
    fn install(mut self, meta: Bytes, body_bytes: u64) -> Result<SnapshotFile, SnapshotError> {
        self.file.sync_all().map_err(io("sync one"))?;
        fs::rename(&self.path, &self.name).map_err(io("name one"))?;
        self.installed = true;
        let dir = self.store.shared.group_dir(self.group);
        OsDisk.sync_dir(&dir).map_err(io("sync their directory"))?;
        let file = SnapshotFile {
            meta,
            path: self.name.clone(),
            body_bytes,
        };
        let mut state = self.store.shared.lock();
        let newest = state.latest.get(&self.group);
        if newest.is_none_or(|newest| newest.path < file.path) {
            state.latest.insert(self.group, file.clone());
        }
        drop(state);
        for older in self.store.files(self.group)? {
            if older < file.path {
                fs::remove_file(&older).map_err(io("remove an older one"))?;
            }
        }
        Ok(file)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.installed
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "an unfinished snapshot stays until the next start");
        }
    }
}

/// Writes the body of a new snapshot. Dropped before [`SnapshotWriter::finish`], nothing stays.
#[derive(Debug)]
pub struct SnapshotWriter {
    unfinished: Unfinished,
    file: Digesting,
    body_bytes: u64,
}

impl SnapshotWriter {
    /// Makes the snapshot durable and the group's latest, and removes older ones. Blocking.
    ///
    /// # Errors
    /// What the file system says; the snapshot is then not there.
    pub fn finish(mut self, meta: Bytes) -> Result<SnapshotFile, SnapshotError> {
        self.file
            .finish(&meta, self.body_bytes)
            .map_err(io("finish one"))?;
        self.unfinished.install(meta, self.body_bytes)
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

/// Takes the bytes of a peer's snapshot file.
#[derive(Debug)]
pub struct SnapshotReceiver {
    unfinished: Unfinished,
}

impl SnapshotReceiver {
    /// Verifies what came, makes it durable and the group's latest. Blocking.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`], or what the file system says; nothing stays then.
    pub fn finish(self) -> Result<SnapshotFile, SnapshotError> {
        let path = self.unfinished.path.clone();
        let verified = format::verify(&path).map_err(io("verify one"))?;
        let (meta, body_bytes) = verified.ok_or(SnapshotError::Damaged { path })?;
        self.unfinished.install(meta, body_bytes)
    }
}

impl Write for SnapshotReceiver {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unfinished.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unfinished.file.flush()
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
