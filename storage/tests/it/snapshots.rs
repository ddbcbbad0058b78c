//! Snapshot files: written, received, verified, replaced.

use std::fs;
use std::io::{Read, Write};

use bytes::Bytes;
use henge_storage::snapshots::{SnapshotError, SnapshotFile, SnapshotStore};
use henge_types::GroupId;

const GROUP: GroupId = GroupId::new(3);

fn write(store: &SnapshotStore, body: &[u8], meta: &'static str) -> SnapshotFile {
    let mut writer = store.writer(GROUP).expect("starts");
    for piece in body.chunks(1000) {
        writer.write_all(piece).expect("writes");
    }
    writer
        .finish(Bytes::from_static(meta.as_bytes()))
        .expect("finishes")
}

fn body(store: &SnapshotStore, file: &SnapshotFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = store.reader(file).expect("opens");
    reader.read_to_end(&mut bytes).expect("reads");
    bytes
}

fn names(dir: &std::path::Path) -> usize {
    fs::read_dir(dir.join("3")).expect("lists").count()
}

#[test]
fn the_latest_replaces_older_ones_and_survives_a_reopen() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SnapshotStore::open(dir.path()).expect("opens");
    assert_eq!(store.latest(GROUP).expect("looks"), None);
    write(&store, b"old", "at 1");
    let contents = vec![7; 600_000];
    let file = write(&store, &contents, "at 2");
    assert_eq!(names(dir.path()), 1);
    for store in [store, SnapshotStore::open(dir.path()).expect("opens")] {
        let latest = store.latest(GROUP).expect("looks").expect("is there");
        assert_eq!(latest, file);
        assert_eq!(latest.meta, Bytes::from_static(b"at 2"));
        assert_eq!(body(&store, &latest), contents);
    }
}

#[test]
fn an_unfinished_one_never_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SnapshotStore::open(dir.path()).expect("opens");
    let file = write(&store, b"whole", "at 1");
    let mut writer = store.writer(GROUP).expect("starts");
    writer.write_all(b"half").expect("writes");
    drop(writer);
    fs::write(dir.path().join("3/00000000000000000099.new"), b"half").expect("writes");
    let store = SnapshotStore::open(dir.path()).expect("opens");
    assert_eq!(store.latest(GROUP).expect("looks"), Some(file));
    assert_eq!(names(dir.path()), 1);
}

#[test]
fn damage_anywhere_is_noticed_and_an_older_one_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SnapshotStore::open(dir.path()).expect("opens");
    let older = write(&store, b"the body", "at 1");
    let kept = fs::read(&older.path).expect("reads");
    let newer = write(&store, b"the newer body", "at 2");
    fs::write(&older.path, &kept).expect("a power cut brought it back");
    let whole = fs::read(&newer.path).expect("reads");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&newer.path, &damaged).expect("writes");
        let store = SnapshotStore::open(dir.path()).expect("opens");
        assert_eq!(
            store.latest(GROUP).expect("looks"),
            Some(older.clone()),
            "byte {at}"
        );
    }
    for len in 0..whole.len() {
        fs::write(&newer.path, &whole[..len]).expect("writes");
        let store = SnapshotStore::open(dir.path()).expect("opens");
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
    let store = SnapshotStore::open(&dir.path().join("one")).expect("opens");
    let sent = write(&store, b"a body", "at 5");
    let bytes = fs::read(&sent.path).expect("reads");

    let other = SnapshotStore::open(&dir.path().join("two")).expect("opens");
    let mut receiver = other.receiver(GROUP).expect("starts");
    receiver
        .write_all(&bytes[..bytes.len() - 1])
        .expect("writes");
    assert!(matches!(
        receiver.finish(),
        Err(SnapshotError::Damaged { .. })
    ));
    assert_eq!(other.latest(GROUP).expect("looks"), None);

    let mut receiver = other.receiver(GROUP).expect("starts");
    receiver.write_all(&bytes).expect("writes");
    let file = receiver.finish().expect("installs");
    assert_eq!(file.meta, sent.meta);
    assert_eq!(body(&other, &file), b"a body");
    assert_eq!(other.latest(GROUP).expect("looks"), Some(file));
}
