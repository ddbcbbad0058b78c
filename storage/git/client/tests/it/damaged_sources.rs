//! A source with unreadable refs is not copied, and the copy loses nothing.
//!
//! Unreadable refs and lines were skipped: a packed-refs of zeros counted as an empty repository,
//! and a pruning copy lost all of its refs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use henge_git_client::{
    Directory, Error, Prune, Removals, Selection, Source, Transfer, bundle, export, transfer,
};

use crate::server::{Header, Server, git, gits, project, refs, watched};

/// Whether stock git lists a ref that it cannot read, or omits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Git {
    ShowsIt,
    LeavesItOut,
}

struct Damage {
    name: &'static str,
    /// The file named in the error message.
    file: &'static str,
    git: Git,
    does: fn(&Path),
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
}

/// Changes packed-refs.
fn packed(repository: &Path, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let path = repository.join("packed-refs");
    write(&path, change(fs::read(&path).unwrap()));
}

fn replaced(content: &[u8], old: &str, new: &str) -> Vec<u8> {
    let text = std::str::from_utf8(content).unwrap();
    assert!(text.contains(old), "{text}");
    text.replacen(old, new, 1).into_bytes()
}

const DEV: &str = "refs/heads/dev";

/// The repository has its branch `dev` in a file and the other refs in packed-refs.
const DAMAGES: &[Damage] = &[
    Damage {
        name: "an empty ref",
        file: DEV,
        git: Git::ShowsIt,
        does: |dir| write(&dir.join(DEV), ""),
    },
    Damage {
        name: "a ref of NUL bytes",
        file: DEV,
        git: Git::ShowsIt,
        does: |dir| write(&dir.join(DEV), [0; 41]),
    },
    Damage {
        name: "a ref of other bytes",
        file: DEV,
        git: Git::ShowsIt,
        does: |dir| write(&dir.join(DEV), "what is this\n"),
    },
    Damage {
        name: "a ref of half an id",
        file: DEV,
        git: Git::ShowsIt,
        does: |dir| write(&dir.join(DEV), "1234567\n"),
    },
    Damage {
        name: "a ref with the null id",
        file: DEV,
        git: Git::ShowsIt,
        does: |dir| write(&dir.join(DEV), format!("{}\n", "0".repeat(40))),
    },
    Damage {
        name: "a ref that leads to itself",
        file: DEV,
        git: Git::LeavesItOut,
        does: |dir| write(&dir.join(DEV), format!("ref: {DEV}\n")),
    },
    Damage {
        name: "a link that leads to itself",
        file: DEV,
        git: Git::LeavesItOut,
        does: |dir| {
            fs::remove_file(dir.join(DEV)).unwrap();
            symlink("dev", dir.join(DEV)).unwrap();
        },
    },
    Damage {
        name: "a link that leads nowhere",
        file: DEV,
        git: Git::LeavesItOut,
        does: |dir| {
            fs::remove_file(dir.join(DEV)).unwrap();
            symlink("/nowhere/at/all", dir.join(DEV)).unwrap();
        },
    },
    Damage {
        name: "packed-refs of zeros",
        file: "packed-refs",
        git: Git::ShowsIt,
        does: |dir| packed(dir, |content| vec![0; content.len()]),
    },
    Damage {
        name: "an empty packed-refs",
        file: "packed-refs",
        git: Git::LeavesItOut,
        does: |dir| packed(dir, |_| Vec::new()),
    },
    Damage {
        name: "packed-refs cut in a line",
        file: "packed-refs",
        git: Git::ShowsIt,
        does: |dir| {
            packed(dir, |mut content| {
                content.truncate(content.len() - 3);
                content
            });
        },
    },
    Damage {
        name: "a line of packed-refs that is none",
        file: "packed-refs",
        git: Git::ShowsIt,
        does: |dir| packed(dir, |content| [&content[..], b"hello\n"].concat()),
    },
    Damage {
        name: "a name in packed-refs that is none",
        file: "packed-refs",
        git: Git::LeavesItOut,
        does: |dir| {
            packed(dir, |content| {
                replaced(&content, "tags/light", "tags/lig~t")
            });
        },
    },
    Damage {
        name: "a name in packed-refs that is out of order",
        file: "packed-refs",
        git: Git::LeavesItOut,
        does: |dir| {
            packed(dir, |content| {
                replaced(&content, "tags/light", "zags/light")
            });
        },
    },
    Damage {
        name: "packed-refs that is a directory",
        file: "packed-refs",
        git: Git::ShowsIt,
        does: |dir| {
            fs::remove_file(dir.join("packed-refs")).unwrap();
            fs::create_dir(dir.join("packed-refs")).unwrap();
        },
    },
    Damage {
        name: "an empty HEAD",
        file: "HEAD",
        git: Git::ShowsIt,
        does: |dir| write(&dir.join("HEAD"), ""),
    },
    Damage {
        name: "a HEAD of NUL bytes",
        file: "HEAD",
        git: Git::ShowsIt,
        does: |dir| write(&dir.join("HEAD"), [0; 24]),
    },
];

fn prune(from: &mut dyn Source, to: &Server, dir: &Path) -> Result<(), Error> {
    let how = Transfer {
        prune: Prune::Delete,
        // The deletion must not depend on the number of refs.
        removals: Removals::Everything,
        ..Transfer::new(dir)
    };
    let mut to = to.remote("to.git");
    watched(|watch| transfer(from, &mut to, &how, watch)).map(drop)
}

#[test]
fn a_source_that_cannot_be_read_prunes_nothing() {
    for program in gits() {
        for damage in DAMAGES {
            let dir = tempfile::tempdir().unwrap();
            let run = |arguments: &[&str]| git(&program, dir.path(), arguments);
            project(&program, dir.path());
            run(&["clone", "-q", "--mirror", "work", "from.git"]);
            run(&["clone", "-q", "--mirror", "work", "to.git"]);
            let from_path = dir.path().join("from.git");
            git(&program, &from_path, &["pack-refs", "--all"]);
            let value = git(&program, &from_path, &["rev-parse", "trunk~1"]);
            git(&program, &from_path, &["update-ref", DEV, &value]);
            let to_path = dir.path().join("to.git");
            let before = refs(&program, &to_path);

            let mut opened = Directory::open(&from_path, 1 << 30).unwrap();
            (damage.does)(&from_path);
            let name = damage.name;
            let ours = Server::henge(dir.path());
            // Found by a listing as well as by an opening.
            let refused = prune(&mut opened, &ours, dir.path()).unwrap_err();
            assert!(
                refused.to_string().contains(damage.file),
                "{name}: {refused}"
            );
            let refused = Directory::open(&from_path, 1 << 30).unwrap_err();
            let refused = std::error::Error::source(&refused).unwrap().to_string();
            assert!(refused.contains(damage.file), "{name}: {refused}");
            let refused = prune(&mut ours.remote("from.git"), &ours, dir.path());
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(damage.file), "{name}: {refused}");
            let select = Selection::Project;
            let (file, out) = (dir.path().join("x.bundle"), dir.path().join("out.git"));
            let bundled = watched(|watch| bundle::write(&mut opened, &file, select, watch));
            let exported = watched(|watch| export::write_bare(&mut opened, &out, select, watch));
            assert!(bundled.is_err() && exported.is_err(), "{name}");
            assert!(
                !file.try_exists().unwrap() && !out.try_exists().unwrap(),
                "{name}"
            );
            if damage.git == Git::ShowsIt {
                for header in [Header::Passed, Header::Dropped] {
                    let stock = Server::backend(&program, dir.path(), header);
                    let refused = prune(&mut stock.remote("from.git"), &ours, dir.path());
                    assert!(refused.is_err(), "{name}, served by {program:?}");
                }
            }
            assert_eq!(refs(&program, &to_path), before, "{name}");
        }
    }
}

/// Locks, names that no ref can have and symbolic refs without a target are no damage: git lists
/// the others.
#[test]
fn what_is_no_ref_stands_in_nobodys_way() {
    for program in gits() {
        let dir = tempfile::tempdir().unwrap();
        project(&program, dir.path());
        git(
            &program,
            dir.path(),
            &["clone", "-q", "--mirror", "work", "from.git"],
        );
        let from_path = dir.path().join("from.git");
        let names = ["for-each-ref", "--format=%(refname)"];
        let before = git(&program, &from_path, &names);
        let heads = from_path.join("refs/heads");
        fs::create_dir_all(heads.join("empty/below")).unwrap();
        for name in ["dev.lock", ".hidden", "dev~", "two..dots"] {
            write(&heads.join(name), "");
        }
        write(&from_path.join("packed-refs.lock"), "");
        write(&from_path.join("packed-refs.new"), [0; 10]);
        write(&heads.join("dangling"), "ref: refs/heads/gone\n");
        // Git's oldest form of symbolic refs.
        symlink("refs/heads/trunk", heads.join("linked")).unwrap();
        let server = Server::henge(dir.path());
        let mut local = Directory::open(&from_path, 1 << 30).unwrap();
        let mut remote = server.remote("from.git");
        for source in [&mut local as &mut dyn Source, &mut remote] {
            let listing = watched(|watch| source.list(watch)).unwrap();
            let listed = listing.refs.iter().map(|found| found.name.to_string());
            let listed: Vec<_> = listed.filter(|name| name != "refs/heads/linked").collect();
            assert_eq!(listing.refs.len(), listed.len() + 1);
            for name in &listed {
                assert!(before.contains(name.as_str()), "{name}");
            }
            assert_eq!(listed.len(), before.lines().count(), "{listed:?}");
        }
    }
}
