//! What is wrong with a cluster, one sentence each, worst first.

use std::collections::BTreeMap;

use henge_types::GroupId;
use henge_types::status::{ClusterStatus, Role};

use super::{Agreement, GroupView, reports};

/// One sentence per problem. None: all is well as far as the nodes can tell.
pub fn problems(status: &ClusterStatus, groups: &[GroupView]) -> Vec<String> {
    let mut found = Vec::new();
    for group in groups.iter().filter(|g| g.state == Agreement::Differ) {
        found.push(format!(
            "{}: replicas at the same entry differ in their state; keep the data directories and report this",
            name(group.group)
        ));
    }
    groups_without_leader(groups, &mut found);
    for node in status.nodes.iter().filter(|node| node.report.is_none()) {
        found.push(format!(
            "node {} ({}) does not answer",
            node.node, node.http
        ));
    }
    for (node, report) in reports(status) {
        if report.low_space {
            found.push(format!(
                "node {node} is low on disk space: pushes are refused"
            ));
        }
        let of = |stopped: Role| {
            let groups = report.replicas.iter().filter(|r| r.role == stopped);
            groups.map(|r| r.group).collect::<Vec<GroupId>>()
        };
        let stopped = of(Role::Stopped);
        if !stopped.is_empty() {
            found.push(format!(
                "node {node} has stopped serving {}: its log says why",
                names(&stopped)
            ));
        }
        let parked: u64 = report.replicas.iter().map(|r| u64::from(r.parked)).sum();
        if parked > 0 {
            found.push(format!(
                "node {node} still fetches packs of {parked} {}",
                plural(parked, "repository", "repositories")
            ));
        }
    }
    if !status.healthy && found.is_empty() {
        found.push(format!(
            "node {} does not hear the leader of every group",
            status.asked
        ));
    }
    found
}

/// One sentence per reason, with all groups that it befell.
fn groups_without_leader(groups: &[GroupView], found: &mut Vec<String>) {
    let mut reasons: BTreeMap<String, Vec<GroupId>> = BTreeMap::new();
    for group in groups.iter().filter(|group| group.leader.is_none()) {
        let (alive, voters) = (group.voters_alive(), group.voters.len());
        let reason = if voters == 0 {
            "nobody answers for them".to_owned()
        } else if alive * 2 <= voters {
            format!("no quorum: {alive} of {voters} voters answer")
        } else {
            "no leader yet".to_owned()
        };
        reasons.entry(reason).or_default().push(group.group);
    }
    for (reason, groups) in reasons {
        found.push(format!("{}: {reason}", names(&groups)));
    }
}

fn name(group: GroupId) -> String {
    if group.is_meta() {
        "meta".to_owned()
    } else {
        format!("shard {group}")
    }
}

/// `meta, shards 1-3, 7`.
fn names(groups: &[GroupId]) -> String {
    let mut texts = Vec::new();
    if groups.iter().any(|group| group.is_meta()) {
        texts.push("meta".to_owned());
    }
    let shards: Vec<u32> = groups
        .iter()
        .filter(|group| !group.is_meta())
        .map(|group| group.get())
        .collect();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &shard in &shards {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == shard => *last = shard,
            _ => runs.push((shard, shard)),
        }
    }
    let label = if shards.len() == 1 {
        "shard "
    } else {
        "shards "
    };
    for (place, (first, last)) in runs.into_iter().enumerate() {
        let label = if place == 0 { label } else { "" };
        texts.push(if first == last {
            format!("{label}{first}")
        } else {
            format!("{label}{first}-{last}")
        });
    }
    texts.join(", ")
}

fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_in_runs() {
        let groups = |numbers: &[u32]| {
            names(
                &numbers
                    .iter()
                    .copied()
                    .map(GroupId::new)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(groups(&[0]), "meta");
        assert_eq!(groups(&[5]), "shard 5");
        assert_eq!(groups(&[0, 1, 2, 3, 7, 9, 10]), "meta, shards 1-3, 7, 9-10");
    }
}
