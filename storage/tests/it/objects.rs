//! Object stores, compared with stock git where it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use henge_storage::objects::{ObjectError, ObjectStore, PackFault, Watermark};
use henge_types::{NetworkId, ObjectFormat, ObjectId, PackId};
use sha1::{Digest, Sha1};

const NETWORK: NetworkId = NetworkId::from_bytes([0xab; 16]);

/// A pack of no objects and its index: the smallest valid ones.
fn empty_pack() -> (PackId, Vec<u8>, Vec<u8>) {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
    let sum: [u8; 20] = Sha1::digest(&pack).into();
    pack.extend_from_slice(&sum);
    let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
    idx.resize(8 + 256 * 4, 0);
    idx.extend_from_slice(&sum);
    let idx_sum: [u8; 20] = Sha1::digest(&idx).into();
    idx.extend_from_slice(&idx_sum);
    (PackId::new(ObjectId::Sha1(sum)), pack, idx)
}

fn store(dir: &Path) -> ObjectStore {
    ObjectStore::open(dir).expect("opens")
}

#[expect(clippy::disallowed_methods, reason = "a test against stock git")]
fn git(dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("NOT CHECKED: git is not installed, object stores were not opened with it");
        return None;
    };
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A real pack with one commit: its name, files and the commit.
fn real_pack(dir: &Path) -> Option<(PackId, PathBuf, PathBuf, String)> {
    git(dir, &["init", "-q", "-b", "main", "source"])?;
    let source = dir.join("source");
    fs::write(source.join("file"), "contents\n").expect("writes");
    git(&source, &["add", "file"])?;
    git(&source, &["commit", "-q", "-m", "one"])?;
    git(&source, &["repack", "-q", "-a", "-d"])?;
    let commit = git(&source, &["rev-parse", "HEAD"])?;
    let packs = fs::read_dir(source.join(".git/objects/pack")).expect("lists");
    let pack = packs
        .map(|entry| entry.expect("an entry").path())
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "pack")
        })
        .expect("a pack");
    let bytes = fs::read(&pack).expect("reads");
    let id = ObjectId::from_bytes(&bytes[bytes.len() - 20..]).expect("20 bytes");
    let idx = pack.with_extension("idx");
    Some((PackId::new(id), pack, idx, commit))
}

#[test]
fn stock_git_reads_an_installed_pack() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some((id, pack, idx, commit)) = real_pack(dir.path()) else {
        return;
    };
    let store = store(&dir.path().join("data"));
    let (pack, idx) = (
        fs::read(pack).expect("reads"),
        fs::read(idx).expect("reads"),
    );
    store
        .install_pack(&NETWORK, &id, &pack, &idx)
        .expect("installs");
    store.verify_pack(&NETWORK, &id).expect("is sound");
    let repository = store.network_dir(&NETWORK);
    let kind = git(&repository, &["cat-file", "-t", &commit]);
    assert_eq!(kind.as_deref(), Some("commit"));
    git(&repository, &["fsck", "--full"]);
}

#[test]
fn installing_replaces_whatever_has_the_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let (id, pack, idx) = empty_pack();
    store
        .install_pack(&NETWORK, &id, b"torn", b"")
        .expect("installs");
    assert!(matches!(
        store.verify_pack(&NETWORK, &id),
        Err(ObjectError::BrokenPack {
            fault: PackFault::NotAPack,
            ..
        })
    ));
    assert_eq!(store.verify_all(&NETWORK).expect("reads"), vec![id]);
    store
        .install_pack(&NETWORK, &id, &pack, &idx)
        .expect("installs");
    store.verify_pack(&NETWORK, &id).expect("is sound");
    assert_eq!(store.packs(&NETWORK).expect("lists"), vec![id]);
    assert_eq!(store.verify_all(&NETWORK).expect("reads"), vec![]);
}

#[test]
fn packs_are_dirty_until_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let (id, pack, idx) = empty_pack();
    assert!(matches!(
        store.sync_packs(&NETWORK, &[id]),
        Err(ObjectError::MissingPack(_))
    ));
    store
        .install_pack(&NETWORK, &id, &pack, &idx)
        .expect("installs");
    assert_eq!(store.dirty_packs(&NETWORK), vec![id]);
    store.sync_dirty([&NETWORK]).expect("syncs");
    assert_eq!(store.dirty_packs(&NETWORK), vec![]);
}

#[test]
fn every_damaged_byte_of_pack_and_index_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let (id, pack, idx) = empty_pack();
    for at in 0..pack.len() {
        let mut damaged = pack.clone();
        damaged[at] ^= 1;
        store
            .install_pack(&NETWORK, &id, &damaged, &idx)
            .expect("installs");
        assert!(store.verify_pack(&NETWORK, &id).is_err(), "pack byte {at}");
    }
    for at in (0..idx.len()).step_by(7) {
        let mut damaged = idx.clone();
        damaged[at] ^= 1;
        store
            .install_pack(&NETWORK, &id, &pack, &damaged)
            .expect("installs");
        assert!(store.verify_pack(&NETWORK, &id).is_err(), "idx byte {at}");
    }
}

fn stage(store: &ObjectStore, dir: &Path) -> PackId {
    let (id, pack, idx) = empty_pack();
    let (pack_path, idx_path) = (dir.join("in.pack"), dir.join("in.idx"));
    fs::write(&pack_path, pack).expect("writes");
    fs::write(&idx_path, idx).expect("writes");
    store.stage(&id, &pack_path, &idx_path).expect("stages");
    id
}

#[test]
fn a_staged_pack_survives_a_restart_and_is_promoted_once_or_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let id = stage(&store(dir.path()), dir.path());
    let store = store(dir.path());
    assert_eq!(store.staged().expect("lists"), vec![id]);
    assert!(!store.has_pack(&NETWORK, &id));
    store.promote(&NETWORK, &id).expect("promotes");
    store.promote(&NETWORK, &id).expect("did so before");
    store.verify_pack(&NETWORK, &id).expect("is sound");
    assert_eq!(store.staged().expect("lists"), vec![]);
}

#[test]
fn half_a_promotion_is_finished_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(dir.path());
    let id = stage(&first, dir.path());
    first
        .ensure_network(&NETWORK, ObjectFormat::Sha1)
        .expect("makes it");
    let (staged_pack, _) = first.staged_paths(&id);
    let name = staged_pack.file_name().expect("a name");
    let there = first.objects_dir(&NETWORK).join("pack").join(name);
    fs::rename(&staged_pack, there).expect("the power went behind this");
    let store = store(dir.path());
    store.promote(&NETWORK, &id).expect("finishes it");
    store.verify_pack(&NETWORK, &id).expect("is sound");
}

#[test]
fn a_dropped_or_unknown_pack_cannot_be_promoted() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let id = stage(&store, dir.path());
    store.drop_staged(&id).expect("drops");
    store.drop_staged(&id).expect("did so before");
    assert!(matches!(
        store.promote(&NETWORK, &id),
        Err(ObjectError::MissingPack(_))
    ));
}

#[test]
fn what_is_under_way_goes_with_its_owner_and_at_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(dir.path());
    let quarantine = first.quarantine("push-1").expect("makes it");
    let kept = quarantine.path().to_owned();
    fs::write(kept.join("object"), "x").expect("writes");
    let spool = first.spool();
    fs::write(spool.path(), "pushed").expect("writes");
    let spooled = spool.path().to_owned();
    assert_ne!(spooled, first.spool().path());
    drop((quarantine, spool));
    assert!(!kept.is_dir() && !spooled.is_file());

    fs::create_dir_all(dir.path().join("quarantine/left")).expect("makes it");
    fs::write(dir.path().join("spool/left"), "x").expect("writes");
    let store = store(dir.path());
    assert!(!dir.path().join("quarantine/left").is_dir());
    assert!(!dir.path().join("spool/left").is_file());
    for name in ["", "..", "a/b", "a.b"] {
        assert!(matches!(
            store.quarantine(name),
            Err(ObjectError::InvalidName(_))
        ));
    }
}

#[test]
fn a_removed_network_is_gone_and_can_be_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    store.remove_network(&NETWORK).expect("nothing is fine too");
    let (id, pack, idx) = empty_pack();
    store
        .install_pack(&NETWORK, &id, &pack, &idx)
        .expect("installs");
    store.remove_network(&NETWORK).expect("removes");
    assert!(!store.network_dir(&NETWORK).is_dir());
    assert_eq!(store.packs(&NETWORK).expect("lists"), vec![]);
    store
        .ensure_network(&NETWORK, ObjectFormat::Sha1)
        .expect("makes it");
}

#[test]
fn space_is_low_below_the_larger_mark() {
    let dir = tempfile::tempdir().expect("a directory");
    let low = |bytes, percent| {
        let watermark = Watermark { bytes, percent };
        let store = ObjectStore::open_with(dir.path(), watermark).expect("opens");
        store.space().expect("measures").low
    };
    assert!(!low(0, 0));
    assert!(low(u64::MAX, 0));
    assert!(low(0, 101));
}

/// Index and name of a pack with these objects, without the pack itself.
fn index_of(objects: &[[u8; 20]]) -> (PackId, Vec<u8>) {
    let mut sorted = objects.to_vec();
    sorted.sort_unstable();
    let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
    for byte in 0..=255_u8 {
        let below = sorted.iter().filter(|name| name[0] <= byte).count();
        idx.extend_from_slice(&u32::try_from(below).expect("few").to_be_bytes());
    }
    idx.extend(sorted.iter().flatten());
    // CRCs and offsets.
    idx.resize(idx.len() + sorted.len() * 8, 0);
    let name: [u8; 20] = Sha1::digest(&idx).into();
    (PackId::new(ObjectId::Sha1(name)), idx)
}

#[test]
fn a_pack_is_covered_when_others_list_all_its_objects() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let object = |number: u32| -> [u8; 20] { Sha1::digest(number.to_be_bytes()).into() };
    let install = |numbers: &mut dyn Iterator<Item = u32>| {
        let objects: Vec<_> = numbers.map(object).collect();
        let (id, idx) = index_of(&objects);
        store
            .install_pack(&NETWORK, &id, b"pack", &idx)
            .expect("installs");
        id
    };
    let all = install(&mut (0..3000));
    let even = install(&mut (0..3000).step_by(2));
    let odd = install(&mut (1..3000).step_by(2));
    let few = install(&mut [7, 1999].into_iter());
    let one_more = install(&mut [7, 1999, 3000].into_iter());
    let nothing = install(&mut std::iter::empty());
    let uncovered = |old, new: &[PackId]| store.uncovered(&NETWORK, old, new).expect("reads");
    assert_eq!(uncovered(&even, &[all]), None);
    assert_eq!(uncovered(&few, &[all]), None);
    assert_eq!(uncovered(&few, &[odd]), None);
    assert_eq!(uncovered(&all, &[even, odd]), None);
    assert_eq!(uncovered(&nothing, &[few]), None);
    assert_eq!(uncovered(&nothing, &[]), None);
    let missing = Some(ObjectId::Sha1(object(3000)));
    assert_eq!(uncovered(&one_more, &[all]), missing);
    assert_eq!(uncovered(&one_more, &[even, odd]), missing);
    assert!(uncovered(&all, &[even]).is_some());
    assert!(uncovered(&few, &[even]).is_some());
    assert!(uncovered(&few, &[nothing]).is_some());
    // A truncated index covers none of its missing objects, and is reported as broken.
    let (_, idx) = index_of(&(0..3000).map(object).collect::<Vec<_>>());
    store
        .install_pack(&NETWORK, &all, b"pack", &idx[..9000])
        .expect("installs");
    assert!(matches!(
        store.uncovered(&NETWORK, &even, &[all]),
        Err(ObjectError::BrokenPack { pack, fault: PackFault::Index }) if pack == all
    ));
    assert!(matches!(
        store.uncovered(&NETWORK, &even, &[PackId::new(ObjectId::Sha1([1; 20]))]),
        Err(ObjectError::MissingPack(_))
    ));
}

#[test]
fn a_removed_pack_goes_with_its_side_files_and_open_ones_stay_readable() {
    use std::io::Read;
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let (id, pack, idx) = empty_pack();
    store
        .install_pack(&NETWORK, &id, &pack, &idx)
        .expect("installs");
    for extension in ["bitmap", "rev"] {
        fs::write(store.side_file(&NETWORK, &id, extension), "side").expect("writes");
    }
    let mut open = store.open_pack(&NETWORK, &id).expect("opens");
    store.remove_pack(&NETWORK, &id).expect("removes");
    store
        .remove_pack(&NETWORK, &id)
        .expect("again is no failure");
    let left = fs::read_dir(store.objects_dir(&NETWORK).join("pack")).expect("lists");
    assert_eq!(left.count(), 0);
    assert_eq!(store.dirty_packs(&NETWORK), vec![], "nothing to sync");
    store.sync_dirty([&NETWORK]).expect("syncs");
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).expect("reads");
    assert_eq!(bytes, pack);
}
