//! Names and generations of repositories.

use henge_repos::CreateOptions;
use henge_types::{ErrorCode, RepoPath, RepoState};

use crate::ring::{ADMIN, Ring, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_creates_below_its_own_name_and_nowhere_else() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("a", b"a\n");
    let (cloned, said) = work
        .try_git(&["ls-remote", &ring.url(2, "admin/new")])
        .await;
    assert!(!cloned && said.contains("not found"), "{said}");
    work.git(&["push", "-q", &ring.url(2, "admin/new"), "main"])
        .await;
    // The other nodes find it at once.
    work.git(&["ls-remote", "--exit-code", &ring.url(3, "admin/new")])
        .await;
    let (pushed, said) = work
        .try_git(&["push", &ring.url(1, "other/new"), "main"])
        .await;
    assert!(!pushed && said.contains("not found"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_made_again_is_another_repository() {
    let ring = Ring::start().await;
    let path: RepoPath = "admin/again".parse().unwrap();
    let work = ring.work_dir("work");
    work.commit("a", b"a\n");
    work.git(&["push", "-q", &ring.url(1, "admin/again"), "main"])
        .await;
    let first = ring.node(1).repos.get(&path).await.unwrap();
    ring.node(2).repos.delete(&ADMIN, &path).await.unwrap();
    for node in ring.live() {
        let gone = ring.node(node).repos.get(&path).await.unwrap_err();
        assert_eq!(gone.code, ErrorCode::NotFound);
        let (found, _) = work
            .try_git(&["ls-remote", &ring.url(node, "admin/again")])
            .await;
        assert!(!found, "node {node} still serves it");
    }
    let options = CreateOptions::default();
    let second = ring
        .node(3)
        .repos
        .create(&ADMIN, path.clone(), options)
        .await
        .unwrap();
    assert_eq!(second.state, RepoState::Ready);
    assert_eq!(second.generation, first.generation.next());
    assert_ne!(second.repo, first.repo);
    for node in ring.live() {
        let page = ring.node(node).repos.refs(&path, "refs/").await.unwrap();
        assert!(
            page.refs.is_empty(),
            "refs of the deleted repository came back"
        );
        // The old store is removed when it has no reader.
        let old = ring.node(node).objects.network_dir(&first.network);
        eventually("the old store is removed", async || {
            (!old.try_exists().unwrap()).then_some(())
        })
        .await;
    }
    work.git(&["push", "-q", &ring.url(1, "admin/again"), "main"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repositories_are_listed_in_pages_by_name() {
    let ring = Ring::start().await;
    let repos = &ring.node(1).repos;
    for name in ["admin/b", "admin/a", "zoe/c"] {
        let path: RepoPath = name.parse().unwrap();
        repos
            .create(&ADMIN, path, CreateOptions::default())
            .await
            .unwrap();
    }
    let taken = repos
        .create(&ADMIN, "Admin/A".parse().unwrap(), CreateOptions::default())
        .await;
    assert_eq!(taken.unwrap_err().code, ErrorCode::AlreadyExists);
    let names = |page: Vec<henge_types::RepoRecord>| {
        page.into_iter()
            .map(|record| record.path.to_string())
            .collect::<Vec<_>>()
    };
    let repos = &ring.node(2).repos;
    assert_eq!(
        names(repos.list(None, None, 2).await.unwrap()),
        ["admin/a", "admin/b"]
    );
    let after: RepoPath = "admin/b".parse().unwrap();
    assert_eq!(
        names(repos.list(None, Some(&after), 2).await.unwrap()),
        ["zoe/c"]
    );
    let owner = "zoe".parse().unwrap();
    assert_eq!(
        names(repos.list(Some(&owner), None, 9).await.unwrap()),
        ["zoe/c"]
    );
    assert_eq!(
        repos
            .create(&"eve".parse().unwrap(), after, CreateOptions::default())
            .await
            .unwrap_err()
            .code,
        ErrorCode::Forbidden
    );
}
