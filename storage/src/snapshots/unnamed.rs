//! A snapshot's file before it is named.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use henge_types::GroupId;

use super::{SnapshotFile, SnapshotStore};

/// A file without its name; removed on drop unless it was named.
#[derive(Debug)]
pub(super) struct Unnamed {
    path: PathBuf,
    file: File,
    named: AtomicBool,
}

impl Unnamed {
    /// An empty file at `path`.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create_new(&path)?;
        Ok(Self {
            path,
            file,
            named: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle for writing to it.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The complete snapshot in this file.
    pub(super) fn finish(self, meta: Bytes, body_bytes: u64) -> SnapshotFile {
        SnapshotFile {
            meta,
            path: self.path.clone(),
            body_bytes,
            unnamed: Some(Arc::new(self)),
        }
    }

    /// Whether it lies in the directory of `group` in `store`.
    pub(super) fn is_of(&self, store: &SnapshotStore, group: GroupId) -> bool {
        self.path.parent() == Some(store.shared.group_dir(group).as_path())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Names the file; durable after a sync of the directory.
    pub(super) fn rename(&self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.named.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if !self.named.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "an unfinished snapshot stays until the next start");
        }
    }
}
