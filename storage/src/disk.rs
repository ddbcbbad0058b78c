//! The disk behind a trait, so that log and snapshots also run on a simulated disk that loses
//! power.
//!
//! The trait promises no more than POSIX does: written bytes are durable after
//! [`DiskFile::sync_data`], a name is durable after [`Disk::sync_dir`] of its directory.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod origin;
mod os;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use origin::FileOrigin;
pub use os::OsDisk;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; created if missing, truncated if present.
    Create,
}

/// Space of the file system below a path, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that this process may still use.
    pub free: u64,
    /// The file system's size.
    pub total: u64,
}

/// Identity of a file or directory, independent of its name. Comparable within one run of the
/// process, and while the file is open or has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// The file system's device number.
    pub device: u64,
    /// The inode number within it.
    pub inode: u64,
}

/// Files and directories of one machine.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// Errors of the file system.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file; a file under the new name is replaced. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Errors of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Errors of the file system.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Errors of the file system. A failed sync must not be retried.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The files of a directory, in the order of their names.
    ///
    /// # Errors
    /// Errors of the file system.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Creates a directory and its parents, and makes their names durable.
    ///
    /// # Errors
    /// Errors of the file system.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// A file's length in bytes; `None` when it is not there.
    ///
    /// # Errors
    /// Errors of the file system.
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// The identity of the file or directory under a name; `None` when the name does not exist.
    ///
    /// # Errors
    /// Errors of the file system.
    fn id_of(&self, path: &Path) -> io::Result<Option<FileId>>;
    /// Free and total space of the file system that holds `path`.
    ///
    /// # Errors
    /// Errors of the file system.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
}

/// An open file. Offsets and lengths in bytes.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// Errors of the file system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Errors of the file system. Part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends with zeros.
    ///
    /// # Errors
    /// Errors of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The file's length.
    ///
    /// # Errors
    /// Errors of the file system.
    fn file_len(&self) -> io::Result<u64>;
    /// The properties that distinguish this file from a copy of it.
    ///
    /// # Errors
    /// Errors of the file system.
    fn origin(&self) -> io::Result<FileOrigin>;
    /// The file's identity.
    ///
    /// # Errors
    /// Errors of the file system.
    fn id(&self) -> io::Result<FileId>;
    /// Makes contents (and the length, where it is needed to read them) durable.
    ///
    /// # Errors
    /// Errors of the file system. A failed sync must not be retried.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and metadata durable.
    ///
    /// # Errors
    /// Errors of the file system. A failed sync must not be retried.
    fn sync_all(&self) -> io::Result<()>;
}

/// Fills `buffer` from `offset`.
///
/// # Errors
/// `UnexpectedEof` when the file ends first; otherwise errors of the file system.
pub fn read_exact_at(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buffer, offset)?;
    if read == buffer.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
