//! The judgement of a cluster's status. One pure function: `cluster status`, its exit code and
//! `/readyz` come from the same facts by the same rules, so that they cannot contradict each other.
//!
//! - `groups`: every group, from the reports of all its replicas, and whether it is served.
//! - `problems`: the faults, each with its subject, its duration and the advice.

use serde::{Deserialize, Serialize};

use crate::conditions::Severity;
use crate::ids::NodeId;
use crate::status::{ClusterStatus, Role};

mod groups;
mod names;
mod problems;
#[cfg(test)]
mod tests;

pub use groups::{Agreement, GroupView, ReplicaView, groups};
pub use names::{group_name, group_names};
pub use problems::{Problem, lag_subject, problems};

use groups::reports;
use problems::lagging_subject;

/// The verdict on a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is no problem.
    Ok,
    /// Every group is served and no data is in danger, but there is a problem.
    Degraded,
    /// Some group is not served, or acknowledged data is in danger.
    Failing,
}

/// A status, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The worst of the problems.
    pub verdict: Verdict,
    /// Every group of the cluster.
    pub groups: Vec<GroupView>,
    /// The problems, worst first.
    pub problems: Vec<Problem>,
}

/// Judges a status.
pub fn judge(status: &ClusterStatus) -> Health {
    let groups = groups(status);
    let problems = problems(status, &groups);
    let worst = problems.iter().map(|problem| problem.severity).max();
    let verdict = match worst {
        None => Verdict::Ok,
        Some(Severity::Degraded) => Verdict::Degraded,
        Some(Severity::Failing) => Verdict::Failing,
    };
    Health {
        verdict,
        groups,
        problems,
    }
}

/// Whether a node serves, from the same facts: every group that it should hold runs on it, is
/// served and is not behind.
///
/// # Errors
/// With the reason for `/readyz`.
pub fn readiness(status: &ClusterStatus, node: NodeId) -> Result<(), String> {
    let Some((_, report)) = reports(status).find(|(other, _)| *other == node) else {
        return Err(format!("node {node} says nothing of itself"));
    };
    if status.placements.is_empty() {
        return Err("the cluster is not formed yet".to_owned());
    }
    let groups = groups(status);
    for group in groups.iter().filter(|group| group.should_be_on(node)) {
        let name = group.group;
        let replica = report.replicas.iter().find(|r| r.group == name);
        match replica.map(|replica| replica.role) {
            None => return Err(format!("this node holds no replica of group {name}")),
            Some(Role::Stopped) => return Err(format!("group {name} has stopped on this node")),
            Some(Role::Leader | Role::Follower | Role::Candidate | Role::Learner) => {}
        }
        if let Err(reason) = &group.served {
            return Err(format!("group {name} has no leader: {reason}"));
        }
        if let Some(behind) = lagging_subject(status, name, node) {
            return Err(format!("group {name} lags on this node: {behind}"));
        }
    }
    Ok(())
}
