//! Nodes that stop, disks that lose packs.

use std::fs;
use std::time::Duration;

use crate::ring::{Ring, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_finds_the_next_leader_when_the_last_one_stopped() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("a", b"a\n");
    work.git(&["push", "-q", &ring.url(1, "admin/fail"), "main"])
        .await;
    let shard = ring.shard("admin/fail").await;
    let leader = ring.leader(shard).await;
    let others: Vec<_> = ring
        .live()
        .into_iter()
        .filter(|node| *node != leader)
        .collect();
    let url = ring.url(others[0], "admin/fail");
    work.commit("b", b"b\n");
    let push = ["push", "-q", url.as_str(), "main"];
    // The push and the stop race: the push is accepted in either order.
    let (_, ()) = tokio::join!(work.git(&push), ring.stop_node(leader));
    work.commit_large("c");
    work.git(&push).await;
    let clone = ring
        .clone(&ring.url(others[1], "admin/fail"), "clone")
        .await;
    assert_eq!(
        clone.now(&["rev-parse", "HEAD"]),
        work.now(&["rev-parse", "HEAD"])
    );
    ring.start_node(leader).await;
    ring.wait_until_ready(leader).await;
    // The log brings the missed entries; the other nodes send the large pack.
    let back = ring.clone(&ring.url(leader, "admin/fail"), "back").await;
    assert_eq!(
        back.now(&["rev-parse", "HEAD"]),
        work.now(&["rev-parse", "HEAD"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_pack_is_fetched_and_meanwhile_another_node_serves() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit_large("large");
    work.git(&["push", "-q", &ring.url(1, "admin/lost"), "main"])
        .await;
    let node = 3;
    let path = "admin/lost".parse().unwrap();
    let network = ring.node(node).repos.get(&path).await.unwrap().network;
    let packs = ring.node(node).objects.objects_dir(&network).join("pack");
    // The last replica may apply after the push was answered.
    eventually("the pack is on all nodes", async || {
        (!ring.node(node).objects.packs(&network).unwrap().is_empty()).then_some(())
    })
    .await;
    ring.stop_node(node).await;
    let mut removed = 0;
    for file in fs::read_dir(&packs).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
        removed += 1;
    }
    assert_eq!(removed, 2, "a pack and its index");
    ring.start_node(node).await;
    ring.wait_until_ready(node).await;
    let clone = ring.clone(&ring.url(node, "admin/lost"), "clone").await;
    assert_eq!(clone.read("large"), work.read("large"));
    eventually("the pack is back", async || {
        (!ring.node(node).objects.packs(&network).unwrap().is_empty()).then_some(())
    })
    .await;
    assert!(
        ring.node(node)
            .objects
            .verify_all(&network)
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_quorum_a_push_is_refused_in_time_and_changes_nothing() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    let before = work.commit("a", b"a\n");
    work.git(&["push", "-q", &ring.url(1, "admin/alone"), "main"])
        .await;
    let shard = ring.shard("admin/alone").await;
    ring.stop_node(2).await;
    ring.stop_node(3).await;
    // During the leader's lease it would still propose, and the outcome would be unknown.
    let cluster = ring.node(1).cluster.clone();
    eventually("nobody leads with a quorum", async || {
        let barrier = cluster
            .read_barrier(shard, Duration::from_millis(300))
            .await;
        barrier.is_err().then_some(())
    })
    .await;
    work.commit("b", b"b\n");
    let url = ring.url(1, "admin/alone");
    let (pushed, said) = work.try_git(&["push", &url, "main"]).await;
    assert!(!pushed && said.contains("503"), "{said}");
    ring.start_node(2).await;
    ring.wait_until_ready(2).await;
    let clone = ring.clone(&ring.url(2, "admin/alone"), "clone").await;
    assert_eq!(clone.now(&["rev-parse", "HEAD"]), before);
}
