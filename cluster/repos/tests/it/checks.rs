//! Checks of complete stores: damage on one replica's disk is found, reported, and repaired from
//! another replica.

use std::fs;

use henge_types::status::{CheckOutcome, RepoCheck};
use henge_types::{ConditionKind, ErrorCode, NodeId, PackId, RepoPath};

use crate::ring::{ADMIN, Ring, eventually};

const REPO: &str = "admin/checked";

/// Starts checks and waits for them.
pub(crate) async fn check_repo(
    ring: &Ring,
    repo: &str,
    nodes: &[NodeId],
    repair: bool,
) -> Vec<(NodeId, CheckOutcome)> {
    let path: RepoPath = repo.parse().unwrap();
    let repos = &ring.node(ring.live()[0]).repos;
    let started = repos
        .start_check(&ADMIN, &path, nodes, repair)
        .await
        .unwrap();
    let run_of = |checks: &RepoCheck, node| {
        let check = checks.replicas.iter().find(|check| check.node == node);
        check.map(|check| check.run)
    };
    eventually("the checks end", async || {
        let now = repos.checks(&path, nodes).await.unwrap();
        let ended = now.replicas.iter().map(|check| {
            let last = check.last.clone()?;
            (Some(last.run) >= run_of(&started, check.node)).then_some((check.node, last))
        });
        ended.collect()
    })
    .await
}

async fn check(ring: &Ring, nodes: &[NodeId], repair: bool) -> Vec<(NodeId, CheckOutcome)> {
    check_repo(ring, REPO, nodes, repair).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_pack_is_named_and_fetched_again_from_another_replica() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    let url = ring.url(1, REPO);
    work.commit_large("large");
    work.git(&["push", "-q", &url, "main"]).await;
    work.commit("file", b"more\n");
    work.git(&["push", "-q", &url, "main"]).await;
    let path: RepoPath = REPO.parse().unwrap();
    let network = ring.node(1).repos.get(&path).await.unwrap().network;
    for (node, outcome) in check(&ring, &[], false).await {
        assert!(outcome.is_clean(), "node {node}: {outcome:?}");
        assert_eq!((outcome.packs, outcome.unreachable), (2, Some(0)));
        assert_eq!(outcome.reachable, Some(outcome.objects));
    }
    let objects = &ring.node(2).objects;
    let packs = objects.packs(&network).unwrap();
    let file = |pack: &PackId| objects.side_file(&network, pack, "pack");
    let largest = |pack: &&PackId| fs::metadata(file(pack)).unwrap().len();
    let damaged = *packs.iter().max_by_key(largest).unwrap();
    let whole = fs::read(file(&damaged)).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    // A new file: memory that a reader has mapped does not change.
    let damage = || {
        let aside = ring.data_dir(2).join("aside");
        fs::write(&aside, &bytes).unwrap();
        fs::rename(&aside, file(&damaged)).unwrap();
    };
    let is_whole = || fs::read(file(&damaged)).is_ok_and(|bytes| bytes == whole);
    damage();
    for (node, outcome) in check(&ring, &[], false).await {
        assert_eq!(outcome.is_clean(), node != NodeId::new(2), "{outcome:?}");
        assert_eq!(outcome.failed, None);
        let name = damaged.to_string();
        let is_named = |pack: &Option<String>| pack.as_ref() == Some(&name);
        assert_eq!(
            outcome
                .problems
                .iter()
                .any(|problem| is_named(&problem.pack) && problem.object.is_some()),
            node == NodeId::new(2),
            "{outcome:?}"
        );
    }
    // A pack that is known to be damaged is fetched again without a request.
    eventually("the pack is whole again", async || is_whole().then_some(())).await;
    damage();
    let two = [NodeId::new(2)];
    let repaired = check(&ring, &two, true).await;
    assert_eq!(repaired.len(), 1);
    let (_, outcome) = &repaired[0];
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.repaired, [damaged.to_string()]);
    assert!(is_whole());
    // A missing pack is fetched as well: by the check, or because it was noticed before.
    fs::remove_file(objects.side_file(&network, &damaged, "idx")).unwrap();
    fs::remove_file(file(&damaged)).unwrap();
    let outcome = &check(&ring, &two, true).await[0].1;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert!(is_whole());
    let clone = ring.clone(&ring.url(2, REPO), "clone").await;
    clone.git(&["fsck", "--full", "--strict"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_no_replica_or_away_is_said_so() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("file", b"one\n");
    let url = ring.url(1, REPO);
    work.git(&["push", "-q", &url, "main"]).await;
    let path: RepoPath = REPO.parse().unwrap();
    let other = [NodeId::new(9)];
    let refused = ring.node(1).repos.start_check(&ADMIN, &path, &other, false);
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Invalid);
    assert!(refused.message.contains("node 9"), "{}", refused.message);
    ring.stop_node(3).await;
    let repos = &ring.node(1).repos;
    let started = repos.start_check(&ADMIN, &path, &[], false).await.unwrap();
    let failed = |node: u64| {
        let mut replicas = started.replicas.iter();
        let check = replicas.find(|check| check.node == NodeId::new(node));
        check.unwrap().failed.clone()
    };
    assert_eq!((failed(1), failed(2)), (None, None));
    assert!(failed(3).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_check_found_is_known_after_a_restart() {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("file", b"one\n");
    work.git(&["push", "-q", &ring.url(1, REPO), "main"]).await;
    let path: RepoPath = REPO.parse().unwrap();
    let two = [NodeId::new(2)];
    let (_, found) = check(&ring, &two, false).await.remove(0);
    assert!(found.is_clean(), "{found:?}");
    ring.stop_node(2).await;
    ring.start_node(2).await;
    ring.wait_until_ready(2).await;
    let looked = ring.node(1).repos.checks(&path, &two).await.unwrap();
    assert_eq!(looked.replicas[0].last.as_ref(), Some(&found));
    assert_eq!(looked.replicas[0].run, found.run);
    // The next check has another number.
    let (_, again) = check(&ring, &two, false).await.remove(0);
    assert!(again.run > found.run, "{again:?}");
}

/// A ring whose second node reports that its check of a repository did not finish; the condition's
/// subject.
async fn unfinished() -> (Ring, String) {
    let mut ring = Ring::start().await;
    let work = ring.work_dir("work");
    work.commit("file", b"one\n");
    work.git(&["push", "-q", &ring.url(1, REPO), "main"]).await;
    let path: RepoPath = REPO.parse().unwrap();
    let network = ring.node(1).repos.get(&path).await.unwrap().network;
    let folder = ring.node(2).objects.network_dir(&network);
    eventually("the repository is on the node", async || {
        folder.is_dir().then_some(())
    })
    .await;
    ring.stop_node(2).await;
    // The stored format, which is fixed: a check that failed with `no`.
    let kept = concat!(
        "04250001ac0280d0eab6b7330702ac02",
        "01c80100010102616200",
        "14746865207061636b206973206e6f742068657265",
        "010102636401026e6f"
    );
    let bytes = (0..kept.len()).step_by(2);
    let bytes = bytes.map(|at| u8::from_str_radix(&kept[at..at + 2], 16).unwrap());
    fs::write(folder.join("henge-last-check"), bytes.collect::<Vec<_>>()).unwrap();
    ring.start_node(2).await;
    let subject = format!("network {network}");
    eventually("the condition holds again", async || shown(&ring, &subject)).await;
    (ring, subject)
}

fn shown(ring: &Ring, subject: &str) -> Option<u64> {
    let conditions = ring.node(2).cluster.conditions();
    conditions.since_ms(ConditionKind::CheckUnfinished, subject)
}

/// The condition of an unfinished check was gone after a restart, and `status` reported ok.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unfinished_check_is_shown_after_a_restart() {
    let (ring, subject) = unfinished().await;
    let (_, found) = check(&ring, &[NodeId::new(2)], false).await.remove(0);
    assert_eq!(found.failed, None);
    assert!(shown(&ring, &subject).is_none());
}

/// The condition stayed for a deleted repository until the node was started again: no event could
/// clear it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unfinished_check_goes_with_its_repository() {
    let (ring, subject) = unfinished().await;
    ring.wait_until_ready(2).await;
    let path: RepoPath = REPO.parse().unwrap();
    ring.node(1).repos.delete(&ADMIN, &path).await.unwrap();
    eventually("the condition is over", async || {
        shown(&ring, &subject).is_none().then_some(())
    })
    .await;
}
