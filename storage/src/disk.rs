//! The disk behind a trait, so that the log and the snapshots can be run on one that loses power.
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
    /// For reading; it must be there.
    Read,
    /// For reading and writing; it must be there.
    Write,
    /// For reading and writing; made if missing, emptied if there.
    Create,
}

/// Space of the file system below a path, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What this process may still use.
    pub free: u64,
    /// The file system's size.
    pub total: u64,
}

/// Which file or directory it is, whatever its name: valid among those of one run of the process, and for
/// as long as it is open or named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// Of the file system.
    pub device: u64,
    /// Within it.
    pub inode: u64,
}

/// Files and directories of one machine.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// What the file system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file over whatever has the new name. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the file system says.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the file system says; a failed sync must not be tried again.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The files of a directory, in the order of their names.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes a directory and those above it, and makes their names durable.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// A file's length in bytes; `None` when it is not there.
    ///
    /// # Errors
    /// What the file system says.
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Which file or directory has a name; `None` when none has.
    ///
    /// # Errors
    /// What the file system says.
    fn id_of(&self, path: &Path) -> io::Result<Option<FileId>>;
    /// Free and total space of the file system that holds `path`.
    ///
    /// # Errors
    /// What the file system says.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
}

/// An open file. Offsets and lengths in bytes.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the file system says; part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends with zeros.
    ///
    /// # Errors
    /// What the file system says.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The file's length.
    ///
    /// # Errors
    /// What the file system says.
    fn file_len(&self) -> io::Result<u64>;
    /// What tells this file from a copy of it.
    ///
    /// # Errors
    /// What the file system says.
    fn origin(&self) -> io::Result<FileOrigin>;
    /// Which file it is.
    ///
    /// # Errors
    /// What the file system says.
    fn id(&self) -> io::Result<FileId>;
    /// Makes contents (and the length, where it is needed to read them) durable.
    ///
    /// # Errors
    /// What the file system says; a failed sync must not be tried again.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and metadata durable.
    ///
    /// # Errors
    /// What the file system says; a failed sync must not be tried again.
    fn sync_all(&self) -> io::Result<()>;
}

/// Fills `buffer` from `offset`.
///
/// # Errors
/// `UnexpectedEof` when the file ends first; else what the file system says.
pub fn read_exact_at(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buffer, offset)?;
    if read == buffer.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
