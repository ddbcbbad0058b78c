//! Rules for pushed objects: git's defaults, or those of a repository.

use henge_types::{ErrorCode, FsckLevel, PushRules, RepoPath};

use crate::ring::{ADMIN, Ring, Work};

const REPO: &str = "admin/rules";
const FORK: &str = "admin/fork";

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// A commit of a tree with one folder of this mode and name.
fn commit_of(work: &Work, mode: &str, name: &str) -> String {
    let below = work.now(&["rev-parse", "HEAD^{tree}"]);
    let below = below.trim();
    let id = (0..20).map(|at| u8::from_str_radix(&below[2 * at..2 * at + 2], 16).unwrap());
    let mut tree = format!("{mode} {name}\0").into_bytes();
    tree.extend(id);
    let file = work.dir.join(".git/tree");
    std::fs::write(&file, tree).unwrap();
    let words = [
        "hash-object",
        "-w",
        "--literally",
        "-t",
        "tree",
        ".git/tree",
    ];
    let tree = work.now(&words);
    let commit = work.now(&["commit-tree", "-m", "odd", "-p", "HEAD", tree.trim()]);
    commit.trim().to_owned()
}

/// Any node accepts the push, and the leader checks it: a refused push leaves no object.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn objects_are_judged_by_the_rules_of_their_repository() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("first", b"first\n");
    work.git(&["push", "-q", &ring.url(1, REPO), "main"]).await;
    let padded = commit_of(&work, "040000", "old");
    let hostile = commit_of(&work, "40000", "git~1");
    let push = async |node: usize, repo: &str, commit: &str, name: &str| {
        let refs = format!("{commit}:refs/heads/{name}");
        work.try_git(&["push", &ring.url(node, repo), &refs]).await
    };
    for node in ring.live() {
        for (commit, why) in [
            (
                &padded,
                "zeroPaddedFilemode: contains zero-padded file modes",
            ),
            (&hostile, "hasDotgit: contains '.git'"),
        ] {
            let (taken, said) = push(node, REPO, commit, "odd").await;
            assert!(!taken, "{said}");
            assert!(said.contains("remote unpack failed: object "), "{said}");
            assert!(said.contains(why), "{said}");
        }
    }
    let lenient = PushRules {
        fsck: FsckLevel::Lenient,
    };
    let repos = &ring.node(2).repos;
    let nobody = repos.set_push_rules(&ADMIN, &path(FORK), lenient).await;
    assert_eq!(nobody.unwrap_err().code, ErrorCode::NotFound);
    repos
        .set_push_rules(&ADMIN, &path(REPO), lenient)
        .await
        .unwrap();
    let fork = repos.fork(&ADMIN, &path(REPO), path(FORK), None).await;
    fork.unwrap();
    for repo in [REPO, FORK] {
        for node in ring.live() {
            let known = ring.node(node).repos.push_rules(&path(repo)).await.unwrap();
            assert_eq!(known, lenient);
        }
        let (taken, said) = push(3, repo, &padded, "odd").await;
        assert!(taken, "{said}");
        let warned = "warning: object ";
        assert!(
            said.contains(warned) && said.contains("zeroPadded"),
            "{said}"
        );
        let (taken, said) = push(1, repo, &hostile, "evil").await;
        assert!(!taken, "{said}");
        assert!(said.contains("hasDotgit"), "{said}");
    }
    let clone = ring.clone(&ring.url(2, FORK), "clone").await;
    assert_eq!(clone.now(&["rev-parse", "origin/odd"]).trim(), padded);
    let strict = PushRules::default();
    repos
        .set_push_rules(&ADMIN, &path(REPO), strict)
        .await
        .unwrap();
    let again = commit_of(&work, "040000", "older");
    let (taken, said) = push(1, REPO, &again, "older").await;
    assert!(!taken, "{said}");
    // Objects accepted before stay, and a push that builds on them sends none of them again.
    work.now(&["reset", "-q", "--hard", &padded]);
    work.commit("second", b"second\n");
    work.git(&["push", "-q", &ring.url(2, REPO), "HEAD:refs/heads/odd"])
        .await;
}
