//! What a node does for its groups by itself: snapshots by bytes of log, freeing the log, release levels, gauges, looking
//! for what is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use henge_runtime::tasks::OnPanic;
use henge_types::{ConditionKind, limits};
use openraft::async_runtime::watch::WatchReceiver;

use crate::cluster::Cluster;
use crate::group::Group;
use crate::log_store::slot;
use crate::metrics;
use crate::starts::StartRefusal;
use crate::time::ClockSeen;
use crate::watch::Watch;

/// Between two looks at every group.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Between two questions to the members what they lead.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The same while an answer may make this node ready.
const ASK_EVERY_WHILE_NOT_READY: Duration = Duration::from_millis(100);

/// How long one group is waited for when the log is nearly full.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at release levels while the cluster is being formed, or groups have yet to follow the meta group.
const RAISE_EVERY_AT_FIRST: Duration = Duration::from_millis(100);

/// How long one group's version barrier may take; it is tried again.
const RAISE_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the upkeep tasks.
pub(crate) fn start(cluster: &Cluster) {
    let scope = &cluster.shared.scope;
    let (looking, asking) = (cluster.clone(), cluster.clone());
    let (raising, pressed) = (cluster.clone(), cluster.clone());
    let whole = OnPanic::EndProcess;
    scope.spawn("upkeep", whole, async move { look(&looking).await });
    scope.spawn("signs of life", whole, async move { ask(&asking).await });
    scope.spawn("release levels", whole, async move {
        raise(&raising).await;
    });
    scope.spawn("wal pressure", whole, async move {
        relieve(&pressed).await;
    });
}

async fn look(cluster: &Cluster) {
    let mut leaders = BTreeMap::new();
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        watch.look(cluster);
        for group in cluster.groups().all() {
            let due = snapshot_if_due(cluster, &group);
            cluster.groups().while_open(due).await;
            let leader = group.leader();
            if leaders.insert(group.id, leader) != Some(leader) && leader.is_some() {
                metrics::leader_changed(group.id);
            }
        }
        note_refused_starts(cluster);
        cluster.tend_time().await;
        metrics::observe(cluster);
    }
}

/// A refused start is a condition until the node starts anew.
fn note_refused_starts(cluster: &Cluster) {
    let (mut old_copies, mut went_back) = (BTreeMap::new(), BTreeMap::new());
    for (node, refusal) in cluster.shared.starts.refusals() {
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
        // Asking is what keeps the facts fresh that readiness is judged by.
        drop(cluster.status().await);
        cluster.mind_clock(&mut clock_seen).await;
        let pause = match cluster.is_ready() {
            Ok(()) => ASK_EVERY,
            Err(_) => ASK_EVERY_WHILE_NOT_READY,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn raise(cluster: &Cluster) {
    loop {
        let pause = match cluster.levels_are_even() {
            true => LOOK_EVERY,
            false => RAISE_EVERY_AT_FIRST,
        };
        tokio::time::sleep(pause).await;
        cluster.raise_levels(RAISE_TIMEOUT).await;
    }
}

/// Has the group that pins a nearly full log take a snapshot.
async fn relieve(cluster: &Cluster) {
    let mut pressure = cluster.shared.wal.pressure();
    loop {
        let pinning = *pressure.borrow_and_update();
        if let Some(group) = pinning.and_then(|group| cluster.groups().get(group).ok()) {
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

async fn snapshot_if_due(cluster: &Cluster, group: &Group) {
    let covered = group.snapshot().map_or(0, |(_, index)| index);
    let applied = group.view.now().applied.get();
    let bytes = cluster.shared.wal.bytes_since(group.id, slot(covered));
    let due = bytes >= limits::SNAPSHOT_LOG_BYTES
        || applied.saturating_sub(covered) >= limits::SNAPSHOT_LOG_ENTRIES;
    if due && let Err(error) = group.raft.trigger().snapshot().await {
        tracing::warn!(group = %group.id, %error, "no snapshot: the group has stopped");
    }
}

/// Takes a snapshot now and lets the log forget everything behind it.
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
    // A build that was under way covers less; what is covered can go all the same.
    tokio::time::timeout(FREE_TIMEOUT, taken).await.ok();
    if let Some((_, covered)) = group.snapshot()
        && let Err(error) = group.raft.trigger().purge_log(covered).await
    {
        tracing::warn!(group = %group.id, %error, "log not purged: the group has stopped");
    }
}
