//! How the cluster stands, as far as this node hears: reports, readiness, signs of life.

use std::collections::BTreeSet;
use std::time::Duration;

use henge_proto::cluster as pb;
use henge_state::MetaView;
use henge_types::command::VERSION_KNOWN;
use henge_types::status::{ClusterStatus, NodeReport, NodeStatus, Role};
use henge_types::{GroupId, NodeId};

use crate::cluster::Cluster;

/// How long a member gets to report for `cluster status`.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
impl Cluster {
    /// What this node says of itself.
    pub fn report(&self) -> NodeReport {
        let shared = &self.shared;
        let replicas = shared.groups.all();
        let listed = shared.conditions.list();
        NodeReport {
            version: shared.config.version.clone(),
            level: VERSION_KNOWN,
            uptime_ms: millis(shared.clock.instant().duration_since(shared.started)),
            low_space: shared.deps.effects.low_space(),
            replicas: replicas
                .iter()
                .map(|replica| {
                    let parked = shared.deps.effects.parked(replica.id);
                    replica.status(self.node(), self.patience(), parked)
                })
                .collect(),
            conditions: listed.conditions,
            conditions_left_out: listed.left_out,
        }
    }

    /// How long a leader may go unheard before it is not called one any more.
    pub(crate) fn patience(&self) -> Duration {
        2 * self.shared.config.timings.lease_max()
    }

    /// The cluster as this node sees it; members that do not answer in a second have no report.
    pub async fn status(&self) -> ClusterStatus {
        let members = self.shared.members.all();
        let reports =
            futures::future::join_all(members.iter().map(|member| self.ask_report(member.node)))
                .await;
        let nodes: Vec<NodeStatus> = members
            .into_iter()
            .zip(reports)
            .map(|(member, report)| NodeStatus {
                node: member.node,
                incarnation: member.incarnation,
                http: member.http,
                rpc: member.rpc,
                report,
            })
            .collect();
        ClusterStatus {
            cluster_id: self.identity().cluster,
            asked: self.node(),
            healthy: all_led(self.shards(), &nodes),
            shards: self.shards(),
            nodes,
        }
    }

    pub(crate) async fn ask_report(&self, node: NodeId) -> Option<NodeReport> {
        if node == self.node() {
            return Some(self.report());
        }
        let mut client = self.shared.peers.cluster(node).ok()?;
        let reply = tokio::time::timeout(REPORT_TIMEOUT, client.report(pb::ReportRequest {}))
            .await
            .ok()?
            .inspect_err(|status| self.shared.starts.heard(status))
            .ok()?;
        serde_json::from_slice(&reply.into_inner().report).ok()
    }

    /// Whether this node serves: every group it should hold runs here, and its leader said so a moment ago.
    ///
    /// # Errors
    /// With the reason it does not, for `/readyz`.
    pub fn is_ready(&self) -> Result<(), String> {
        self.serving()?;
        let Some(meta) = self.view(GroupId::META) else {
            return Err("the meta group is not running".to_owned());
        };
        let placements =
            meta.with(|state, _| MetaView::new(state).placements().collect::<Vec<_>>());
        if placements.is_empty() {
            return Err("the cluster is not formed yet".to_owned());
        }
        let led = self
            .shared
            .led
            .lock()
            .expect("invariant: the set is only read and replaced")
            .clone();
        let mine = placements
            .iter()
            .filter(|placement| placement.replicas.contains(&self.node()));
        for group in std::iter::once(GroupId::META).chain(mine.map(|placement| placement.group)) {
            let replica = self
                .shared
                .groups
                .get(group)
                .map_err(|error| error.to_string())?;
            if replica.leader_heard(self.node(), self.patience()).is_none() || !led.contains(&group)
            {
                return Err(format!("group {group} has no leader"));
            }
        }
        Ok(())
    }

    /// Asks every member what it leads and remembers it. A leader's own word counts: what a follower
    /// believes may be the leader of an earlier life.
    pub(crate) async fn listen_for_leaders(&self) {
        let members = self.shared.members.all();
        let reports = members
            .iter()
            .map(|member| async move { Some((member.node, self.ask_report(member.node).await?)) });
        let reports: Vec<_> = futures::future::join_all(reports)
            .await
            .into_iter()
            .flatten()
            .collect();
        let led = led(reports.iter().map(|(node, report)| (*node, report)));
        *self
            .shared
            .led
            .lock()
            .expect("invariant: the set is only read and replaced") = led;
    }
}

/// The groups that a member says it leads, with a quorum behind it.
fn led<'a>(reports: impl Iterator<Item = (NodeId, &'a NodeReport)>) -> BTreeSet<GroupId> {
    reports
        .flat_map(|(node, report)| report.replicas.iter().map(move |replica| (node, replica)))
        .filter(|(node, replica)| replica.role == Role::Leader && replica.leader == Some(*node))
        .map(|(_, replica)| replica.group)
        .collect()
}

/// Whether every group is led.
fn all_led(shards: u32, nodes: &[NodeStatus]) -> bool {
    let led = led(nodes
        .iter()
        .filter_map(|node| Some((node.node, node.report.as_ref()?))));
    (0..=shards).all(|group| led.contains(&GroupId::new(group)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
