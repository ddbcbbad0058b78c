//! Pushes and clones through every node.

use henge_types::{ObjectId, PreviousValue, RefUpdate, RepoPath};

use crate::ring::{ADMIN, Ring, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_and_large_pushes_through_every_node_are_cloned_from_every_node() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    for node in ring.live() {
        work.commit(&format!("small-{node}"), b"hello\n");
        work.git(&["push", "-q", &ring.url(node, "admin/demo"), "main"])
            .await;
        work.commit_large(&format!("large-{node}"));
        work.git(&["push", "-q", &ring.url(node, "admin/demo"), "main"])
            .await;
    }
    let head = work.now(&["rev-parse", "HEAD"]);
    for node in ring.live() {
        let clone = ring
            .clone(&ring.url(node, "admin/demo"), &format!("clone-{node}"))
            .await;
        assert_eq!(clone.now(&["rev-parse", "HEAD"]), head);
        clone.now(&["fsck", "--full"]);
        assert_eq!(clone.read("large-2"), work.read("large-2"));
    }
    // On every node the staged packs were moved into the store.
    for node in ring.live() {
        eventually("nothing is staged", async || {
            ring.node(node)
                .objects
                .staged()
                .unwrap()
                .is_empty()
                .then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_racing_pushers_one_is_told_to_fetch_first() {
    let ring = Ring::start().await;
    let first = ring.work_dir("first");
    first.commit("base", b"base\n");
    first
        .git(&["push", "-q", &ring.url(1, "admin/race"), "main"])
        .await;
    let second = ring.clone(&ring.url(2, "admin/race"), "second").await;
    let mine = first.commit("mine", b"mine\n");
    let theirs = second.commit("theirs", b"theirs\n");
    let (one, two) = (ring.url(2, "admin/race"), ring.url(3, "admin/race"));
    let (one, two) = (
        ["push", one.as_str(), "main"],
        ["push", two.as_str(), "main"],
    );
    let (one, two) = tokio::join!(first.try_git(&one), second.try_git(&two));
    assert!(one.0 != two.0, "exactly one is taken: {one:?} {two:?}");
    let winner = if one.0 { mine } else { theirs };
    let clone = ring.clone(&ring.url(1, "admin/race"), "clone").await;
    assert_eq!(clone.now(&["rev-parse", "HEAD"]), winner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_without_a_replica_passes_pushes_and_reads_on() {
    let ring = Ring::of(4, 3).await;
    let work = ring.work_dir("work");
    work.commit("a", b"a\n");
    work.git(&["push", "-q", &ring.url(1, "admin/far"), "main"])
        .await;
    let shard = ring.shard("admin/far").await;
    let outside = ring.live().into_iter().find(|node| {
        let cluster = &ring.node(*node).cluster;
        !cluster.replicas(shard).contains(&cluster.node())
    });
    let outside = outside.expect("one of four nodes holds none of three replicas");
    let url = ring.url(outside, "admin/far");
    work.commit("b", b"b\n");
    work.git(&["push", "-q", &url, "main"]).await;
    work.commit_large("c");
    work.git(&["push", "-q", &url, "main"]).await;
    let clone = ring.clone(&url, "clone").await;
    assert_eq!(
        clone.now(&["rev-parse", "HEAD"]),
        work.now(&["rev-parse", "HEAD"])
    );
    let old = clone.now(&["-c", "protocol.version=0", "ls-remote", &url, "HEAD"]);
    assert!(old.starts_with(&work.now(&["rev-parse", "HEAD"])), "{old}");
    let path: RepoPath = "admin/far".parse().unwrap();
    let page = ring
        .node(outside)
        .repos
        .refs(&path, "refs/heads/")
        .await
        .unwrap();
    assert_eq!(page.refs.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refs_are_updated_to_values_that_refs_have() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    let first: ObjectId = work.commit("a", b"a\n").parse().unwrap();
    let url = ring.url(1, "admin/refs");
    work.git(&["push", "-q", &url, "main"]).await;
    let repos = &ring.node(2).repos;
    let path: RepoPath = "admin/refs".parse().unwrap();
    let update = |name: &str, expected, new| RefUpdate {
        name: name.parse().unwrap(),
        expected,
        new,
    };
    let create = update("refs/heads/copy", PreviousValue::MustNotExist, Some(first));
    let verdicts = repos
        .update_refs(&ADMIN, &path, vec![create.clone()], true)
        .await
        .unwrap();
    assert!(verdicts[0].result.is_ok());
    let again = repos
        .update_refs(&ADMIN, &path, vec![create], true)
        .await
        .unwrap();
    assert!(again[0].result.is_err());
    let unknown = ObjectId::Sha1([9; 20]);
    let unknown = update("refs/heads/x", PreviousValue::Any, Some(unknown));
    repos
        .update_refs(&ADMIN, &path, vec![unknown], true)
        .await
        .unwrap_err();
    let gone = update(
        "refs/heads/copy",
        PreviousValue::MustExistAndMatch(first),
        None,
    );
    let verdicts = repos
        .update_refs(&ADMIN, &path, vec![gone], true)
        .await
        .unwrap();
    assert!(verdicts[0].result.is_ok());
    let page = ring.node(3).repos.refs(&path, "refs/").await.unwrap();
    assert_eq!(page.refs, [("refs/heads/main".parse().unwrap(), first)]);
}
