//! Nodes with wrong clocks.
//!
//! With one leader's clock 400 days ahead two pushes through it shut a shard for 400 days, also
//! after the clock was right again: one node's clock moved the floor of request ids, which is
//! replicated. Mirrors stopped as well, because their next runs were computed from that time.

use std::time::Duration;

use henge_cluster::ClockState;
use henge_runtime::{Clock, SystemClock};
use henge_state::time_ms;
use henge_types::GroupId;

use crate::ring::{Ring, Work, eventually};

const REPO: &str = "admin/clocks";
const DAYS_400_MS: i64 = 400 * 24 * 3_600_000;
/// Far more than these tests take.
const SOON_MS: u64 = 30 * 60 * 1000;

async fn pushed(ring: &Ring) -> (Work, GroupId) {
    let work = ring.work_dir("work");
    work.commit("first", b"first\n");
    work.git(&["push", "-q", &ring.url(1, REPO), "main"]).await;
    (work, ring.shard(REPO).await)
}

/// Pushes a commit, and reads it from that node. A leader that notices its clock fault hands over:
/// a push that is refused meanwhile, with nothing changed, is retried.
async fn push_through(ring: &Ring, work: &Work, node: usize, file: &str) {
    let tip = work.commit(file, file.as_bytes());
    let url = ring.url(node, REPO);
    eventually("the push is taken", async || {
        let (taken, _) = work.try_git(&["push", "-q", &url, "main"]).await;
        taken.then_some(())
    })
    .await;
    eventually("the push is seen", async || {
        let (seen, listed) = work.try_git(&["ls-remote", &url, "refs/heads/main"]).await;
        seen.then(|| assert!(listed.starts_with(&tip), "{listed}"))
    })
    .await;
}

/// The difference between a group's time and the machine's clock.
fn off_ms(ring: &Ring, node: usize, group: GroupId) -> u64 {
    let state = ring.node(node).cluster.state(group).unwrap().state;
    let time = time_ms(&state).expect("it keeps its time");
    time.abs_diff(SystemClock.unix_ms())
}

fn is_wrong(ring: &Ring, node: usize) -> bool {
    let state = ring.node(node).cluster.clock_state();
    matches!(state, ClockState::Wrong { .. })
}

async fn until_clock(ring: &Ring, node: usize, what: &str, is: impl Fn(ClockState) -> bool) {
    let cluster = &ring.node(node).cluster;
    eventually(what, async || is(cluster.clock_state()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_with_a_wrong_clock_leads_nothing_and_passes_pushes_on() {
    let ring = Ring::start().await;
    let (work, group) = pushed(&ring).await;
    let wrong = ring.leader(group).await;
    for by in [DAYS_400_MS, -2 * DAYS_400_MS] {
        ring.set_clock(wrong, by);
        let leader = eventually("another node leads every group", async || {
            let groups = ring.node(wrong).cluster.local_groups();
            let mut leads = groups.iter();
            let leads = leads.any(|group| ring.node(wrong).cluster.leadership(*group).is_some());
            let mut others = ring.live().into_iter().filter(|node| *node != wrong);
            let leader = others.find(|node| ring.node(*node).cluster.leadership(group).is_some());
            leader.filter(|_| !leads && is_wrong(&ring, wrong))
        })
        .await;
        assert_ne!(leader, wrong);
        for node in ring.live() {
            push_through(&ring, &work, node, &format!("{by}-{node}")).await;
        }
        for node in ring.live() {
            assert!(off_ms(&ring, node, group) < SOON_MS, "node {node}");
        }
        let report = ring.node(wrong).cluster.report();
        let clock = report.clock.expect("it says what its clock shows");
        let fault = clock.fault.expect("its clock is wrong");
        assert!(fault.contains("set right"), "{fault}");
        assert!(clock.ahead_ms.unsigned_abs() > 300 * 24 * 3_600_000);
        let other = ring.node(leader).cluster.report().clock.unwrap();
        assert_eq!(other.fault, None);
    }
    ring.set_clock(wrong, DAYS_400_MS);
    until_clock(&ring, wrong, "the clock is right again", |state| {
        state == ClockState::Right
    })
    .await;
    for node in ring.live() {
        push_through(&ring, &work, node, &format!("right-{node}")).await;
    }
}

/// All clocks were wrong together, and are right again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_is_ahead_goes_on_and_comes_back() {
    let ring = Ring::start().await;
    let (work, group) = pushed(&ring).await;
    let ahead = Duration::from_millis(DAYS_400_MS.unsigned_abs());
    ring.jump(ahead).await;
    push_through(&ring, &work, 1, "ahead").await;
    let leader = ring.leader(group).await;
    assert!(off_ms(&ring, leader, group) > DAYS_400_MS.unsigned_abs() - SOON_MS);
    for node in ring.live() {
        ring.set_clock(node, -DAYS_400_MS);
    }
    for node in ring.live() {
        push_through(&ring, &work, node, &format!("back-{node}")).await;
    }
    for node in ring.live() {
        eventually("the group's time is right again", async || {
            (off_ms(&ring, node, group) < SOON_MS).then_some(())
        })
        .await;
        push_through(&ring, &work, node, &format!("right-{node}")).await;
    }
}

/// With two nodes left the right clock cannot be determined: pushes go on, the group's time stands
/// still.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_clocks_that_are_far_apart_neither_moves_the_time() {
    let mut ring = Ring::start().await;
    let (work, group) = pushed(&ring).await;
    ring.stop_node(3).await;
    ring.set_clock(1, DAYS_400_MS);
    let undecided = |state| matches!(state, ClockState::Undecided { .. });
    for node in [1, 2] {
        until_clock(&ring, node, "two clocks are apart", undecided).await;
        let clock = ring.node(node).cluster.report().clock.unwrap();
        let fault = clock.fault.expect("both say so");
        assert!(fault.contains("400 d"), "{fault}");
    }
    for node in [1, 2] {
        for count in 0..3 {
            push_through(&ring, &work, node, &format!("apart-{node}-{count}")).await;
        }
        assert!(off_ms(&ring, node, group) < SOON_MS);
    }
}
