//! Clusters in fixed states.

use henge_types::status::{ClusterStatus, NodeReport, NodeStatus, ReplicaStatus, Role};
use henge_types::{ClusterId, GroupId, Incarnation, NodeId, ShardPlacement};

/// Three nodes, two shards, all well: node 1 leads meta, node 2 shard 1, node 3 shard 2.
pub(crate) fn well() -> ClusterStatus {
    ClusterStatus {
        cluster_id: ClusterId::from_bytes([0xc1; 16]),
        asked: NodeId::new(2),
        healthy: true,
        shards: 2,
        nodes: (1..=3).map(node).collect(),
        placements: (1..=2).map(placement).collect(),
    }
}

/// The same after nodes 1 and 3 died: no group has a quorum.
pub(crate) fn one_left() -> ClusterStatus {
    let mut status = well();
    status.healthy = false;
    for node in &mut status.nodes {
        if node.node.get() != 2 {
            node.report = None;
            continue;
        }
        for replica in replicas(node) {
            replica.role = Role::Candidate;
            replica.leader = None;
            replica.term = 9;
        }
    }
    status
}

/// The same as [`well`], but node 3 has three problems and another state of meta: it is low on
/// space, behind in shard 1, and it is fetching packs.
pub(crate) fn troubled() -> ClusterStatus {
    let mut status = well();
    let third = status.nodes.last_mut().expect("three nodes");
    third.report.as_mut().expect("it answers").low_space = true;
    for replica in replicas(third) {
        match replica.group.get() {
            0 => replica.state_hash = "ff".repeat(32),
            1 => {
                replica.applied_index = 4;
                replica.state_hash = "04".repeat(32);
                replica.parked = 2;
            }
            _ => {}
        }
    }
    status
}

/// The same as [`well`] without node 3: its shard moved to node 1.
pub(crate) fn one_dead() -> ClusterStatus {
    let mut status = well();
    status.nodes.last_mut().expect("three nodes").report = None;
    let first = status.nodes.first_mut().expect("three nodes");
    for replica in replicas(first).iter_mut().filter(|r| r.group.get() == 2) {
        replica.role = Role::Leader;
        replica.leader = Some(NodeId::new(1));
        replica.term = 8;
    }
    status
}

fn placement(group: u32) -> ShardPlacement {
    ShardPlacement {
        group: GroupId::new(group),
        replicas: (1..=3).map(NodeId::new).collect(),
        epoch: 0,
    }
}

fn replicas(node: &mut NodeStatus) -> &mut Vec<ReplicaStatus> {
    &mut node.report.as_mut().expect("it answers").replicas
}

fn node(number: u64) -> NodeStatus {
    let replica = |group: u32| {
        let leader = u64::from(group) + 1;
        ReplicaStatus {
            group: GroupId::new(group),
            role: if leader == number {
                Role::Leader
            } else {
                Role::Follower
            },
            term: 7,
            leader: Some(NodeId::new(leader)),
            last_index: 12,
            committed_index: 11,
            applied_index: 11,
            snapshot_index: 0,
            state_hash: "aa".repeat(32),
            parked: 0,
            request_generation: None,
            voters: (1..=3).map(NodeId::new).collect(),
        }
    };
    NodeStatus {
        node: NodeId::new(number),
        incarnation: Incarnation::from_bytes([1; 16]),
        http: format!("127.0.0.1:740{number}"),
        rpc: format!("127.0.0.1:744{number}"),
        report: Some(NodeReport {
            version: "0.1.0".to_owned(),
            level: 3,
            uptime_ms: 61_000 * number,
            low_space: false,
            not_ready: None,
            starting: false,
            now_ms: 1_000_000,
            clock: None,
            replicas: (0..=2).map(replica).collect(),
            conditions: Vec::new(),
            conditions_left_out: 0,
        }),
    }
}
