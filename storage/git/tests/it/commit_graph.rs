//! The commit-graph: Henge's compared with git's, and its use in a walk.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use henge_git::{
    BareRepository, CommitGraphError, CommitGraphSummary, RefStore, Stop, write_commit_graph,
};

use crate::random::{Numbers, history};
use crate::{Git, for_each_git_and_format, objects_of};

fn write(bare: &Path) -> Result<CommitGraphSummary, CommitGraphError> {
    let mut tips = Vec::new();
    let refs = BareRepository::open(bare).unwrap();
    refs.for_each("", &mut |_, id| tips.push(id));
    let objects = objects_of(bare);
    write_commit_graph(&objects, &tips, &Stop::default())
}

fn import(git: &Git, bare: &Path, stream: &str) {
    let mut import = git
        .command(&["fast-import", "--quiet"], bare)
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
}

/// A commit with a date and parents, all by their marks.
fn commit(mark: usize, date: u64, parents: &[usize]) -> String {
    let mut text = format!(
        "reset refs/heads/b{mark}\ncommit refs/heads/b{mark}\nmark :{mark}\n\
         committer C <c@example.org> {date} +0000\ndata 1\nx\n"
    );
    for (number, parent) in parents.iter().enumerate() {
        let word = if number == 0 { "from" } else { "merge" };
        text.push_str(&format!("{word} :{parent}\n"));
    }
    text.push_str(&format!("M 644 inline f\ndata 2\n{}\n\n", mark % 10));
    text
}

/// Henge's commit-graph and git's are equal, byte for byte.
fn compare(git: &Git, bare: &Path, what: &str) {
    let written = write(bare).unwrap();
    let path = bare.join("objects/info/commit-graph");
    let ours = std::fs::read(&path).unwrap();
    assert_eq!(written.bytes, ours.len() as u64);
    git.ok(&["commit-graph", "verify"], bare);
    git.fsck(bare);
    std::fs::remove_file(&path).unwrap();
    git.with("commitGraph.generationVersion=2").ok(
        &["commit-graph", "write", "--reachable", "--no-changed-paths"],
        bare,
    );
    let theirs = std::fs::read(&path).unwrap();
    assert!(ours == theirs, "{what}: it is not what git writes");
}

#[test]
fn it_is_what_git_writes() {
    for_each_git_and_format(|server, git| {
        for seed in [1, 2] {
            let (bare, _) = server.repo(git, &format!("graph-{seed}.git"));
            import(git, &bare, &history(git, &mut Numbers(seed + 20), 60));
            compare(git, &bare, &format!("seed {seed}"));
        }
        // Merges of many parents, and dates that run backwards, also by more than 31 bits.
        let odd = |far: u64| {
            [
                commit(1, 0, &[]),
                commit(2, 1_700_000_000, &[1]),
                commit(3, 5, &[2]),
                commit(4, far, &[2]),
                commit(5, 7, &[4]),
                commit(6, 1_700_000_100, &[1, 2, 3]),
                commit(7, 1_700_000_100, &[6, 5, 4, 3, 2]),
                commit(8, 0, &[7, 6]),
            ]
            .concat()
        };
        let (bare, _) = server.repo(git, "odd.git");
        import(git, &bare, &odd(4_200_000_000));
        compare(git, &bare, "odd");
        // Git truncates corrected dates to 32 bits in its own file, so only its verification can be
        // compared.
        let (bare, _) = server.repo(git, "far.git");
        import(git, &bare, &odd(9_000_000_000));
        write(&bare).unwrap();
        git.ok(&["commit-graph", "verify"], &bare);
    });
}

#[test]
fn fetches_are_the_same_with_it() {
    for_each_git_and_format(|server, git| {
        let (bare, url) = server.repo(git, "fetched.git");
        import(git, &bare, &history(git, &mut Numbers(31), 60));
        assert_eq!(write(&bare).unwrap().commits, 60);
        let (copy, shallow) = (server.path("copy"), server.path("shallow"));
        git.ok(
            &["clone", "-q", "--mirror", &url, "copy"],
            server.dir.path(),
        );
        assert_eq!(git.objects(&copy), git.objects(&bare));
        git.ok(
            &["clone", "-q", "--mirror", "--depth=3", &url, "shallow"],
            server.dir.path(),
        );
        git.fsck(&shallow);
        // More commits than the commit-graph has.
        git.ok(&["fetch", "-q", &url, "+refs/heads/*:refs/heads/*"], &copy);
        let tree = git.ok(&["rev-parse", "refs/heads/b0^{tree}"], &bare);
        let next = git.ok(
            &["commit-tree", "-m", "next", "-p", "refs/heads/b0", &tree],
            &bare,
        );
        git.ok(&["update-ref", "refs/heads/b0", &next], &bare);
        git.ok(&["fetch", "-q", "origin"], &copy);
        assert_eq!(git.objects(&copy), git.objects(&bare));
        // A damaged commit-graph is ignored.
        let path = bare.join("objects/info/commit-graph");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        git.ok(
            &["clone", "-q", "--mirror", &url, "again"],
            server.dir.path(),
        );
        // Git does not detect the damage.
        let whole = git.with("core.commitGraph=false").objects(&bare);
        assert_eq!(git.objects(&server.path("again")), whole);
    });
}

#[test]
fn a_date_that_does_not_fit_is_refused() {
    for_each_git_and_format(|server, git| {
        let (bare, _) = server.repo(git, "future.git");
        import(git, &bare, &commit(1, 1 << 34, &[]));
        let refused = write(&bare);
        assert!(
            matches!(refused, Err(CommitGraphError::Unfit { .. })),
            "{refused:?}"
        );
        assert!(!bare.join("objects/info/commit-graph").exists());
    });
}
