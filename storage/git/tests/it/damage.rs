//! Packs and indexes that are damaged on disk: an answer is right, or it fails.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use henge_storage::objects::blocks::BlockSums;

use crate::packs::idx_files;
use crate::partial::command;
use crate::raw::post;
use crate::{Git, Server, for_each_git_and_format};

/// Whether a damage shows in the file's times: a disk that gives back other bytes does not say so.
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

/// A clone that comes to its end is the repository; whether it does.
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

/// The whole-pack path looked at no byte: one flipped bit went out to every client, for ever.
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
            for at in [20, length / 3, length / 2, length - 100] {
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

/// The size of an object that is a delta was read from the head of that delta, and its kind at the end of the chain, without
/// a look at the checksums of those bytes.
#[test]
fn no_size_is_answered_from_damaged_bytes() {
    for_each_git_and_format(|server, git| {
        let (repo, url) = server.repo(git, "sizes.git");
        let work = server.path("sizes-work");
        git.work_tree(&work, 2);
        for commit in 0..2 {
            for file in 0..4 {
                let mut noise = vec![0; 400_000];
                let path = work.join(format!("noise-{file}"));
                if commit == 0 {
                    let mut source = File::open("/dev/urandom").unwrap();
                    source.read_exact(&mut noise).unwrap();
                } else {
                    noise = fs::read(&path).unwrap();
                    noise.extend_from_slice(b"and more");
                }
                fs::write(&path, noise).unwrap();
            }
            git.ok(&["add", "."], &work);
            git.ok(&["commit", "-q", "-m", "noise"], &work);
        }
        git.ok(&["push", "-q", &url, "HEAD:main"], &work);
        git.ok(&["repack", "-q", "-a", "-d", "-f"], &repo);
        let idx = idx_files(&repo).remove(0);
        let pack = idx.with_extension("pack");
        let digits = pack.file_stem().unwrap().len() - "pack-".len();
        let sums = BlockSums::of_files(&pack, &idx, digits / 2).unwrap();
        sums.write(&BlockSums::path_of(&pack), &repo.join("new"))
            .unwrap();

        // Id, kind, size, size in the pack, offset; of deltas also the depth and the base.
        let listed = git.ok(&["verify-pack", "-v", idx.to_str().unwrap()], &repo);
        let lines = || listed.lines().map(|line| line.split_whitespace().collect());
        let objects: Vec<Vec<&str>> = lines().filter(|l: &Vec<_>| l.len() >= 5).collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        let blocks_read: Vec<u64> = objects
            .iter()
            .filter(|object| matches!(object[1], "commit" | "tree"))
            .flat_map(|object| {
                let at = number(object[4]);
                at / 16384..=(at + number(object[3])) / 16384
            })
            .collect();
        let mut tried = 0;
        for delta in objects.iter().filter(|o| o.len() == 7 && o[1] == "blob") {
            let base = objects.iter().find(|o| o[0] == delta[6]).unwrap();
            let at = number(base[4]);
            // What is shown is read from trees and commits: damage in their blocks is found before.
            if base.len() != 5 || blocks_read.contains(&(at / 16384)) {
                continue;
            }
            tried += 1;
            let ask = || {
                let asked = command(git, "object-info", &["size", &format!("oid {}", delta[0])]);
                post(&url, "upload-pack", "version=2", &asked).text()
            };
            let size = git.ok(&["cat-file", "-s", delta[0]], &repo);
            let answer = format!("{} {size}", delta[0]);
            assert!(ask().contains(&answer), "{}", ask());
            flip(&pack, at, Times::Changed);
            assert!(!ask().contains(&answer), "its base is damaged");
            flip(&pack, at, Times::Changed);
            assert!(ask().contains(&answer), "whole again");
        }
        assert!(tried > 0, "{listed}");
    });
}
