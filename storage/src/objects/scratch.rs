//! Temporary files of pushes in progress: removed on completion, wiped at start.

use std::fs;
use std::path::{Path, PathBuf};

use super::{ObjectError, ObjectStore, failed, gone, remove_tree};

/// The quarantine directory of one push's objects. Removed on drop.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
}

impl Quarantine {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        if let Err(error) = gone(fs::remove_dir_all(&self.path)) {
            tracing::warn!(path = ?self.path, %error, "a quarantine stays until the next start");
        }
    }
}

/// The name of a temporary file for a push that is being received. The file is removed on drop.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
}

impl Spool {
    /// The path; the file is not created yet.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = gone(fs::remove_file(&self.path)) {
            tracing::warn!(path = ?self.path, %error, "a spooled push stays until the next start");
        }
    }
}

impl ObjectStore {
    /// An empty directory for the objects of `push`. An existing one is emptied.
    ///
    /// # Errors
    /// [`ObjectError::InvalidName`], [`ObjectError::Io`].
    pub fn quarantine(&self, push: &str) -> Result<Quarantine, ObjectError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if push.is_empty() || push.len() > 200 || !push.bytes().all(plain) {
            return Err(ObjectError::InvalidName(push.chars().take(80).collect()));
        }
        let path = self.shared.root.join("quarantine").join(push);
        remove_tree(&path)?;
        fs::create_dir(&path).map_err(failed("make", &path))?;
        Ok(Quarantine { path })
    }

    /// A unique file name for a push that is being received.
    pub fn spool(&self) -> Spool {
        let name = format!("push-{}", self.scratch_number());
        Spool {
            path: self.shared.root.join("spool").join(name),
        }
    }
}
