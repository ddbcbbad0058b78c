//! How a group gets its first entry.
//!
//! The first founder begins the meta group; the first replica of the table begins a shard. If that
//! one is down, the next one begins after a delay. Several may begin, since all of them write the
//! same first entry. For a shard it follows from the table. For the meta group it follows from the
//! founders, and a majority of them must have agreed on it.

use std::collections::BTreeSet;
use std::time::Duration;

use henge_runtime::tasks::OnPanic;
use henge_types::{GroupId, NodeId};
use openraft::errors::{InitializeError, RaftError};

use super::{Formation, configuration};
use crate::cluster::Cluster;
use crate::raft::Raft;
use crate::starts::registration;

/// How long a replica waits per replica before it in the order, before it begins the group itself.
const BEGIN_INSTEAD: Duration = Duration::from_secs(3);

impl Formation {
    /// Begins a group that has never had a log here: at once on the first replica, after a delay on
    /// the others.
    pub(super) async fn begin(
        &self,
        group: GroupId,
        raft: &Raft,
        replicas: &[NodeId],
    ) -> Result<(), String> {
        let own = self.cluster.node();
        let mut order = replicas.to_vec();
        if group.is_meta() {
            order.sort_unstable();
        }
        let place = order.iter().position(|replica| *replica == own);
        let Some(before) = place.and_then(|place| u32::try_from(place).ok()) else {
            return Ok(());
        };
        if before == 0 {
            return initialise(raft, replicas).await;
        }
        // Replicas outside the first placement of the table get the log of those in it.
        let placement = self.meta(|meta| meta.placement(group)).flatten();
        if !group.is_meta() && placement.is_none_or(|placement| placement.epoch > 0) {
            return Ok(());
        }
        let (cluster, raft, replicas) = (self.cluster.clone(), raft.clone(), replicas.to_vec());
        let scope = &self.cluster.shared.scope;
        scope.spawn("begin group", OnPanic::EndProcess, async move {
            let beginning = begin_later(&cluster, group, &raft, &replicas, before);
            cluster.groups().while_open(beginning).await;
        });
        Ok(())
    }
}

/// Begins the group if the `before` replicas in front of this one have not done so within their
/// time.
async fn begin_later(
    cluster: &Cluster,
    group: GroupId,
    raft: &Raft,
    replicas: &[NodeId],
    before: u32,
) {
    loop {
        tokio::time::sleep(BEGIN_INSTEAD * before).await;
        if !matches!(raft.is_initialized().await, Ok(false)) {
            return;
        }
        if !group.is_meta() || founders_agree(cluster).await {
            break;
        }
    }
    tracing::info!(%group, "the replicas before this one have not begun the group: begun here");
    if let Err(error) = initialise(raft, replicas).await {
        tracing::warn!(%group, %error, "the group was not begun");
    }
}

/// Whether a majority of the founders has the same configuration as this one, and no founder
/// reports another.
async fn founders_agree(cluster: &Cluster) -> bool {
    let own = configuration::digest(&cluster.shared.config);
    let said = registration::founders_said(cluster).await;
    if let Some((node, _)) = said.iter().find(|(_, digest)| *digest != own) {
        tracing::warn!(%node, "the cluster is not begun: this founder has other founders, shards or replicas in its node.toml");
        return false;
    }
    said.len() + 1 > cluster.shared.config.founders.len() / 2
}

async fn initialise(raft: &Raft, replicas: &[NodeId]) -> Result<(), String> {
    let members: BTreeSet<u64> = replicas.iter().map(|node| node.get()).collect();
    match raft.initialize(members).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
