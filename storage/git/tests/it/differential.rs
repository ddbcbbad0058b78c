//! Random fetches, answered by this server and by `git upload-pack`, compared.
//!
//! The client has exactly the objects reachable from its haves (up to its shallow boundary). Both
//! packs are completed from those alone and indexed by stock git, so a delta on an object that the
//! client lacks fails. Three comparisons follow. Of the objects that the client lacked, both
//! servers send the same set. The `shallow`, `unshallow` and `wanted-refs` lines are the same. Both
//! refuse the same requests.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use henge_git::{BareRepository, FetchLimits, Objects, Protocol, upload_pack};
use henge_types::ObjectFormat;

use requests::{Request, random_request};

use crate::random::{Numbers, history};
use crate::{Git, Server, first_word, for_each_git_and_format, objects_of};

/// Histories, commits of each, and fetches from it.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;
const COMMITS: usize = 40;
const FETCHES: usize = 30;
const FLUSH: &[u8] = b"0000";
/// The depth of `git fetch --unshallow`.
const INFINITE: u32 = 0x7fff_ffff;

/// A commit of the history.
struct Commit {
    id: String,
    parents: Vec<usize>,
}

struct Source {
    format: ObjectFormat,
    path: PathBuf,
    commits: Vec<Commit>,
    branches: Vec<(String, String)>,
    tags: Vec<String>,
    /// The peeled value of each tag.
    peeled: BTreeMap<String, String>,
    trees: Vec<String>,
    blobs: Vec<String>,
    /// A blob with patterns for a sparse filter.
    patterns: String,
}

fn feed(
    git: &Git,
    arguments: &[&str],
    dir: &Path,
    environment: &[(&str, &Path)],
    input: &[u8],
) -> (bool, Vec<u8>) {
    let mut command = git.command(arguments, dir);
    let mut child = command
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A git that refuses early stops reading.
    let _written = stdin.write_all(input).is_ok();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    (output.status.success(), output.stdout)
}

impl Source {
    fn make(server: &Server, git: &Git, seed: u64, numbers: &mut Numbers) -> Self {
        let path = server.path(&format!("source-{seed}.git"));
        git.ok(
            &["init", "-q", "--bare", "-b", "b0", path.to_str().unwrap()],
            server.dir.path(),
        );
        let (imported, _) = feed(
            git,
            &["fast-import", "--quiet"],
            &path,
            &[],
            history(git, numbers, COMMITS).as_bytes(),
        );
        assert!(imported, "seed {seed}");
        // A commit without files, an unrelated one, tags of tags, and many commits that no ref
        // points at.
        let empty = git.ok(&["hash-object", "-t", "tree", "-w", "/dev/null"], &path);
        let tip = git.ok(&["rev-parse", "b0"], &path);
        // The dates are fixed so that every run has the same objects.
        let ok = |arguments: &[&str]| {
            let mut command = git.command(arguments, &path);
            command
                .env("GIT_AUTHOR_DATE", "1700000100 +0000")
                .env("GIT_COMMITTER_DATE", "1700000100 +0000");
            let output = command.output().unwrap();
            assert!(output.status.success(), "{arguments:?}");
            String::from_utf8(output.stdout)
                .unwrap()
                .trim_end()
                .to_owned()
        };
        let bare = ok(&["commit-tree", "-m", "empty", "-p", &tip, &empty]);
        ok(&["update-ref", "refs/heads/b0", &bare]);
        let lone = ok(&["commit-tree", "-m", "lone", &empty]);
        ok(&["update-ref", "refs/heads/lone", &lone]);
        for (name, target) in [
            ("outer-1", "b0"),
            ("outer-2", "outer-1"),
            ("outer-3", "b1~1"),
        ] {
            ok(&["tag", "-a", "-m", name, name, target]);
        }
        let all = ok(&["for-each-ref", "--format=delete %(refname)", "refs/all"]);
        feed(
            git,
            &["update-ref", "--stdin"],
            &path,
            &[],
            format!("{all}\n").as_bytes(),
        );
        ok(&["repack", "-adfq", "--depth=20"]);
        // Some objects are loose, and there are two packs.
        let newest = ok(&[
            "commit-tree",
            "-m",
            "new",
            "-p",
            &bare,
            &format!("{tip}^{{tree}}"),
        ]);
        ok(&["update-ref", "refs/heads/b0", &newest]);
        ok(&["repack", "-dq"]);
        let newest = ok(&["commit-tree", "-m", "newer", "-p", &newest, &empty]);
        ok(&["update-ref", "refs/heads/b0", &newest]);
        let list = server.path("patterns");
        std::fs::write(&list, "d1/\n/d2/e*/\n!file-3\n# nothing\n!/d1/e2/\n").unwrap();
        let patterns = ok(&["hash-object", "-w", list.to_str().unwrap()]);
        ok(&["update-ref", "refs/lists/patterns", &patterns]);
        Self::read(git, path, patterns)
    }

    fn read(git: &Git, path: PathBuf, patterns: String) -> Self {
        let listing = git.ok(
            &[
                "rev-list",
                "--topo-order",
                "--reverse",
                "--parents",
                "--all",
            ],
            &path,
        );
        let mut numbers = BTreeMap::new();
        let mut commits = Vec::new();
        for listed in listing.lines() {
            let mut words = listed.split(' ');
            let id = words.next().unwrap().to_owned();
            numbers.insert(id.clone(), commits.len());
            let parents = words.map(|parent| numbers[parent]).collect();
            commits.push(Commit { id, parents });
        }
        let listing = git.ok(
            &["rev-list", "--objects", "--all", "--no-object-names"],
            &path,
        );
        let kinds = feed(
            git,
            &["cat-file", "--batch-check"],
            &path,
            &[],
            format!("{listing}\n").as_bytes(),
        )
        .1;
        let kinds = String::from_utf8(kinds).unwrap();
        let of = |kind: &str| -> Vec<String> {
            kinds
                .lines()
                .filter(|found| found.split(' ').nth(1) == Some(kind))
                .map(first_word)
                .collect()
        };
        let branches = git.ok(
            &[
                "for-each-ref",
                "--format=%(objectname) %(refname)",
                "refs/heads",
            ],
            &path,
        );
        let branches = branches.lines().map(|found| {
            let (id, name) = found.split_once(' ').unwrap();
            (id.to_owned(), name.to_owned())
        });
        Self {
            format: git.format,
            branches: branches.collect(),
            peeled: of("tag")
                .into_iter()
                .map(|tag| {
                    let target = git.ok(&["rev-parse", &format!("{tag}^{{}}")], &path);
                    (tag, target)
                })
                .collect(),
            tags: of("tag"),
            trees: of("tree"),
            blobs: of("blob"),
            commits,
            patterns,
            path,
        }
    }

    /// The shallow boundary of a history that begins at `start`, after `depth` commits.
    fn ends(&self, start: usize, depth: usize) -> Vec<usize> {
        let mut seen = BTreeSet::from([start]);
        let mut level = vec![start];
        for _ in 1..depth {
            let parents = level
                .iter()
                .flat_map(|number| &self.commits[*number].parents);
            level = parents
                .copied()
                .filter(|parent| seen.insert(*parent))
                .collect();
        }
        level.retain(|number| !self.commits[*number].parents.is_empty());
        level
    }

    /// Creates the object directory of a client; returns its objects.
    fn client(&self, git: &Git, request: &Request, objects: &Path) -> BTreeSet<String> {
        std::fs::create_dir_all(objects.join("pack")).unwrap();
        if request.haves.is_empty() {
            return BTreeSet::new();
        }
        let mut revisions = String::new();
        for id in &request.shallow {
            revisions.push_str(&format!("--shallow {id}\n"));
        }
        for have in &request.haves {
            revisions.push_str(&format!("{have}\n"));
        }
        let base = objects.join("pack/pack");
        let (made, _) = feed(
            git,
            &["pack-objects", "--revs", "-q", base.to_str().unwrap()],
            &self.path,
            &[],
            revisions.as_bytes(),
        );
        assert!(made, "{revisions}");
        indexed(objects, git.format)
    }
}

/// The objects in the packs of an object directory, from their indexes (gitformat-pack(5)).
fn indexed(objects: &Path, format: ObjectFormat) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(objects.join("pack")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "idx") {
            continue;
        }
        let data = std::fs::read(path).unwrap();
        let count = u32::from_be_bytes(data[1028..1032].try_into().unwrap()) as usize;
        let bytes = format.id_bytes();
        let names = data[1032..1032 + bytes * count].chunks(bytes);
        found.extend(names.map(|name| {
            name.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        }));
    }
    found
}

/// A parsed answer.
#[derive(Debug, Default)]
struct Answer {
    /// Lines of the sections that must be equal, sorted.
    lines: BTreeSet<String>,
    pack: Vec<u8>,
    refused: bool,
}

fn read_answer(mut data: &[u8]) -> Answer {
    let mut answer = Answer::default();
    while data.len() >= 4 {
        let length = usize::from_str_radix(std::str::from_utf8(&data[..4]).unwrap(), 16).unwrap();
        if length < 4 {
            data = &data[4..];
            continue;
        }
        let (frame, rest) = (&data[4..length], &data[length..]);
        data = rest;
        match frame {
            [1, pack @ ..] => answer.pack.extend_from_slice(pack),
            [2, ..] => {}
            [3, ..] => answer.refused = true,
            text if text.starts_with(b"ERR ") => answer.refused = true,
            text => {
                let text = String::from_utf8_lossy(text).trim_end().to_owned();
                if text.contains("shallow ") || text.contains(" refs/") {
                    answer.lines.insert(text);
                }
            }
        }
    }
    answer
}

fn ask_git(git: &Git, source: &Source, request: &Request) -> Answer {
    let git = [
        "uploadpack.allowFilter=true",
        "uploadpack.allowAnySHA1InWant=true",
        "uploadpack.allowRefInWant=true",
    ]
    .iter()
    .fold(git.clone(), |git, setting| git.with(setting));
    let version = Path::new(if request.two {
        "version=2"
    } else {
        "version=0"
    });
    let (succeeded, output) = feed(
        &git,
        &["upload-pack", "--stateless-rpc", "."],
        &source.path,
        &[("GIT_PROTOCOL", version)],
        &request.encode(),
    );
    let mut answer = read_answer(&output);
    answer.refused |= !succeeded;
    answer
}

fn ask_us(repository: &BareRepository, objects: &Objects, request: &Request) -> Answer {
    let mut output = Vec::new();
    let protocol = if request.two {
        Protocol::V2
    } else {
        Protocol::V0
    };
    let outcome = upload_pack(
        repository,
        objects,
        protocol,
        &mut &request.encode()[..],
        &mut output,
        &FetchLimits::default(),
    );
    let answer = read_answer(&output);
    assert_eq!(answer.refused, outcome.is_err(), "{outcome:?}");
    answer
}

/// The objects that a client gains from a pack.
fn received(
    git: &Git,
    dummy: &Path,
    client: &Path,
    had: &BTreeSet<String>,
    pack: &[u8],
) -> Option<BTreeSet<String>> {
    if pack.get(8..12) == Some(&[0; 4]) {
        return Some(BTreeSet::new());
    }
    let objects = tempfile::tempdir_in(dummy).unwrap();
    let environment = [
        ("GIT_OBJECT_DIRECTORY", objects.path()),
        ("GIT_ALTERNATE_OBJECT_DIRECTORIES", client),
    ];
    let (whole, _) = feed(
        git,
        &["index-pack", "--stdin", "--fix-thin"],
        dummy,
        &environment,
        pack,
    );
    whole.then(|| {
        indexed(objects.path(), git.format)
            .difference(had)
            .cloned()
            .collect()
    })
}

#[test]
fn random_fetches_are_answered_as_git_answers_them() {
    for_each_git_and_format(|server, git| {
        let mut refused = 0;
        let mut empty = 0;
        for seed in SEEDS {
            let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let source = Source::make(server, git, seed, &mut numbers);
            let dummy = server.path("dummy.git");
            git.ok(
                &["init", "-q", "--bare", dummy.to_str().unwrap()],
                server.dir.path(),
            );
            let repository = BareRepository::open(&source.path).unwrap();
            let objects = objects_of(&source.path);
            for number in 0..FETCHES {
                let request = random_request(&mut numbers, &source);
                let client = tempfile::tempdir_in(server.dir.path()).unwrap();
                let had = source.client(git, &request, client.path());
                let mut theirs = ask_git(git, &source, &request);
                // Here a root commit is not a shallow boundary; git reports one that lies exactly
                // at the depth.
                for root in source
                    .commits
                    .iter()
                    .filter(|commit| commit.parents.is_empty())
                {
                    theirs.lines.remove(&format!("shallow {}", root.id));
                }
                let ours = ask_us(&repository, &objects, &request);
                let what = format!("seed {seed}, fetch {number}: {request:#?}");
                assert_eq!(ours.refused, theirs.refused, "{what}");
                if theirs.refused {
                    refused += 1;
                    continue;
                }
                assert_eq!(ours.lines, theirs.lines, "{what}");
                let get = |pack: &[u8]| received(git, &dummy, client.path(), &had, pack);
                let expected = get(&theirs.pack).expect("git sends packs that git takes");
                let got = get(&ours.pack).unwrap_or_else(|| panic!("not taken: {what}"));
                // With a shallow boundary, git sends some of the client's objects again, and their
                // tags too.
                let is_needed = |id: &&String| {
                    let target = source.peeled.get(*id);
                    let is_extra = target.is_some_and(|target| had.contains(target));
                    !is_extra || request.wants.contains(id)
                };
                let missing: Vec<_> = expected.difference(&got).filter(is_needed).collect();
                // In a combined filter, git loses the objects seen by one part when another part
                // omits them.
                let is_combined = request.rules.iter().any(|rule| rule.contains("combine:"));
                let extra: Vec<_> = got.difference(&expected).filter(|_| !is_combined).collect();
                assert!(
                    missing.is_empty() && extra.is_empty(),
                    "missing {missing:?}, extra {extra:?}, {what}"
                );
                empty += usize::from(got.is_empty());
            }
        }
        // Most fetches must produce something to compare.
        let made = SEEDS.count() * FETCHES;
        assert!(
            refused > 2 && refused + empty < made / 2,
            "{refused} of {made} refused, {empty} empty"
        );
    });
}
