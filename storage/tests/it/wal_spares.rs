//! Spare segments that cannot be made, for other reasons than a full disk.
//!
//! No file descriptor was left, or a quota was reached, when the log made its next spare. The
//! process ended, although its existing segments had room for another 128 MiB.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use henge_runtime::SystemClock;
use henge_storage::disk::sim::SimDisk;
use henge_storage::disk::{Disk, DiskFile, DiskSpace, FileId, OpenMode};
use henge_storage::wal::{OnFatal, Purged, Wal};
use henge_types::GroupId;
use rustix::io::Errno;

use crate::wal_driver::config;
use crate::wal_faults::{block, record, told, wait};

const GROUP: GroupId = GroupId::new(1);
const DEADLINE: Duration = Duration::from_secs(60);

/// The failing step of the creation of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Rename,
    SyncDir,
}

/// A disk that refuses one step of file creation while `error` is set.
#[derive(Debug, Clone)]
struct Refusing {
    disk: SimDisk,
    step: Step,
    error: Arc<AtomicI32>,
}

impl Refusing {
    fn check(&self, step: Step) -> io::Result<()> {
        let error = self.error.load(Ordering::Relaxed);
        if error == 0 || step != self.step {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(error))
    }
}

impl Disk for Refusing {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::Create {
            self.check(Step::Open)?;
        }
        self.disk.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Step::Rename)?;
        self.disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(Step::SyncDir)?;
        self.disk.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.file_len(path)
    }

    fn id_of(&self, path: &Path) -> io::Result<Option<FileId>> {
        self.disk.id_of(path)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.disk.space(path)
    }
}

/// A log with its threads, one segment in use and two spares.
fn open(step: Step) -> (Wal, Refusing) {
    let disk = Refusing {
        disk: SimDisk::new(),
        step,
        error: Arc::default(),
    };
    let shared = Arc::new(disk.clone());
    let wal = Wal::open_with(shared, SystemClock::shared(), config(), OnFatal::Die);
    let wal = wal.expect("opens");
    wait(|| wal.total_bytes() == 3 * 16 * 1024);
    (wal, disk)
}

fn append(wal: &Wal, index: u64) -> mpsc::Receiver<io::Result<()>> {
    let (done, result) = told();
    block(wal.append(GROUP, vec![record(index, 1000)], done)).expect("is queued");
    result
}

#[test]
fn a_spare_that_cannot_be_made_ends_nothing() {
    for (step, error) in [
        (Step::Open, Errno::MFILE),
        (Step::Open, Errno::DQUOT),
        (Step::Open, Errno::ROFS),
        (Step::Open, Errno::ACCESS),
        (Step::Rename, Errno::IO),
        (Step::SyncDir, Errno::MFILE),
    ] {
        let (wal, disk) = open(step);
        disk.error.store(error.raw_os_error(), Ordering::Relaxed);
        // 30 KiB fit into the existing spares.
        for index in 1..=30 {
            let told = append(&wal, index).recv_timeout(DEADLINE);
            told.expect("is told").expect("is durable");
        }
        wait(|| wal.spares_refused().is_some());
        let reason = wal.spares_refused().unwrap_or_default();
        let words = io::Error::from(error).to_string();
        assert!(reason.contains(&words), "{step:?}: {reason}");
        let waiting: Vec<_> = (31..=60).map(|index| append(&wal, index)).collect();
        disk.error.store(0, Ordering::Relaxed);
        for told in waiting {
            let told = told.recv_timeout(DEADLINE).expect("is told");
            told.expect("is durable once one can be made");
        }
        wait(|| wal.spares_refused().is_none());
        wal.close().expect("closes");
        drop(wal);
        let left = disk.list(Path::new("/data/wal")).expect("lists");
        let unfinished = left
            .iter()
            .filter(|path| path.extension() != Some("seg".as_ref()));
        assert_eq!(unfinished.count(), 0, "{left:?}");
    }
}

/// Spares were refused while a disk was full, and then the log freed segments of its own. No spare
/// was needed any more, so there was no further attempt, and the node reported degraded until the
/// next segment was full.
#[test]
fn a_segment_that_comes_back_ends_the_refusal() {
    let (wal, disk) = open(Step::Open);
    disk.error
        .store(Errno::NOSPC.raw_os_error(), Ordering::Relaxed);
    for index in 1..=30 {
        let told = append(&wal, index).recv_timeout(DEADLINE);
        told.expect("is told").expect("is durable");
    }
    wait(|| wal.spares_refused().is_some());
    let (done, purged) = told();
    let upto = Purged {
        index: 30,
        id: "30".into(),
    };
    block(wal.purge(GROUP, upto, done)).expect("is queued");
    let purged = purged.recv_timeout(DEADLINE);
    purged.expect("is told").expect("is durable");
    // The log looks for segments to free on every write.
    for index in 31..=33 {
        let told = append(&wal, index).recv_timeout(DEADLINE);
        told.expect("is told").expect("is durable");
    }
    wait(|| wal.spares_refused().is_none());
    wal.close().expect("closes");
}

/// After a failed sync the contents of the disk are unknown. This applies to a directory of spares
/// too.
#[test]
fn a_failed_sync_of_the_directory_ends_the_log() {
    let (wal, disk) = open(Step::SyncDir);
    disk.error
        .store(Errno::IO.raw_os_error(), Ordering::Relaxed);
    for index in 1..=16 {
        drop(block(wal.append(
            GROUP,
            vec![record(index, 1000)],
            Box::new(drop),
        )));
    }
    wait(|| block(wal.save_vote(GROUP, "vote".into(), Box::new(drop))).is_err());
}
