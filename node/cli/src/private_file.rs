//! Files with a secret: refused if other users can read them, and written without ever being
//! readable by others.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes of a file with a secret, at most.
const PRIVATE_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A file with a secret could not be read or written.
#[derive(Debug, Error)]
pub enum PrivateFileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Other users can read it too.
    #[error("{path} can be read by others (mode {mode:03o}): run chmod 600 on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than any secret.
    #[error("{path} is longer than {PRIVATE_FILE_BYTES_MAX} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// When it cannot be read, is not text, or other users can read it too.
pub fn read(path: &Path) -> Result<String, PrivateFileError> {
    let failed = |source| PrivateFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    let read = file
        .take(PRIVATE_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read > PRIVATE_FILE_BYTES_MAX) {
        return Err(PrivateFileError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// Replaces a file as a whole, mode 0600, fsynced together with its folder.
///
/// # Errors
/// When any step of it fails; the old file is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let replace = || -> io::Result<()> {
        // A temporary file is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    replace().map_err(|source| PrivateFileError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_can_read_is_no_secret() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("replaced");
        assert_eq!(read(&path).expect("read"), "two");
        let mode = fs::metadata(&path).expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600);

        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("chmod");
        let error = read(&path).expect_err("exposed");
        assert!(error.to_string().contains("mode 640"), "{error}");
        assert_eq!(
            fs::read_dir(dir.path()).expect("listed").count(),
            1,
            "no temporary file is left"
        );
    }
}
