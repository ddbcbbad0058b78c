//! A node's data directory: one process at a time, and never without the log that the identity
//! records.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use henge_cli::private_file::{self, PrivateFileError};
use thiserror::Error;

use crate::identity::{IDENTITY_FILE, Identity, Life};
use crate::reserve;

const LOCK_FILE: &str = "henge.lock";
const PID_FILE: &str = "henge.pid";
const LOG_FOLDER: &str = "wal";

/// The reasons to refuse a data directory.
#[derive(Debug, Error)]
pub(crate) enum DataDirError {
    /// It is missing, or cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// A file in it cannot be written.
    #[error("cannot write {path}: {source}: free disk space and start the node again")]
    Write { path: PathBuf, source: io::Error },
    /// Other users have access to it, and its mode cannot be changed.
    #[error(
        "the data directory {path} is open to other users of this machine (mode {mode:o}) and cannot be closed to them: \
         {why}: it must belong to the user that the node runs as, with mode 700"
    )]
    Open {
        path: PathBuf,
        mode: u32,
        why: String,
    },
    /// Another process holds its lock.
    #[error("the data directory {path} is in use by another process{}", by(*.pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    /// Its identity is missing or cannot be read.
    #[error("{detail}; a data directory is made by `henge dev`")]
    Identity { detail: String },
    /// The log is lost, and with it votes and acknowledged data.
    #[error(
        "{path} is missing or empty, but {identity} says that this node has started before: \
         its log is lost, and with it votes and data that others count on. Put back the log of the node's last \
         run; an older copy is refused. Where there is none, leave the node stopped: the other nodes have everything \
         that was acknowledged"
    )]
    LogLost { path: PathBuf, identity: PathBuf },
    /// The log belongs to another identity.
    #[error(
        "{path} holds a log, but {identity} says that this node has never started: \
         they do not belong together. Restore the identity that the log was written under"
    )]
    LogOfAnother { path: PathBuf, identity: PathBuf },
    /// A private file cannot be written or read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    identity: Identity,
    /// Held, not read: the lock ends with the file.
    _lock: File,
}

impl DataDir {
    /// Locks the directory, reads its identity and checks that its log is there. The first start
    /// also makes the log's folder and records the beginning of the start, before any vote or
    /// acknowledgement.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io {
            path: path.to_owned(),
            source,
        };
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse {
                    path: path.to_owned(),
                    pid: pid(path),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        close_to_others(path)?;
        reserve::release_if_full(path).map_err(failed)?;
        let mut identity =
            Identity::read(path).map_err(|detail| DataDirError::Identity { detail })?;
        check_log(path, identity.life)?;
        if identity.life == Life::New {
            make_folder(&path.join(LOG_FOLDER)).map_err(failed)?;
            File::open(path)
                .and_then(|dir| dir.sync_all())
                .map_err(failed)?;
            identity.life = Life::Starting;
            identity.write(path)?;
        }
        write_pid(path)?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// Records that the log exists: a later start without it is refused. While there is no log,
    /// nothing can have been acknowledged, and nothing is recorded.
    pub(crate) fn started(&mut self) -> Result<(), DataDirError> {
        let log = log_entries(&self.path)?;
        if self.identity.life != Life::Started && log == Some(true) {
            self.identity.life = Life::Started;
            self.identity.write(&self.path)?;
        }
        reserve::keep(&self.path);
        Ok(())
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the pid file and unlocks the directory, after a clean stop.
    pub(crate) fn close(self) -> io::Result<()> {
        fs::remove_file(self.path.join(PID_FILE))
    }
}

/// The pid that a process wrote into its data directory; valid only while [`in_use`].
pub(crate) fn pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path.join(PID_FILE))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Whether a process holds the lock of a data directory.
pub(crate) fn in_use(path: &Path) -> bool {
    let lock = File::options().write(true).open(path.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Locks a data directory that is only read, so that no node starts in it. Nothing is written: a
/// copy without a lock file has no node, and is not locked.
pub(crate) fn hold(path: &Path) -> Result<Option<File>, DataDirError> {
    let io = |source| DataDirError::Io {
        path: path.to_owned(),
        source,
    };
    let lock = match File::open(path.join(LOCK_FILE)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse {
            path: path.to_owned(),
            pid: pid(path),
        }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Whether the log's folder has entries; `None` without the folder.
fn log_entries(path: &Path) -> Result<Option<bool>, DataDirError> {
    let path = path.join(LOG_FOLDER);
    match fs::read_dir(&path) {
        Ok(mut entries) => Ok(Some(entries.next().is_some())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { path, source }),
    }
}

fn check_log(path: &Path, life: Life) -> Result<(), DataDirError> {
    let log = path.join(LOG_FOLDER);
    let identity = path.join(IDENTITY_FILE);
    match (life, log_entries(path)?) {
        (Life::New, Some(true)) => Err(DataDirError::LogOfAnother {
            path: log,
            identity,
        }),
        (Life::Starting, None) | (Life::Started, None | Some(false)) => {
            Err(DataDirError::LogLost {
                path: log,
                identity,
            })
        }
        (Life::New, None | Some(false))
        | (Life::Starting, Some(_))
        | (Life::Started, Some(true)) => Ok(()),
    }
}

/// The mode of a new data directory: access for its owner only.
const OWN_MODE: u32 = 0o700;
/// The bits of a mode that give access to users other than the owner.
const OTHERS: u32 = 0o077;
/// Of those, the bits that give access to every user of the machine.
const EVERYBODY: u32 = 0o007;

/// Makes a data directory with access for its owner only.
///
/// # Errors
/// As `mkdir(2)`.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(OWN_MODE).create(path)
}

/// Removes other users' access to the directory: it holds all pushed data, keys, and the passwords
/// of mirrors. Earlier releases made it with the default mode. The mode may stay, for example if
/// another user owns the directory; then the node starts only if no user outside of its group has
/// access.
fn close_to_others(path: &Path) -> Result<(), DataDirError> {
    let before = mode(path)?;
    if before & OTHERS == 0 {
        return Ok(());
    }
    let closed = before & !OTHERS;
    let refused = fs::set_permissions(path, Permissions::from_mode(closed)).err();
    // Some file systems accept the change and ignore it.
    let after = mode(path)?;
    is_closed(path, after, refused.as_ref())?;
    if after & OTHERS == 0 {
        tracing::warn!(
            path = %path.display(),
            "the data directory was open to other users of this machine (mode {before:o}): it is {after:o} from here on"
        );
    } else {
        tracing::warn!(
            path = %path.display(),
            "the data directory is open to its group (mode {after:o}) and cannot be closed to it: its members read all \
             repositories and the passwords of mirrors"
        );
    }
    Ok(())
}

fn mode(path: &Path) -> Result<u32, DataDirError> {
    let known = fs::metadata(path).map_err(|source| DataDirError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(known.permissions().mode() & 0o7777)
}

/// Refuses a mode with access for every user of the machine. `refused` is the error of the attempt
/// to change the mode, if there was one.
fn is_closed(path: &Path, mode: u32, refused: Option<&io::Error>) -> Result<(), DataDirError> {
    if mode & EVERYBODY == 0 {
        return Ok(());
    }
    let why = refused.map_or_else(
        || "its file system keeps the mode".to_owned(),
        ToString::to_string,
    );
    Err(DataDirError::Open {
        path: path.to_owned(),
        mode,
        why,
    })
}

fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(OWN_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Replaces the pid file as a whole, so that a reader never sees half a number. On a full disk the
/// old file is overwritten in place.
fn write_pid(path: &Path) -> Result<(), DataDirError> {
    let target = path.join(PID_FILE);
    let unfinished = path.join("henge.pid.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&unfinished)?;
        writeln!(file, "{}", std::process::id())?;
        fs::rename(&unfinished, &target)
    };
    match write() {
        Ok(()) => Ok(()),
        // The file of a killed process has its block already.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            fs::remove_file(&unfinished).ok();
            overwrite_pid(&target).map_err(|source| DataDirError::Write {
                path: target.clone(),
                source,
            })
        }
        Err(source) => Err(DataDirError::Write {
            path: unfinished.clone(),
            source,
        }),
    }
}

fn overwrite_pid(target: &Path) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(target)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// The paths of the node's certificate, its key and the cluster's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsPaths {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsPaths {
    /// Their paths in a data directory.
    pub(crate) fn in_dir(path: &Path) -> Self {
        Self {
            ca: path.join("ca.pem"),
            cert: path.join("node.pem"),
            key: path.join("node.key"),
        }
    }

    /// Checks that all can be read, and that no other user can read the key.
    pub(crate) fn check(&self) -> Result<(), PrivateFileError> {
        private_file::read(&self.key)?;
        for path in [&self.ca, &self.cert] {
            File::open(path).map_err(|source| PrivateFileError::Read {
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::{ClusterId, Incarnation, NodeId};

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = Identity {
            cluster_id: ClusterId::from_bytes([1; 16]),
            node_id: NodeId::new(1),
            incarnation: Incarnation::from_bytes([2; 16]),
            life: Life::New,
        };
        identity.write(dir.path()).expect("written");
        dir
    }

    fn life(dir: &Path) -> Life {
        Identity::read(dir).expect("an identity").life
    }

    #[test]
    fn a_first_start_is_recorded_before_and_after_the_log_exists() {
        let dir = dir();
        let path = dir.path();
        let open = DataDir::open(path).expect("a new directory");
        assert_eq!(life(path), Life::Starting);
        assert!(path.join("wal").is_dir());
        drop(open);

        // A crash before the first segment: the log is empty, and nothing was acknowledged.
        let mut open = DataDir::open(path).expect("the first start goes on");
        open.started().expect("nothing to record");
        assert_eq!(life(path), Life::Starting);
        fs::write(path.join("wal/1"), "x").expect("a segment");
        open.started().expect("recorded");
        assert_eq!(life(path), Life::Started);
        open.close().expect("closed");
        assert!(!path.join("henge.pid").try_exists().expect("looked"));
        DataDir::open(path).expect("a later start");
    }

    #[test]
    fn a_lost_log_is_never_taken_for_a_first_start() {
        let dir = dir();
        let path = dir.path();
        let mut open = DataDir::open(path).expect("a new directory");
        fs::write(path.join("wal/1"), "x").expect("a segment");
        open.started().expect("recorded");
        drop(open);

        fs::remove_file(path.join("wal/1")).expect("lost");
        let error = DataDir::open(path).expect_err("an empty log");
        assert!(matches!(error, DataDirError::LogLost { .. }), "{error}");
        fs::remove_dir(path.join("wal")).expect("lost");
        let error = DataDir::open(path).expect_err("no log").to_string();
        assert!(error.contains("its log is lost"), "{error}");
        assert_eq!(life(path), Life::Started, "a refusal changes nothing");
    }

    #[test]
    fn a_log_without_its_identity_is_refused() {
        let dir = dir();
        fs::create_dir(dir.path().join("wal")).expect("made");
        fs::write(dir.path().join("wal/1"), "x").expect("a segment");
        let error = DataDir::open(dir.path()).expect_err("refused");
        assert!(
            matches!(error, DataDirError::LogOfAnother { .. }),
            "{error}"
        );
    }

    /// Regression: every user of the machine could read all pushed data and the passwords of
    /// mirrors.
    #[test]
    fn an_open_directory_is_closed_when_it_is_taken() {
        let mode = |path: &Path| {
            let known = fs::metadata(path).expect("a folder");
            known.permissions().mode() & 0o7777
        };
        let dir = dir();
        let path = dir.path();
        for (before, after) in [
            (0o755, 0o700),
            (0o750, 0o700),
            (0o701, 0o700),
            (0o700, 0o700),
        ] {
            fs::set_permissions(path, Permissions::from_mode(before)).expect("changed");
            drop(DataDir::open(path).expect("taken"));
            assert_eq!(mode(path), after, "{before:o}");
        }
        assert_eq!(mode(&path.join("wal")), 0o700);
        let new = path.join("new");
        make(&new).expect("made");
        assert_eq!(mode(&new), 0o700);
    }

    /// Regression: the node did not start in a directory that another user had made for its group,
    /// though no user outside of the group had access.
    #[test]
    fn a_mode_that_stays_is_taken_if_only_the_group_may_look() {
        let path = Path::new("/data");
        let kept = io::Error::from(io::ErrorKind::PermissionDenied);
        for mode in [0o770, 0o750, 0o700] {
            is_closed(path, mode, Some(&kept)).expect("closed to everybody else");
        }
        for mode in [0o755, 0o701] {
            let error = is_closed(path, mode, Some(&kept)).expect_err("open");
            assert!(error.to_string().contains("permission denied"), "{error}");
            let error = is_closed(path, mode, None).expect_err("open").to_string();
            assert!(error.contains("keeps the mode"), "{error}");
        }
    }

    #[test]
    fn two_processes_cannot_live_in_one_directory() {
        let dir = dir();
        assert!(!in_use(dir.path()));
        let first = DataDir::open(dir.path()).expect("free");
        assert!(in_use(dir.path()));
        let error = DataDir::open(dir.path()).expect_err("taken").to_string();
        let own = format!("(process {})", std::process::id());
        assert!(error.contains(&own), "{error}");
        drop(first);
        assert!(!in_use(dir.path()));
    }

    #[test]
    fn a_directory_without_identity_says_where_one_comes_from() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = DataDir::open(dir.path()).expect_err("refused").to_string();
        assert!(
            error.contains("identity.toml") && error.contains("henge dev"),
            "{error}"
        );
    }
}
