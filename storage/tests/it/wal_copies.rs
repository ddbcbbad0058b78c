//! A copied log is detected.
//!
//! A data directory was copied while its node was stopped. The node ran on for a while, and then
//! the copy replaced the directory. The node voted and served with a log that lacked entries it had
//! acknowledged since.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use henge_runtime::SystemClock;
use henge_storage::disk::sim::SimDisk;
use henge_storage::disk::{Disk, FileOrigin, OpenMode, OsDisk};
use henge_storage::wal::{self, Record, Wal, WalConfig, WalError};
use henge_types::GroupId;

use crate::wal_driver::{config, open};
use crate::wal_ext4::Mount;

const GROUP: GroupId = GroupId::new(1);
/// Offset of the origin mark in a segment.
const MARK: u64 = 512;

fn write(wal: &Wal, turn: impl FnOnce()) {
    let record = Record {
        index: wal.group(GROUP).last_index.unwrap_or(0) + 1,
        payload: Bytes::from_static(b"an entry"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime
        .block_on(wal.append(GROUP, vec![record], Box::new(drop)))
        .expect("is queued");
    turn();
}

fn written(disk: &SimDisk) {
    let (wal, mut stepper) = open(disk).expect("opens");
    write(&wal, || assert!(stepper.turn()));
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(&config().dir).expect("lists")
}

/// Replaces all files of the log with copies.
fn copy(disk: &SimDisk) {
    for path in files(disk) {
        let old = disk.open(&path, OpenMode::Read).expect("opens");
        let mut bytes = vec![0; usize::try_from(old.file_len().expect("a length")).expect("small")];
        old.read_at(&mut bytes, 0).expect("reads");
        let aside = path.with_extension("copy");
        let new = disk.open(&aside, OpenMode::Create).expect("made");
        new.write_at(&bytes, 0).expect("written");
        new.sync_all().expect("synced");
        disk.rename(&aside, &path).expect("renamed");
    }
    disk.sync_dir(&config().dir).expect("synced");
}

fn is_copied<T>(opened: &Result<T, WalError>) -> bool {
    matches!(opened, Err(WalError::Copied { .. }))
}

#[test]
fn a_copied_log_is_refused_until_it_is_adopted() {
    let disk = SimDisk::new();
    written(&disk);
    written(&disk);
    copy(&disk);
    for _ in 0..2 {
        let opened = open(&disk);
        assert!(is_copied(&opened), "{opened:?}");
    }
    assert!(wal::adopt(&disk, &config().dir).expect("adopts") > 0);
    let (wal, _) = open(&disk).expect("opens");
    assert_eq!(wal.group(GROUP).last_index, Some(2));
}

#[test]
fn the_mark_survives_a_power_cut_with_the_header() {
    for seed in 0..20 {
        let disk = SimDisk::new();
        written(&disk);
        disk.crash(seed);
        drop(open(&disk).expect("opens"));
        copy(&disk);
        let opened = open(&disk);
        assert!(is_copied(&opened), "seed {seed}: {opened:?}");
    }
}

/// Segments of a release that wrote no marks.
#[test]
fn segments_without_a_mark_are_marked_once() {
    let disk = SimDisk::new();
    written(&disk);
    for path in files(&disk) {
        let file = disk.open(&path, OpenMode::Write).expect("opens");
        file.write_at(&[0; 48], MARK).expect("written");
        file.sync_data().expect("synced");
    }
    copy(&disk);
    drop(open(&disk).expect("what was never marked is taken over"));
    drop(open(&disk).expect("and opens again"));
    copy(&disk);
    assert!(is_copied(&open(&disk)));
}

fn os_config(dir: &Path) -> WalConfig {
    WalConfig {
        dir: dir.to_owned(),
        segment_bytes: 64 * 1024,
        bytes_max: 1024 * 1024,
        tail_bytes_max: 64 * 1024,
    }
}

fn os_open(dir: &Path) -> Result<Wal, WalError> {
    Wal::open(OsDisk::shared(), SystemClock::shared(), os_config(dir))
}

fn os_written(dir: &Path) {
    let wal = os_open(dir).expect("opens");
    write(&wal, || ());
    wal.close().expect("closes");
}

#[test]
fn a_renamed_directory_opens_and_a_copied_one_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    os_written(&first);
    std::fs::rename(&first, &second).expect("renamed");
    os_written(&second);
    std::fs::create_dir(&first).expect("made");
    for path in OsDisk.list(&second).expect("lists") {
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, first.join(name)).expect("copied");
    }
    assert!(is_copied(&os_open(&first)));
    os_written(&second);
}

fn origin_below(dir: &Path) -> FileOrigin {
    let path = OsDisk.list(dir).expect("lists").remove(0);
    let file = OsDisk.open(&path, OpenMode::Read).expect("opens");
    file.origin().expect("an origin")
}

/// A disk that is attached elsewhere has another device number and counts as the same disk.
#[test]
fn a_file_system_on_another_device_is_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut mount = match Mount::make(dir.path()) {
        Ok(mount) => mount,
        Err(error) => {
            eprintln!("NOT CHECKED: the log of a disk that was attached elsewhere ({error})");
            return;
        }
    };
    let log = mount.point.join("wal");
    os_written(&log);
    let before = origin_below(&log);
    mount.attach_elsewhere(dir.path()).expect("attached");
    assert_eq!(origin_below(&log), before);
    assert!(before.file_system.is_some(), "an ext4 has an id");
    os_written(&log);
}
