//! Finding and opening a repository on disk.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gix_ref::file;

use crate::bare::BareRepository;
use crate::bare::config::{Config, ConfigError};
use crate::bare::ref_files::{RefTable, UnreadableRef};
use crate::oid::hash_kind;

/// The reason for not serving a directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not a repository.
    #[error("{path} is not a git repository")]
    NotARepository {
        /// The directory.
        path: PathBuf,
    },
    /// It is a shallow repository: the objects behind its shallow boundary are missing.
    #[error("{path} is a shallow repository, which is not supported")]
    Shallow {
        /// The directory.
        path: PathBuf,
    },
    /// Its configuration was refused.
    #[error("the configuration of {path}: {source}")]
    Config {
        /// The directory.
        path: PathBuf,
        /// The error.
        #[source]
        source: ConfigError,
    },
    /// One of its refs cannot be read.
    #[error("{path} is not listed: {source}")]
    Ref {
        /// The directory.
        path: PathBuf,
        /// The ref and the reason.
        #[source]
        source: UnreadableRef,
    },
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl BareRepository {
    /// Opens the bare repository at `path`.
    ///
    /// # Errors
    /// When `path` is not a repository or is shallow, its configuration is malformed or has an
    /// unsupported extension (reftables, for one), or one of its refs cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !is_repository(path)? {
            return Err(OpenError::NotARepository {
                path: path.to_owned(),
            });
        }
        let config = Config::read(path).map_err(|source| OpenError::Config {
            path: path.to_owned(),
            source,
        })?;
        let shallow = path.join("shallow");
        match fs::metadata(&shallow) {
            Ok(file) if file.len() > 0 => {
                return Err(OpenError::Shallow {
                    path: path.to_owned(),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(OpenError::Io {
                    path: shallow,
                    source,
                });
            }
        }
        let options = gix_ref::store::init::Options {
            write_reflog: gix_ref::store::WriteReflog::Disable,
            ..Default::default()
        };
        let kind = hash_kind(config.object_format);
        let table = RefTable::read(path, config.object_format);
        let table = table.map_err(|source| OpenError::Ref {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            table: Mutex::new(Arc::new(table)),
            path: path.to_owned(),
            config,
            refs: file::Store::at_opts(path.to_owned(), kind, options),
            writing: Mutex::new(()),
        })
    }

    /// Opens the repository that git-upload-pack(1) finds for `path`: the first of `path/.git`,
    /// `path`, `path.git/.git` and `path.git`. Files named `.git` that refer elsewhere are not
    /// followed.
    ///
    /// # Errors
    /// As [`BareRepository::open`].
    pub fn find(path: &Path) -> Result<Self, OpenError> {
        let with = |suffix: &str| {
            let mut name = OsString::from(path);
            name.push(suffix);
            PathBuf::from(name)
        };
        for candidate in [
            path.join(".git"),
            path.to_owned(),
            with(".git").join(".git"),
            with(".git"),
        ] {
            match Self::open(&candidate) {
                Err(OpenError::NotARepository { .. }) => {}
                found => return found,
            }
        }
        Err(OpenError::NotARepository {
            path: path.to_owned(),
        })
    }
}

/// Whether HEAD, `objects` and `refs` exist, the test that git makes. An unreadable path is an
/// error, not an absence.
fn is_repository(path: &Path) -> Result<bool, OpenError> {
    let look = |name: &str, look: fn(PathBuf) -> io::Result<fs::Metadata>| {
        let path = path.join(name);
        match look(path.clone()) {
            Ok(found) => Ok(Some(found)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(OpenError::Io { path, source }),
        }
    };
    for name in ["objects", "refs"] {
        let found = look(name, fs::metadata::<PathBuf>)?;
        if !found.is_some_and(|found| found.is_dir()) {
            return Ok(false);
        }
    }
    // HEAD may be a symbolic link to a branch that does not exist yet.
    Ok(look("HEAD", fs::symlink_metadata::<PathBuf>)?.is_some())
}
