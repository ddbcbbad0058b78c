//! Copied, exported and bundled repositories are equal to their source.

use std::path::{Path, PathBuf};

use henge_git::Stop;
use henge_git_client::{
    Destination, Directory, Event, Prune, Selection, Source, Transfer, TransferSummary, Watch,
    bundle, export, transfer,
};

use henge_types::ObjectFormat;

use crate::server::{Header, Server, git, gits, project, project_of, refs, watched};

/// A server of every kind over the repositories below `root`.
fn servers(program: &Path, root: &Path) -> Vec<Server> {
    vec![
        Server::backend(program, root, Header::Passed),
        Server::backend(program, root, Header::Dropped),
        Server::henge(root),
    ]
}

fn bare(program: &Path, root: &Path, name: &str, format: ObjectFormat) {
    let format = format!("--object-format={format}");
    git(
        program,
        root,
        &["init", "-q", "--bare", "-b", "main", &format, name],
    );
}

/// Every git with every format.
fn cases() -> impl Iterator<Item = (PathBuf, ObjectFormat)> {
    let formats = [ObjectFormat::Sha1, ObjectFormat::Sha256];
    let gits = gits().into_iter();
    gits.flat_map(move |git| formats.map(|format| (git.clone(), format)))
}

fn copy(
    from: &mut dyn Source,
    to: &mut dyn Destination,
    directory: &Path,
    prune: Prune,
) -> TransferSummary {
    let how = Transfer {
        prune,
        updates_max: 2,
        ..Transfer::new(directory)
    };
    watched(|watch| transfer(from, to, &how, watch)).unwrap()
}

#[test]
fn a_repository_is_copied_then_followed() {
    for (program, format) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let work = project_of(&program, dir.path(), format);
        git(
            &program,
            dir.path(),
            &["clone", "-q", "--mirror", "work", "from.git"],
        );
        for (number, server) in servers(&program, dir.path()).into_iter().enumerate() {
            let to_name = format!("to{number}.git");
            bare(&program, dir.path(), &to_name, format);
            let (from_path, to_path) = (dir.path().join("from.git"), dir.path().join(&to_name));
            let (mut from, mut to) = (server.remote("from.git"), server.remote(&to_name));
            let done = copy(&mut from, &mut to, dir.path(), Prune::Keep);
            assert_eq!((done.created, done.left_out, done.updated), (5, 2, 0));
            assert!(done.refused.is_empty(), "{:?}", done.refused);
            assert_eq!(done.default_branch.unwrap().as_str(), "refs/heads/trunk");
            assert_eq!(refs(&program, &from_path), refs(&program, &to_path));
            git(&program, &to_path, &["fsck", "--strict", "--full"]);

            let again = copy(&mut from, &mut to, dir.path(), Prune::Keep);
            assert_eq!((again.unchanged, again.objects), (5, 0));

            std::fs::write(work.join("new"), format!("{number}")).unwrap();
            git(&program, &work, &["add", "."]);
            git(&program, &work, &["commit", "-q", "-m", "new"]);
            git(
                &program,
                &work,
                &[
                    "push",
                    "-q",
                    "-f",
                    "../from.git",
                    "trunk",
                    "trunk~2:refs/heads/dev",
                    "trunk~1:refs/heads/n",
                ],
            );
            git(
                &program,
                &from_path,
                &["update-ref", "-d", "refs/tags/light"],
            );
            let next = copy(&mut from, &mut to, dir.path(), Prune::Delete);
            assert_eq!(
                (next.updated, next.deleted, next.unchanged),
                (2, 1, 2),
                "{next:?}"
            );
            assert_eq!(next.objects, 3, "only what was new");
            assert_eq!(refs(&program, &from_path), refs(&program, &to_path));
            git(&program, &to_path, &["fsck", "--strict", "--full"]);
            // Changes for the next server.
            git(
                &program,
                &from_path,
                &["update-ref", "refs/tags/light", "trunk~1"],
            );
            git(&program, &from_path, &["update-ref", "-d", "refs/heads/n"]);
        }
    }
}

#[test]
fn what_is_exported_is_opened_by_git() {
    for (program, format) in cases() {
        let dir = tempfile::tempdir().unwrap();
        project_of(&program, dir.path(), format);
        git(
            &program,
            dir.path(),
            &["clone", "-q", "--mirror", "work", "from.git"],
        );
        let from_path = dir.path().join("from.git");
        let expected = refs(&program, &from_path);
        for (number, server) in servers(&program, dir.path()).into_iter().enumerate() {
            let mut from = server.remote("from.git");
            let out = dir.path().join(format!("out{number}.git"));
            let select = Selection::Project;
            let done = watched(|watch| export::write_bare(&mut from, &out, select, watch)).unwrap();
            assert_eq!((done.refs, done.left_out), (5, 2));
            git(&program, &out, &["fsck", "--strict", "--full"]);
            assert_eq!(refs(&program, &out), expected);
            assert_eq!(
                git(&program, &out, &["symbolic-ref", "HEAD"]),
                "refs/heads/trunk"
            );
            assert_eq!(
                git(&program, &out, &["rev-parse", "v1^{}"]),
                git(&program, &from_path, &["rev-parse", "v1^{}"])
            );
            git(&program, &out, &["gc", "-q"]);

            let file = dir.path().join(format!("{number}.bundle"));
            let done = watched(|watch| bundle::write(&mut from, &file, select, watch)).unwrap();
            assert_eq!(done.refs, 5);
            let name = file.to_str().unwrap();
            git(&program, &out, &["bundle", "verify", name]);
            let clone = format!("clone{number}");
            git(
                &program,
                dir.path(),
                &["clone", "-q", "--mirror", name, &clone],
            );
            let clone = dir.path().join(clone);
            assert_eq!(refs(&program, &clone), expected);
            git(&program, &clone, &["fsck", "--strict", "--full"]);
            let checkout = format!("checkout{number}");
            git(&program, dir.path(), &["clone", "-q", name, &checkout]);
            let branch = git(
                &program,
                &dir.path().join(checkout),
                &["branch", "--show-current"],
            );
            assert_eq!(branch, "trunk");

            let again = watched(|watch| bundle::write(&mut from, &file, select, watch));
            assert!(again.unwrap_err().to_string().contains("exists already"));
            let again = watched(|watch| export::write_bare(&mut from, &out, select, watch));
            assert!(again.unwrap_err().to_string().contains("exists already"));
        }
        let left = std::fs::read_dir(dir.path()).unwrap();
        let names: Vec<_> = left.map(|file| file.unwrap().file_name()).collect();
        let hidden = |name: &&std::ffi::OsString| name.to_str().unwrap().starts_with(".henge");
        assert_eq!(names.iter().find(hidden), None, "something is left behind");
    }
}

#[test]
fn an_empty_repository_is_exported_but_not_bundled() {
    for program in gits() {
        let dir = tempfile::tempdir().unwrap();
        bare(&program, dir.path(), "from.git", ObjectFormat::Sha1);
        for (number, server) in servers(&program, dir.path()).into_iter().enumerate() {
            let mut from = server.remote("from.git");
            let out = dir.path().join(format!("out{number}.git"));
            let select = Selection::Project;
            let done = watched(|watch| export::write_bare(&mut from, &out, select, watch)).unwrap();
            assert_eq!(done.refs, 0);
            git(&program, &out, &["fsck", "--strict"]);
            let file = dir.path().join("x.bundle");
            let refused = watched(|watch| bundle::write(&mut from, &file, select, watch));
            assert!(refused.unwrap_err().to_string().contains("has no refs"));
            bare(
                &program,
                dir.path(),
                &format!("to{number}.git"),
                ObjectFormat::Sha1,
            );
            let mut to = server.remote(&format!("to{number}.git"));
            let done = copy(&mut from, &mut to, dir.path(), Prune::Delete);
            assert_eq!(done.created, 0);
        }
    }
}

#[test]
fn a_repository_on_disk_is_a_source_also_with_a_work_tree() {
    for (program, format) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let work = project_of(&program, dir.path(), format);
        bare(&program, dir.path(), "to.git", format);
        let server = Server::henge(dir.path());
        let mut from = Directory::open(&work, 1 << 30).unwrap();
        let mut to = server.remote("to.git");
        let done = copy(&mut from, &mut to, dir.path(), Prune::Keep);
        assert_eq!((done.created, done.left_out), (5, 2));
        assert_eq!(done.default_branch.unwrap().as_str(), "refs/heads/trunk");
        let to_path = dir.path().join("to.git");
        assert_eq!(refs(&program, &to_path), refs(&program, &work));
        git(&program, &to_path, &["fsck", "--strict", "--full"]);
    }
}

#[test]
fn what_the_destination_refuses_is_told_and_the_rest_is_done() {
    let program = &gits()[0];
    let dir = tempfile::tempdir().unwrap();
    project(program, dir.path());
    git(
        program,
        dir.path(),
        &["clone", "-q", "--mirror", "work", "from.git"],
    );
    bare(program, dir.path(), "to.git", ObjectFormat::Sha1);
    let to_path = dir.path().join("to.git");
    git(
        program,
        &to_path,
        &["config", "receive.hideRefs", "refs/notes"],
    );
    for server in [
        Server::backend(program, dir.path(), Header::Passed),
        Server::henge(dir.path()),
    ] {
        let (mut from, mut to) = (server.remote("from.git"), server.remote("to.git"));
        let done = copy(&mut from, &mut to, dir.path(), Prune::Keep);
        let [(name, reason)] = &done.refused[..] else {
            panic!("{:?}", done.refused);
        };
        assert_eq!(name.as_str(), "refs/notes/commits");
        assert!(reason.contains("hidden ref"), "{reason}");
        assert_eq!(git(program, &to_path, &["rev-parse", "trunk"]).len(), 40);
    }
}

#[test]
fn progress_is_told_and_a_stop_is_heeded() {
    let program = &gits()[0];
    let dir = tempfile::tempdir().unwrap();
    project(program, dir.path());
    git(
        program,
        dir.path(),
        &["clone", "-q", "--mirror", "work", "from.git"],
    );
    let server = Server::backend(program, dir.path(), Header::Passed);
    let mut from = server.remote("from.git");
    let (mut said, mut received) = (String::new(), 0);
    let file = dir.path().join("x.bundle");
    let stop = Stop::default();
    let mut tell = |event: Event<'_>| match event {
        Event::Said(text) => said.push_str(text),
        Event::Received { bytes } => received = bytes,
        Event::Sent { .. } | Event::Refs { .. } => {}
    };
    let mut watch = Watch {
        stop: &stop,
        tell: &mut tell,
    };
    let done = bundle::write(&mut from, &file, Selection::Project, &mut watch).unwrap();
    assert_eq!(received, done.pack_bytes);
    assert!(said.contains("Total"), "{said}");

    let file = dir.path().join("y.bundle");
    let mut watch = Watch {
        stop: &stop,
        tell: &mut |_| stop.stop(),
    };
    let stopped = bundle::write(&mut from, &file, Selection::Project, &mut watch).unwrap_err();
    assert!(
        matches!(stopped, henge_git_client::Error::Stopped),
        "{stopped}"
    );
    assert!(!file.try_exists().unwrap());
}
