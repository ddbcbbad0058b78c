//! Bounds of the reader, its deadline, and objects that are damaged or hostile.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use henge_git::Stop;
use henge_git::read::{
    BlobDiff, Change, ChangeKind, LogCursor, LogNext, ReadError, ReadLimits, Reader,
    RenameDetection, RenameSearch,
};
use henge_types::{ObjectFormat, ObjectId, limits};

use crate::Server;
use crate::for_each_git_and_format;
use crate::read::{ALL, Repository, numbered, repository};

/// Runs `test` in the repository of one git, with its tip.
fn with_repository(test: impl Fn(&Repository, ObjectId)) {
    let server = Server::start();
    let git = server.gits().remove(0);
    let repository = repository(&server, &git);
    test(&repository, repository.id("main"));
}

/// The default limits but for some.
fn limited(change: impl FnOnce(&mut ReadLimits)) -> ReadLimits {
    let mut limits = ReadLimits::default();
    change(&mut limits);
    limits
}

#[test]
fn a_page_of_a_directory_has_a_bound_in_names() {
    with_repository(|repository, tip| {
        let reader = repository.bounded(limited(|limits| limits.names_bytes_max = 1));
        let page = reader.directory(tip, b"", 2).unwrap().unwrap();
        assert_eq!((page.entries.len(), page.next), (1, Some(3)));
        let whole = repository.reader();
        let all = whole.directory(tip, b"", 0).unwrap().unwrap();
        assert_eq!((&all.entries[2], all.next), (&page.entries[0], None));
        let behind = whole.directory(tip, b"", all.entries.len());
        assert_eq!(behind.unwrap().unwrap().entries, []);
    });
}

#[test]
fn paths_that_no_entry_has_are_refused() {
    with_repository(|repository, tip| {
        let reader = repository.reader();
        let long = vec![b'x'; limits::READ_PATH_BYTES_MAX + 1];
        for path in [&b"/"[..], b"/src", b"src/", b"src//lib.rs", &long] {
            let refused = [
                reader.entry(tip, path).map(drop),
                reader.directory(tip, path, 0).map(drop),
                reader.log(&LogCursor::at(tip), path, 1).map(drop),
                reader.blame(tip, path, ALL).map(drop),
            ];
            for refused in refused {
                assert!(matches!(refused, Err(ReadError::Path { .. })), "{path:?}");
            }
        }
        assert_eq!(reader.entry(tip, &long[1..]).unwrap(), None);
    });
}

#[test]
fn a_large_blob_is_refused_by_its_size() {
    with_repository(|repository, tip| {
        let reader = repository.bounded(limited(|limits| limits.blob_bytes_max = 100));
        let entry = reader.entry(tip, b"src/lib.rs").unwrap().unwrap();
        let bytes = reader.blob_bytes(&entry).unwrap();
        let error = reader.blob(&entry).unwrap_err().to_string();
        let expected = format!(
            "object {} has {bytes} bytes, at most 100 are read",
            entry.id()
        );
        assert_eq!(error, expected);
    });
}

#[test]
fn a_long_message_is_cut() {
    with_repository(|repository, _| {
        let reader = repository.bounded(limited(|limits| limits.message_bytes_max = 3));
        let commit = reader.commit(repository.id("main~7")).unwrap();
        assert_eq!(commit.message.len(), 3);
        assert!(commit.message_bytes > 3);
    });
}

#[test]
fn a_page_of_a_log_has_bounds() {
    with_repository(|repository, tip| {
        let start = LogCursor::at(tip);
        let reader = repository.bounded(limited(|limits| limits.log_commits_max = 2));
        let page = reader.log(&start, b"", 100).unwrap();
        assert_eq!(page.commits.len(), 2);
        let reader = repository.bounded(limited(|limits| limits.log_walked_max = 3));
        let page = reader.log(&start, b"never/there", 100).unwrap();
        assert_eq!(page.commits, []);
        assert!(matches!(page.next, LogNext::Page(_)));
        let none = LogCursor::of_commits(Vec::new());
        let refused = reader.log(&none, b"", 1);
        assert!(matches!(refused, Err(ReadError::Cursor { commits: 0, .. })));
        let reader = repository.bounded(limited(|limits| limits.log_pending_max = 1));
        // Behind the merge of the two roots two lines of history lie side by side.
        let page = reader.log(&start, b"", 2).unwrap();
        assert_eq!(page.next, LogNext::TooWide);
        let two = LogCursor::of_commits(vec![tip, repository.id("main~1")]);
        let refused = reader.log(&two, b"", 1);
        assert!(matches!(refused, Err(ReadError::Cursor { commits: 2, .. })));
    });
}

#[test]
fn a_comparison_has_bounds() {
    with_repository(|repository, tip| {
        let root = repository.id("main~9");
        let compare = |limits: ReadLimits| {
            let reader = repository.bounded(limits);
            reader.changes(Some(root), tip, RenameDetection::On)
        };
        let whole = compare(ReadLimits::default()).unwrap();
        assert!(!whole.is_truncated && whole.list.len() > 5);
        let cases = [
            limited(|limits| limits.changes_max = 2),
            limited(|limits| limits.compared_max = 2),
            limited(|limits| limits.paths_bytes_max = 10),
            limited(|limits| limits.path_bytes_max = 5),
        ];
        for limits in cases {
            let cut = compare(limits).unwrap();
            assert!(cut.is_truncated);
            assert_eq!(cut.renames, RenameSearch::Partial);
            assert!(cut.list.len() < whole.list.len());
        }
    });
}

#[test]
fn a_large_blob_is_not_compared() {
    with_repository(|repository, tip| {
        let cases = [
            limited(|limits| limits.diff_blob_bytes_max = 10),
            limited(|limits| limits.diff_lines_max = 19),
        ];
        for limits in cases {
            let reader = repository.bounded(limits);
            let changes = reader.commit_changes(tip, RenameDetection::Off).unwrap();
            let is_of = |change: &&Change| change.path() == b"other.txt";
            let change = changes.list.iter().find(is_of).unwrap();
            let diff = reader.diff(change).unwrap();
            assert!(matches!(diff, BlobDiff::TooLarge { .. }), "{diff:?}");
        }
    });
}

#[test]
fn the_search_for_renames_has_bounds() {
    let server = Server::start();
    let git = server.gits().remove(0);
    let mut repository = Repository::empty(&server, &git, "renames");
    repository.write("same", "stays as it is\n");
    repository.write("a", &numbered(0..50, "a"));
    repository.write("b", &numbered(100..150, "b"));
    repository.commit("first");
    repository.run(&["mv", "same", "equal"]);
    repository.run(&["mv", "a", "c"]);
    repository.run(&["mv", "b", "d"]);
    repository.write("c", &numbered(0..48, "a"));
    repository.write("d", &numbered(100..149, "b"));
    repository.commit("renamed");
    let renames = |limits: ReadLimits| {
        let reader = repository.bounded(limits);
        let changes = reader.commit_changes(repository.id("main"), RenameDetection::On);
        let changes = changes.unwrap();
        let renamed = changes.list.iter();
        let renamed = renamed.filter(|change| change.kind() == ChangeKind::Renamed);
        (changes.renames, renamed.count())
    };
    assert_eq!(renames(ReadLimits::default()), (RenameSearch::Complete, 3));
    let cases = [
        limited(|limits| limits.rename_candidates_max = 1),
        limited(|limits| limits.rename_bytes_max = 100),
        limited(|limits| limits.rename_chunks_max = 10),
        limited(|limits| limits.diff_blob_bytes_max = 100),
    ];
    for limits in cases {
        // Equal files are found by their ids.
        assert_eq!(renames(limits), (RenameSearch::Partial, 1));
    }
}

#[test]
fn a_blame_has_bounds() {
    with_repository(|repository, tip| {
        let reader = repository.bounded(limited(|limits| limits.blame_blob_bytes_max = 100));
        let refused = reader.blame(tip, b"src/lib.rs", ALL);
        assert!(matches!(refused, Err(ReadError::TooLarge { .. })));
        let reader = repository.bounded(limited(|limits| limits.diff_lines_max = 30));
        let refused = reader.blame(tip, b"src/lib.rs", ALL);
        assert!(matches!(refused, Err(ReadError::TooManyLines { .. })));
        let reader = repository.bounded(limited(|limits| limits.blame_commits_max = 4));
        let blame = reader.blame(tip, b"src/lib.rs", ALL).unwrap().unwrap();
        assert!(blame.entries.iter().any(|run| run.is_boundary));
        assert_eq!(blame.entries.last().unwrap().lines.end, blame.lines);
        let whole = repository.reader().blame(tip, b"src/lib.rs", ALL);
        let whole = whole.unwrap().unwrap();
        assert!(whole.entries.iter().all(|run| !run.is_boundary));
    });
}

/// A file that was larger once: its history ends there.
#[test]
fn a_blame_ends_at_a_version_that_is_too_large() {
    let server = Server::start();
    let git = server.gits().remove(0);
    let mut repository = Repository::empty(&server, &git, "shrunk");
    repository.write("file", &numbered(0..100, "large"));
    repository.commit("large");
    repository.write("file", &numbered(0..10, "large"));
    repository.commit("small");
    let tip = repository.id("main");
    let cases = [
        limited(|limits| limits.blame_blob_bytes_max = 500),
        limited(|limits| limits.diff_lines_max = 50),
    ];
    for limits in cases {
        let blame = repository.bounded(limits).blame(tip, b"file", ALL);
        let blame = blame.unwrap().unwrap();
        assert_eq!(blame.entries.len(), 1);
        assert!(blame.entries[0].is_boundary);
        assert_eq!(blame.entries[0].commit, tip);
    }
}

#[test]
fn every_operation_ends_at_the_deadline() {
    with_repository(|repository, tip| {
        let reader = repository.reader();
        let entry = reader.entry(tip, b"src/lib.rs").unwrap().unwrap();
        let changes = reader.commit_changes(tip, RenameDetection::Off).unwrap();
        let stop = Stop::default();
        stop.stop();
        let reader = Reader::open(&repository.objects(), ReadLimits::default(), stop).unwrap();
        let ended = [
            reader.commit(tip).map(drop),
            reader.entry(tip, b"src/lib.rs").map(drop),
            reader.directory(tip, b"src", 0).map(drop),
            reader.blob_bytes(&entry).map(drop),
            reader.blob(&entry).map(drop),
            reader.log(&LogCursor::at(tip), b"", 1).map(drop),
            reader.changes(None, tip, RenameDetection::On).map(drop),
            reader.commit_changes(tip, RenameDetection::On).map(drop),
            reader.diff(&changes.list[0]).map(drop),
            reader.blame(tip, b"src/lib.rs", ALL).map(drop),
        ];
        for (number, ended) in ended.into_iter().enumerate() {
            assert!(
                matches!(ended, Err(ReadError::Stopped)),
                "operation {number}"
            );
        }
    });
}

/// The bytes of a tree, its entries in this order.
fn tree_bytes(entries: &[(&str, &[u8], ObjectId)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

#[test]
fn a_damaged_object_is_named() {
    for_each_git_and_format(|server, git| {
        let mut repository = Repository::empty(server, git, "damaged");
        repository.write("dir/file", &numbered(0..10, "first"));
        repository.commit("first");
        let first = repository.id("main");
        repository.write("dir/file", &numbered(0..12, "first"));
        repository.commit("second");
        let tip = repository.id("main");
        let says = |error: ReadError, id: ObjectId| {
            let error = error.to_string();
            assert!(error.contains(&id.to_string()), "{error}");
        };
        // Git's loose objects are compressed: a byte in the middle is enough.
        let damage = |id: ObjectId| {
            let name = id.to_string();
            let path = format!(".git/objects/{}/{}", &name[..2], &name[2..]);
            let path = repository.work.join(path);
            let whole = fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, bytes).unwrap();
            (path, whole)
        };
        let file = repository.id("main~1:dir/file");
        let (path, whole) = damage(file);
        let reader = repository.reader();
        let entry = reader.entry(first, b"dir/file").unwrap().unwrap();
        says(reader.blob(&entry).unwrap_err(), file);
        let changes = reader.commit_changes(tip, RenameDetection::On).unwrap();
        says(reader.diff(&changes.list[0]).unwrap_err(), file);
        says(reader.blame(tip, b"dir/file", ALL).unwrap_err(), file);
        fs::write(path, whole).unwrap();

        let tree = repository.id("main~1:dir");
        let (path, whole) = damage(tree);
        let reader = repository.reader();
        says(reader.entry(first, b"dir/file").unwrap_err(), tree);
        says(reader.directory(first, b"dir", 0).unwrap_err(), tree);
        let changes = reader.commit_changes(tip, RenameDetection::On);
        says(changes.unwrap_err(), tree);
        let log = reader.log(&LogCursor::at(tip), b"dir/file", 10);
        says(log.unwrap_err(), tree);
        fs::write(path, whole).unwrap();

        let (path, whole) = damage(first);
        let log = repository.reader().log(&LogCursor::at(tip), b"", 10);
        says(log.unwrap_err(), first);
        fs::write(path, whole).unwrap();
        let log = repository.reader().log(&LogCursor::at(tip), b"", 10);
        assert_eq!(log.unwrap().commits.len(), 2);
    });
}

#[test]
fn a_malformed_tree_is_named() {
    for_each_git_and_format(|server, git| {
        let mut repository = Repository::empty(server, git, "malformed");
        repository.write("file", "file\n");
        repository.commit("first");
        let first = repository.id("main");
        let blob = repository.id("main:file");
        let whole = tree_bytes(&[("100644", b"a", blob), ("100644", b"b", blob)]);
        let cases = [
            whole[..whole.len() - 1].to_vec(),
            b"no mode".to_vec(),
            tree_bytes(&[("0", b"a", blob)]),
            tree_bytes(&[("107777777", b"a", blob)]),
        ];
        for (number, bytes) in cases.into_iter().enumerate() {
            let tree = repository.write_object("tree", &bytes);
            let root = repository.write_object("tree", &tree_bytes(&[("40000", b"d", tree)]));
            let commit = repository.write_commit(root, &[first]);
            let reader = repository.reader();
            let from = LogCursor::at(commit);
            let refused = [
                reader.entry(commit, b"d/b").map(drop),
                reader.directory(commit, b"d", 0).map(drop),
                reader.commit_changes(commit, RenameDetection::On).map(drop),
                reader.log(&from, b"d/b", 5).map(drop),
                reader.blame(commit, b"d/b", ALL).map(drop),
            ];
            for refused in refused {
                let error = refused.unwrap_err().to_string();
                let expected = format!("object {tree} is malformed");
                assert_eq!(error, expected, "case {number}");
            }
        }
        let absent: ObjectId = git.absent().parse().unwrap();
        let orphan = repository.write_commit(repository.id("main^{tree}"), &[absent]);
        let reader = repository.reader();
        let log = reader.log(&LogCursor::at(orphan), b"", 5);
        let error = log.unwrap_err().to_string();
        assert_eq!(error, format!("object {absent} is missing"));
    });
}

/// gix-blame panics on a file that a lookup finds and a comparison does not.
#[test]
fn hostile_trees_are_read_without_a_panic() {
    for_each_git_and_format(|server, git| {
        let mut repository = Repository::empty(server, git, "hostile");
        repository.write("file", &numbered(0..5, "x"));
        repository.commit("first");
        let blob = repository.id("main:file");
        let other = repository.write_object("blob", numbered(0..7, "x").as_bytes());
        let sorted = tree_bytes(&[("100644", b"a", blob), ("100644", b"b", blob)]);
        let first = repository.write_object("tree", &sorted);
        let first = repository.write_commit(first, &[]);
        let cases: [&[(&str, &[u8], ObjectId)]; 5] = [
            &[("100644", b"b", other), ("100644", b"a", other)],
            &[("100644", b"a", other), ("100644", b"a", blob)],
            &[("100644", b"a", other), ("40000", b"a", first)],
            &[("100644", b"", other), ("100644", b"a", other)],
            &[("100644", b"..", other), ("100644", b"a/b", other)],
        ];
        for (number, entries) in cases.into_iter().enumerate() {
            let tree = repository.write_object("tree", &tree_bytes(entries));
            let commit = repository.write_commit(tree, &[first]);
            let reader = repository.reader();
            let page = reader.directory(commit, b"", 0).unwrap().unwrap();
            assert_eq!(page.entries.len(), 2, "case {number}");
            // A tree that is a commit is an error; the other cases are not.
            let changes = reader.commit_changes(commit, RenameDetection::On);
            assert_eq!(changes.is_err(), number == 2, "case {number}");
            for entry in page.entries.iter().filter(|entry| entry.kind().is_blob()) {
                let found = reader.blob(entry).unwrap();
                assert!([blob, other].contains(&found.id));
                // Not every name can be looked up.
                if let Ok(Some(blame)) = reader.blame(commit, entry.path(), ALL) {
                    assert_eq!(blame.entries.last().unwrap().lines.end, blame.lines);
                }
            }
            let log = reader.log(&LogCursor::at(commit), b"a", 5);
            assert!(log.is_ok(), "case {number}");
        }
    });
}

#[test]
fn a_repository_of_one_format_reads_no_id_of_the_other() {
    with_repository(|repository, tip| {
        assert_eq!(repository.git.format, ObjectFormat::Sha1);
        let reader = repository.reader();
        let other = ObjectId::Sha256([1; 32]);
        let refused = [
            reader.entry(other, b"").map(drop),
            reader.log(&LogCursor::at(other), b"", 1).map(drop),
            reader
                .changes(Some(other), tip, RenameDetection::Off)
                .map(drop),
            reader.blame(other, b"a", ALL).map(drop),
        ];
        for refused in refused {
            assert!(matches!(refused, Err(ReadError::Format { .. })));
        }
    });
}
