//! Merged packs, read and measured by stock git.

use std::path::{Path, PathBuf};

use henge_git::Stop;
use henge_git::fsck::{Reached, reach_anew, reach_from};
use henge_git::repack::{
    CoverError, PackSize, PlanLimits, RepackError, RepackOptions, Repacked, ReverseIndex, plan,
    verify_covers, write, write_reached,
};

use henge_types::{ObjectFormat, ObjectId};

use crate::packs::{Client, Entry, history, idx_files, keep_pack, pack_by_hand, push_in_steps};
use crate::{Git, Server, for_each_git_and_format};

/// Replaces the old packs by the pack merged from them.
fn replace(bare: &Path, old: &[PathBuf], new: &Repacked) {
    for idx in old {
        for extension in ["idx", "rev", "pack"] {
            let path = idx.with_extension(extension);
            if path.try_exists().unwrap() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    let files = [
        Some(&new.pack.pack_path),
        new.rev_path.as_ref(),
        Some(&new.pack.idx_path),
    ];
    for file in files.into_iter().flatten() {
        let name = file.file_name().unwrap();
        std::fs::rename(file, bare.join("objects/pack").join(name)).unwrap();
    }
}

/// Git's default options, for repositories of this git's object format.
fn options_for(git: &Git) -> RepackOptions {
    RepackOptions {
        object_format: git.format,
        ..RepackOptions::default()
    }
}

fn repack(server: &Server, bare: &Path, options: &RepackOptions) -> Repacked {
    let old = idx_files(bare);
    let into = server.path("quarantine");
    std::fs::create_dir_all(&into).unwrap();
    let new = write(&old, &into, options).unwrap();
    verify_covers(
        &new.pack.idx_path,
        &old,
        options.object_format,
        &Stop::default(),
    )
    .unwrap();
    replace(bare, &old, &new);
    assert_eq!(
        std::fs::read_dir(&into).unwrap().count(),
        0,
        "something is left"
    );
    new
}

fn all_objects(git: &Git, bare: &Path) -> String {
    git.ok(&["cat-file", "--batch-all-objects", "--batch-check"], bare)
}

/// Runs git's strictest checks; returns the length of the longest delta chain.
fn verify(git: &Git, bare: &Path) -> usize {
    git.fsck(bare);
    let idx = idx_files(bare);
    assert_eq!(idx.len(), 1);
    let listing = git.ok(&["verify-pack", "-v", idx[0].to_str().unwrap()], bare);
    let depths = listing.lines().filter_map(|line| {
        let depth = line.strip_prefix("chain length = ")?;
        depth.split_once(':')?.0.parse().ok()
    });
    depths.max().unwrap_or(0)
}

fn copy(git: &Git, from: &Path, to: &Path) {
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    git.ok(
        &["clone", "-q", "--bare", "--no-hardlinks", from, to],
        Path::new("/"),
    );
}

fn pack_bytes(bare: &Path) -> u64 {
    let sizes = idx_files(bare).into_iter().map(|idx| {
        let pack = idx.with_extension("pack");
        std::fs::metadata(pack).unwrap().len()
    });
    sizes.sum()
}

/// Merges the packs of many pushes and compares the size with git's result.
fn compare_with_git(commits: usize, step: usize, client: Client, format: ObjectFormat) {
    let server = Server::start();
    let gits = server.gits().into_iter();
    let gits: Vec<_> = gits.map(|git| git.of_format(format)).collect();
    let git = &gits[0];
    let (source, bare) = (server.path("source"), server.path("bare"));
    history(git, &source, commits);
    push_in_steps(git, &source, &bare, step, client);
    let (before, objects) = (pack_bytes(&bare), all_objects(git, &bare));
    let packs = idx_files(&bare).len();
    let made_by_git = ["-adf", "-ad"].map(|how| {
        let other = server.path(how);
        copy(git, &bare, &other);
        git.ok(&["repack", "-q", how], &other);
        pack_bytes(&other)
    });
    let new = repack(&server, &bare, &options_for(git));
    for git in &gits {
        assert_eq!(all_objects(git, &bare), objects);
        let depth = verify(git, &bare);
        assert!(depth <= 50, "a chain of {depth} deltas");
    }
    let after = pack_bytes(&bare);
    let ratio = |other: u64| after as f64 / other as f64;
    eprintln!(
        "{client:?} {format}: {packs} packs, {} objects, {before} bytes; merged {after}, new deltas {}, deflated {}; \
         git repack -adf {} (x{:.3}), -ad {} (x{:.3})",
        new.pack.objects,
        new.new_deltas,
        new.deflated,
        made_by_git[0],
        ratio(made_by_git[0]),
        made_by_git[1],
        ratio(made_by_git[1]),
    );
    assert_eq!(new.pack.pack_bytes, after);
    for other in made_by_git {
        assert!(ratio(other) <= 1.1, "{after} bytes, git needs {other}");
    }
}

#[test]
fn many_thin_pushes_are_merged_about_as_small_as_git_does() {
    compare_with_git(2400, 6, Client::Thin, ObjectFormat::Sha1);
    compare_with_git(600, 6, Client::Thin, ObjectFormat::Sha256);
}

#[test]
fn pushes_without_deltas_are_merged_about_as_small_as_git_does() {
    compare_with_git(600, 6, Client::Whole, ObjectFormat::Sha1);
}

#[test]
fn deltas_of_several_packs_that_form_a_circle_are_cut() {
    for_each_git_and_format(|server, git| {
        let (bare, _) = server.repo(git, "circle.git");
        let lines = |number: usize| -> Vec<u8> {
            let line = |line| format!("line {line}\n").into_bytes();
            (number..number + 89).flat_map(line).collect()
        };
        let (one, two) = (lines(10), lines(11));
        let ids = [&one, &two].map(|data| {
            let id = crate::packs::feed(git.command(&["hash-object", "--stdin"], &bare), data);
            String::from_utf8(id).unwrap().trim().to_owned()
        });
        let sizes = |from: &[u8], to: &[u8]| -> Vec<u8> {
            let byte = |size: usize| u8::try_from(size).unwrap();
            let size = |size: usize| [byte(size & 0x7f) | 0x80, byte(size >> 7)];
            [size(from.len()), size(to.len())].concat()
        };
        let shared = u16::try_from(one.len() - 8).unwrap().to_le_bytes();
        // One delta removes the first line and appends one; the other does the reverse.
        let to_two = [
            &sizes(&one, &two)[..],
            b"\xb1\x08",
            &shared,
            b"\x08line 99\n",
        ]
        .concat();
        let to_one = [&sizes(&two, &one)[..], b"\x08line 10\n", b"\xb0", &shared].concat();
        keep_pack(
            git,
            &bare,
            &pack_by_hand(
                &[Entry::Blob(&one), Entry::RefDelta(&ids[0], &to_two)],
                git.format,
            ),
        );
        keep_pack(
            git,
            &bare,
            &pack_by_hand(
                &[Entry::Blob(&two), Entry::RefDelta(&ids[1], &to_one)],
                git.format,
            ),
        );
        // A thin pack that was completed may hold one object twice.
        keep_pack(
            git,
            &bare,
            &pack_by_hand(&[Entry::Blob(&one), Entry::Blob(&one)], git.format),
        );
        assert_eq!(idx_files(&bare).len(), 3);
        let objects = all_objects(git, &bare);
        let new = repack(server, &bare, &options_for(git));
        assert_eq!(new.pack.objects, 2);
        assert_eq!(all_objects(git, &bare), objects);
        assert_eq!(verify(git, &bare), 1);
    });
}

#[test]
fn a_damaged_entry_stops_the_merge_and_is_named() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = (server.path("source"), server.path("bare"));
        history(git, &source, 30);
        push_in_steps(git, &source, &bare, 10, Client::Thin);
        let into = server.path("quarantine");
        std::fs::create_dir_all(&into).unwrap();
        let old = idx_files(&bare);
        let pack = old[1].with_extension("pack");
        let whole = std::fs::read(&pack).unwrap();
        let listing = git.ok(&["verify-pack", "-v", pack.to_str().unwrap()], &bare);
        std::fs::remove_file(&pack).unwrap();
        let elsewhere: String = [&old[0], &old[2]]
            .map(|idx| git.ok(&["verify-pack", "-v", idx.to_str().unwrap()], &bare))
            .concat();
        let mut refused = 0;
        // One flipped bit in every entry: the error names the entry, from whichever check detects
        // it first.
        for line in listing.lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_entry = fields.len() >= 5 && fields[0].parse::<ObjectId>().is_ok();
            let Some(offset) = fields.get(4).filter(|_| is_entry) else {
                continue;
            };
            let (id, bytes): (_, usize) = (fields[0], fields[3].parse().unwrap());
            let mut damaged = whole.clone();
            damaged[offset.parse::<usize>().unwrap() + bytes - 3] ^= 0x10;
            std::fs::write(&pack, &damaged).unwrap();
            let error = match write(&old, &into, &options_for(git)) {
                Err(error) => error,
                // Another pack has the object, so nothing is lost: its copy was used.
                Ok(new) if elsewhere.contains(id) => {
                    git.ok(&["verify-pack", new.pack.idx_path.to_str().unwrap()], &bare);
                    for path in [
                        Some(new.pack.pack_path),
                        Some(new.pack.idx_path),
                        new.rev_path,
                    ] {
                        std::fs::remove_file(path.unwrap()).unwrap();
                    }
                    continue;
                }
                Ok(_) => panic!("object {id} is damaged and was taken"),
            };
            refused += 1;
            assert!(
                matches!(
                    error,
                    RepackError::Damaged { .. } | RepackError::Entry { .. }
                ),
                "{error}"
            );
            // An entry may be read as the base of another one, which is then named.
            let is_base = listing
                .lines()
                .any(|line| line.ends_with(id) && !line.starts_with(id));
            assert!(is_base || error.to_string().contains(id), "{id}: {error}");
            assert_eq!(
                std::fs::read_dir(&into).unwrap().count(),
                0,
                "something is left"
            );
        }
        assert!(refused > 20, "only {refused} entries were damaged");
    });
}

#[test]
fn a_merge_stops_at_its_deadline_and_leaves_nothing() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = (server.path("source"), server.path("bare"));
        history(git, &source, 20);
        push_in_steps(git, &source, &bare, 5, Client::Whole);
        let into = server.path("quarantine");
        std::fs::create_dir_all(&into).unwrap();
        let old = idx_files(&bare);
        let stopped = Stop::default();
        stopped.stop();
        let options = RepackOptions {
            stop: stopped.clone(),
            ..options_for(git)
        };
        assert!(matches!(
            write(&old, &into, &options),
            Err(RepackError::Stopped)
        ));
        assert!(matches!(
            write(&[], &into, &options_for(git)),
            Err(RepackError::Empty)
        ));
        assert_eq!(std::fs::read_dir(&into).unwrap().count(), 0);
        // The end of the search does not end the merge.
        let options = RepackOptions {
            search_until: stopped,
            reverse_index: ReverseIndex::Omitted,
            ..options_for(git)
        };
        let new = repack(server, &bare, &options);
        assert_eq!((new.new_deltas, new.rev_path), (0, None));
        verify(git, &bare);
    });
}

#[test]
fn a_pack_that_lacks_an_object_or_is_damaged_covers_nothing() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = (server.path("source"), server.path("bare"));
        history(git, &source, 40);
        push_in_steps(git, &source, &bare, 10, Client::Thin);
        let other = server.path("other");
        copy(git, &bare, &other);
        git.ok(&["repack", "-q", "-ad"], &other);
        let (old, new) = (idx_files(&bare), idx_files(&other).remove(0));
        let stop = Stop::default();
        verify_covers(&new, &old, git.format, &stop).unwrap();
        let error =
            verify_covers(&old[0], std::slice::from_ref(&new), git.format, &stop).unwrap_err();
        assert!(matches!(error, CoverError::Missing { .. }), "{error}");
        let pack = new.with_extension("pack");
        let mut bytes = std::fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&pack).unwrap();
        std::fs::write(&pack, &bytes).unwrap();
        let error = verify_covers(&new, &old, git.format, &stop).unwrap_err();
        assert!(matches!(error, CoverError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(".pack"), "{error}");
    });
}

#[test]
fn geometric_merges_keep_a_repository_in_few_packs() {
    let server = Server::start();
    let gits = server.gits();
    let git = &gits[0];
    let (source, all) = (server.path("source"), server.path("all"));
    history(git, &source, 120);
    push_in_steps(git, &source, &all, 3, Client::Thin);
    let bare = server.path("bare");
    std::fs::create_dir_all(&bare).unwrap();
    git.ok(&["init", "-q", "--bare", "-b", "main"], &bare);
    let into = server.path("quarantine");
    std::fs::create_dir_all(&into).unwrap();
    let mut by_age = idx_files(&all);
    by_age.sort_by_key(|idx| std::fs::metadata(idx).unwrap().modified().unwrap());
    for idx in by_age {
        for extension in ["pack", "idx"] {
            let name = idx.with_extension(extension);
            std::fs::copy(
                &name,
                bare.join("objects/pack").join(name.file_name().unwrap()),
            )
            .unwrap();
        }
        let sizes: Vec<PackSize> = idx_files(&bare).iter().map(|idx| size(idx)).collect();
        let Some(chosen) = plan(&sizes, PlanLimits::default()) else {
            continue;
        };
        let path = |id| bare.join(format!("objects/pack/pack-{id}.idx"));
        let old: Vec<PathBuf> = chosen.into_iter().map(path).collect();
        let new = write(&old, &into, &options_for(git)).unwrap();
        replace(&bare, &old, &new);
        assert!(idx_files(&bare).len() <= 8);
    }
    assert_eq!(all_objects(git, &bare), all_objects(git, &all));
    let tip = git.ok(&["rev-parse", "main"], &all);
    git.ok(&["update-ref", "refs/heads/main", &tip], &bare);
    for git in &gits {
        git.fsck(&bare);
    }
}

fn size(idx: &Path) -> PackSize {
    let name = idx.file_stem().unwrap().to_str().unwrap();
    let bytes = std::fs::read(idx).unwrap();
    // The last entry of the fan-out table is the number of objects.
    let objects = u32::from_be_bytes(bytes[8 + 255 * 4..8 + 256 * 4].try_into().unwrap());
    PackSize {
        id: name.strip_prefix("pack-").unwrap().parse().unwrap(),
        objects,
        bytes: std::fs::metadata(idx.with_extension("pack")).unwrap().len(),
    }
}

fn first_words(listing: &str) -> Vec<String> {
    let words = listing.lines().filter_map(|line| line.split(' ').next());
    let mut words: Vec<_> = words.map(str::to_owned).collect();
    words.sort_unstable();
    words
}

fn ids(git: &Git, bare: &Path) -> Vec<String> {
    first_words(&all_objects(git, bare))
}

/// Only reachable objects are kept, even when a delta's base is left out.
#[test]
fn what_is_not_reached_is_left_out() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = (server.path("source"), server.path("bare"));
        history(git, &source, 120);
        push_in_steps(git, &source, &bare, 6, Client::Thin);
        git.ok(&["repack", "-q", "-ad", "--depth=50"], &bare);
        // The newest versions are undeltified, older ones are deltas on them: a pack without the
        // newest lacks delta bases.
        git.ok(&["update-ref", "refs/heads/main", "main~60"], &bare);
        let tips = git.ok(&["for-each-ref", "--format=%(objectname)"], &bare);
        let tips: Vec<ObjectId> = tips.lines().map(|id| id.parse().unwrap()).collect();
        let wanted = git.ok(&["rev-list", "--objects", "--all"], &bare);
        let wanted = first_words(&wanted);
        let (old, stop) = (idx_files(&bare), Stop::default());
        let all = ids(git, &bare).len();
        let (reached, report) = reach_from(&old, git.format, &tips, &stop).unwrap();
        assert_eq!(report.findings, []);
        assert_eq!(reached.len(), wanted.len());
        assert_eq!(report.unreachable, Some((all - wanted.len()) as u64));
        let into = server.path("quarantine");
        std::fs::create_dir_all(&into).unwrap();
        let new = write_reached(&old, &reached, &into, &options_for(git)).unwrap();
        assert_eq!(new.pack.objects as usize, wanted.len());
        assert!(new.deflated > 0, "no base was left out");
        replace(&bare, &old, &new);
        assert_eq!(ids(git, &bare), wanted);
        git.ok(&["fsck", "--full", "--strict"], &bare);
        let new = idx_files(&bare);
        let (again, report) = reach_from(&new, git.format, &tips, &stop).unwrap();
        assert_eq!((report.findings, report.unreachable), (Vec::new(), Some(0)));
        assert_eq!(again.len(), reached.len());
        // Known objects are not looked up: even without any pack there is no finding.
        let (more, report) = reach_anew(&[], git.format, &tips, &reached, &stop).unwrap();
        assert_eq!((report.findings, more.len()), (Vec::new(), 0));
        let (_, report) = reach_from(&[], git.format, &tips, &stop).unwrap();
        assert_eq!(report.findings.len(), tips.len(), "nothing is there");
        let none = write_reached(&new, &Reached::default(), &into, &options_for(git));
        assert!(matches!(none, Err(RepackError::Empty)), "{none:?}");
    });
}
