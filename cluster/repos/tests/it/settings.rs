//! Editing, archiving, renaming and protecting repositories while git clients use them.

use henge_repos::RepoEdit;
use henge_state::MetaView;
use henge_types::{
    ErrorCode, GroupId, PreviousValue, RefPattern, RefRefusal, RefUpdate, RepoPath, TopicsEdit,
};

use crate::ring::{ADMIN, Ring, Work, eventually};

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// A ring whose groups are at this release's level, and a work tree pushed to `admin/demo`.
async fn pushed() -> (Ring, Work) {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("a", b"a\n");
    let url = ring.url(1, "admin/demo");
    work.git(&["push", "-q", &url, "main"]).await;
    (ring, work)
}

async fn edit(ring: &Ring, node: usize, at: &str, edit: RepoEdit) -> henge_types::RepoRecord {
    let repos = &ring.node(node).repos;
    repos.edit(&ADMIN, &path(at), edit).await.unwrap()
}

fn rename(to: &str) -> RepoEdit {
    RepoEdit {
        path: Some(path(to)),
        ..RepoEdit::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn settings_are_the_same_on_every_node_at_once() {
    let (ring, work) = pushed().await;
    let url = ring.url(2, "admin/demo");
    work.git(&["push", "-q", &url, "main:trunk"]).await;
    let change = RepoEdit {
        description: Some("about".to_owned()),
        private: Some(false),
        default_branch: Some("refs/heads/trunk".parse().unwrap()),
        topics: TopicsEdit::Set(vec!["git".parse().unwrap()]),
        ..RepoEdit::default()
    };
    let changed = edit(&ring, 1, "admin/demo", change).await;
    assert_eq!(changed.description, "about");
    for node in ring.live() {
        let repos = &ring.node(node).repos;
        let demo = path("admin/demo");
        assert_eq!(repos.get(&demo).await.unwrap(), changed);
        assert_eq!(repos.get_public(&demo).await.unwrap(), changed);
        let head = repos.refs(&demo, "refs/none/").await.unwrap().head;
        assert_eq!(head.as_str(), "refs/heads/trunk");
        let url = ring.url(node, "admin/demo");
        let said = work.git(&["ls-remote", "--symref", &url, "HEAD"]).await;
        assert!(said.contains("ref: refs/heads/trunk"), "{said}");
    }
    let missing = RepoEdit {
        default_branch: Some("refs/heads/missing".parse().unwrap()),
        ..RepoEdit::default()
    };
    let repos = &ring.node(3).repos;
    let refused = repos.edit(&ADMIN, &path("admin/demo"), missing).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Invalid);
    let hide = RepoEdit {
        private: Some(true),
        ..RepoEdit::default()
    };
    edit(&ring, 3, "admin/demo", hide).await;
    for node in ring.live() {
        let repos = &ring.node(node).repos;
        let hidden = repos.get_public(&path("admin/demo")).await.unwrap_err();
        let missing = repos.get_public(&path("admin/none")).await.unwrap_err();
        assert_eq!(hidden.code, ErrorCode::Unauthenticated);
        assert_eq!(hidden, missing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_archived_repository_takes_no_push_through_any_node() {
    let (ring, work) = pushed().await;
    let archive = |archived| RepoEdit {
        archived: Some(archived),
        ..RepoEdit::default()
    };
    edit(&ring, 1, "admin/demo", archive(true)).await;
    work.commit("b", b"b\n");
    for node in ring.live() {
        let url = ring.url(node, "admin/demo");
        let (done, said) = work.try_git(&["push", &url, "main"]).await;
        assert!(!done && said.contains("archived"), "{said}");
        ring.clone(&url, &format!("clone-{node}")).await;
    }
    // A request that read the refs before the repository was archived is refused by the shard.
    let update = RefUpdate {
        name: "refs/heads/other".parse().unwrap(),
        expected: PreviousValue::Any,
        new: Some(work.now(&["rev-parse", "main~1"]).parse().unwrap()),
    };
    let repos = &ring.node(2).repos;
    let demo = path("admin/demo");
    let asked = repos.update_refs(&ADMIN, &demo, vec![update], false);
    let verdicts = asked.await.unwrap();
    assert_eq!(verdicts[0].result, Err(RefRefusal::Archived));
    edit(&ring, 2, "admin/demo", archive(false)).await;
    for node in ring.live() {
        work.commit(&format!("c{node}"), b"c\n");
        let url = ring.url(node, "admin/demo");
        work.git(&["push", "-q", &url, "main"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_renamed_repository_is_found_under_its_former_names_until_they_are_taken() {
    let (ring, work) = pushed().await;
    edit(&ring, 1, "admin/demo", rename("team/other")).await;
    for node in ring.live() {
        let tip = work.now(&["rev-parse", "main"]);
        for name in ["admin/demo", "team/other"] {
            let clone = format!("clone-{node}-{}", name.replace('/', "-"));
            let clone = ring.clone(&ring.url(node, name), &clone).await;
            assert_eq!(clone.now(&["rev-parse", "main"]), tip, "{name}");
        }
        // Pushes to the former name also work.
        work.commit(&format!("n{node}"), b"n\n");
        let url = ring.url(node, "admin/demo");
        work.git(&["push", "-q", &url, "main"]).await;
    }
    let repos = &ring.node(2).repos;
    let moved = repos.get(&path("admin/demo")).await.unwrap();
    assert_eq!(moved.path, path("team/other"));
    assert_eq!(moved.former_paths, [path("admin/demo")]);
    // A former name cannot be used to delete.
    let wrong = repos.delete(&ADMIN, &path("admin/demo")).await;
    assert!(wrong.unwrap_err().message.contains("team/other"));

    // A new repository takes the name over at once, on every node.
    let created = repos.create(
        &ADMIN,
        path("admin/demo"),
        henge_repos::CreateOptions::default(),
    );
    let created = created.await.unwrap();
    assert_ne!(created.repo, moved.repo);
    for node in ring.live() {
        let said = work
            .git(&["ls-remote", &ring.url(node, "admin/demo")])
            .await;
        assert_eq!(said.trim(), "", "node {node} shows the old one");
        let said = work
            .git(&["ls-remote", &ring.url(node, "team/other"), "main"])
            .await;
        let tip = work.now(&["rev-parse", "main"]);
        assert!(said.starts_with(&tip), "{said}");
        work.commit(&format!("o{node}"), b"o\n");
        work.git(&["push", "-q", &ring.url(node, "team/other"), "main"])
            .await;
    }
    // The create request itself sent the settings to the shard: none are pending.
    eventually("nothing is left to tell", async || {
        let at = ring.node(1).cluster.state(GroupId::META)?;
        let meta = MetaView::new(&at.state);
        meta.untold().next().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn protected_refs_keep_their_history() {
    let (ring, work) = pushed().await;
    let demo = path("admin/demo");
    for pattern in ["main", "refs/tags/*"] {
        let pattern: RefPattern = pattern.parse().unwrap();
        let repos = &ring.node(1).repos;
        repos.protect(&ADMIN, &demo, &pattern).await.unwrap();
        let again = repos.protect(&ADMIN, &demo, &pattern).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::AlreadyExists);
    }
    let before = work.now(&["rev-parse", "main"]);
    work.commit("b", b"b\n");
    work.now(&["tag", "v1"]);
    let tip = work.now(&["rev-parse", "main"]);
    let url = ring.url(2, "admin/demo");
    work.git(&["push", "-q", &url, "main", "v1", "main:free"])
        .await;
    let refused = async |args: &[&str], words: &str| {
        for node in ring.live() {
            let url = ring.url(node, "admin/demo");
            let mut all = vec!["push", url.as_str()];
            all.extend(args);
            let (done, said) = work.try_git(&all).await;
            assert!(!done && said.contains(words), "{args:?}: {said}");
        }
    };
    refused(&[":main"], "protected branch: no deletion (main)").await;
    refused(&["+main~1:main"], "protected branch: no force push (main)").await;
    refused(
        &["+main~1:refs/tags/v1"],
        "protected tag: no force push, and a tag object never moves (refs/tags/*)",
    )
    .await;
    refused(&[":v1"], "protected tag: no deletion").await;
    // One refusal refuses an atomic push.
    refused(&["--atomic", "+main~1:main", "main:new"], "atomic").await;
    let repos = &ring.node(3).repos;
    let refs = repos.refs(&demo, "refs/").await.unwrap().refs;
    let names: Vec<_> = refs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["refs/heads/free", "refs/heads/main", "refs/tags/v1"]
    );
    assert!(refs.iter().all(|(_, at)| at.to_string() == tip));

    // The API obeys the protection too, also for updates that expect any value.
    let update = |name: &str, new: Option<&str>| RefUpdate {
        name: name.parse().unwrap(),
        expected: PreviousValue::Any,
        new: new.map(|new| new.parse().unwrap()),
    };
    work.git(&["push", "-q", &url, &format!("{before}:refs/heads/old")])
        .await;
    for node in ring.live() {
        let repos = &ring.node(node).repos;
        let updates = [
            update("refs/heads/main", Some(&before)),
            update("refs/heads/main2", Some(&before)),
            update("refs/tags/v1", None),
            update("refs/heads/main2", None),
        ];
        let asked = repos.update_refs(&ADMIN, &demo, updates[..3].to_vec(), false);
        let verdicts = asked.await.unwrap();
        let results: Vec<_> = verdicts.into_iter().map(|verdict| verdict.result).collect();
        assert!(
            matches!(
                &results[..],
                [
                    Err(RefRefusal::ProtectedFromForce { .. }),
                    Ok(()),
                    Err(RefRefusal::ProtectedFromDeletion { .. })
                ]
            ),
            "{results:?}"
        );
        let all = repos.update_refs(&ADMIN, &demo, updates[..2].to_vec(), true);
        let results: Vec<_> = all
            .await
            .unwrap()
            .into_iter()
            .map(|one| one.result)
            .collect();
        assert!(results.iter().all(Result::is_err), "{results:?}");
        let undone = repos.update_refs(&ADMIN, &demo, updates[3..].to_vec(), false);
        assert_eq!(undone.await.unwrap()[0].result, Ok(()));
    }
    // An update that keeps history is accepted, and so is every update once the protection is
    // removed.
    work.commit("c", b"c\n");
    work.git(&["push", "-q", &url, "main"]).await;
    let main: RefPattern = "main".parse().unwrap();
    repos.unprotect(&ADMIN, &demo, &main).await.unwrap();
    let unknown = repos.unprotect(&ADMIN, &demo, &main).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    work.git(&["push", "-q", "--force", &url, &format!("{before}:main")])
        .await;
}
