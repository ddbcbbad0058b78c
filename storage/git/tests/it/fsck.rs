//! Whole stores, checked and counted, compared with stock git.

use std::path::Path;

use henge_git::fsck::{Finding, FsckError, FsckReport, Stage, fsck, fsck_pack};
use henge_git::{Stop, stats};
use henge_types::ObjectId;

use crate::packs::{Client, feed, history, idx_files, keep_pack, push_in_steps};
use crate::{Git, for_each_git_and_format};

fn check(git: &Git, bare: &Path) -> FsckReport {
    let refs = git.ok(&["for-each-ref", "--format=%(objectname)"], bare);
    let tips: Vec<ObjectId> = refs.lines().map(|id| id.parse().unwrap()).collect();
    let mut stages = Vec::new();
    let report = fsck(
        &bare.join("objects"),
        git.format,
        &tips,
        &Stop::default(),
        &mut |progress| {
            stages.push(progress.stage);
        },
    );
    stages.dedup();
    let order = [Stage::Packs, Stage::Loose, Stage::Connectivity];
    assert!(
        stages.iter().all(|stage| order.contains(stage)),
        "{stages:?}"
    );
    report.unwrap()
}

/// Writes `bytes` over a file that may be read-only.
fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_healthy_store_has_no_findings_and_as_many_objects_as_git_counts() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = (server.path("source"), server.path("bare"));
        history(git, &source, 60);
        push_in_steps(git, &source, &bare, 20, Client::Thin);
        git.ok(&["tag", "-a", "-m", "a tag", "v1", "main"], &bare);
        let report = check(git, &bare);
        assert_eq!(report.findings, []);
        assert_eq!((report.packs, report.loose), (3, 1));
        let reachable = git.objects(&bare).len() as u64;
        assert_eq!(report.reachable, Some(reachable));
        assert_eq!(report.unreachable, Some(0));
        let counted = stats(&bare.join("objects"), git.format).unwrap();
        assert_eq!(counted.packed_objects, report.packed);
        assert_eq!((counted.packs, counted.loose_objects), (3, 1));
        assert!(!counted.bitmap && !counted.commit_graph && !counted.multi_pack_index);
        git.ok(&["repack", "-q", "-adb"], &bare);
        git.ok(&["commit-graph", "write", "--reachable"], &bare);
        git.ok(&["multi-pack-index", "write"], &bare);
        let counted = stats(&bare.join("objects"), git.format).unwrap();
        assert!(counted.bitmap && counted.commit_graph && counted.multi_pack_index);
        assert_eq!((counted.packs, counted.loose_objects), (1, 0));
        assert_eq!(counted.packed_objects, reachable);
        let pack = idx_files(&bare)[0].with_extension("pack");
        assert_eq!(counted.pack_bytes, std::fs::metadata(pack).unwrap().len());
        assert_eq!(check(git, &bare).findings, []);
        git.ok(&["update-ref", "-d", "refs/tags/v1"], &bare);
        git.ok(&["update-ref", "refs/heads/main", "main~1"], &bare);
        let report = check(git, &bare);
        assert_eq!(report.findings, []);
        let tips = git.ok(&["rev-list", "--objects", "--all"], &bare);
        let left = tips.lines().count() as u64;
        assert_eq!(report.reachable, Some(left));
        assert_eq!(report.unreachable, Some(reachable - left));
    });
}

#[test]
fn every_damaged_entry_is_named() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = (server.path("source"), server.path("bare"));
        history(git, &source, 12);
        push_in_steps(git, &source, &bare, 12, Client::Thin);
        let pack = idx_files(&bare)[0].with_extension("pack");
        let whole = std::fs::read(&pack).unwrap();
        let listing = git.ok(&["verify-pack", "-v", pack.to_str().unwrap()], &bare);
        let mut damaged_entries = 0;
        for line in listing.lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields.len() < 5 || fields[0].parse::<ObjectId>().is_err() {
                continue;
            }
            let (at, length): (usize, usize) =
                (fields[4].parse().unwrap(), fields[3].parse().unwrap());
            let mut bytes = whole.clone();
            bytes[at + length / 2] ^= 4;
            overwrite(&pack, &bytes);
            let report = check(git, &bare);
            let id: ObjectId = fields[0].parse().unwrap();
            let is_named = |finding: &Finding| matches!(finding, Finding::Damaged { id: found, .. } if *found == id);
            assert!(
                report.findings.iter().any(is_named),
                "{id}: {:?}",
                report.findings
            );
            let is_file =
                |finding: &Finding| matches!(finding, Finding::File { path, .. } if *path == pack);
            assert!(report.findings.iter().any(is_file), "{:?}", report.findings);
            damaged_entries += 1;
        }
        assert!(damaged_entries > 20);
    });
}

#[test]
fn what_is_missing_is_named_with_who_needs_it() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = (server.path("source"), server.path("bare"));
        history(git, &source, 3);
        let all = git.objects(&source);
        let tree = git.ok(&["rev-parse", "main^{tree}"], &source);
        for missing in &all {
            drop(std::fs::remove_dir_all(&bare));
            std::fs::create_dir_all(&bare).unwrap();
            git.ok(&["init", "-q", "--bare", "-b", "main"], &bare);
            let names: String = all
                .iter()
                .filter(|name| *name != missing)
                .map(|name| format!("{name}\n"))
                .collect();
            let command = git.command(&["pack-objects", "-q", "--stdout"], &source);
            keep_pack(git, &bare, &feed(command, names.as_bytes()));
            let tip = git.ok(&["rev-parse", "main"], &source).parse().unwrap();
            let objects = bare.join("objects");
            let report = fsck(&objects, git.format, &[tip], &Stop::default(), &mut |_| ()).unwrap();
            let id: ObjectId = missing.parse().unwrap();
            let [
                Finding::Missing {
                    id: found,
                    needed_by,
                },
            ] = &report.findings[..]
            else {
                panic!("{id}: {:?}", report.findings);
            };
            assert_eq!((*found, needed_by.is_none()), (id, id == tip));
            if *missing == tree {
                assert_eq!(*needed_by, Some(tip));
            }
        }
    });
}

#[test]
fn a_damaged_loose_object_is_named_and_a_stop_is_heeded() {
    for_each_git_and_format(|server, git| {
        let work = server.path("work");
        git.work_tree(&work, 2);
        let objects = work.join(".git/objects");
        let id = git.ok(&["rev-parse", "HEAD:new-1.txt"], &work);
        let path = objects.join(&id[..2]).join(&id[2..]);
        // Another object under this one's name: well-formed, but with a different hash.
        let other = git.ok(&["rev-parse", "HEAD:new-0.txt"], &work);
        let bytes = std::fs::read(objects.join(&other[..2]).join(&other[2..])).unwrap();
        overwrite(&path, &bytes);
        let stop = Stop::default();
        let report = fsck(&objects, git.format, &[], &stop, &mut |_| ()).unwrap();
        let [
            Finding::Damaged {
                id: found, reason, ..
            },
        ] = &report.findings[..]
        else {
            panic!("{:?}", report.findings);
        };
        assert_eq!(found.to_string(), id);
        assert!(reason.contains(&other), "{reason}");
        stop.stop();
        let tip = git.ok(&["rev-parse", "HEAD"], &work).parse().unwrap();
        git.ok(&["repack", "-q", "-ad"], &server.path("work"));
        let outcome = fsck(&objects, git.format, &[tip], &stop, &mut |_| ());
        assert!(matches!(outcome, Err(FsckError::Stopped)));
    });
}

#[test]
fn one_pack_is_checked_by_itself() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "one.git");
        let work = server.path("work");
        git.work_tree(&work, 5);
        git.ok(&["push", "-q", &url, "main"], &work);
        let idx = idx_files(&bare).remove(0);
        let report = fsck_pack(&idx, git.format, &Stop::default()).unwrap();
        assert_eq!((report.packs, report.findings.len()), (1, 0));
        assert!(report.packed >= 15, "{report:?}");
        // A copy with one flipped byte in the middle.
        let copy = server.path("copy");
        std::fs::create_dir(&copy).unwrap();
        let (pack, idx_copy) = (copy.join("pack-1.pack"), copy.join("pack-1.idx"));
        std::fs::copy(&idx, &idx_copy).unwrap();
        let mut bytes = std::fs::read(idx.with_extension("pack")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
        let report = fsck_pack(&idx_copy, git.format, &Stop::default()).unwrap();
        assert!(!report.findings.is_empty());
    });
}
