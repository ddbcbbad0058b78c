//! A node's background work for its groups: snapshots by bytes of log (`snapshot_policy` selects
//! the group), purges of the log, gauges, checks for faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use henge_runtime::tasks::OnPanic;
use henge_types::health::group_name;
use henge_types::status::ClusterStatus;
use henge_types::{ConditionKind, GroupId, LogIndex, NodeId, limits};
use openraft::async_runtime::watch::WatchReceiver;

use crate::builds::Build;
use crate::cluster::Cluster;
use crate::group::Group;
use crate::log_store::slot;
use crate::metrics;
use crate::snapshot_check;
use crate::snapshot_policy::{self, GroupLog, Soundness, Turn};
use crate::starts::StartRefusal;
use crate::time::ClockSeen;
use crate::watch::Watch;

/// Between two checks of every group.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Between two requests for the members' reports.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The same while a response may make this node ready.
const ASK_EVERY_WHILE_NOT_READY: Duration = Duration::from_millis(100);

/// Between two checks of the log since the snapshots.
const COVER_EVERY: Duration = Duration::from_millis(500);

/// After this time a requested snapshot that was not built is requested again.
const BUILD_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long a group that was handed over for lack of log space is not handed over again.
const HANDED_OVER_FOR: Duration = Duration::from_secs(60);

/// The longest wait for one group's snapshot when the log is nearly full.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the upkeep tasks.
pub(crate) fn start(cluster: &Cluster) {
    let scope = &cluster.shared.scope;
    let (looking, asking) = (cluster.clone(), cluster.clone());
    let (pressed, placed) = (cluster.clone(), cluster.clone());
    let (covering, checking) = (cluster.clone(), cluster.clone());
    let whole = OnPanic::EndProcess;
    scope.spawn("upkeep", whole, async move { look(&looking).await });
    scope.spawn("signs of life", whole, async move { ask(&asking).await });
    scope.spawn("snapshots by log", whole, async move {
        cover(&covering).await;
    });
    scope.spawn("snapshots at rest", whole, async move {
        snapshot_check::run(&checking).await;
    });
    scope.spawn("log in place", whole, async move {
        check_in_place(&placed).await;
    });
    scope.spawn("wal pressure", whole, async move {
        relieve(&pressed).await;
    });
}

async fn look(cluster: &Cluster) {
    let mut leaders = BTreeMap::new();
    let mut watch = Watch::default();
    let mut moved = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        watch.look(cluster);
        let groups = cluster.groups().all();
        let moving = make_way(cluster, &groups, &mut moved);
        cluster.groups().while_open(moving).await;
        for group in groups {
            let leader = group.leader();
            if leaders.insert(group.id, leader) != Some(leader) && leader.is_some() {
                metrics::leader_changed(group.id);
            }
        }
        note_refused_starts(cluster);
        snapshot_check::note(cluster);
        cluster.tend_time().await;
        metrics::observe(cluster);
    }
}

/// Ends the node when its data directory is gone, also without writes. A loop of its own, so that a
/// slow disk holds nothing else up.
async fn check_in_place(cluster: &Cluster) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let wal = cluster.shared.wal.clone();
        let scope = &cluster.shared.scope;
        let looking = scope.blocking("look at the log", move || wal.check_in_place());
        // Only a scope that ends returns an error.
        if looking.await.is_err() {
            return;
        }
    }
}

/// Raises conditions for refused starts. A log that went back stays a condition until the node
/// starts again. An old copy stays one until it is silent and the newest start is heard.
fn note_refused_starts(cluster: &Cluster) {
    let (mut old_copies, mut went_back) = (BTreeMap::new(), BTreeMap::new());
    let now = cluster.clock().instant();
    for (node, refusal) in cluster.shared.starts.refusals(now) {
        let found = match refusal {
            StartRefusal::LogWentBack { .. } => &mut went_back,
            StartRefusal::LaterStart { .. }
            | StartRefusal::Missing(_)
            | StartRefusal::SelfRefused
            | StartRefusal::Moved => &mut old_copies,
        };
        found.insert(format!("node {node}"), refusal.to_string());
    }
    let conditions = cluster.conditions();
    conditions.replace(ConditionKind::OldCopy, &old_copies);
    conditions.replace(ConditionKind::ReplicaLogWentBack, &went_back);
}

async fn ask(cluster: &Cluster) {
    let mut clock_seen = ClockSeen::default();
    loop {
        // Readiness is judged by these facts: the request keeps them fresh.
        drop(cluster.status().await);
        cluster.mind_clock(&mut clock_seen).await;
        let pause = match cluster.is_ready() {
            Ok(()) => ASK_EVERY,
            Err(_) => ASK_EVERY_WHILE_NOT_READY,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Takes a snapshot of the group that pins a nearly full log.
async fn relieve(cluster: &Cluster) {
    let mut pressure = cluster.shared.wal.pressure();
    loop {
        let pinning = *pressure.borrow_and_update();
        let group = pinning.and_then(|group| cluster.groups().get(group).ok());
        // A snapshot that has just failed would fail again: the log moves the group's entries
        // meanwhile.
        let fails = |group: &Group| {
            let build = cluster.shared.deps.builds.of(group.id);
            matches!(build, Some(Build::Failed { .. })) || group.ended().is_some()
        };
        if let Some(group) = group.filter(|group| !fails(group)) {
            tracing::info!(group = %group.id, "the write-ahead log is nearly full: snapshot and purge");
            cluster.groups().while_open(free(&group)).await;
        }
        // The same group may still pin the log: the value does not change then.
        let again = async {
            match pinning {
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = pressure.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

/// Requests snapshots of groups, so that the log since all of them stays within its bound.
async fn cover(cluster: &Cluster) {
    let mut tries = Tries::default();
    loop {
        tokio::time::sleep(COVER_EVERY).await;
        let groups = cluster.groups().all();
        let now = cluster.clock().instant();
        let mut logs: Vec<_> = groups
            .iter()
            .map(|group| stand(cluster, group, &mut tries, now))
            .collect();
        while let Some(due) = snapshot_policy::next(&logs) {
            let group = groups.iter().find(|group| group.id == due);
            let log = logs.iter_mut().find(|log| log.group == due);
            let (Some(group), Some(log)) = (group, log) else {
                break;
            };
            (log.turn, log.log_bytes) = (Turn::Taking, 0);
            (log.snapshot, log.is_pressing) = (Soundness::Intact, false);
            let builds = &cluster.shared.deps.builds;
            builds.ask(due, group.view.now().applied.get());
            tries.asked.insert(due, now);
            let trigger = async { group.raft.trigger().snapshot().await };
            let triggered = cluster.groups().while_open(trigger).await;
            if !matches!(triggered, Some(Ok(()))) {
                builds.forget(due);
                tracing::debug!(group = %due, "no snapshot: the group has ended");
                log.turn = Turn::Waiting;
            }
        }
        for group in &groups {
            cluster
                .groups()
                .while_open(keep_little(cluster, group))
                .await;
        }
        metrics::log_since_snapshots(cluster, &logs);
    }
}

/// When snapshots were requested, and when their failures were found.
#[derive(Debug, Default)]
struct Tries {
    asked: BTreeMap<GroupId, Instant>,
    failed: BTreeMap<GroupId, (u32, Instant)>,
}

/// The log and the snapshot of a group, and whether it can take another one.
fn stand(cluster: &Cluster, group: &Group, tries: &mut Tries, now: Instant) -> GroupLog {
    let shared = &cluster.shared;
    let mut covered = group.snapshot().map_or(0, |(_, index)| index);
    let turn = match shared.deps.builds.of(group.id) {
        None => Turn::Free,
        // openraft reports it a moment later.
        Some(Build::Taken { index }) => {
            covered = covered.max(index);
            Turn::Free
        }
        // A core that ended, or was busy with an older build, may never have begun it.
        Some(Build::Asked { index }) => {
            let asked = *tries.asked.entry(group.id).or_insert(now);
            if now.duration_since(asked) > BUILD_TIMEOUT {
                shared.deps.builds.forget(group.id);
            }
            covered = covered.max(index);
            Turn::Taking
        }
        Some(Build::Failed { times, .. }) => {
            let failed = tries.failed.entry(group.id).or_insert((times, now));
            if failed.0 != times {
                *failed = (times, now);
            }
            match now < failed.1 + retry_pause(times) {
                true => Turn::Waiting,
                false => Turn::Free,
            }
        }
    };
    let applied = group.view.with(|_, applied| applied.get());
    let has_failed = matches!(shared.deps.builds.of(group.id), Some(Build::Failed { .. }));
    GroupLog {
        group: group.id,
        log_bytes: shared.wal.bytes_since(group.id, slot(covered)),
        log_entries: applied.saturating_sub(covered),
        snapshot_bytes: shared.deps.snapshots.known_bytes(group.id),
        snapshot: match shared.deps.snapshots.damaged(group.id) {
            Some(_) => Soundness::Damaged,
            None => Soundness::Intact,
        },
        // Without a newly applied entry, another snapshot of the same state frees nothing.
        is_pressing: has_failed || (applied > covered && !shared.wal.may_grow(group.id)),
        turn: if group.ended().is_some() {
            Turn::Waiting
        } else {
            turn
        },
    }
}

fn retry_pause(times: u32) -> Duration {
    let least = Duration::from_millis(limits::SNAPSHOT_RETRY_MS_MIN);
    let most = Duration::from_millis(limits::SNAPSHOT_RETRY_MS_MAX);
    let doubled = 1_u32
        .checked_shl(times.saturating_sub(1))
        .unwrap_or(u32::MAX);
    least.saturating_mul(doubled).min(most)
}

/// Purges entries before the snapshot that exceed [`limits::LOG_BYTES_KEPT`]: openraft keeps them
/// by number.
async fn keep_little(cluster: &Cluster, group: &Group) {
    let Some((_, covered)) = group.snapshot() else {
        return;
    };
    let wal = &cluster.shared.wal;
    let kept = wal.index_before(group.id, slot(covered), limits::LOG_BYTES_KEPT);
    // The log counts from 1, openraft from 0.
    if let Some(upto) = kept.checked_sub(slot(0))
        && upto <= covered
        && wal
            .group(group.id)
            .first_index
            .is_some_and(|first| first <= kept)
        && let Err(error) = group.raft.trigger().purge_log(upto).await
    {
        tracing::debug!(group = %group.id, %error, "log not purged: the group has ended");
    }
}

/// The other nodes that answered, are fit to lead, and do not report that the group's entries wait
/// there as well.
fn with_room(status: Option<&ClusterStatus>, own: NodeId, group: GroupId) -> BTreeSet<NodeId> {
    let subject = group_name(group);
    let nodes = status.into_iter().flat_map(|status| &status.nodes);
    let others = nodes.filter(|node| node.node != own);
    let has_room = others.filter(|node| {
        node.report.as_ref().is_some_and(|report| {
            let mut conditions = report.conditions.iter();
            let waits = conditions.any(|condition| {
                condition.kind == ConditionKind::LogNearCap && condition.subject == subject
            });
            let clock = report.clock.as_ref().and_then(|clock| clock.fault.as_ref());
            !waits && !report.starting && clock.is_none()
        })
    });
    has_room.map(|node| node.node).collect()
}

/// Hands over groups that may not add to this node's log: the other nodes can go on with the write.
async fn make_way(cluster: &Cluster, groups: &[Group], moved: &mut BTreeMap<GroupId, Instant>) {
    let now = cluster.clock().instant();
    moved.retain(|_, at| now.duration_since(*at) < HANDED_OVER_FOR);
    let mut near_cap = BTreeMap::new();
    let mut to_move = Vec::new();
    for group in groups {
        let full = !cluster.shared.wal.may_grow(group.id);
        if full {
            let detail = match cluster.shared.deps.builds.of(group.id) {
                Some(Build::Failed { reason, .. }) => {
                    format!("its entries wait: its snapshot cannot be taken: {reason}")
                }
                Some(Build::Asked { .. } | Build::Taken { .. }) | None => {
                    "its entries wait until a snapshot frees some of the log".to_owned()
                }
            };
            near_cap.insert(group_name(group.id), detail);
        }
        if full && !moved.contains_key(&group.id) && cluster.leadership(group.id).is_some() {
            to_move.push(group.id);
        }
    }
    let status = cluster.heard();
    let mut handovers = Vec::new();
    for group in to_move {
        let with_room = with_room(status.as_ref(), cluster.node(), group);
        if with_room.is_empty() {
            continue;
        }
        tracing::warn!(%group, "no room in this node's log for the group: another node is to lead it");
        handovers.push(async move {
            let is_asked = cluster.yield_leadership(group, &with_room).await;
            is_asked.then_some(group)
        });
    }
    let handed_over = futures::future::join_all(handovers).await;
    moved.extend(handed_over.into_iter().flatten().map(|group| (group, now)));
    let conditions = cluster.conditions();
    conditions.replace(ConditionKind::LogNearCap, &near_cap);
    let refused = cluster.shared.wal.spares_refused();
    let refused = refused.map(|reason| ("write-ahead log".to_owned(), reason));
    conditions.replace(
        ConditionKind::LogSparesRefused,
        &refused.into_iter().collect(),
    );
}

impl Cluster {
    /// Takes a snapshot of a group here and purges the log that it covers, as in a nearly full log.
    /// Returns the last purged entry; 0 without one. For tests of replicas that were away.
    #[doc(hidden)]
    pub async fn free_log(&self, group: GroupId) -> LogIndex {
        let Ok(replica) = self.groups().get(group) else {
            return LogIndex::new(0);
        };
        free(&replica).await;
        let purged = replica.raft.metrics().borrow_watched().purged;
        LogIndex::new(purged.map_or(0, |id| id.index()))
    }
}

/// Takes a snapshot now and purges the log before it.
async fn free(group: &Group) {
    let applied = group.view.now().applied.get();
    if group.raft.trigger().snapshot().await.is_err() {
        return;
    }
    let mut receiver = group.raft.metrics();
    let taken = async {
        loop {
            let covered = receiver.borrow_watched().snapshot.map(|id| id.index());
            if covered.is_some_and(|covered| covered >= applied) {
                return covered;
            }
            if receiver.changed().await.is_err() {
                return None;
            }
        }
    };
    // A build that was in progress covers less; the log that it covers can still be purged.
    tokio::time::timeout(FREE_TIMEOUT, taken).await.ok();
    if let Some((_, covered)) = group.snapshot()
        && let Err(error) = group.raft.trigger().purge_log(covered).await
    {
        tracing::warn!(group = %group.id, %error, "log not purged: the group has stopped");
    }
}
