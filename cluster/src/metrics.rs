//! Names, help and observation of this crate's metrics. Labels: the group (at most 257 values), the
//! name of a command, the kind of a condition, the name of a leader task, and the reason of a
//! failed handshake.

use std::time::Duration;

use henge_types::GroupId;
use henge_types::status::Role;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::cluster::Cluster;
use crate::snapshot_policy::{self, GroupLog};

/// Registers names and help texts.
pub fn describe() {
    describe_histogram!(
        "henge_cluster_commit_seconds",
        "Time from proposing a command to its being applied on the leader, by command."
    );
    describe_counter!(
        "henge_cluster_leader_changes_total",
        "Changes of leader seen by this node, by group."
    );
    describe_counter!(
        "henge_cluster_calls_refused_total",
        "Calls of other nodes refused: certificate, cluster, number, incarnation or start."
    );
    describe_counter!(
        "henge_cluster_handshakes_failed_total",
        "Handshakes on the cluster's port that came to nothing, by reason (refused, timed_out, displaced by newer ones)."
    );
    describe_gauge!(
        "henge_cluster_applied_lag_entries",
        "Entries that this replica knows committed and has not applied, by group."
    );
    describe_gauge!(
        "henge_cluster_clock_skew_seconds",
        "How far this node's clock is ahead of the median of the members' clocks; negative when it is behind."
    );
    describe_gauge!("henge_cluster_groups_led", "Groups that this node leads.");
    describe_gauge!(
        "henge_cluster_leader_tasks",
        "Groups that a leader task runs for on this node, by task."
    );
    describe_histogram!(
        "henge_cluster_leader_task_step_seconds",
        "Time of the steps of leader tasks on this node, by task."
    );
    describe_gauge!(
        "henge_cluster_groups_stopped",
        "Groups that have stopped on this node: look at its log."
    );
    describe_gauge!(
        "henge_cluster_log_since_snapshots_bytes",
        "Log bytes of all groups since their snapshots: what a restart reads again."
    );
    describe_gauge!(
        "henge_cluster_log_since_snapshots_max_bytes",
        "What they may come to: 64 MiB, or half of the snapshots' size."
    );
    describe_counter!(
        "henge_cluster_snapshot_written_bytes_total",
        "Bytes of snapshots that this node's groups wrote; at most three per byte of log."
    );
    describe_gauge!(
        "henge_cluster_snapshots_failing",
        "Groups whose last snapshot could not be taken: look at the node's log."
    );
    describe_gauge!(
        "henge_conditions",
        "Conditions that hold on this node, by kind: `henge cluster status` says since when and what to do."
    );
    describe_gauge!(
        "henge_cluster_groups_without_leader",
        "Groups of this node that know no leader."
    );
}

/// The log of all groups since their snapshots, and the cost of the snapshots.
pub(crate) fn log_since_snapshots(cluster: &Cluster, logs: &[GroupLog]) {
    let bytes: u64 = logs.iter().map(|log| log.log_bytes).sum();
    gauge!("henge_cluster_log_since_snapshots_bytes").set(to_f64(bytes));
    gauge!("henge_cluster_log_since_snapshots_max_bytes").set(to_f64(snapshot_policy::bound(logs)));
    let builds = &cluster.shared.deps.builds;
    counter!("henge_cluster_snapshot_written_bytes_total").absolute(builds.written_bytes());
    gauge!("henge_cluster_snapshots_failing").set(f64::from(
        u32::try_from(builds.failed().len()).unwrap_or(u32::MAX),
    ));
}

/// Exact up to 2^53, rounded above.
#[expect(clippy::cast_precision_loss, reason = "a gauge has no other type")]
const fn to_f64(number: u64) -> f64 {
    number as f64
}

pub(crate) fn leader_changed(group: GroupId) {
    counter!("henge_cluster_leader_changes_total", "group" => group.to_string()).increment(1);
}

pub(crate) fn leader_task_began(task: &'static str) {
    gauge!("henge_cluster_leader_tasks", "task" => task).increment(1.0);
}

pub(crate) fn leader_task_ended(task: &'static str) {
    gauge!("henge_cluster_leader_tasks", "task" => task).decrement(1.0);
}

pub(crate) fn leader_task_stepped(task: &'static str, took: Duration) {
    histogram!("henge_cluster_leader_task_step_seconds", "task" => task).record(took);
}

pub(crate) fn handshake_failed(reason: &'static str) {
    counter!("henge_cluster_handshakes_failed_total", "reason" => reason).increment(1);
}

pub(crate) fn clock_skew(ahead_ms: i64) {
    let seconds = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
    let signed = if ahead_ms < 0 { -seconds } else { seconds };
    gauge!("henge_cluster_clock_skew_seconds").set(signed);
}

pub(crate) fn observe(cluster: &Cluster) {
    let (mut led, mut stopped, mut leaderless) = (0_u32, 0_u32, 0_u32);
    for replica in cluster.report().replicas {
        let lag = u32::try_from(
            replica
                .committed_index
                .saturating_sub(replica.applied_index),
        )
        .unwrap_or(u32::MAX);
        gauge!("henge_cluster_applied_lag_entries", "group" => replica.group.to_string())
            .set(f64::from(lag));
        led += u32::from(replica.role == Role::Leader);
        stopped += u32::from(replica.role == Role::Stopped);
        leaderless += u32::from(replica.leader.is_none());
    }
    gauge!("henge_cluster_groups_led").set(f64::from(led));
    gauge!("henge_cluster_groups_stopped").set(f64::from(stopped));
    gauge!("henge_cluster_groups_without_leader").set(f64::from(leaderless));
}
