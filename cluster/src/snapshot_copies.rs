//! Copies of a group's latest snapshot, for a replica without its own.
//!
//! If a replica's snapshot is damaged and its log begins after it, openraft cannot start there, so
//! no leader can send it a snapshot. The replica requests one from the other replicas. A snapshot
//! holds committed entries only, and the log and the vote of the replica stay unchanged: its
//! acknowledgements and promises remain valid.
//!
//! The response is one byte and the file, or one byte and the reason of the refusal.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use henge_runtime::Scope;
use henge_storage::snapshots::{SnapshotFile, SnapshotStore};
use henge_types::{GroupId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::group::Groups;
use crate::snapshot_file;
use crate::transport::bulk::{BulkHandler, BulkStream};

/// The bulk service that sends snapshots.
pub(crate) const SNAPSHOT_COPIES: &str = "snapshot copy";
/// Bytes read from the stream and written to the file at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Time-out of the response, and of each chunk in either direction.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest reason that is read, bytes.
const REASON_BYTES_MAX: u64 = 4096;

const FOLLOWS: u8 = 0;
const REFUSED: u8 = 1;

/// The request for a copy.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CopyHead {
    /// The group.
    pub(crate) group: GroupId,
    /// The entry that the snapshot must cover at least.
    pub(crate) least: u64,
}

impl CopyHead {
    pub(crate) fn encode(&self) -> Bytes {
        let bytes = postcard::to_stdvec(self);
        bytes
            .expect("invariant: a head is representable in postcard")
            .into()
    }
}

/// Serves [`SNAPSHOT_COPIES`].
#[derive(Clone)]
pub(crate) struct SnapshotCopies {
    groups: Groups,
    snapshots: SnapshotStore,
    scope: Scope,
}

impl SnapshotCopies {
    /// Sends the snapshots of `groups`.
    pub(crate) fn new(groups: Groups, snapshots: SnapshotStore, scope: Scope) -> Self {
        Self {
            groups,
            snapshots,
            scope,
        }
    }

    async fn hand_out(self, head: Bytes, mut stream: BulkStream) -> io::Result<()> {
        let head: CopyHead = postcard::from_bytes(&head).map_err(io::Error::other)?;
        match self.find(&head).await {
            Ok(file) => {
                let source = tokio::fs::File::open(&file.path).await?;
                in_time(stream.write_u8(FOLLOWS)).await?;
                send(source, &mut stream).await?;
            }
            Err(reason) => {
                in_time(stream.write_u8(REFUSED)).await?;
                in_time(stream.write_all(reason.to_string().as_bytes())).await?;
            }
        }
        in_time(stream.shutdown()).await
    }

    /// The latest snapshot. If it covers too little or is damaged, a new one is taken for the next
    /// request.
    async fn find(&self, head: &CopyHead) -> io::Result<SnapshotFile> {
        let group = self.groups.get(head.group).map_err(io::Error::other)?;
        let (snapshots, id) = (self.snapshots.clone(), head.group);
        let looking = self.scope.blocking("find snapshot", move || {
            let intact = snapshots.damaged(id).is_none();
            snapshots
                .latest(id)
                .map(|file| file.filter(|_| intact))
                .map_err(io::Error::other)
        });
        let latest = looking.await??;
        let covers = |file: &SnapshotFile| {
            snapshot_file::index_of(&file.meta).is_some_and(|index| index >= head.least)
        };
        if let Some(file) = latest.filter(covers) {
            return Ok(file);
        }
        let applied = group.view.now().applied.get();
        let trigger = async { group.raft.trigger().snapshot().await };
        let asked = self.groups.while_open(trigger).await;
        Err(io::Error::other(match asked {
            Some(Ok(())) if applied >= head.least => {
                "it takes a snapshot that covers enough: ask again"
            }
            Some(_) | None => "it has no snapshot that covers enough",
        }))
    }
}

impl BulkHandler for SnapshotCopies {
    fn handle(
        &self,
        peer: NodeId,
        head: Bytes,
        stream: BulkStream,
    ) -> BoxFuture<'static, io::Result<()>> {
        let service = self.clone();
        Box::pin(async move {
            let handed_out = service.hand_out(head, stream).await;
            if let Err(error) = &handed_out {
                tracing::warn!(%peer, %error, "snapshot not handed out");
            }
            handed_out
        })
    }
}

async fn in_time<T>(reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let read = tokio::time::timeout(CHUNK_TIMEOUT, reading).await;
    read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Sends the whole file; ends after a time-out if the receiver stalls.
async fn send(
    mut source: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        let mut next = (&mut source).take(CHUNK_BYTES as u64);
        next.read_to_end(&mut chunk).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        in_time(to.write_all(&chunk)).await?;
    }
}

/// Reads a response into a file without a name, and verifies it.
///
/// # Errors
/// When the other replica refused, or the bytes or the disk are damaged.
pub(crate) async fn receive(
    mut stream: impl AsyncRead + Unpin,
    (snapshots, group): (SnapshotStore, GroupId),
    scope: &Scope,
) -> io::Result<SnapshotFile> {
    if in_time(stream.read_u8()).await? != FOLLOWS {
        let mut reason = String::new();
        let mut stream = stream.take(REASON_BYTES_MAX);
        in_time(stream.read_to_string(&mut reason)).await?;
        return Err(io::Error::other(reason));
    }
    let opening = scope.blocking("open snapshot", move || {
        snapshots.receiver(group).map_err(io::Error::other)
    });
    let mut receiver = opening.await??;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut next = (&mut stream).take(CHUNK_BYTES as u64);
        in_time(next.read_to_end(&mut chunk)).await?;
        if chunk.is_empty() {
            break;
        }
        let writing = scope.blocking("write snapshot", move || {
            io::Write::write_all(&mut receiver, &chunk)?;
            io::Result::Ok(receiver)
        });
        receiver = writing.await??;
    }
    let verifying = scope.blocking("verify snapshot", move || {
        receiver.finish().map_err(io::Error::other)
    });
    verifying.await?
}
