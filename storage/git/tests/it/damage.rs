//! Packs and indexes that are damaged on disk: an answer is correct, or it fails.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use henge_storage::objects::blocks::BlockSums;

use crate::packs::idx_files;
use crate::{Git, Server, for_each_git_and_format};

/// Whether the damage changes the file's times: a disk that returns other bytes leaves them
/// unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Changed,
    Kept,
}

fn flip(path: &Path, at: u64, times: Times) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x20]).unwrap();
    if times == Times::Kept {
        file.set_modified(modified).unwrap();
    }
}

/// A repository in one pack of some megabytes, its URL, the pack.
fn repository(server: &Server, git: &Git, name: &str) -> (PathBuf, String, PathBuf) {
    let (repo, url) = server.repo(git, name);
    let work = server.path(&format!("{name}-work"));
    git.work_tree(&work, 8);
    let mut noise = vec![0; 3_000_000];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut noise)
        .unwrap();
    fs::write(work.join("noise"), noise).unwrap();
    git.ok(&["add", "."], &work);
    git.ok(&["commit", "-q", "-m", "noise"], &work);
    git.ok(&["push", "-q", &url, "HEAD:main"], &work);
    git.ok(&["repack", "-q", "-a", "-d"], &repo);
    let pack = idx_files(&repo)[0].with_extension("pack");
    (repo, url, pack)
}

/// Whether a clone completes; a completed clone must equal the repository.
#[track_caller]
fn clones(server: &Server, git: &Git, (repo, url): (&Path, &str), name: &str) -> bool {
    let copy = server.path(name);
    let arguments = ["clone", "-q", "--mirror", url, copy.to_str().unwrap()];
    let cloned = git.run(&arguments, server.dir.path()).status.success();
    if cloned {
        git.fsck(&copy);
        assert_eq!(git.objects(&copy), git.objects(repo), "{name}");
    }
    fs::remove_dir_all(&copy).ok();
    cloned
}

/// The whole-pack path verified no byte: one flipped bit was sent to every client.
#[test]
fn no_damaged_byte_of_a_pack_leaves() {
    for_each_git_and_format(|server, git| {
        for with_sums in [true, false] {
            let name = format!("damaged-{with_sums}.git");
            let (repo, url, pack) = repository(server, git, &name);
            let idx = pack.with_extension("idx");
            if with_sums {
                let trailer = fs::read(&pack).unwrap();
                let digits = pack.file_stem().unwrap().len() - "pack-".len();
                assert!(trailer.len() > digits);
                let sums = BlockSums::of_files(&pack, &idx, digits / 2).unwrap();
                let path = BlockSums::path_of(&pack);
                sums.write(&path, &repo.join("new")).unwrap();
            }
            let sound = || clones(server, git, (&repo, &url), "copy");
            assert!(sound());
            let length = fs::metadata(&pack).unwrap().len();
            // Frames of 65,515 bytes end within blocks of 16 KiB: a block shared by two frames is
            // compared for the first one.
            let shared = [65_514, 65_515, 65_535, 65_536];
            let spread = [20, length / 3, length / 2, length - 100];
            for at in shared.into_iter().chain(spread) {
                for times in [Times::Changed, Times::Kept] {
                    flip(&pack, at, times);
                    assert!(!sound(), "sums: {with_sums}, byte {at}, {times:?}");
                    flip(&pack, at, times);
                }
            }
            if with_sums {
                for at in [300, 1100, fs::metadata(&idx).unwrap().len() - 10] {
                    flip(&idx, at, Times::Changed);
                    assert!(!sound(), "index byte {at}");
                    flip(&idx, at, Times::Changed);
                }
            }
            assert!(sound(), "sums: {with_sums}, whole again");
            fs::remove_dir_all(&repo).unwrap();
        }
    });
}
