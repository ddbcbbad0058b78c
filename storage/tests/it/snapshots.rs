//! Snapshot files: written, received, verified, named, replaced.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use bytes::Bytes;
use henge_storage::snapshots::{SnapshotError, SnapshotFile, SnapshotStore};
use henge_types::GroupId;

const GROUP: GroupId = GroupId::new(3);

/// Parses `at N`.
fn index_of(meta: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(meta).ok()?;
    text.strip_prefix("at ")?.parse().ok()
}

fn open(dir: &Path) -> SnapshotStore {
    SnapshotStore::open(dir, index_of).expect("opens")
}

fn write(store: &SnapshotStore, body: &[u8], meta: &'static str) -> SnapshotFile {
    let mut writer = store.writer(GROUP).expect("starts");
    for piece in body.chunks(1000) {
        writer.write_all(piece).expect("writes");
    }
    let file = writer.finish(Bytes::from_static(meta.as_bytes()));
    store
        .name(GROUP, &file.expect("finishes"))
        .expect("is named")
}

fn receive(store: &SnapshotStore, bytes: &[u8]) -> Result<SnapshotFile, SnapshotError> {
    let mut receiver = store.receiver(GROUP).expect("starts");
    receiver.write_all(bytes).expect("writes");
    receiver.finish()
}

fn body(store: &SnapshotStore, file: &SnapshotFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = store.reader(file).expect("opens");
    reader.read_to_end(&mut bytes).expect("reads");
    bytes
}

fn names(dir: &Path) -> usize {
    fs::read_dir(dir.join("3")).expect("lists").count()
}

#[test]
fn the_latest_replaces_older_ones_and_survives_a_reopen() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert_eq!(store.latest(GROUP).expect("looks"), None);
    write(&store, b"old", "at 1");
    let contents = vec![7; 600_000];
    let file = write(&store, &contents, "at 2");
    assert_eq!(names(dir.path()), 1);
    for store in [store, open(dir.path())] {
        let latest = store.latest(GROUP).expect("looks").expect("is there");
        assert_eq!(latest, file);
        assert_eq!(latest.meta, Bytes::from_static(b"at 2"));
        assert_eq!(body(&store, &latest), contents);
    }
}

#[test]
fn an_unfinished_one_never_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let file = write(&store, b"whole", "at 1");
    let mut writer = store.writer(GROUP).expect("starts");
    writer.write_all(b"half").expect("writes");
    drop(writer);
    fs::write(dir.path().join("3/00000000000000000099.new"), b"half").expect("writes");
    let store = open(dir.path());
    assert_eq!(store.latest(GROUP).expect("looks"), Some(file));
    assert_eq!(names(dir.path()), 1);
}

#[test]
fn damage_anywhere_is_noticed_and_an_older_one_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let older = write(&store, b"the body", "at 1");
    let kept = fs::read(&older.path).expect("reads");
    let newer = write(&store, b"the newer body", "at 2");
    fs::write(&older.path, &kept).expect("a power cut brought it back");
    let whole = fs::read(&newer.path).expect("reads");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&newer.path, &damaged).expect("writes");
        let store = open(dir.path());
        assert_eq!(
            store.latest(GROUP).expect("looks"),
            Some(older.clone()),
            "byte {at}"
        );
    }
    for len in 0..whole.len() {
        fs::write(&newer.path, &whole[..len]).expect("writes");
        let store = open(dir.path());
        assert_eq!(
            store.latest(GROUP).expect("looks"),
            Some(older.clone()),
            "length {len}"
        );
    }
}

#[test]
fn a_received_file_is_verified_before_it_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir.path().join("one"));
    let sent = write(&store, b"a body", "at 5");
    let bytes = fs::read(&sent.path).expect("reads");

    let other = open(&dir.path().join("two"));
    let cut = receive(&other, &bytes[..bytes.len() - 1]);
    assert!(matches!(cut, Err(SnapshotError::Damaged { .. })));
    assert_eq!(other.latest(GROUP).expect("looks"), None);

    let received = receive(&other, &bytes).expect("is whole");
    let file = other.name(GROUP, &received).expect("is named");
    assert_eq!(file.meta, sent.meta);
    assert_eq!(body(&other, &file), b"a body");
    assert_eq!(other.latest(GROUP).expect("looks"), Some(file));
}

/// A deposed leader's snapshot at 1386 was named, as the newest file, before the replica had
/// refused it, and the replica's own at 2745 was removed. Its log began after 2745: after kill -9
/// the replica never started again.
#[test]
fn a_received_one_replaces_nothing_until_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open(&dir.path().join("peer"));
    let old = fs::read(write(&peer, b"deposed", "at 1386").path).expect("reads");
    let new = fs::read(write(&peer, b"leader", "at 3000").path).expect("reads");

    let own = dir.path().join("own");
    let store = open(&own);
    let kept = write(&store, b"own", "at 2745");
    for bytes in [&old, &new] {
        let received = receive(&store, bytes).expect("is whole");
        assert_eq!(store.latest(GROUP).expect("looks").as_ref(), Some(&kept));
        assert_eq!(names(&own), 2, "without a name beside the other");
        let shared = received.clone();
        drop(received);
        assert_eq!(names(&own), 2, "somewhere it is still needed");
        drop(shared);
        assert_eq!(names(&own), 1, "refused: it goes");
    }

    let received = receive(&store, &old).expect("is whole");
    let latest = store.name(GROUP, &received).expect("compares");
    assert_eq!(latest, kept, "an older one is never named");
    drop(received);
    assert_eq!(names(&own), 1);
    assert_eq!(open(&own).latest(GROUP).expect("looks"), Some(kept));

    let received = receive(&store, &new).expect("is whole");
    let latest = store.name(GROUP, &received).expect("is named");
    drop(received);
    assert_eq!(body(&store, &latest), b"leader");
    assert_eq!(names(&own), 1, "the older one goes");
    assert_eq!(open(&own).latest(GROUP).expect("looks"), Some(latest));
}

#[test]
fn the_latest_covers_most_whatever_its_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = open(&dir.path().join("peer"));
    let old = write(&peer, b"deposed", "at 1386");
    let old = fs::read(old.path).expect("reads");
    let own = dir.path().join("own");
    let kept = write(&open(&own), b"own", "at 2745");
    // The state left by a release that ordered files by number and was killed before it removed the
    // other one.
    fs::write(own.join("3/00000000000000000099.snap"), old).expect("writes");
    let store = open(&own);
    assert_eq!(store.latest(GROUP).expect("looks"), Some(kept));
    let newer = write(&store, b"own", "at 2800");
    assert_eq!(names(&own), 1);
    assert!(
        newer.path.ends_with("00000000000000000102.snap"),
        "{newer:?}"
    );
}

/// A snapshot was verified once per process, and its log was purged. Later damage was found only by
/// the next start, when the damaged file was the only copy of the state.
#[test]
fn damage_at_rest_is_found_and_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert_eq!(store.check(GROUP).expect("no snapshot"), 0);
    let file = write(&store, b"the body", "at 5");
    assert_eq!(store.check(GROUP).expect("is read"), 8);
    assert_eq!(store.damaged(GROUP), None);
    let whole = fs::read(&file.path).expect("reads");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let latest = store.latest(GROUP).expect("looks").expect("is there");
        fs::write(&latest.path, bytes).expect("writes");
        store.check(GROUP).expect("is read");
        assert_eq!(store.damaged(GROUP), Some(latest.path), "byte {at}");
        let again = write(&store, b"the body", "at 5");
        assert_eq!(store.damaged(GROUP), None);
        assert_eq!(names(dir.path()), 1);
        assert_eq!(open(dir.path()).latest(GROUP).expect("looks"), Some(again));
    }
    let latest = store.latest(GROUP).expect("looks").expect("is there");
    fs::remove_file(&latest.path).expect("removes");
    store.check(GROUP).expect("looks");
    assert_eq!(store.damaged(GROUP), Some(latest.path), "gone");
}

/// Damage found at the start is reported too: until another snapshot is named, only an older one
/// may exist.
#[test]
fn damage_found_at_a_start_is_known_until_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = write(&open(dir.path()), b"the body", "at 5");
    fs::write(&file.path, b"zeros").expect("writes");
    let store = open(dir.path());
    assert_eq!(store.latest(GROUP).expect("looks"), None);
    assert_eq!(store.damaged(GROUP), Some(file.path));
    write(&store, b"the body", "at 5");
    assert_eq!(store.damaged(GROUP), None);
}

/// A damaged file beside an intact latest is removed with the next snapshot, even when that covers
/// no more.
#[test]
fn damage_beside_the_latest_goes_with_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = write(&open(dir.path()), b"the body", "at 5");
    let other = dir.path().join("3/00000000000000000099.snap");
    fs::write(&other, b"zeros").expect("writes");
    let store = open(dir.path());
    assert_eq!(store.latest(GROUP).expect("looks"), Some(file.clone()));
    assert_eq!(store.damaged(GROUP), Some(other));
    assert_eq!(write(&store, b"the body", "at 5"), file);
    assert_eq!(store.damaged(GROUP), None);
    assert_eq!(names(dir.path()), 1);
}

#[test]
fn one_that_reads_back_wrong_gets_no_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let older = write(&store, b"the older body", "at 1");
    let mut writer = store.writer(GROUP).expect("starts");
    writer.write_all(b"the newer body").expect("writes");
    let file = writer.finish(Bytes::from_static(b"at 2"));
    let file = file.expect("finishes");
    let mut bytes = fs::read(&file.path).expect("reads");
    bytes[20] ^= 1;
    fs::write(&file.path, bytes).expect("the disk stores something else");
    let named = store.name(GROUP, &file);
    assert!(
        matches!(named, Err(SnapshotError::Damaged { .. })),
        "{named:?}"
    );
    assert_eq!(store.latest(GROUP).expect("looks"), Some(older));
}
