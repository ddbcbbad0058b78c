//! Full disks: a majority with room is enough; without one, the error reaches the pusher.

use henge_storage::objects::Watermark;
use henge_types::RepoLimits;

use crate::ring::{ADMIN, Ring, Work, eventually};

/// More than any disk has free: the node's disk counts as full.
const FULL: Watermark = Watermark {
    bytes: u64::MAX,
    percent: 0,
};
const EMPTY: Watermark = Watermark {
    bytes: 0,
    percent: 0,
};

/// Fills the disk of a node, and waits until the node notices: its reading of free space is cached
/// for a second.
async fn fill(ring: &Ring, node: usize) {
    ring.node(node).objects.set_watermark(FULL);
    eventually("the node's space is low", async || {
        ring.node(node).cluster.report().low_space.then_some(())
    })
    .await;
}

async fn repository(ring: &Ring, name: &str) -> Work {
    let work = ring.work_dir(name);
    work.commit("first", b"first\n");
    let url = ring.url(1, &format!("admin/{name}"));
    work.git(&["push", "-q", &url, "main"]).await;
    work
}

/// One full disk among three refused every push, to every repository.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_neighbours_full_disk_refuses_no_push() {
    let ring = Ring::start().await;
    let names = ["a", "b", "c", "d"];
    let mut works = Vec::new();
    for name in names {
        works.push(repository(&ring, name).await);
    }
    fill(&ring, 3).await;
    for (name, work) in names.into_iter().zip(&works) {
        let repo = format!("admin/{name}");
        // Whichever node led the shard: an entry contains a small push, a large one is staged.
        work.commit("small", b"small\n");
        work.git(&["push", "-q", &ring.url(3, &repo), "main"]).await;
        work.commit_large("large");
        work.git(&["push", "-q", &ring.url(1, &repo), "main"]).await;
        let shard = ring.shard(&repo).await;
        eventually("another node leads", async || {
            (ring.leader(shard).await != 3).then_some(())
        })
        .await;
        // The full node lacks the large pack: another one answers in its place.
        let clone = ring
            .clone(&ring.url(3, &repo), &format!("{name}-through-3"))
            .await;
        let head = ["rev-parse", "HEAD"];
        assert_eq!(clone.now(&head), work.now(&head));
        let parked = ring.node(3).cluster.report().replicas;
        let parked = parked.iter().find(|replica| replica.group == shard);
        assert!(parked.is_some_and(|replica| replica.parked > 0), "{repo}");
    }
    // A push too large to be buffered in memory cannot be spooled there, and git shows the error.
    works[0].commit_large("larger");
    let push = ["push", &ring.url(3, "admin/a"), "main"];
    let (taken, said) = works[0].try_git(&push).await;
    assert!(!taken && said.contains("no room for the push"), "{said}");
    assert!(!said.contains("Everything up-to-date"), "{said}");

    ring.node(3).objects.set_watermark(EMPTY);
    eventually("the node has fetched what it lacked", async || {
        let report = ring.node(3).cluster.report();
        let behind = report.replicas.iter().any(|replica| replica.parked > 0);
        (!behind && !report.low_space).then_some(())
    })
    .await;
    works[0].git(&push).await;
}

/// The push was refused without a reason: git printed "Broken pipe" and "Everything up-to-date".
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_majority_with_room_git_shows_why() {
    let ring = Ring::start().await;
    let work = repository(&ring, "full").await;
    for node in [2, 3] {
        fill(&ring, node).await;
    }
    for node in [1, 2] {
        let url = ring.url(node, "admin/full");
        let refused = eventually("all nodes know", async || {
            work.commit_large("large");
            let (taken, said) = work.try_git(&["push", &url, "main"]).await;
            let is_silent = said.contains("Everything up-to-date");
            assert!(taken || !is_silent, "{said}");
            said.contains("disk space is low on node 2, 3: no majority has room")
                .then_some(said)
        });
        let refused = refused.await;
        assert!(refused.contains("free disk space"), "{refused}");
        ring.clone(&url, &format!("clone-{node}")).await;
    }
    ring.node(2).objects.set_watermark(EMPTY);
    eventually("a majority has room", async || {
        let url = ring.url(1, "admin/full");
        work.try_git(&["push", &url, "main"]).await.0.then_some(())
    })
    .await;
}

/// A push through such a node waited eight seconds for a leader and was refused; its fetches failed
/// as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_comes_to_a_stopped_replica_is_passed_on() {
    let ring = Ring::start().await;
    let work = repository(&ring, "stopped").await;
    let shard = ring.shard("admin/stopped").await;
    let leader = ring.leader(shard).await;
    let through = ring.live().into_iter().find(|node| *node != leader);
    let through = through.expect("a follower");
    ring.node(through).cluster.stop_replica(shard).await;
    let url = ring.url(through, "admin/stopped");
    for number in 0..3 {
        work.commit("next", format!("{number}\n").as_bytes());
        work.git(&["push", "-q", &url, "main"]).await;
        let clone = ring.clone(&url, &format!("clone-{number}")).await;
        let head = ["rev-parse", "HEAD"];
        assert_eq!(clone.now(&head), work.now(&head));
    }
}

/// A push above a limit was reported as "broken or incomplete".
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_above_the_limit_is_named() {
    let ring = Ring::start().await;
    let work = repository(&ring, "limit").await;
    let limits = RepoLimits {
        object_bytes_max: Some(100_000),
        ..RepoLimits::default()
    };
    let path = "admin/limit".parse().unwrap();
    ring.node(1)
        .repos
        .set_limits(&ADMIN, &path, limits)
        .await
        .unwrap();
    let url = ring.url(2, "admin/limit");
    work.commit("zeros", &vec![0; 200_000]);
    let zeros = work.now(&["rev-parse", "HEAD:zeros"]);
    let (taken, said) = work.try_git(&["push", &url, "main"]).await;
    let why = format!("object {zeros} has 200000 bytes, 100000 are allowed");
    assert!(!taken && said.contains(&why), "{said}");
    work.now(&["reset", "-q", "--hard", "HEAD~1"]);
    // An incompressible object is given up before its end: its id is unknown.
    work.commit_large("noise");
    let (taken, said) = work.try_git(&["push", &url, "main"]).await;
    assert!(
        !taken && said.contains("of the pack is too large"),
        "{said}"
    );
    assert!(said.contains("100000 are allowed"), "{said}");
    assert!(!said.contains("broken or incomplete"), "{said}");
}
