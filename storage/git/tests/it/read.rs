//! The reader of trees, files, history, differences and blame, beside stock git.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use henge_git::read::{
    BlobDiff, Change, ChangeKind, Entry, LineHunk, LogCursor, LogNext, PathKind, ReadError,
    ReadLimits, Reader, RenameDetection, RenameSearch,
};
use henge_git::{Objects, Stop};
use henge_types::{ObjectFormat, ObjectId};

use crate::random::{Numbers, history};
use crate::{Git, Server, for_each_git_and_format};

/// Lines of every file.
pub(crate) const ALL: Range<u32> = 0..u32::MAX;

/// A repository with a work tree, and the git that made it.
pub(crate) struct Repository {
    pub(crate) git: Git,
    pub(crate) work: PathBuf,
    commits: u64,
}

impl Repository {
    pub(crate) fn empty(server: &Server, git: &Git, name: &str) -> Self {
        let work = server.path(name);
        fs::create_dir_all(&work).unwrap();
        git.ok(&["init", "-q", "-b", "main"], &work);
        Self {
            git: git.clone(),
            work,
            commits: 0,
        }
    }

    /// Runs git at the date of the next commit.
    fn dated(&mut self, arguments: &[&str]) {
        self.commits += 1;
        let date = format!("{} -0330", 1_700_000_000 + self.commits * 60);
        let mut command = self.git.command(arguments, &self.work);
        command
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
    }

    pub(crate) fn commit(&mut self, message: &str) {
        self.run(&["add", "-A"]);
        self.dated(&["commit", "-q", "-m", message]);
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.work.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.git.ok(arguments, &self.work)
    }

    /// What git prints about a path, as it is.
    fn raw(&self, arguments: &[&str], path: &[u8]) -> Vec<u8> {
        let mut command = self.git.command(arguments, &self.work);
        if !path.is_empty() {
            command.arg("--").arg(OsStr::from_bytes(path));
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        output.stdout
    }

    pub(crate) fn id(&self, name: &str) -> ObjectId {
        self.run(&["rev-parse", name]).parse().unwrap()
    }

    fn history(&self) -> Vec<ObjectId> {
        let listing = self.run(&["rev-list", "--all"]);
        listing.lines().map(|id| id.parse().unwrap()).collect()
    }

    pub(crate) fn objects(&self) -> Objects {
        Objects::at(&self.work.join(".git/objects"), self.git.format)
    }

    pub(crate) fn reader(&self) -> Reader {
        self.bounded(ReadLimits::default())
    }

    pub(crate) fn bounded(&self, limits: ReadLimits) -> Reader {
        Reader::open(&self.objects(), limits, Stop::default()).unwrap()
    }

    /// Writes an object that git itself would not make.
    pub(crate) fn write_object(&self, kind: &str, content: &[u8]) -> ObjectId {
        let arguments = ["hash-object", "-t", kind, "-w", "--stdin", "--literally"];
        let mut command = self.git.command(&arguments, &self.work);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    pub(crate) fn write_commit(&self, tree: ObjectId, parents: &[ObjectId]) -> ObjectId {
        let mut text = format!("tree {tree}\n");
        for parent in parents {
            writeln!(text, "parent {parent}").unwrap();
        }
        text.push_str("author A <a@example.org> 1 +0000\n");
        text.push_str("committer C <c@example.org> 1 +0000\n\nx\n");
        self.write_object("commit", text.as_bytes())
    }
}

pub(crate) fn numbered(lines: Range<u32>, mark: &str) -> String {
    lines.fold(String::new(), |mut text, line| {
        writeln!(text, "    line {line} {mark}").unwrap();
        text
    })
}

/// A dozen commits: renames with and without changes, a merge, a merge of two roots, binary files,
/// modes, links, a submodule, odd names.
#[expect(clippy::too_many_lines, reason = "one commit after the other")]
pub(crate) fn repository(server: &Server, git: &Git) -> Repository {
    let mut repository = Repository::empty(server, git, "work");
    let work = repository.work.clone();
    let code = numbered(0..80, "first");
    repository.write("main.rs", &code);
    repository.write("dir/sub/deep.txt", &numbered(0..30, "deep"));
    repository.write("dir/sub/other.txt", "other\n");
    repository.write("dir-b", "sorts before what is in dir\n");
    repository.write("empty", "");
    repository.write("typed", "a file\n");
    repository.write("sp ace \"quoted\"\ttab.txt", "odd\n");
    let odd = OsStr::from_bytes(b"caf\xe9.txt");
    fs::write(work.join(odd), "not UTF-8\n").unwrap();
    fs::write(work.join("binary.bin"), [b'x', 0, b'\n', 7].repeat(300)).unwrap();
    repository.write("script.sh", "#!/bin/sh\n");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(work.join("script.sh"), executable.clone()).unwrap();
    symlink("main.rs", work.join("link")).unwrap();
    repository.commit("first");

    let code = code.replace("line 10 first", "line 10 second");
    repository.write(
        "main.rs",
        &code.replace("line 70 first\n", "line 70 first\n\n"),
    );
    repository.commit("second\n\nwith a body\n");

    // A rename with a change; the name is another one, so only the content tells.
    repository.run(&["rm", "-q", "--cached", "main.rs"]);
    fs::remove_file(work.join("main.rs")).unwrap();
    let code = format!("// moved\n{code}");
    repository.write("src/lib.rs", &code);
    repository.commit("third");

    fs::set_permissions(work.join("dir/sub/deep.txt"), executable).unwrap();
    fs::write(work.join("binary.bin"), [b'y', 0, b'\n', 7].repeat(300)).unwrap();
    repository.commit("fourth");
    repository.run(&["repack", "-a", "-d", "-q"]);

    repository.run(&["switch", "-q", "-c", "side"]);
    let deep = numbered(0..30, "deep").replace("line 3 deep", "line 3 side");
    repository.write("dir/sub/deep.txt", &deep);
    repository.write("side.txt", "side\n");
    repository.commit("on the side");
    repository.run(&["switch", "-q", "main"]);

    repository.run(&["rm", "-q", "empty"]);
    fs::create_dir(work.join("data")).unwrap();
    repository.run(&["mv", "binary.bin", "data/blob.bin"]);
    let deep = numbered(0..30, "deep").replace("line 25 deep\n", "line 25 main\nand more\n");
    repository.write("dir/sub/deep.txt", &deep);
    repository.commit("on main");
    repository.dated(&["merge", "-q", "--no-ff", "-m", "merge", "side"]);

    fs::create_dir(work.join("module")).unwrap();
    let module = format!("160000,{},module", git.absent());
    repository.run(&["update-index", "--add", "--cacheinfo", &module]);
    repository.dated(&["commit", "-q", "-m", "a submodule"]);

    fs::remove_file(work.join("typed")).unwrap();
    symlink("dir-b", work.join("typed")).unwrap();
    fs::remove_file(work.join("link")).unwrap();
    repository.write("link", "a file now\n");
    repository.commit("types");

    let middle = numbered(100..110, "new");
    let code = code.replace(
        "    line 40 first\n",
        &format!("{middle}    line 40 first\n"),
    );
    let code = code.replace("    line 20 first\n    line 21 first\n", "");
    repository.write("src/lib.rs", &code);
    repository.commit("in the middle");

    repository.run(&["switch", "-q", "--orphan", "other"]);
    repository.write("other.txt", &numbered(0..20, "other"));
    repository.write("dir/sub/second-root.txt", "root\n");
    repository.commit("another root");
    repository.run(&["switch", "-q", "main"]);
    repository.dated(&[
        "merge",
        "-q",
        "--allow-unrelated-histories",
        "-m",
        "two roots",
        "other",
    ]);

    repository.run(&["mv", "dir", "folder"]);
    repository.write("folder/sub/other.txt", "other\nand another one\n");
    let deep = fs::read_to_string(work.join("folder/sub/deep.txt")).unwrap();
    repository.write("folder/sub/deep.txt", &deep.replace("line 12 deep\n", ""));
    repository.write("other.txt", &numbered(5..25, "other"));
    repository.commit("a directory moves");
    repository
}

/// Everything below a directory, in the order of `git ls-tree -r -t`, page by page.
fn everything(reader: &Reader, commit: ObjectId, path: &[u8], found: &mut Vec<Entry>) {
    let mut first = Some(0);
    while let Some(number) = first {
        let page = reader.directory(commit, path, number).unwrap().unwrap();
        for entry in page.entries {
            found.push(entry.clone());
            assert_eq!(
                reader.entry(commit, entry.path()).unwrap().as_ref(),
                Some(&entry)
            );
            if entry.kind() == PathKind::Directory {
                everything(reader, commit, entry.path(), found);
            }
        }
        first = page.next;
    }
}

fn split_zeros(output: &[u8]) -> Vec<&[u8]> {
    let fields = output.split(|byte| *byte == 0);
    fields.filter(|field| !field.is_empty()).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn trees_and_blobs_are_those_of_git() {
    for_each_git_and_format(|server, git| {
        let repository = repository(server, git);
        let reader = repository.bounded(ReadLimits {
            entries_max: 3,
            ..ReadLimits::default()
        });
        let mut blobs = BTreeSet::new();
        for commit in repository.history() {
            let mut entries = Vec::new();
            everything(&reader, commit, b"", &mut entries);
            let name = commit.to_string();
            let listing = ["ls-tree", "-r", "-t", "-z", "--full-tree", &name];
            let listing = repository.raw(&listing, b"");
            let expected: Vec<_> = split_zeros(&listing).into_iter().map(text).collect();
            let read: Vec<_> = entries
                .iter()
                .map(|entry| {
                    let kind = match entry.kind() {
                        PathKind::Directory => "tree",
                        PathKind::Submodule => "commit",
                        PathKind::File | PathKind::Executable | PathKind::SymbolicLink => "blob",
                    };
                    let head = format!("{:06o} {kind} {}\t", entry.kind().mode(), entry.id());
                    text(&[head.as_bytes(), entry.path()].concat())
                })
                .collect();
            assert_eq!(read, expected);
            for entry in entries {
                if !entry.kind().is_blob() || !blobs.insert(entry.id()) {
                    continue;
                }
                let id = entry.id().to_string();
                let expected = repository.raw(&["cat-file", "blob", &id], b"");
                assert_eq!(reader.blob_bytes(&entry).unwrap(), expected.len() as u64);
                let blob = reader.blob(&entry).unwrap();
                assert_eq!(blob.is_binary(), expected.contains(&0));
                assert_eq!(*blob.data, expected);
            }
        }
        assert!(blobs.len() > 15, "only {} blobs", blobs.len());
    });
}

#[test]
fn missing_paths_and_other_kinds_are_told_apart() {
    for_each_git_and_format(|server, git| {
        let repository = repository(server, git);
        let (reader, tip) = (repository.reader(), repository.id("main"));
        for path in ["nothing", "folder/nothing", "src/lib.rs/below", "module/x"] {
            assert_eq!(reader.entry(tip, path.as_bytes()).unwrap(), None);
            assert_eq!(reader.directory(tip, path.as_bytes(), 0).unwrap(), None);
            assert_eq!(reader.blame(tip, path.as_bytes(), ALL).unwrap(), None);
        }
        let root = reader.entry(tip, b"").unwrap().unwrap();
        assert_eq!(root.id(), repository.id("main^{tree}"));
        let refused = reader.directory(tip, b"src/lib.rs", 0);
        assert!(
            matches!(refused, Err(ReadError::Kind { found: "file", .. })),
            "{refused:?}"
        );
        for path in ["folder", "module"] {
            let entry = reader.entry(tip, path.as_bytes()).unwrap().unwrap();
            let refused = reader.blob(&entry);
            assert!(matches!(refused, Err(ReadError::Kind { .. })), "{path}");
            let refused = reader.blame(tip, path.as_bytes(), ALL);
            assert!(matches!(refused, Err(ReadError::Kind { .. })), "{path}");
        }
        let tree = reader.commit(root.id());
        assert!(
            matches!(tree, Err(ReadError::Kind { found: "tree", .. })),
            "{tree:?}"
        );
        let other = match git.format {
            ObjectFormat::Sha1 => ObjectId::Sha256([1; 32]),
            ObjectFormat::Sha256 => ObjectId::Sha1([1; 20]),
        };
        let refused = reader.commit(other);
        assert!(matches!(refused, Err(ReadError::Format { .. })));
        let absent: ObjectId = git.absent().parse().unwrap();
        let error = reader.commit(absent).unwrap_err().to_string();
        assert_eq!(error, format!("object {absent} is missing"));
    });
}

#[test]
fn commits_are_those_of_git() {
    for_each_git_and_format(|server, git| {
        let repository = repository(server, git);
        let reader = repository.reader();
        for id in repository.history() {
            let commit = reader.commit(id).unwrap();
            let parents: Vec<_> = commit.parents.iter().map(ToString::to_string).collect();
            let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let read = format!(
                "{} {}|{} {} {} {}|{} {} {} {}|{}",
                commit.tree,
                parents.join(" "),
                string(&commit.author.name),
                string(&commit.author.email),
                commit.author.seconds,
                commit.author.zone_minutes,
                string(&commit.committer.name),
                string(&commit.committer.email),
                commit.committer.seconds,
                commit.committer.zone_minutes,
                string(&commit.message).trim_end(),
            );
            let format = "--format=%T %P|%an %ae %at -210|%cn %ce %ct -210|%B";
            let expected = repository.run(&["show", "-s", format, &id.to_string()]);
            assert_eq!(read, expected);
            assert_eq!(commit.message_bytes, commit.message.len());
            assert_eq!(commit.encoding, None);
        }
    });
}

/// A whole log, in pages of `commits_max`.
fn pages(reader: &Reader, start: ObjectId, path: &[u8], commits_max: usize) -> Vec<ObjectId> {
    let mut from = LogCursor::at(start);
    let mut ids = Vec::new();
    loop {
        let page = reader.log(&from, path, commits_max).unwrap();
        assert!(page.commits.len() <= commits_max);
        ids.extend(page.commits.iter().map(|commit| commit.id));
        from = match page.next {
            LogNext::Page(next) => LogCursor::of_commits(next.commits().to_vec()),
            LogNext::End => return ids,
            LogNext::TooWide => panic!("the history is not that wide"),
        };
    }
}

#[test]
fn logs_are_those_of_git_whatever_the_page() {
    for_each_git_and_format(|server, git| {
        let repository = repository(server, git);
        let (reader, tip) = (repository.reader(), repository.id("main"));
        let mut paths = BTreeSet::from([Vec::new()]);
        for commit in repository.history() {
            let mut entries = Vec::new();
            everything(&reader, commit, b"", &mut entries);
            paths.extend(entries.iter().map(|entry| entry.path().to_vec()));
        }
        assert!(paths.len() > 20);
        paths.insert(b"never/there".to_vec());
        let few = repository.bounded(ReadLimits {
            log_walked_max: 2,
            ..ReadLimits::default()
        });
        for path in paths {
            let name = tip.to_string();
            let arguments = ["--literal-pathspecs", "log", "--format=%H", &name];
            let expected = String::from_utf8(repository.raw(&arguments, &path)).unwrap();
            let expected: Vec<ObjectId> = expected.lines().map(|id| id.parse().unwrap()).collect();
            for commits_max in [1, 3, 250] {
                let read = pages(&reader, tip, &path, commits_max);
                assert_eq!(read, expected, "{} by {commits_max}", text(&path));
            }
            assert_eq!(pages(&few, tip, &path, 3), expected, "{}", text(&path));
        }
    });
}

/// A change as `git diff-tree --raw` shows it.
fn raw_change(change: &Change, format: ObjectFormat) -> String {
    let status = match change.kind() {
        ChangeKind::Added => "A".to_owned(),
        ChangeKind::Deleted => "D".to_owned(),
        ChangeKind::Modified => "M".to_owned(),
        ChangeKind::TypeChanged => "T".to_owned(),
        ChangeKind::Renamed => format!("R{:03}", change.similarity()),
    };
    let mode = |side: Option<&Entry>| side.map_or(0, |side| side.kind().mode());
    let id = |side: Option<&Entry>| {
        side.map_or_else(
            || "0".repeat(format.hex_bytes()),
            |side| side.id().to_string(),
        )
    };
    let (before, after) = (change.before(), change.after());
    let mut shown = format!(
        ":{:06o} {:06o} {} {} {status}",
        mode(before),
        mode(after),
        id(before),
        id(after)
    );
    let former = before.filter(|_| change.kind() == ChangeKind::Renamed);
    for path in former.map(Entry::path).into_iter().chain([change.path()]) {
        shown.push('|');
        shown.push_str(&text(path));
    }
    shown
}

/// What `git diff-tree -r -M` says, in the same form.
fn git_changes(repository: &Repository, arguments: &[&str]) -> Vec<String> {
    let fixed = ["diff-tree", "-r", "-z", "--no-commit-id"];
    let output = repository.raw(&[&fixed[..], arguments].concat(), b"");
    let mut changes: Vec<String> = Vec::new();
    for field in split_zeros(&output) {
        if field.starts_with(b":") {
            changes.push(text(field));
        } else {
            let change = changes.last_mut().unwrap();
            change.push('|');
            change.push_str(&text(field));
        }
    }
    changes
}

#[test]
fn changes_of_commits_are_those_of_git() {
    for_each_git_and_format(|server, git| {
        let repository = repository(server, git);
        let reader = repository.reader();
        let shown = |changes: &[Change]| -> Vec<String> {
            let shown = changes.iter().map(|change| raw_change(change, git.format));
            shown.collect()
        };
        let (mut renames, mut exact) = (0, 0);
        for id in repository.history() {
            let commit = reader.commit(id).unwrap();
            let name = id.to_string();
            let parent = commit.parents.first().map(ToString::to_string);
            for (detection, option) in [
                (RenameDetection::On, "-M"),
                (RenameDetection::Off, "--no-renames"),
            ] {
                let expected = match &parent {
                    Some(parent) => git_changes(&repository, &[option, parent, &name]),
                    None => git_changes(&repository, &[option, "--root", &name]),
                };
                let changes = reader.commit_changes(id, detection).unwrap();
                assert_eq!(shown(&changes.list), expected, "{name} {option}");
                assert!(!changes.is_truncated);
                let search = match detection {
                    RenameDetection::On => RenameSearch::Complete,
                    RenameDetection::Off => RenameSearch::Off,
                };
                assert_eq!(changes.renames, search);
                let of_kind = |least: u8| {
                    let renamed = changes.list.iter();
                    renamed
                        .filter(|change| change.similarity() >= least)
                        .count()
                };
                renames += of_kind(50);
                exact += of_kind(100);
            }
        }
        assert!(exact >= 2 && renames >= exact + 2, "{exact} of {renames}");
        // Any two commits, also without common history.
        let history = repository.history();
        for old in &history {
            let names = [old.to_string(), history[0].to_string()];
            let changes = reader.changes(Some(*old), history[0], RenameDetection::On);
            let expected = git_changes(&repository, &["-M", &names[0], &names[1]]);
            assert_eq!(shown(&changes.unwrap().list), expected);
        }
    });
}

/// The hunks of `git diff -U0` between two blobs.
fn git_hunks(repository: &Repository, before: &Entry, after: &Entry) -> Vec<LineHunk> {
    let ids = [before.id().to_string(), after.id().to_string()];
    let output = repository.raw(&["diff", "--text", "-U0", &ids[0], &ids[1]], b"");
    let output = String::from_utf8_lossy(&output).into_owned();
    let range = |word: &str| -> Range<u32> {
        let (first, lines) = word[1..]
            .split_once(',')
            .unwrap_or_else(|| (&word[1..], "1"));
        let (first, lines): (u32, u32) = (first.parse().unwrap(), lines.parse().unwrap());
        // An empty run is named by the line in front of it.
        let first = if lines == 0 { first } else { first - 1 };
        first..first + lines
    };
    let heads = output.lines().filter(|line| line.starts_with("@@ "));
    heads
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            LineHunk {
                before: range(words[1]),
                after: range(words[2]),
            }
        })
        .collect()
}

#[test]
fn hunks_of_blobs_are_those_of_git() {
    for_each_git_and_format(|server, git| {
        let repository = repository(server, git);
        let reader = repository.reader();
        let (mut compared, mut binary, mut submodules) = (0, 0, 0);
        for id in repository.history() {
            let changes = reader.commit_changes(id, RenameDetection::On).unwrap();
            for change in changes.list {
                let sides = [change.before(), change.after()].into_iter().flatten();
                match reader.diff(&change).unwrap() {
                    BlobDiff::Lines(diff) => {
                        if let (Some(before), Some(after)) = (change.before(), change.after()) {
                            let expected = git_hunks(&repository, before, after);
                            assert_eq!(diff.hunks(), expected, "{}", text(change.path()));
                            compared += 1;
                        } else {
                            let lines = diff.lines_before().len() + diff.lines_after().len();
                            assert_eq!(diff.hunks().len(), lines.min(1));
                        }
                    }
                    BlobDiff::Binary {
                        bytes_before,
                        bytes_after,
                    } => {
                        let bytes = sides.map(|side| reader.blob_bytes(side).unwrap());
                        assert_eq!(bytes.sum::<u64>(), bytes_before + bytes_after);
                        binary += 1;
                    }
                    BlobDiff::TooLarge { .. } => panic!("nothing is that large"),
                    BlobDiff::Submodule => submodules += 1,
                }
            }
        }
        assert!(compared > 5 && binary > 2 && submodules > 0);
    });
}

/// A line's commit, its number there, from 0, and the path there where git does not quote it.
type LineOrigin = (ObjectId, u32, Option<String>);

fn git_blame(repository: &Repository, tip: ObjectId, path: &[u8]) -> Vec<LineOrigin> {
    let name = tip.to_string();
    let output = repository.raw(&["blame", "--line-porcelain", &name], path);
    let mut origins: Vec<LineOrigin> = Vec::new();
    let mut is_head = true;
    for line in output.split(|byte| *byte == b'\n') {
        if line.starts_with(b"\t") {
            is_head = true;
            continue;
        }
        let line = String::from_utf8_lossy(line);
        if is_head && !line.is_empty() {
            let words: Vec<_> = line.split(' ').collect();
            let number: u32 = words[1].parse().unwrap();
            origins.push((words[0].parse().unwrap(), number - 1, None));
            is_head = false;
        } else if let Some(path) = line.strip_prefix("filename ") {
            let is_quoted = path.starts_with('"');
            origins.last_mut().unwrap().2 = (!is_quoted).then(|| path.to_owned());
        }
    }
    origins
}

fn assert_blame(repository: &Repository, reader: &Reader, tip: ObjectId, path: &[u8]) -> usize {
    let expected = git_blame(repository, tip, path);
    let blame = reader.blame(tip, path, ALL).unwrap().unwrap();
    assert_eq!(blame.lines as usize, expected.len());
    let mut lines = 0;
    let mut commits = BTreeSet::new();
    for run in &blame.entries {
        assert_eq!(run.lines.start, lines, "{}", text(path));
        assert!(!run.is_boundary);
        for (line, first) in run.lines.clone().zip(run.first..) {
            let (commit, number, name) = &expected[line as usize];
            let what = format!("{} line {line}", text(path));
            assert_eq!((run.commit, first), (*commit, *number), "{what}");
            if let Some(name) = name {
                assert_eq!(text(&run.path), text(name.as_bytes()), "{what}");
            }
        }
        commits.insert(run.commit);
        lines = run.lines.end;
    }
    assert_eq!(lines, blame.lines);
    commits.len()
}

#[test]
fn lines_are_blamed_as_git_blames_them() {
    for_each_git_and_format(|server, git| {
        let repository = repository(server, git);
        let reader = repository.reader();
        let mut commits_max = 0;
        for tip in repository.history().into_iter().step_by(4) {
            let mut entries = Vec::new();
            everything(&reader, tip, b"", &mut entries);
            for entry in entries.iter().filter(|entry| entry.kind().is_blob()) {
                let commits = assert_blame(&repository, &reader, tip, entry.path());
                commits_max = commits_max.max(commits);
            }
        }
        assert!(commits_max >= 4, "no file is of more than {commits_max}");
        // Some lines only.
        let tip = repository.id("main");
        let all = reader.blame(tip, b"src/lib.rs", ALL).unwrap().unwrap();
        let some = reader.blame(tip, b"src/lib.rs", 5..40).unwrap().unwrap();
        let commit_of = |line: u32| {
            let run = all.entries.iter().find(|run| run.lines.contains(&line));
            run.unwrap().commit
        };
        assert_eq!(some.entries.first().unwrap().lines.start, 5);
        assert_eq!(some.entries.last().unwrap().lines.end, 40);
        for run in some.entries {
            assert!(run.lines.clone().all(|line| commit_of(line) == run.commit));
        }
        let behind = reader.blame(tip, b"src/lib.rs", 5_000..6_000);
        assert_eq!(behind.unwrap().unwrap().entries, []);
    });
}

/// gix-blame loses the lines of a root that is reached while another commit waits.
#[test]
fn lines_of_two_roots_are_blamed() {
    for_each_git_and_format(|server, git| {
        let mut repository = Repository::empty(server, git, "roots");
        repository.write("file", &numbered(0..10, "older"));
        repository.commit("the older root");
        repository.run(&["switch", "-q", "--orphan", "newer"]);
        repository.write("file", &numbered(20..30, "newer"));
        repository.commit("the newer root");
        let both = numbered(0..10, "older") + &numbered(20..30, "newer");
        repository.write("file", &both);
        repository.run(&["add", "-A"]);
        let tree = repository.run(&["write-tree"]).parse().unwrap();
        let parents = [repository.id("main"), repository.id("newer")];
        let tip = repository.write_commit(tree, &parents);
        let reader = repository.reader();
        assert_eq!(assert_blame(&repository, &reader, tip, b"file"), 2);
    });
}

/// In one commit of this history two deleted files are equally similar to an added one, and git
/// takes the second one.
#[test]
fn random_histories_read_as_git_reads_them() {
    for_each_git_and_format(|server, git| {
        let repository = Repository::empty(server, git, "random");
        let stream = history(git, &mut Numbers(95_028), 60);
        let mut command = repository
            .git
            .command(&["fast-import", "--quiet"], &repository.work);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(stream.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
        repository.run(&["commit-graph", "write", "--reachable"]);
        let reader = repository.reader();
        for branch in ["refs/heads/b0", "refs/heads/b1"] {
            let tip = repository.id(branch);
            let name = tip.to_string();
            let mut entries = Vec::new();
            everything(&reader, tip, b"", &mut entries);
            entries.retain(|entry| entry.kind() != PathKind::Submodule);
            for entry in entries {
                let arguments = ["--literal-pathspecs", "log", "--format=%H", &name];
                let expected = repository.raw(&arguments, entry.path());
                let expected = String::from_utf8(expected).unwrap();
                let read = pages(&reader, tip, entry.path(), 3);
                let read: Vec<_> = read.iter().map(ToString::to_string).collect();
                let path = text(entry.path());
                assert_eq!(read, expected.lines().collect::<Vec<_>>(), "{path}");
                if entry.kind().is_blob() {
                    assert_blame(&repository, &reader, tip, entry.path());
                }
            }
        }
        for id in repository.history() {
            let commit = reader.commit(id).unwrap();
            let Some(parent) = commit.parents.first() else {
                continue;
            };
            let names = [parent.to_string(), id.to_string()];
            let expected = git_changes(&repository, &["-M", &names[0], &names[1]]);
            let changes = reader.commit_changes(id, RenameDetection::On).unwrap();
            let read = changes.list.iter();
            let read: Vec<_> = read.map(|change| raw_change(change, git.format)).collect();
            assert_eq!(read, expected);
            for change in &changes.list {
                let (Some(before), Some(after)) = (change.before(), change.after()) else {
                    continue;
                };
                let BlobDiff::Lines(diff) = reader.diff(change).unwrap() else {
                    panic!("{} is text", text(change.path()));
                };
                let expected = git_hunks(&repository, before, after);
                assert_eq!(diff.hunks(), expected, "{}", text(change.path()));
            }
        }
    });
}
