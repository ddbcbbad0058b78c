//! The status of the cluster as known to this node: reports, readiness, heartbeats.
//!
//! The facts are a [`ClusterStatus`]. Only [`henge_types::health`] judges them, for `/readyz` and
//! for `cluster status` alike.

use std::collections::BTreeMap;
use std::time::Duration;

use henge_proto::cluster as pb;
use henge_state::MetaView;
use henge_types::command::VERSION_KNOWN;
use henge_types::status::{ClusterStatus, NodeReport, NodeStatus};
use henge_types::{GroupId, NodeId, ShardPlacement, health};

use crate::clocks::Reading;
use crate::cluster::Cluster;

/// Time-out of a member's report for `cluster status`.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

impl Cluster {
    /// This node's report of itself.
    pub fn report(&self) -> NodeReport {
        let mut report = self.facts();
        report.not_ready = self.judge_readiness(report.clone()).err();
        report
    }

    /// The report without the node's readiness.
    fn facts(&self) -> NodeReport {
        let shared = &self.shared;
        let replicas = shared.groups.all();
        let listed = shared.conditions.list();
        NodeReport {
            version: shared.config.version.clone(),
            level: VERSION_KNOWN,
            uptime_ms: millis(shared.clock.instant().duration_since(shared.started)),
            low_space: shared.deps.effects.low_space(),
            not_ready: None,
            starting: !shared.progress.is_done(),
            now_ms: shared.clock.unix_ms(),
            clock: Some(self.clock_report()),
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

    /// How long a leader may be silent before it no longer counts as one.
    pub(crate) fn patience(&self) -> Duration {
        2 * self.shared.config.timings.lease_max()
    }

    /// The cluster status as collected by this node; members that do not answer in a second have no
    /// report.
    pub async fn status(&self) -> ClusterStatus {
        let members = self.shared.members.all();
        let asked = members.iter();
        let asked = asked.map(|member| self.ask_report_and_clock(member.node));
        let answers = futures::future::join_all(asked).await;
        self.heard_clocks(&members, &answers);
        let reports = answers
            .into_iter()
            .map(|answer| answer.map(|(report, _)| report));
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
        let mut status = ClusterStatus {
            cluster_id: self.identity().cluster,
            asked: self.node(),
            healthy: false,
            shards: self.shards(),
            nodes,
            placements: self.placements(),
        };
        status.healthy = health::groups(&status)
            .iter()
            .all(|group| group.served.is_ok());
        *self.shared.heard_generations() = generations(&status);
        *self.lock_heard() = Some(status.clone());
        status
    }

    fn placements(&self) -> Vec<ShardPlacement> {
        let meta = self.view(GroupId::META);
        meta.map_or_else(Vec::new, |meta| {
            meta.with(|state, _| MetaView::new(state).placements().collect())
        })
    }

    fn lock_heard(&self) -> std::sync::MutexGuard<'_, Option<ClusterStatus>> {
        self.shared
            .heard
            .lock()
            .expect("invariant: the status is only read and replaced")
    }

    /// The last collected cluster status, at most a few seconds old; none before the first one.
    pub fn heard(&self) -> Option<ClusterStatus> {
        self.lock_heard().clone()
    }

    pub(crate) async fn ask_report(&self, node: NodeId) -> Option<NodeReport> {
        Some(self.ask_report_and_clock(node).await?.0)
    }

    /// The same, and the reading of the member's clock relative to this node's.
    async fn ask_report_and_clock(&self, node: NodeId) -> Option<(NodeReport, Option<Reading>)> {
        if node == self.node() {
            return Some((self.report(), None));
        }
        let asked = self.asked_now();
        let mut client = self.shared.peers.cluster(node).ok()?;
        let reply = tokio::time::timeout(REPORT_TIMEOUT, client.report(pb::ReportRequest {}))
            .await
            .ok()?
            .inspect_err(|status| self.shared.starts.heard(status))
            .ok()?;
        let report: NodeReport = serde_json::from_slice(&reply.into_inner().report).ok()?;
        // A report of an older release has no time.
        let theirs = Some(report.now_ms).filter(|now_ms| *now_ms > 0);
        let reading = theirs.map(|theirs| asked.reading(theirs, self.clock().as_ref()));
        Some((report, reading))
    }

    /// Whether this node serves: every group it should hold runs here, is served and is not behind.
    ///
    /// # Errors
    /// With the reason why it does not, for `/readyz`.
    pub fn is_ready(&self) -> Result<(), String> {
        self.judge_readiness(self.facts())
    }

    /// Judges the members' last reports, and this node's present one.
    fn judge_readiness(&self, own: NodeReport) -> Result<(), String> {
        if let Some(text) = self.shared.progress.text() {
            return Err(text);
        }
        self.serving()?;
        if self.view(GroupId::META).is_none() {
            return Err("the meta group is not running".to_owned());
        }
        let placements = self.placements();
        if placements.is_empty() {
            return Err("the cluster is not formed yet".to_owned());
        }
        let Some(mut status) = self.heard() else {
            return Err("the other members were not asked yet".to_owned());
        };
        status.placements = placements;
        let own_number = self.node();
        let mine = status.nodes.iter_mut().find(|node| node.node == own_number);
        let Some(mine) = mine else {
            return Err("this node is not among the members".to_owned());
        };
        mine.report = Some(own);
        health::readiness(&status, own_number)
    }
}

/// The highest generation of request records that a replica of each group fills.
fn generations(status: &ClusterStatus) -> BTreeMap<GroupId, u64> {
    let mut highest = BTreeMap::new();
    let reports = status.nodes.iter().filter_map(|node| node.report.as_ref());
    for replica in reports.flat_map(|report| &report.replicas) {
        if let Some(generation) = replica.request_generation {
            let known = highest.entry(replica.group).or_insert(generation);
            *known = generation.max(*known);
        }
    }
    highest
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
