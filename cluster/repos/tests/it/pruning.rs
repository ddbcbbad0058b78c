//! Pruning: unreachable objects are removed from every replica, and no others.

use std::time::Duration;

use henge_repos::PruneSchedule;
use henge_state::ShardView;
use henge_types::limits::FORMER_TIP_MS;
use henge_types::status::{CompactionDepth as Depth, CompactionState, LastCompaction};
use henge_types::{GroupId, NetworkId, ObjectFormat, ObjectId, PruneMark, RepoPath};

use crate::checks::check_repo;
use crate::compaction::{agree, clone_is_whole, compact, network, settled};
use crate::ring::{ADMIN, Ring, Work, eventually};

const REPO: &str = "admin/pruned";
/// Longer than a leader keeps former tips, which clients may have been advertised.
const LONG: Duration = Duration::from_millis(2 * FORMER_TIP_MS + 1);

async fn prune(ring: &Ring, grace_ms: u64) -> LastCompaction {
    let path: RepoPath = REPO.parse().unwrap();
    let repos = &ring.node(ring.live()[0]).repos;
    let depth = Depth::Prune { grace_ms };
    let before = repos.compact(&ADMIN, &path, depth).await.unwrap();
    let last = eventually("pruning ends", async || {
        let now = repos.stats(&path).await.ok()?;
        let ended = now.compaction == CompactionState::Idle
            && now.last_compaction != before.last_compaction;
        ended.then(|| now.last_compaction.unwrap())
    })
    .await;
    assert_eq!(last.failed, None);
    last
}

/// A repository with a deleted branch; returns the only commit on that branch.
async fn with_deleted_branch(ring: &Ring) -> (Work, String) {
    with_deleted_branch_of(ring, ObjectFormat::Sha1).await
}

async fn with_deleted_branch_of(ring: &Ring, format: ObjectFormat) -> (Work, String) {
    let work = ring.work_dir_of("work", format);
    let url = ring.url(1, REPO);
    work.commit("first", b"first\n");
    work.commit_large("large");
    work.git(&["push", "-q", &url, "main"]).await;
    work.now(&["switch", "-q", "-c", "side"]);
    let side = work.commit("secret", b"to be forgotten\n");
    work.git(&["push", "-q", &url, "side"]).await;
    work.now(&["switch", "-q", "main"]);
    work.git(&["push", "-q", &url, ":side"]).await;
    (work, side)
}

/// Whether a node's store holds an object, as stock git sees it.
async fn holds(ring: &Ring, node: usize, object: &str) -> bool {
    let path: RepoPath = REPO.parse().unwrap();
    let network = ring.node(1).repos.get(&path).await.unwrap().network;
    let store = ring.node(node).objects.network_dir(&network);
    let store = store.to_str().unwrap().to_owned();
    let work = ring.work_dir("looking");
    let (found, said) = work
        .try_git(&["--git-dir", &store, "cat-file", "-t", object])
        .await;
    assert!(found || said.contains("fatal"), "{said}");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_no_ref_reaches_goes_after_the_grace_and_from_every_replica() {
    let mut ring = Ring::start().await;
    let (work, side) = with_deleted_branch(&ring).await;
    let network = network(&ring, REPO).await;
    let group = ring.shard(REPO).await;
    let grace = Duration::from_secs(3600);
    let grace_ms = 3_600_000;
    // The first prune only makes the mark.
    assert_eq!(prune(&ring, grace_ms).await.dropped, None);
    ring.jump(grace / 2).await;
    assert_eq!(prune(&ring, grace_ms).await.dropped, None);
    for node in ring.live() {
        assert!(holds(&ring, node, &side).await);
    }
    ring.jump(grace / 2).await;
    // Deleted after the mark: not unreachable for long enough.
    work.now(&["switch", "-q", "-c", "later", "main"]);
    let later = work.commit("later", b"not so fast\n");
    let url = ring.url(2, REPO);
    work.git(&["push", "-q", &url, "later"]).await;
    work.git(&["push", "-q", &url, ":later"]).await;
    work.now(&["switch", "-q", "main"]);
    ring.jump(LONG).await;
    let dropped = prune(&ring, grace_ms).await.dropped;
    assert_eq!(dropped, Some(3), "a commit, a tree, a file");
    settled(&ring, group, &network, 1).await;
    agree(&ring, group).await;
    for node in ring.live() {
        assert!(!holds(&ring, node, &side).await, "node {node}");
        assert!(holds(&ring, node, &later).await, "node {node}");
        clone_is_whole(&ring, node, REPO, &format!("clone-{node}"), &work).await;
    }
    // A restarted node has exactly the packs of the manifest.
    ring.stop_node(3).await;
    ring.start_node(3).await;
    ring.wait_until_ready(3).await;
    settled(&ring, group, &network, 1).await;
    // The next period counts from that prune.
    ring.jump(grace + LONG).await;
    assert_eq!(prune(&ring, grace_ms).await.dropped, Some(3));
    let url = ring.url(3, REPO);
    work.commit("after", b"after\n");
    work.git(&["push", "-q", &url, "main"]).await;
    compact(&ring, REPO, Depth::Everything).await;
    settled(&ring, group, &network, 1).await;
    for node in ring.live() {
        assert!(!holds(&ring, node, &later).await, "node {node}");
        clone_is_whole(&ring, node, REPO, &format!("last-{node}"), &work).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_was_away_while_objects_went_lets_them_go_too() {
    let mut ring = Ring::start().await;
    let (work, side) = with_deleted_branch(&ring).await;
    let network = network(&ring, REPO).await;
    let group = ring.shard(REPO).await;
    // The first prune waits until all replicas support it.
    assert_eq!(prune(&ring, 3_600_000).await.dropped, None);
    let away = 1 + ring.leader(group).await % 3;
    ring.stop_node(away).await;
    ring.jump(LONG).await;
    assert_eq!(prune(&ring, 0).await.dropped, Some(3));
    work.commit("more", b"more\n");
    let url = ring.url(ring.live()[0], REPO);
    work.git(&["push", "-q", &url, "main"]).await;
    ring.start_node(away).await;
    ring.wait_until_ready(away).await;
    settled(&ring, group, &network, 2).await;
    agree(&ring, group).await;
    assert!(!holds(&ring, away, &side).await);
    clone_is_whole(&ring, away, REPO, "clone", &work).await;
    // Dropped objects may be pushed again.
    work.git(&["push", "-q", &url, "side"]).await;
    for node in ring.live() {
        let clone = ring
            .clone(&ring.url(node, REPO), &format!("side-{node}"))
            .await;
        assert_eq!(clone.now(&["rev-parse", "origin/side"]), side);
        clone.git(&["fsck", "--full", "--strict"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_go_on_while_objects_are_dropped_again_and_again() {
    let ring = Ring::start().await;
    let (work, _) = with_deleted_branch(&ring).await;
    prune(&ring, 3_600_000).await;
    let group = ring.shard(REPO).await;
    let pushes = async {
        for number in 0..40_usize {
            let url = ring.url(1 + number % 3, REPO);
            let branch = format!("refs/heads/b-{}", number % 3);
            work.commit(&format!("file-{number}"), format!("{number}\n").as_bytes());
            work.git(&["push", "-q", &url, "main", &format!("+HEAD:{branch}")])
                .await;
            // Builds on objects that only a deleted branch had, sometimes deleted a moment ago.
            if number % 3 == 2 {
                work.git(&["push", "-q", &url, &format!(":{branch}")]).await;
            }
        }
    };
    let prunes = async {
        for _ in 0..6 {
            ring.jump(LONG).await;
            prune(&ring, 0).await;
        }
    };
    tokio::join!(pushes, prunes);
    agree(&ring, group).await;
    for node in ring.live() {
        clone_is_whole(&ring, node, REPO, &format!("clone-{node}"), &work).await;
    }
    let network = network(&ring, REPO).await;
    prune(&ring, 0).await;
    ring.jump(LONG).await;
    prune(&ring, 0).await;
    compact(&ring, REPO, Depth::Everything).await;
    settled(&ring, group, &network, 1).await;
    for node in ring.live() {
        let whole = ring.node(node).objects.verify_all(&network).unwrap();
        assert_eq!(whole, []);
        clone_is_whole(&ring, node, REPO, &format!("last-{node}"), &work).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_just_a_tip_is_kept_for_those_who_were_told_of_it() {
    let ring = Ring::start().await;
    let (_, side) = with_deleted_branch(&ring).await;
    prune(&ring, 0).await;
    assert_eq!(prune(&ring, 0).await.dropped, Some(0));
    let id: ObjectId = side.parse().unwrap();
    let fetching = ring.work_dir("fetching");
    fetching
        .git(&["fetch", "-q", &ring.url(2, REPO), &id.to_string()])
        .await;
    assert_eq!(fetching.now(&["rev-parse", "FETCH_HEAD"]), side);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_network_of_sha256_is_forked_pruned_and_checked() {
    let ring = Ring::start().await;
    crate::sha256::create(&ring, 1, REPO, ObjectFormat::Sha256).await;
    let (work, side) = with_deleted_branch_of(&ring, ObjectFormat::Sha256).await;
    let (path, fork): (RepoPath, RepoPath) = (REPO.parse().unwrap(), "admin/of".parse().unwrap());
    let forked = ring.node(2).repos.fork(&ADMIN, &path, fork, None).await;
    assert_eq!(forked.unwrap().object_format, ObjectFormat::Sha256);
    prune(&ring, 3_600_000).await;
    ring.jump(LONG).await;
    assert_eq!(prune(&ring, 0).await.dropped, Some(3));
    settled(
        &ring,
        ring.shard(REPO).await,
        &network(&ring, REPO).await,
        1,
    )
    .await;
    for (node, outcome) in check_repo(&ring, REPO, &[], false).await {
        assert!(outcome.is_clean(), "node {node}: {outcome:?}");
        assert_eq!(outcome.unreachable, Some(0));
        let node = usize::try_from(node.get()).unwrap();
        assert!(!holds(&ring, node, &side).await);
        clone_is_whole(&ring, node, "admin/of", &format!("fork-{node}"), &work).await;
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Every day, for objects unreachable for three days.
fn schedule(ring: &Ring) {
    for node in ring.live() {
        let schedule = PruneSchedule {
            every: DAY,
            grace: 3 * DAY,
        };
        ring.node(node).repos.start_pruning(schedule);
    }
}

/// The mark, once `is_so` holds; every poll advances the clocks by six hours.
async fn marked(
    ring: &Ring,
    (group, network): (GroupId, NetworkId),
    is_so: impl Fn(&PruneMark) -> bool,
) -> PruneMark {
    let hours = Duration::from_secs(6 * 60 * 60);
    eventually("the mark is as it should be", async || {
        ring.jump(hours).await;
        let cluster = &ring.node(ring.live()[0]).cluster;
        let view = cluster.view(group).unwrap();
        let mark = view.with(|state, _| ShardView::new(state).prune_mark(&network));
        mark.filter(&is_so)
    })
    .await
}

async fn last(ring: &Ring, node: usize) -> Option<LastCompaction> {
    let path: RepoPath = REPO.parse().unwrap();
    let stats = ring.node(node).repos.stats(&path).await.unwrap();
    stats.last_compaction
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_schedule_drops_what_was_lost_and_walks_nothing_where_nothing_was() {
    let ring = Ring::start().await;
    let (work, side) = with_deleted_branch(&ring).await;
    schedule(&ring);
    let of = (ring.shard(REPO).await, network(&ring, REPO).await);
    let first = marked(&ring, of, |_| true).await;
    assert!(first.may_hold_unreached, "nobody has looked");
    // The prune runs, and its entry makes the next mark.
    let second = marked(&ring, of, |mark| mark.at > first.at).await;
    let age = Duration::from_millis(second.at_ms - first.at_ms);
    assert!(age >= 3 * DAY, "{age:?}");
    assert!(!second.may_hold_unreached && second.lost_tips == 0);
    settled(&ring, of.0, &of.1, 1).await;
    for node in ring.live() {
        assert!(!holds(&ring, node, &side).await, "node {node}");
        clone_is_whole(&ring, node, REPO, &format!("clone-{node}"), &work).await;
    }
    let dropped = last(&ring, 1).await.unwrap();
    assert_eq!(
        (dropped.dropped, dropped.failed.as_deref()),
        (Some(3), None)
    );
    // A branch that only grows loses no tip: reading its history is enough.
    for number in 0..3 {
        work.commit(&format!("more-{number}"), b"more\n");
        work.git(&["push", "-q", &ring.url(2, REPO), "main"]).await;
    }
    let third = marked(&ring, of, |mark| mark.at > second.at).await;
    assert!(!third.may_hold_unreached && third.lost_tips == 0);
    assert_eq!(last(&ring, 1).await.unwrap().run, dropped.run, "no walk");
    // A branch that is reset loses one.
    let lost = work.now(&["rev-parse", "HEAD"]);
    work.now(&["reset", "-q", "--hard", "HEAD~1"]);
    let url = ring.url(3, REPO);
    work.git(&["push", "-q", "--force", &url, "main"]).await;
    let fourth = marked(&ring, of, |mark| mark.at > third.at).await;
    assert!(fourth.may_hold_unreached);
    let fifth = marked(&ring, of, |mark| mark.at > fourth.at).await;
    assert!(Duration::from_millis(fifth.at_ms - fourth.at_ms) >= 3 * DAY);
    settled(&ring, of.0, &of.1, 1).await;
    for node in ring.live() {
        assert!(!holds(&ring, node, &lost).await, "node {node}");
    }
    agree(&ring, of.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_schedule_goes_on_with_the_next_leader() {
    let mut ring = Ring::start().await;
    let (_, side) = with_deleted_branch(&ring).await;
    schedule(&ring);
    let of = (ring.shard(REPO).await, network(&ring, REPO).await);
    let first = marked(&ring, of, |_| true).await;
    let leader = ring.leader(of.0).await;
    ring.stop_node(leader).await;
    let second = marked(&ring, of, |mark| mark.at > first.at).await;
    // The three days count from the mark of the leader that is gone; the next leader did not
    // restart them.
    assert!(Duration::from_millis(second.at_ms - first.at_ms) >= 3 * DAY);
    settled(&ring, of.0, &of.1, 1).await;
    for node in ring.live() {
        eventually("it is gone", async || {
            (!holds(&ring, node, &side).await).then_some(())
        })
        .await;
    }
}
