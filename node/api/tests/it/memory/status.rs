//! The cluster and the node.

use futures::FutureExt;
use futures::future::BoxFuture;
use henge_api::Status;
use henge_types::status::{ClusterStatus, NodeReport, NodeStatus};
use henge_types::tasks::{LeaderTaskReport, LeaderTaskState, NodeTasks};
use henge_types::{ClusterId, GroupId, Incarnation, NodeId};

use super::{Fault, Memory, lock};

impl Status for Memory {
    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        let report = self.report();
        async move {
            ClusterStatus {
                cluster_id: ClusterId::from_bytes([0xcc; 16]),
                asked: NodeId::new(1),
                healthy: true,
                shards: 8,
                nodes: vec![NodeStatus {
                    node: NodeId::new(1),
                    incarnation: Incarnation::from_bytes([0x11; 16]),
                    http: "127.0.0.1:7401".to_owned(),
                    rpc: "127.0.0.1:7441".to_owned(),
                    report: Some(report),
                }],
                placements: Vec::new(),
            }
        }
        .boxed()
    }

    fn report(&self) -> NodeReport {
        NodeReport {
            version: "1.2.3".to_owned(),
            level: 3,
            uptime_ms: 5,
            low_space: false,
            not_ready: None,
            starting: false,
            now_ms: 7,
            clock: None,
            replicas: Vec::new(),
            conditions: Vec::new(),
            conditions_left_out: 0,
        }
    }

    fn tasks(&self) -> NodeTasks {
        NodeTasks {
            node: NodeId::new(1),
            leader_tasks: vec![LeaderTaskReport {
                name: "compaction".to_owned(),
                group: GroupId::new(3),
                term: 7,
                steps: 12,
                state: LeaderTaskState::Waiting {
                    within_ms: None,
                    for_entry: true,
                },
                state_ms: 1_500,
            }],
        }
    }

    fn ready(&self) -> Result<(), String> {
        let fault = lock(&self.fault);
        if *fault == Fault::None {
            return Ok(());
        }
        Err(format!("not serving: {fault:?}"))
    }
}
