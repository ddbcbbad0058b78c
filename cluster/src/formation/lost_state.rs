//! The start of a group whose state is missing on this disk ([`crate::lost_state`]).

use std::io;
use std::time::Duration;

use henge_types::{GroupId, LogIndex, NodeId};

use super::Formation;
use crate::lost_state::{self, Gap};
use crate::raft::Position;
use crate::snapshot_copies::{self, CopyHead, SNAPSHOT_COPIES};
use crate::start_error::StartError;

/// Time-outs of one replica: to answer, and to send its snapshot of any size. Each chunk has a
/// time-out of its own.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
const SEND_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a node without its meta group asks before it gives up; other groups are retried beside
/// the running ones.
const META_ASKS_FOR: Duration = Duration::from_secs(60);
/// Between two rounds.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Formation {
    /// Ensures that the state at `position` or a snapshot reaches the group's log. If neither on
    /// this disk does, it takes the snapshot of another replica. Returns the last entry up to which
    /// packs were certainly durable then; `None` without a gap.
    ///
    /// # Errors
    /// When no other replica gives its snapshot.
    pub(super) async fn reach_log(
        &self,
        group: GroupId,
        replicas: &[NodeId],
        position: &Position,
    ) -> Result<Option<LogIndex>, StartError> {
        let shared = &self.cluster.shared;
        let (wal, snapshots) = (shared.wal.clone(), shared.deps.snapshots.clone());
        let position = position.clone();
        let looking = shared.scope.blocking("find snapshot", move || {
            lost_state::gap(group, &wal, &snapshots, &position)
        });
        let found = looking.await.and_then(|found| found);
        let Some(gap) = found.map_err(StartError::io("cannot look for a snapshot"))? else {
            return Ok(None);
        };
        tracing::error!(%group, %gap, "the state of the group is lost on this node: other replicas are asked for theirs");
        let since = shared.clock.instant();
        loop {
            let asked = self.ask_all(group, replicas, &gap).await;
            let Err(refusals) = asked else {
                return Ok(Some(LogIndex::new(gap.purged)));
            };
            let waited = shared.clock.instant().duration_since(since);
            let alone = replicas.len() < 2;
            if alone || !group.is_meta() || waited >= META_ASKS_FOR {
                return Err(StartError::StateLost {
                    group,
                    gap: gap.to_string(),
                    asked: if alone {
                        "the group has no other replica".to_owned()
                    } else {
                        format!("no other replica gave its state: {}", refusals.join("; "))
                    },
                });
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Asks one replica after the other until one gives its snapshot. On failure, returns the error
    /// of each.
    async fn ask_all(
        &self,
        group: GroupId,
        replicas: &[NodeId],
        gap: &Gap,
    ) -> Result<(), Vec<String>> {
        let own = self.cluster.node();
        let mut refusals = Vec::new();
        for node in replicas.iter().filter(|node| **node != own) {
            let asking = tokio::time::timeout(SEND_TIMEOUT, self.ask_one(group, *node, gap));
            match asking.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => refusals.push(format!("node {node}: {error}")),
                Err(_) => refusals.push(format!("node {node}: its snapshot took too long")),
            }
        }
        Err(refusals)
    }

    async fn ask_one(&self, group: GroupId, node: NodeId, gap: &Gap) -> io::Result<()> {
        let shared = &self.cluster.shared;
        let head = CopyHead {
            group,
            least: gap.purged,
        };
        let opening = shared
            .bulk
            .open(node, SNAPSHOT_COPIES, head.encode(), OPEN_TIMEOUT);
        let stream = opening.await.map_err(io::Error::other)?;
        let snapshots = (shared.deps.snapshots.clone(), group);
        let file = snapshot_copies::receive(stream, snapshots.clone(), &shared.scope).await?;
        let covered = lost_state::adopt(gap, &shared.wal, snapshots, file, &shared.scope).await?;
        tracing::warn!(%group, %node, index = covered.index(), "the state of the group was taken from another replica");
        Ok(())
    }

    /// Makes the packs durable that a taken state names and this disk has, as under a snapshot of
    /// the node's own.
    pub(super) async fn settle_taken(&self, group: GroupId, state: henge_state::State) {
        let effects = std::sync::Arc::clone(&self.cluster.shared.deps.effects);
        let scope = &self.cluster.shared.scope;
        let settling = scope.blocking("flush packs", move || {
            effects.before_snapshot(group, &state)
        });
        if let Err(error) = settling.await.and_then(|settled| settled) {
            tracing::warn!(%group, %error, "not all packs are durable yet: the next snapshot waits for them");
        }
    }
}
