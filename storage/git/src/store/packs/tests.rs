use super::*;
use sha1::{Digest, Sha1};
use std::fs;

/// A pack without objects, and its index.
fn empty_pack() -> (Vec<u8>, Vec<u8>) {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
    let sum: [u8; 20] = Sha1::digest(&pack).into();
    pack.extend_from_slice(&sum);
    let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
    idx.resize(8 + 256 * 4, 0);
    idx.extend_from_slice(&sum);
    let idx_sum: [u8; 20] = Sha1::digest(&idx).into();
    idx.extend_from_slice(&idx_sum);
    (pack, idx)
}

/// Puts a pack without objects, and its index, into a directory.
pub(crate) fn put(dir: &Path, name: &str) {
    let (pack, idx) = empty_pack();
    for (extension, bytes) in [("pack", pack), ("idx", idx)] {
        let unfinished = dir.join("tmp");
        fs::write(&unfinished, bytes).unwrap();
        fs::rename(unfinished, dir.join(format!("pack-{name}.{extension}"))).unwrap();
    }
}

fn remove(dir: &Path, name: &str) {
    for extension in ["idx", "pack"] {
        fs::remove_file(dir.join(format!("pack-{name}.{extension}"))).unwrap();
    }
}

#[test]
fn a_reader_finds_the_old_pack_or_the_one_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let packs = dir.path().join("pack");
    fs::create_dir(&packs).unwrap();
    put(&packs, "0");
    let objects = Objects::at(dir.path(), ObjectFormat::Sha1);
    // A reader fails after SCANS_MAX listings with changes: during one read there are fewer.
    let (replaced, replacements) = std::sync::mpsc::sync_channel(SCANS_MAX / 4);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..2000 {
                put(&packs, &number.to_string());
                remove(&packs, &(number - 1).to_string());
                replaced.send(()).unwrap();
            }
        });
        for () in replacements {
            for reader in [&objects, &Objects::at(dir.path(), ObjectFormat::Sha1)] {
                let found = reader.packs(&[dir.path().to_owned()]).unwrap();
                assert!(!found.is_empty(), "neither the one nor the other");
            }
        }
    });
    assert_eq!(objects.packs(&[dir.path().to_owned()]).unwrap().len(), 1);
}

#[test]
fn an_index_without_its_pack_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let packs = dir.path().join("pack");
    fs::create_dir(&packs).unwrap();
    put(&packs, "1");
    put(&packs, "2");
    fs::remove_file(packs.join("pack-1.pack")).unwrap();
    let objects = Objects::at(dir.path(), ObjectFormat::Sha1);
    assert_eq!(objects.packs(&[dir.path().to_owned()]).unwrap().len(), 1);
}
