//! `henge repo import --prune` asks before many deletions. No object is copied: none is needed.

use std::fs;
use std::path::Path;

use henge_cli::Exit;
use henge_git::bare::Pushes;
use henge_git::{BareRoot, http};
use henge_runtime::{Scope, SystemClock};
use tokio::runtime::Handle;

use crate::repo::router;
use crate::run::{Server, henge, henge_typing};

/// A bare repository with these branches, all at one commit that does not exist.
fn bare(path: &Path, branches: &[&str]) {
    for folder in ["objects", "refs/heads"] {
        fs::create_dir_all(path.join(folder)).expect("a folder");
    }
    let config = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n";
    let commit = "1".repeat(40);
    let lines = branches
        .iter()
        .map(|branch| format!("{commit} refs/heads/{branch}\n"));
    let refs = format!("# pack-refs with: sorted \n{}", lines.collect::<String>());
    for (name, content) in [
        ("HEAD", "ref: refs/heads/main\n"),
        ("config", config),
        ("packed-refs", refs.as_str()),
    ] {
        fs::write(path.join(name), content).expect("written");
    }
}

/// An import from a source that had lost most of its branches removed them from the cluster without
/// a question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_half_is_deleted_only_when_somebody_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let (root, spool) = (dir.path().join("served"), dir.path().join("spool"));
    let (from, to) = (dir.path().join("from.git"), root.join("admin/demo.git"));
    bare(&from, &["main"]);
    bare(&to, &["b1", "b2", "b3", "main"]);
    fs::create_dir(&spool).expect("a folder");
    let scope = Scope::root("served", Handle::current(), 4);
    let served = BareRoot::open(&root, &spool, Pushes::Allowed, scope, SystemClock::shared());
    let git = http::router(served.expect("a root"));
    let server = Server::start(router().fallback_service(git)).await;
    let url = server.url.as_str();
    henge(url, &["repo", "create", "admin/demo"]).await;
    let from = from.to_str().expect("text");
    let import = ["repo", "import", from, "admin/demo", "--update", "--prune"];
    let left = || {
        let refs = fs::read_to_string(to.join("packed-refs")).expect("refs");
        refs.lines().filter(|line| line.contains("heads")).count()
    };

    let refused = henge(url, &import).await;
    assert_eq!(refused.exit, Exit::Conflict, "{}", refused.err);
    let says = "3 of 4 refs would be deleted: refs/heads/b1, refs/heads/b2, refs/heads/b3";
    assert!(refused.err.contains(says), "{}", refused.err);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    let unwilling = henge_typing(url, &import, "yes\n").await;
    assert_eq!(unwilling.exit, Exit::Failure);
    assert!(unwilling.err.contains(says), "{}", unwilling.err);
    assert!(
        unwilling.err.ends_with("admin/demo was not changed\n"),
        "{}",
        unwilling.err
    );
    assert_eq!(left(), 4);
    let willing = henge_typing(url, &import, "admin/demo\n").await;
    assert_eq!(willing.exit, Exit::Ok, "{}", willing.err);
    assert!(
        willing.out.contains("3 deleted, 1 unchanged"),
        "{}",
        willing.out
    );
    assert!(
        willing.out.ends_with("admin/demo is private\n"),
        "{}",
        willing.out
    );
    assert_eq!(left(), 1);
}
