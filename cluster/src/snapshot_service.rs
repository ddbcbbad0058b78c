//! Receives snapshots from a leader over a bulk stream, verifies, stores and installs them.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use henge_runtime::Scope;
use henge_storage::snapshots::SnapshotStore;
use henge_types::NodeId;
use openraft::storage::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::effects::Effects;
use crate::group::Groups;
use crate::machine::meta_of;
use crate::network::SnapshotHead;
use crate::raft::{Position, decode_vote, encode_vote};
use crate::transport::bulk::{BulkHandler, BulkStream};

/// Bytes read from the stream and written to the file at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Serves [`crate::network::SNAPSHOT_SERVICE`].
#[derive(Clone)]
pub(crate) struct SnapshotService {
    groups: Groups,
    snapshots: SnapshotStore,
    effects: Arc<dyn Effects>,
    scope: Scope,
}

impl std::fmt::Debug for SnapshotService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotService").finish_non_exhaustive()
    }
}

impl SnapshotService {
    /// Installs into `groups` through `snapshots`.
    pub(crate) fn new(
        groups: Groups,
        snapshots: SnapshotStore,
        effects: Arc<dyn Effects>,
        scope: Scope,
    ) -> Self {
        Self {
            groups,
            snapshots,
            effects,
            scope,
        }
    }

    async fn take(self, head: Bytes, mut stream: BulkStream) -> io::Result<()> {
        let head: SnapshotHead = postcard::from_bytes(&head).map_err(io::Error::other)?;
        let group = self.groups.get(head.group).map_err(io::Error::other)?;
        let vote = decode_vote(&head.vote).map_err(io::Error::other)?;
        // The installation purges the log, which may hold packs that no other replica has written
        // either.
        let in_log_only = self.effects.in_log_only(head.group);
        if in_log_only > 0 {
            return Err(io::Error::other(format!(
                "the log of group {} holds the only copy of {in_log_only} packs here: make their folder writable or free disk space, then the snapshot is taken",
                head.group
            )));
        }
        let (snapshots, id) = (self.snapshots.clone(), head.group);
        let mut receiver = self
            .scope
            .blocking("open snapshot", move || {
                snapshots.receiver(id).map_err(io::Error::other)
            })
            .await??;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            (&mut stream)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)
                .await?;
            if chunk.is_empty() {
                break;
            }
            receiver = self
                .scope
                .blocking("write snapshot", move || {
                    io::Write::write_all(&mut receiver, &chunk)?;
                    io::Result::Ok(receiver)
                })
                .await??;
        }
        let file = self
            .scope
            .blocking("verify snapshot", move || {
                receiver.finish().map_err(io::Error::other)
            })
            .await??;
        // The checksum covers the position in the file; the head's position only announces it.
        let position = Position::decode(&file.meta).map_err(io::Error::other)?;
        let snapshot = Snapshot {
            meta: meta_of(&position),
            snapshot: file,
        };
        let install = group.raft.install_full_snapshot(vote, snapshot);
        let installed = self.groups.while_open(install).await;
        let answer = installed
            .ok_or_else(|| io::Error::other("this node is stopping"))?
            .map_err(io::Error::other)?;
        stream.write_all(&encode_vote(&answer.vote)).await?;
        stream.shutdown().await
    }
}

impl BulkHandler for SnapshotService {
    fn handle(
        &self,
        peer: NodeId,
        head: Bytes,
        stream: BulkStream,
    ) -> BoxFuture<'static, io::Result<()>> {
        let service = self.clone();
        Box::pin(async move {
            let taken = service.take(head, stream).await;
            if let Err(error) = &taken {
                tracing::warn!(%peer, %error, "snapshot not taken");
            }
            taken
        })
    }
}
