//! The log's files are removed while the process writes them.
//!
//! A data directory was removed while its node ran. The open files continued to accept writes and
//! syncs, so the node acknowledged entries for another 18 s: none of them existed at the next
//! start.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use henge_runtime::SystemClock;
use henge_storage::disk::sim::SimDisk;
use henge_storage::disk::{Disk, OpenMode, OsDisk};
use henge_storage::wal::{Record, Wal, WalConfig};
use henge_types::GroupId;

use crate::wal_driver::open;
use crate::wal_faults::{append, block, files, record, told};

const GROUP: GroupId = GroupId::new(1);
/// Environment variable of the writing process: the log's directory.
const WRITER: &str = "HENGE_TEST_WAL_REMOVED_WRITER";
/// Offset of the generation in a segment's header.
const GENERATION_AT: u64 = 16;
/// The number of the signal of `abort`.
const SIGABRT: i32 = 6;

/// Asserts that an entry written after `fault` is not acknowledged, nor any later one.
fn assert_ends(fault: impl FnOnce(&SimDisk)) {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, GROUP, 1, 10).expect("is queued");
    assert!(stepper.turn(), "its files are in place");
    fault(&disk);
    let (done, result) = told();
    block(wal.append(GROUP, vec![record(2, 10)], done)).expect("is queued");
    assert!(!stepper.turn());
    let error = result.recv().expect("is told").expect_err("is lost");
    assert!(error.to_string().contains("removed or replaced"), "{error}");
    assert_eq!(wal.durable_index(GROUP), 1);
    assert!(append(&wal, GROUP, 3, 10).is_err());
}

#[test]
fn a_removed_directory_ends_the_log() {
    assert_ends(|disk| disk.remove_dir_all(Path::new("/data")));
}

#[test]
fn another_directory_of_the_same_name_ends_the_log() {
    assert_ends(|disk| {
        disk.remove_dir_all(Path::new("/data"));
        disk.create_dir_all(Path::new("/data/wal")).expect("makes");
    });
}

#[test]
fn a_removed_open_segment_ends_the_log() {
    assert_ends(|disk| {
        let open = files(disk).into_iter().next().expect("is open");
        disk.unlink(&open).expect("unlinks");
    });
}

/// An idle node whose directory was gone reported ready for 40 s.
#[test]
fn a_log_at_rest_notices_that_it_was_removed() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, GROUP, 1, 10).expect("is queued");
    assert!(stepper.turn());
    wal.check_in_place();
    append(&wal, GROUP, 2, 10).expect("its files are in place");
    assert!(stepper.turn());
    disk.remove_dir_all(Path::new("/data"));
    wal.check_in_place();
    let error = append(&wal, GROUP, 3, 10).expect_err("it has ended");
    assert!(error.to_string().contains("removed or replaced"), "{error}");
}

/// The generation in a segment's header; offset as in `docs/formats.md`.
fn generation(disk: &SimDisk, path: &Path) -> u64 {
    let file = disk.open(path, OpenMode::Read).expect("opens");
    let mut bytes = [0; 8];
    file.read_at(&mut bytes, GENERATION_AT).expect("reads");
    u64::from_le_bytes(bytes)
}

/// A spare segment, not the open one: it contains no acknowledged data.
#[test]
fn a_removed_spare_is_not_used() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    // Fills and frees segments, so that a used segment becomes a spare.
    for index in 1..=40 {
        append(&wal, GROUP, index, 1000).expect("is queued");
        assert!(stepper.turn());
        let upto = henge_storage::wal::Purged {
            index: index - 1,
            id: Bytes::new(),
        };
        block(wal.purge(GROUP, upto, Box::new(drop))).expect("is queued");
        assert!(stepper.turn());
    }
    let mut segments: Vec<_> = files(&disk)
        .into_iter()
        .map(|path| (generation(&disk, &path), path))
        .collect();
    segments.sort_unstable();
    let (_, open_one) = segments.pop().expect("is open");
    assert!(!segments.is_empty(), "there are spares");
    for (_, spare) in segments {
        disk.unlink(&spare).expect("unlinks");
    }
    assert_eq!(files(&disk), [open_one]);
    for index in 41..=80 {
        append(&wal, GROUP, index, 1000).expect("is queued");
        assert!(stepper.turn(), "goes on");
    }
    drop((wal, stepper));
    let (wal, _stepper) = open(&disk).expect("opens");
    assert_eq!(wal.group(GROUP).last_index, Some(80));
}

fn open_os(dir: &Path) -> Wal {
    let config = WalConfig {
        segment_bytes: 1024 * 1024,
        bytes_max: 16 * 1024 * 1024,
        ..WalConfig::new(dir.to_owned())
    };
    Wal::open(OsDisk::shared(), SystemClock::shared(), config).expect("opens")
}

/// The writing process: this test again, with the variable set. It must end by itself.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the writing process is told by its environment"
)]
fn writer_process() {
    let Some(dir) = std::env::var_os(WRITER) else {
        return;
    };
    let wal = open_os(Path::new(&dir));
    // A small segment holds all of them: without the check they would all be acknowledged.
    for index in 1..=5_000 {
        let (done, result) = told();
        let record = Record {
            index,
            payload: Bytes::from_static(b"entry"),
        };
        block(wal.append(GROUP, vec![record], done)).expect("is queued");
        result.recv().expect("is told").expect("is durable");
        eprintln!("\nack {index}");
    }
    eprintln!("\nall acknowledged");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a process that is to end itself")]
fn a_removed_directory_ends_the_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, away) = (dir.path().join("data"), dir.path().join("away"));
    fs::create_dir(&data).expect("makes");
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["wal_removed::writer_process", "--exact", "--nocapture"])
        .env(WRITER, data.join("wal"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("is piped")).lines();
    let mut acknowledged = 0;
    while acknowledged < 100 {
        let line = lines.next().expect("goes on").expect("reads");
        acknowledged += u32::from(line.starts_with("ack "));
    }
    fs::rename(&data, &away).expect("renames");
    for line in lines {
        let line = line.expect("reads");
        assert_ne!(line, "all acknowledged", "into files that no start finds");
        acknowledged += u32::from(line.starts_with("ack "));
    }
    let ended = child.wait().expect("ends");
    assert_eq!(ended.signal(), Some(SIGABRT), "{ended}");
    let wal = open_os(&away.join("wal"));
    let last = wal.group(GROUP).last_index.unwrap_or(0);
    assert!(last >= u64::from(acknowledged), "{last}, {acknowledged}");
    wal.close().expect("closes");
}
