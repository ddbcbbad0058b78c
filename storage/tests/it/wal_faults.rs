//! Faults of the log's disk: damage, full disks, failing syncs, and the size limit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use henge_runtime::SystemClock;
use henge_storage::disk::sim::SimDisk;
use henge_storage::disk::{Disk, OpenMode, OsDisk};
use henge_storage::wal::{Done, OnFatal, Purged, Record, Stepper, Wal, WalConfig, WalError};
use henge_types::GroupId;

use crate::wal_driver::{config, open};

const ONE: GroupId = GroupId::new(1);
const TWO: GroupId = GroupId::new(2);
/// Deadline for expected events on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Offset of a segment's first record.
const FIRST_RECORD: u64 = 4096;

fn ignore() -> Done {
    Box::new(drop)
}

pub(crate) fn told() -> (Done, Receiver<std::io::Result<()>>) {
    let (sender, receiver) = sync_channel(1);
    let done: Done = Box::new(move |result| sender.send(result).expect("somebody waits"));
    (done, receiver)
}

pub(crate) fn record(index: u64, bytes: usize) -> Record {
    let mut payload = format!("entry {index} ").into_bytes();
    payload.resize(bytes, b'.');
    Record {
        index,
        payload: Bytes::from(payload),
    }
}

pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(DEADLINE, future).await })
        .expect("it happens in time")
}

pub(crate) fn append(wal: &Wal, group: GroupId, index: u64, bytes: usize) -> std::io::Result<()> {
    block(wal.append(group, vec![record(index, bytes)], ignore()))
}

fn purge(wal: &Wal, group: GroupId, index: u64, done: Done) {
    let upto = Purged {
        index,
        id: Bytes::from_static(b"id"),
    };
    block(wal.purge(group, upto, done)).expect("is queued");
}

/// Writes entries 1..=count, each in a batch of its own; the process then ends without a close.
fn written(disk: &SimDisk, count: u64, bytes: usize) {
    let (wal, mut stepper) = open(disk).expect("opens");
    for index in 1..=count {
        append(&wal, ONE, index, bytes).expect("appends");
        assert!(stepper.turn());
    }
}

pub(crate) fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new("/data/wal")).expect("lists")
}

fn lost(result: &Result<(Wal, Stepper), WalError>) -> bool {
    matches!(result, Err(WalError::LostAcknowledged { .. }))
}

#[test]
fn damage_before_the_last_batch_is_lost_acknowledged_data() {
    for at in [0, 40, 100, 290] {
        let disk = SimDisk::new();
        written(&disk, 5, 100);
        disk.flip(&files(&disk)[0], FIRST_RECORD + at);
        assert!(lost(&open(&disk)), "offset {at}");
    }
}

#[test]
fn damage_in_the_last_batch_is_a_torn_tail() {
    let disk = SimDisk::new();
    written(&disk, 5, 100);
    // Every record takes 48 + 104 bytes.
    disk.flip(&files(&disk)[0], FIRST_RECORD + 4 * 152 + 60);
    let (wal, mut stepper) = open(&disk).expect("opens");
    assert_eq!(wal.group(ONE).last_index, Some(4));
    append(&wal, ONE, 5, 50).expect("goes on");
    assert!(stepper.turn());
    drop((wal, stepper));
    let (wal, _stepper) = open(&disk).expect("the cut was recorded");
    let records = wal.read(ONE, 1..=9, usize::MAX).expect("reads");
    assert_eq!(records.len(), 5);
    assert_eq!(records[4], record(5, 50));
}

#[test]
fn damage_in_an_older_segment_is_lost_acknowledged_data() {
    let disk = SimDisk::new();
    written(&disk, 40, 1000);
    disk.flip(&files(&disk)[0], 9000);
    assert!(lost(&open(&disk)));
}

#[test]
fn a_damaged_or_missing_segment_is_lost_acknowledged_data() {
    for at in 0..3 {
        let disk = SimDisk::new();
        written(&disk, 36, 1000);
        disk.flip(&files(&disk)[at], 20);
        assert!(lost(&open(&disk)), "header of segment {at}");
    }
    for at in 0..2 {
        let disk = SimDisk::new();
        written(&disk, 36, 1000);
        disk.unlink(&files(&disk)[at]).expect("unlinks");
        assert!(lost(&open(&disk)), "segment {at}");
    }
}

/// A payload that looks like a record of a later batch must not be read as one, at any offset.
#[test]
fn a_payload_cannot_pose_as_a_record() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, ONE, 1, 100).expect("appends");
    assert!(stepper.turn());
    let path = files(&disk)[0].clone();
    let file = disk.open(&path, OpenMode::Read).expect("opens");
    let mut frame = vec![0; 152];
    file.read_at(&mut frame, FIRST_RECORD).expect("reads");
    // The batch number, far ahead, with the checksum that an outsider would compute.
    frame[32..40].copy_from_slice(&1000_u64.to_le_bytes());
    let crc = crc32c::crc32c(&frame[4..148]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
    let posing = Record {
        index: 2,
        payload: Bytes::from(frame),
    };
    block(wal.append(ONE, vec![posing], ignore())).expect("appends");
    assert!(stepper.turn());
    drop((wal, stepper));
    // The last batch is torn in its header: the search for later records meets its payload.
    disk.flip(&path, FIRST_RECORD + 152 + 40);
    let (wal, _stepper) = open(&disk).expect("a torn tail, nothing else");
    assert_eq!(wal.group(ONE).last_index, Some(1));
}

#[test]
fn a_failed_sync_kills_the_log_and_is_never_tried_again() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    let (done, result) = told();
    block(wal.append(ONE, vec![record(1, 10)], done)).expect("is queued");
    let (behind, result_behind) = told();
    block(wal.save_vote(TWO, Bytes::from_static(b"vote"), behind)).expect("is queued");
    disk.fail_next_sync();
    assert!(!stepper.turn());
    assert!(result.recv().expect("is told").is_err());
    assert!(result_behind.recv().expect("is told").is_err());
    assert!(append(&wal, ONE, 2, 10).is_err());
    assert!(block(wal.save_committed(ONE, Bytes::new())).is_err());
    assert_eq!(wal.durable_index(ONE), 0);
    let syncs = disk.operations();
    assert!(!stepper.turn());
    assert_eq!(disk.operations(), syncs, "the disk was not touched again");
}

#[test]
fn a_full_disk_stops_appends_only_when_the_spares_are_used_and_only_until_there_is_room() {
    let disk = SimDisk::new();
    let wal = Wal::open_with(disk.shared(), SystemClock::shared(), config(), OnFatal::Die)
        .expect("opens");
    // One segment in use, two spares.
    wait(|| wal.total_bytes() == 3 * 16 * 1024);
    disk.set_capacity(0);
    let mut index = 0;
    let mut waiting = Vec::new();
    // 30 KiB fit into the existing spares.
    while index < 30 {
        index += 1;
        let (done, result) = told();
        block(wal.append(ONE, vec![record(index, 1000)], done)).expect("is queued");
        let told = result.recv_timeout(DEADLINE).expect("is told");
        told.expect("is durable although the disk is full");
    }
    for _ in 0..30 {
        index += 1;
        let (done, result) = told();
        block(wal.append(ONE, vec![record(index, 1000)], done)).expect("is queued");
        waiting.push(result);
    }
    disk.set_capacity(1 << 30);
    for result in waiting {
        let told = result.recv_timeout(DEADLINE).expect("is told");
        told.expect("is durable once there is room");
    }
    wal.close().expect("closes");
}

/// Counting segments held the lock of the used segments while it waited for that of the spares; the
/// filling thread takes them in the other order. The log deadlocked.
#[test]
fn the_size_may_be_asked_for_while_segments_are_filled() {
    let disk = SimDisk::new();
    let wal = Wal::open_with(disk.shared(), SystemClock::shared(), config(), OnFatal::Die)
        .expect("opens");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(wal.total_bytes() > 0);
            }
        });
        // A segment holds fifteen of them.
        for index in 1..=1500 {
            let (done, result) = told();
            block(wal.append(ONE, vec![record(index, 1000)], done)).expect("is queued");
            let told = result.recv_timeout(DEADLINE).expect("is told");
            told.expect("is durable");
            if index > 5 {
                purge(&wal, ONE, index - 5, ignore());
            }
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    wal.close().expect("closes");
}

/// Waits for a condition with a deadline, without sleeping.
pub(crate) fn wait(condition: impl Fn() -> bool) {
    let deadline = henge_runtime::Clock::instant(&SystemClock) + DEADLINE;
    while !condition() {
        assert!(
            henge_runtime::Clock::instant(&SystemClock) < deadline,
            "in time"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_slow_group_does_not_keep_the_log_from_being_freed() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, TWO, 1, 500).expect("appends");
    for index in 1..=1000 {
        append(&wal, ONE, index, 1000).expect("appends");
        if index > 5 {
            purge(&wal, ONE, index - 5, ignore());
        }
        assert!(stepper.turn());
        assert!(wal.total_bytes() <= config().bytes_max);
    }
    assert!(wal.total_bytes() <= 9 * 16 * 1024, "{}", wal.total_bytes());
    let slow = wal.read(TWO, 1..=1, usize::MAX).expect("reads");
    assert_eq!(slow, vec![record(1, 500)]);
    drop((wal, stepper));
    let (wal, _stepper) = open(&disk).expect("opens");
    let slow = wal.read(TWO, 1..=1, usize::MAX).expect("reads");
    assert_eq!(slow, vec![record(1, 500)]);
    assert_eq!(wal.group(ONE).last_index, Some(1000));
    assert_eq!(wal.pinned_bytes()[&TWO], 548);
}

/// An append that failed at the size limit was treated as a dead disk: openraft ended the group,
/// and six of a node's nine groups were lost, the meta group among them, until the process was
/// restarted.
#[test]
fn an_append_never_fails_for_want_of_space() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    let pressure = wal.pressure();
    assert_eq!(*pressure.borrow(), None);
    let mut index = 0;
    while wal.may_grow(ONE) {
        index += 1;
        append(&wal, ONE, index, 1000).expect("appends");
        assert!(stepper.turn());
        assert!(wal.total_bytes() <= config().bytes_max);
    }
    assert!(wal.may_grow(TWO), "another group has room");
    append(&wal, TWO, 1, 1000).expect("appends");
    // Operations in flight when the log got full, and records that cannot be deferred, are still
    // accepted.
    while *pressure.borrow() != Some(ONE) {
        index += 1;
        append(&wal, ONE, index, 1000).expect("appends");
        assert!(stepper.turn());
        assert!(index < 1000, "its group is asked for a snapshot");
    }
    let (done, result) = told();
    block(wal.save_vote(TWO, Bytes::from_static(b"vote"), done)).expect("is queued");
    assert!(stepper.turn());
    result.recv().expect("is told").expect("is durable");
    purge(&wal, ONE, index - 1, ignore());
    assert!(stepper.turn());
    assert!(wal.may_grow(ONE), "there is room again");
    append(&wal, ONE, index + 1, 1000).expect("appends");
    assert!(stepper.turn());
    assert_eq!(*pressure.borrow(), None);
}

/// One group whose directory was not writable took no snapshot. It filled the log, and with a full
/// log no group of the node made progress.
#[test]
fn a_group_without_snapshots_leaves_half_of_the_log() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    let mut stuck = 0;
    while wal.may_grow(ONE) {
        stuck += 1;
        append(&wal, ONE, stuck, 1000).expect("appends");
        assert!(stepper.turn());
    }
    assert!(
        wal.pinned_bytes()[&ONE] * 2 >= config().bytes_max / 2,
        "a good part"
    );
    // Ten times the size of the whole log for another group, which takes its snapshots.
    for index in 1..=10 * config().bytes_max / 1000 {
        assert!(wal.may_grow(TWO), "entry {index}");
        append(&wal, TWO, index, 1000).expect("appends");
        if index > 5 {
            purge(&wal, TWO, index - 5, ignore());
        }
        assert!(stepper.turn());
        assert!(wal.total_bytes() <= config().bytes_max, "entry {index}");
        assert!(!wal.may_grow(ONE));
    }
    let last = wal.group(TWO).last_index;
    drop((wal, stepper));
    let (wal, _stepper) = open(&disk).expect("opens");
    assert_eq!(wal.group(TWO).last_index, last);
    let mut index = 0;
    while index < stuck {
        for found in wal.read(ONE, index + 1..=stuck, 64 * 1024).expect("reads") {
            index += 1;
            assert_eq!(found, record(index, 1000));
        }
    }
}

fn os_config(dir: &Path) -> WalConfig {
    WalConfig {
        dir: dir.join("wal"),
        segment_bytes: 256 * 1024,
        bytes_max: 16 * 256 * 1024,
        tail_bytes_max: 64 * 1024,
    }
}

fn open_os(dir: &Path) -> Wal {
    Wal::open(OsDisk::shared(), SystemClock::shared(), os_config(dir)).expect("opens")
}

#[test]
fn a_real_log_with_its_threads_keeps_what_many_groups_append_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let wal = open_os(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .expect("a runtime");
    let wal = Arc::new(wal);
    let tasks: Vec<_> = (0..16)
        .map(|group| {
            let wal = Arc::clone(&wal);
            tokio_spawn(&runtime, async move {
                let group = GroupId::new(group);
                for index in 1..=200 {
                    let (sender, receiver) = tokio::sync::oneshot::channel();
                    let done: Done = Box::new(move |result| {
                        sender.send(result).expect("somebody waits");
                    });
                    wal.append(group, vec![record(index, 500)], done)
                        .await
                        .expect("is queued");
                    let cached = wal.read_cached(group, index..=index, 1).expect("is cached");
                    assert_eq!(cached, vec![record(index, 500)]);
                    receiver.await.expect("is told").expect("is durable");
                    assert!(wal.durable_index(group) >= index);
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("no panic");
    }
    wal.close().expect("closes");
    assert!(append(&wal, ONE, 201, 10).is_err());
    drop(wal);

    let wal = open_os(dir.path());
    for group in (0..16).map(GroupId::new) {
        let mut index = 1;
        while index <= 200 {
            let records = wal.read(group, index..=300, 20_000).expect("reads");
            assert!(!records.is_empty() && records.len() <= 40);
            for found in records {
                assert_eq!(found, record(index, 500));
                index += 1;
            }
        }
        assert_eq!(wal.bytes_since(group, 150), 50 * 548);
        assert_eq!(wal.bytes_since(group, 0), 200 * 548);
        assert_eq!(wal.bytes_since(group, 200), 0);
    }
    wal.close().expect("closes");
}

#[expect(clippy::disallowed_methods, reason = "tasks of a test")]
fn tokio_spawn(
    runtime: &tokio::runtime::Runtime,
    future: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    runtime.handle().spawn(future)
}

#[test]
fn after_a_clean_close_the_log_goes_on_in_the_same_segment() {
    let disk = SimDisk::new();
    for index in 1..=50 {
        let (wal, mut stepper) = open(&disk).expect("opens");
        assert_eq!(wal.durable_index(ONE), index - 1);
        append(&wal, ONE, index, 10).expect("appends");
        wal.close().expect("closes");
        assert!(!stepper.turn());
    }
    assert_eq!(files(&disk).len(), 1);
}

#[test]
fn entries_that_do_not_follow_are_refused() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, ONE, 1, 10).expect("appends");
    let invalid = std::io::ErrorKind::InvalidInput;
    let kind = |index| append(&wal, ONE, index, 10).map_err(|error| error.kind());
    assert_eq!(kind(1), Err(invalid));
    assert_eq!(kind(3), Err(invalid));
    let hole = vec![record(2, 1), record(4, 1)];
    assert!(block(wal.append(ONE, hole, ignore())).is_err());
    let long = vec![record(2, 9000)];
    assert!(block(wal.append(ONE, long, ignore())).is_err());
    purge(&wal, ONE, 10, ignore());
    assert!(block(wal.truncate_after(ONE, 5, ignore())).is_err());
    assert_eq!(wal.group(ONE).last_index, Some(10));
    assert_eq!(wal.read(ONE, 1..=10, 100).expect("reads"), vec![]);
    append(&wal, ONE, 11, 10).expect("goes on behind the purge");
    assert!(stepper.turn());
    assert_eq!(wal.durable_index(ONE), 11);
}

#[test]
fn a_dropped_group_is_forgotten_and_can_begin_again() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, ONE, 1, 10).expect("appends");
    block(wal.save_committed(ONE, Bytes::from_static(b"1"))).expect("is noted");
    block(wal.drop_group(ONE, ignore())).expect("is queued");
    append(&wal, ONE, 7, 20).expect("begins again");
    assert!(stepper.turn());
    assert_eq!(wal.pinned_bytes()[&ONE], 68);
    drop((wal, stepper));
    let (wal, _stepper) = open(&disk).expect("opens");
    let log = wal.group(ONE);
    assert_eq!((log.committed, log.last_index), (None, Some(7)));
    assert_eq!(wal.read(ONE, 1..=7, 100).expect("reads"), vec![]);
    assert_eq!(wal.read(ONE, 7..=7, 1).expect("reads"), vec![record(7, 20)]);
}

/// A segment truncated to nothing counted as unused: the node started with an empty log and voted.
#[test]
fn a_cut_segment_is_no_unused_one() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, GroupId::new(1), 1, 10).expect("is queued");
    assert!(stepper.turn());
    drop((wal, stepper));
    let segment = files(&disk).into_iter().next().expect("is there");
    let whole = disk.file_len(&segment).expect("looks").expect("is there");
    for left in [0, 1, whole - 1] {
        let file = disk.open(&segment, OpenMode::Write).expect("opens");
        file.set_len(left).expect("is cut");
        let error = open(&disk).map(drop).expect_err("is refused");
        assert!(
            matches!(error, WalError::Cut { bytes, .. } if bytes == left),
            "{error}"
        );
        assert_eq!(
            disk.file_len(&segment).expect("looks"),
            Some(left),
            "nothing was changed"
        );
    }
}

/// Each segment records its own length: another configuration is no damage.
#[test]
fn shorter_segments_of_another_configuration_are_whole() {
    let disk = SimDisk::new();
    let (wal, mut stepper) = open(&disk).expect("opens");
    append(&wal, GroupId::new(1), 1, 10).expect("is queued");
    assert!(stepper.turn());
    drop((wal, stepper));
    let longer = WalConfig {
        segment_bytes: 2 * config().segment_bytes,
        bytes_max: 2 * config().bytes_max,
        ..config()
    };
    let (wal, _stepper) =
        Wal::open_stepped(disk.shared(), SystemClock::shared(), longer).expect("opens");
    assert_eq!(wal.group(GroupId::new(1)).last_index, Some(1));
}
