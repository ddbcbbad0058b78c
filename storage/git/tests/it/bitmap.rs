//! Reachability bitmaps: Henge's and git's, read by either side, compared with a plain walk.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use henge_git::{
    BareRepository, BitmapSummary, FetchLimits, Protocol, RefStore, Stop, upload_pack, write_bitmap,
};
use henge_types::{ObjectId, PackId};

use crate::random::{Numbers, history};
use crate::{Git, Server, first_word, for_each_git_and_format, objects_of};

/// Commits of a history.
const COMMITS: usize = 60;
/// Commits in the pack that has bitmaps; the others are added later.
const PACKED: usize = 45;
/// Fetches compared for each kind of bitmap.
const FETCHES: usize = 8;

/// A bare repository whose first commits are in one pack.
fn repository(server: &Server, git: &Git, name: &str, seed: u64) -> (PathBuf, PathBuf) {
    let make = |name: String| {
        let path = server.path(&name);
        git.ok(
            &["init", "-q", "--bare", path.to_str().unwrap()],
            server.dir.path(),
        );
        path
    };
    let source = make(format!("{name}-source.git"));
    let mut import = git
        .command(&["fast-import", "--quiet"], &source)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stream = history(git, &mut Numbers(seed), COMMITS);
    import
        .stdin
        .take()
        .unwrap()
        .write_all(stream.as_bytes())
        .unwrap();
    assert!(import.wait().unwrap().success(), "seed {seed}");
    let bare = make(format!("{name}.git"));
    fetch_commits(git, &source, &bare, 1..=PACKED);
    (source, bare)
}

fn fetch_commits(git: &Git, source: &Path, bare: &Path, marks: std::ops::RangeInclusive<usize>) {
    let mut fetch = vec![
        "fetch".to_owned(),
        "-q".to_owned(),
        source.to_str().unwrap().to_owned(),
    ];
    fetch.extend(marks.map(|mark| format!("+refs/all/{mark}:refs/all/{mark}")));
    git.ok(&fetch.iter().map(String::as_str).collect::<Vec<_>>(), bare);
}

fn pack_of(bare: &Path) -> (PackId, PathBuf) {
    let packs: Vec<_> = std::fs::read_dir(bare.join("objects/pack"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "pack"))
        .collect();
    let [pack] = &packs[..] else {
        panic!("one pack was expected: {packs:?}");
    };
    let name = pack.file_stem().unwrap().to_str().unwrap();
    let id: ObjectId = name.strip_prefix("pack-").unwrap().parse().unwrap();
    (PackId::new(id), pack.clone())
}

fn tips(bare: &Path) -> Vec<ObjectId> {
    let mut tips = Vec::new();
    BareRepository::open(bare)
        .unwrap()
        .for_each("", &mut |_, id| tips.push(id));
    tips
}

fn write(bare: &Path) -> BitmapSummary {
    let (pack, _) = pack_of(bare);
    let objects = objects_of(bare);
    write_bitmap(&objects, pack, &tips(bare), &Stop::default()).unwrap()
}

/// The exact reachable objects according to git, without an estimate of a client's objects from its
/// haves.
fn reachable(git: &Git, bare: &Path, starts: &[String]) -> BTreeSet<String> {
    let mut command = vec!["rev-list", "--objects"];
    command.extend(starts.iter().map(String::as_str));
    let listing = git.ok(&command, bare);
    listing.lines().map(first_word).collect()
}

/// The objects of the pack that answers a fetch.
fn fetched(
    git: &Git,
    bare: &Path,
    wants: &[String],
    haves: &[String],
    thin: bool,
) -> BTreeSet<String> {
    let thin = thin.then(|| "thin-pack".to_owned());
    fetched_with(git, bare, wants, haves, thin.as_slice())
}

fn fetched_with(
    git: &Git,
    bare: &Path,
    wants: &[String],
    haves: &[String],
    options: &[String],
) -> BTreeSet<String> {
    let mut request = crate::raw::line("command=fetch\n");
    request.extend(crate::raw::line(&format!("object-format={}\n", git.format)));
    request.extend_from_slice(b"0001");
    let mut lines = vec!["ofs-delta".to_owned(), "no-progress".to_owned()];
    lines.extend_from_slice(options);
    lines.extend(wants.iter().map(|id| format!("want {id}")));
    lines.extend(haves.iter().map(|id| format!("have {id}")));
    lines.push("done".to_owned());
    for line in lines {
        request.extend(crate::raw::line(&format!("{line}\n")));
    }
    request.extend_from_slice(b"0000");
    let limits = FetchLimits {
        walked_commits_max: 0,
        ..FetchLimits::default()
    };
    let mut answer = Vec::new();
    let refs = BareRepository::open(bare).unwrap();
    let objects = objects_of(bare);
    let protocol = Protocol::V2;
    upload_pack(
        &refs,
        &objects,
        protocol,
        &mut &request[..],
        &mut answer,
        &limits,
    )
    .unwrap();
    let pack = side_band(&answer);

    // Indexed in a repository with exactly the objects of the haves.
    let client = tempfile::tempdir().unwrap();
    git.ok(&["init", "-q", "--bare", "."], client.path());
    if !options.is_empty() {
        for have in haves {
            git.ok(
                &["fetch", "-q", bare.to_str().unwrap(), have],
                client.path(),
            );
        }
    }
    let mut index = git
        .command(
            &["index-pack", "--stdin", "--fix-thin", "--keep"],
            client.path(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    index.stdin.take().unwrap().write_all(&pack).unwrap();
    let output = index.wait_with_output().unwrap();
    assert!(output.status.success(), "wants {wants:?}, haves {haves:?}");
    let name = String::from_utf8(output.stdout).unwrap();
    let name = name.trim_end().rsplit('\t').next().unwrap();
    let idx = client.path().join(format!("objects/pack/pack-{name}.idx"));
    let mut show = git.command(&["show-index"], client.path());
    let listing = show
        .stdin(std::fs::File::open(idx).unwrap())
        .output()
        .unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    listing
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap().to_owned())
        .collect()
}

/// Side-band 1 of an answer.
fn side_band(answer: &[u8]) -> Vec<u8> {
    let mut pack = Vec::new();
    let mut rest = answer;
    while let Some((length, behind)) = rest.split_at_checked(4) {
        let length = usize::from_str_radix(std::str::from_utf8(length).unwrap(), 16).unwrap();
        let length = length.saturating_sub(4);
        if behind.first() == Some(&1) && length > 0 {
            pack.extend_from_slice(&behind[1..length]);
        }
        rest = &behind[length..];
    }
    pack
}

fn compare_fetches(git: &Git, bare: &Path, seed: u64, what: &str) {
    let mut numbers = Numbers(seed);
    let all: Vec<String> = (1..=COMMITS)
        .filter_map(|mark| {
            let name = format!("refs/all/{mark}");
            let output = git.run(&["rev-parse", "-q", "--verify", &name], bare);
            let id = String::from_utf8(output.stdout).unwrap();
            output.status.success().then(|| id.trim_end().to_owned())
        })
        .collect();
    for number in 0..FETCHES {
        let mut some = |at_least: usize| -> Vec<String> {
            let count = at_least + numbers.below(3);
            (0..count)
                .map(|_| all[numbers.below(all.len())].clone())
                .collect()
        };
        let wants = some(1);
        let haves = if number % 3 == 0 { Vec::new() } else { some(0) };
        let at_client = if haves.is_empty() {
            BTreeSet::new()
        } else {
            reachable(git, bare, &haves)
        };
        let expected: BTreeSet<_> = &reachable(git, bare, &wants) - &at_client;
        let found = fetched(git, bare, &wants, &haves, false);
        assert_eq!(found, expected, "{what}, wants {wants:?}, haves {haves:?}");
        // Bases that the client adds to a thin pack are its own objects.
        let thin = fetched(git, bare, &wants, &haves, true);
        assert!(
            thin.is_superset(&expected),
            "{what}, wants {wants:?}, haves {haves:?}"
        );
        assert!((&thin - &expected).is_subset(&at_client), "{what}");
    }
}

#[test]
fn git_accepts_our_bitmaps() {
    for_each_git_and_format(|server, git| {
        for seed in [3, 4] {
            let (_, bare) = repository(server, git, &format!("ours-{seed}"), seed);
            git.ok(&["repack", "-adq", "--no-write-bitmap-index"], &bare);
            let (_, pack) = pack_of(&bare);
            std::fs::remove_file(pack.with_extension("rev")).ok();
            let written = write(&bare);
            assert!(written.commits > 20, "{written:?}");
            assert!(written.incomplete.is_empty(), "{written:?}");
            assert!(pack.with_extension("rev").is_file());
            git.fsck(&bare);
            for mark in [1, PACKED / 2, PACKED] {
                let tested = git.run(
                    &["rev-list", "--test-bitmap", &format!("refs/all/{mark}")],
                    &bare,
                );
                let said = String::from_utf8_lossy(&tested.stderr).into_owned();
                assert!(tested.status.success() && said.contains("OK!"), "{said}");
            }
            for starts in [vec!["--all"], vec!["refs/all/40", "^refs/all/20"]] {
                let count = |how: &[&str]| {
                    let mut command = vec!["rev-list", "--count"];
                    command.extend(how);
                    command.extend(&starts);
                    git.ok(&command, &bare)
                };
                assert_eq!(count(&["--use-bitmap-index"]), count(&[]));
            }
            assert_eq!(
                git.ok(
                    &[
                        "rev-list",
                        "--count",
                        "--objects",
                        "--use-bitmap-index",
                        "--all"
                    ],
                    &bare
                ),
                git.ok(&["rev-list", "--count", "--objects", "--all"], &bare),
            );
            git.ok(
                &["clone", "-q", "--bare", "--no-local", ".", "copy.git"],
                &bare,
            );
            git.fsck(&bare.join("copy.git"));
        }
    });
}

#[test]
fn fetches_by_bitmap_send_exactly_what_is_missing() {
    for_each_git_and_format(|server, git| {
        let kinds = [
            (
                "plain",
                vec![
                    "pack.writeBitmapHashCache=false",
                    "pack.writeBitmapLookupTable=false",
                ],
            ),
            (
                "hashes",
                vec![
                    "pack.writeBitmapHashCache=true",
                    "pack.writeBitmapLookupTable=false",
                ],
            ),
            (
                "table",
                vec![
                    "pack.writeBitmapHashCache=true",
                    "pack.writeBitmapLookupTable=true",
                ],
            ),
            ("ours", vec![]),
        ];
        for (seed, (kind, settings)) in (10..).zip(kinds) {
            let (source, bare) = repository(server, git, kind, seed);
            if settings.is_empty() {
                git.ok(&["repack", "-adq", "--no-write-bitmap-index"], &bare);
                assert!(write(&bare).incomplete.is_empty());
            } else {
                let mut with = git.clone();
                for setting in settings {
                    with = with.with(setting);
                }
                with.ok(&["repack", "-adbq"], &bare);
            }
            let (_, pack) = pack_of(&bare);
            assert!(pack.with_extension("bitmap").is_file(), "{kind}");
            compare_fetches(git, &bare, seed, kind);
            // Some commits are in a pack of their own, some are loose.
            let middle = usize::midpoint(PACKED, COMMITS);
            let packed = git.with("fetch.unpackLimit=1");
            fetch_commits(&packed, &source, &bare, PACKED + 1..=middle);
            fetch_commits(git, &source, &bare, middle + 1..=COMMITS);
            compare_fetches(git, &bare, seed + 100, kind);
            assert_eq!(
                fetched(
                    git,
                    &bare,
                    &[reference(git, &bare, "refs/all/1^{tree}")],
                    &[],
                    false
                ),
                reachable(git, &bare, &["refs/all/1^{tree}".to_owned()]),
            );
        }
    });
}

fn reference(git: &Git, bare: &Path, name: &str) -> String {
    git.ok(&["rev-parse", name], bare)
}

#[test]
fn what_is_not_in_the_pack_gets_no_bitmap() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = repository(server, git, "incomplete", 5);
        git.ok(&["repack", "-adq"], &bare);
        let (pack, _) = pack_of(&bare);
        fetch_commits(git, &source, &bare, PACKED + 1..=COMMITS);
        let objects = objects_of(&bare);
        let written = write_bitmap(&objects, pack, &tips(&bare), &Stop::default()).unwrap();
        let later: BTreeSet<ObjectId> = (PACKED + 1..=COMMITS)
            .map(|mark| {
                reference(git, &bare, &format!("refs/all/{mark}"))
                    .parse()
                    .unwrap()
            })
            .collect();
        let incomplete: BTreeSet<_> = written.incomplete.iter().copied().collect();
        assert!(incomplete.is_superset(&later), "{written:?}");
        compare_fetches(git, &bare, 6, "incomplete");
    });
}

#[test]
fn a_broken_bitmap_is_left_alone() {
    for_each_git_and_format(|server, git| {
        let (_, bare) = repository(server, git, "broken", 7);
        git.ok(&["repack", "-adq"], &bare);
        write(&bare);
        let (_, pack) = pack_of(&bare);
        let path = pack.with_extension("bitmap");
        let sound = std::fs::read(&path).unwrap();
        for (at, what) in [
            (0, "signature"),
            (13, "pack"),
            (40, "types"),
            (sound.len() - 30, "table"),
        ] {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x55;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let tip = reference(git, &bare, "refs/all/30");
            let expected = reachable(git, &bare, std::slice::from_ref(&tip));
            let found = fetched(git, &bare, &[tip], &[], false);
            assert_eq!(found, expected, "{what}");
        }
    });
}

/// A tree that returns is the base of the tree that it is compared with further back: neither
/// comparison may rely on the other to send the shared entries.
#[test]
fn what_a_reverted_change_leaves_alone_is_sent() {
    for_each_git_and_format(|server, git| {
        let (_, bare) = repository(server, git, "reverted", 8);
        git.ok(&["repack", "-adq"], &bare);
        write(&bare);
        let mut stream = String::new();
        for (number, content) in ["1", "2", "1"].iter().enumerate() {
            let date = 1_800_000_000 + number;
            stream.push_str(&format!(
                "commit refs/heads/reverted\ncommitter C <c@example.org> {date} +0000\ndata 1\nx\n"
            ));
            if number == 0 {
                stream.push_str("from refs/all/45\nM 644 inline new/kept\ndata 5\nkept\n\n");
            }
            stream.push_str(&format!("M 644 inline new/changed\ndata 2\n{content}\n\n"));
        }
        let mut import = git
            .command(&["fast-import", "--quiet"], &bare)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        import
            .stdin
            .take()
            .unwrap()
            .write_all(stream.as_bytes())
            .unwrap();
        assert!(import.wait().unwrap().success());
        let tip = reference(git, &bare, "refs/heads/reverted");
        let expected = reachable(git, &bare, std::slice::from_ref(&tip));
        assert!(expected.contains(&reference(git, &bare, "refs/heads/reverted:new/kept")));
        assert_eq!(fetched(git, &bare, &[tip], &[], false), expected);
    });
}

#[test]
fn filters_leave_out_the_same_by_bitmap() {
    for_each_git_and_format(|server, git| {
        let (source, bare) = repository(server, git, "filtered", 9);
        git.ok(&["repack", "-adq"], &bare);
        write(&bare);
        fetch_commits(git, &source, &bare, PACKED + 1..=COMMITS);
        let url = format!("file://{}", bare.to_str().unwrap());
        git.ok(&["config", "uploadpack.allowFilter", "true"], &bare);
        for (number, filter) in ["blob:none", "tree:0", "object:type=commit"]
            .iter()
            .enumerate()
        {
            let theirs = format!("theirs-{number}");
            let mut clone = vec!["clone", "-q", "--mirror"];
            let filtered = format!("--filter={filter}");
            clone.extend([filtered.as_str(), &url, &theirs]);
            git.ok(&clone, server.dir.path());
            let tips: BTreeSet<String> = tips(&bare).iter().map(ToString::to_string).collect();
            let tips: Vec<_> = tips.into_iter().collect();
            let lines = [format!("filter {filter}")];
            let found = fetched_with(git, &bare, &tips, &[], &lines);
            let everything = git.ok(
                &[
                    "cat-file",
                    "--batch-check",
                    "--batch-all-objects",
                    "--unordered",
                ],
                &server.path(&theirs),
            );
            let expected: BTreeSet<_> = everything.lines().map(first_word).collect();
            assert_eq!(found, expected, "{filter}");
        }
    });
}
