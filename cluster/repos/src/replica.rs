//! Services of a replica for other nodes: it stages packs for leaders, releases them, and sends
//! packs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use henge_cluster::{BulkStream, Effects};
use henge_state::ShardView;
use henge_storage::objects::blocks::{BLOCK_BYTES, BlockMismatch, BlockSums, FileSums};
use henge_storage::objects::{ObjectError, ObjectStore, Quarantine};
use henge_types::{LogIndex, NetworkId, NodeId, PackId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::asking::Request;
use crate::frames::{self, PackAnswer, PackRequest, ReleaseRequest, StageAnswer, StageRequest};
use crate::parking::Missing;
use crate::push::input::IDLE_TIMEOUT;
use crate::push::replicate::copy;
use crate::repos::Inner;
use crate::staging::Trust;

/// Blocks that are verified and sent at once.
const SENT_BLOCKS: usize = 16;
/// How long the other side may take to read the last bytes.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);

impl Inner {
    /// Receives a pack for a leader and makes it durable.
    async fn stage_for(
        &self,
        stage: &StageRequest,
        stream: &mut BulkStream,
    ) -> io::Result<StageAnswer> {
        if let Some(refusal) = self.refuse_stage(stage) {
            return Ok(refusal);
        }
        let begun_at = self.cluster.state(stage.claim.group).map(|at| at.applied);
        let objects = self.objects().clone();
        let quarantine = self
            .work_of_replica
            .blocking("quarantine", move || quarantine(&objects))
            .await??;
        let (pack, idx) = (
            quarantine.path().join("pack"),
            quarantine.path().join("idx"),
        );
        // An entry that names the pack meanwhile does not cause a fetch.
        let arriving = self.arrivals.begin(stage.network, stage.pack);
        receive_file(stream, stage.pack_bytes, &pack).await?;
        receive_file(stream, stage.idx_bytes, &idx).await?;
        let (effects, request) = (Arc::clone(&self.effects), stage.clone());
        let kept = self.work_of_replica.blocking("stage", move || {
            let kept = effects
                .staging()
                .keep(&request, (&pack, &idx), Trust::Received);
            drop(quarantine);
            kept
        });
        if let Err(error) = kept.await? {
            tracing::error!(pack = %stage.pack, %error, "cannot stage a pack");
            return Ok(StageAnswer::Refused(error.to_string()));
        }
        let release = ReleaseRequest {
            network: stage.network,
            pack: stage.pack,
            claim: stage.claim,
        };
        // The term may have ended during the transfer: the answer must not be counted.
        if let Some(refusal) = self.refuse_stage(stage) {
            self.release_here(release).await;
            return Ok(refusal);
        }
        let is_decided = self.is_named_since(stage, begun_at);
        if is_decided && self.objects().has_pack(&stage.network, &stage.pack) {
            // The entry came first and the pack was fetched: one copy is enough. A copy that was
            // there before, or that another push brought, may be replaced before this push's entry
            // comes.
            self.release_here(release).await;
        } else {
            self.promote_if_missing(stage, is_decided).await?;
        }
        drop(arriving);
        Ok(StageAnswer::Durable {
            pack: stage.pack,
            term: stage.claim.term,
        })
    }

    /// Whether the entry for which the pack is staged has been applied here.
    fn is_named_since(&self, stage: &StageRequest, begun_at: Option<LogIndex>) -> bool {
        let Some(at) = self.cluster.state(stage.claim.group) else {
            return false;
        };
        let view = ShardView::new(&at.state);
        if !stage.claim.is_for(None) {
            return view.request(&stage.claim.request).is_some();
        }
        let named = view.pack(&stage.network, &stage.pack);
        named.is_some_and(|named| Some(named.named_at) > begun_at)
    }

    fn refuse_stage(&self, stage: &StageRequest) -> Option<StageAnswer> {
        let term = self.cluster.term(stage.claim.group);
        if term > stage.claim.term {
            let why = format!(
                "the group is in term {term}, the leader of {} is over",
                stage.claim.term
            );
            return Some(StageAnswer::Refused(why));
        }
        let bytes = stage.pack_bytes.saturating_add(stage.idx_bytes);
        let takes = !self.effects.low_space() && self.effects.has_room_for(bytes);
        (!takes).then(|| StageAnswer::Refused("disk space is low".to_owned()))
    }

    /// Moves the pack into the store if its entry came first and parked the network.
    async fn promote_if_missing(&self, stage: &StageRequest, is_decided: bool) -> io::Result<()> {
        let missing = Missing {
            group: stage.claim.group,
            network: stage.network,
            pack: stage.pack,
        };
        if !self.effects.parking().contains(&missing) {
            return Ok(());
        }
        let effects = Arc::clone(&self.effects);
        let request = is_decided.then_some(stage.claim.request);
        let promoted = self.work_of_replica.blocking("promote", move || {
            effects.promote_missing(&missing, request)
        });
        promoted.await?.map_err(io::Error::other)
    }

    /// Drops a claim on this node.
    pub(crate) async fn release_here(&self, request: ReleaseRequest) {
        let effects = Arc::clone(&self.effects);
        let released = self.work_of_replica.blocking("release", move || {
            let (staging, parking) = (effects.staging(), effects.parking());
            staging.release(&request.pack, &request.claim, |pack| parking.contains(pack))
        });
        match released.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "cannot remove a released pack"),
            Err(error) => tracing::error!(%error, "cannot remove a released pack"),
        }
    }

    async fn hand_out(&self, request: PackRequest, stream: &mut BulkStream) -> io::Result<()> {
        let effects = Arc::clone(&self.effects);
        let _reading = self.effects.readers().enter(request.network);
        let of = Missing {
            group: request.network.shard(self.cluster.shards()),
            network: request.network,
            pack: request.pack,
        };
        let is_parked = self.effects.parking().contains(&of);
        let objects = self.objects().clone();
        let opened = self.work_of_replica.blocking("open pack", move || {
            if !is_parked && objects.has_pack(&of.network, &of.pack) {
                return open_pack(&objects, &of.network, &of.pack);
            }
            // Named by an entry that is not applied here yet.
            let staged = effects.staging().holds(&of.network, &of.pack);
            Ok(staged.then(|| open_staged(&objects, &of.pack)).flatten())
        });
        let opened = match opened.await? {
            Ok(opened) => opened,
            Err(error @ ObjectError::BrokenPack { .. }) => {
                self.found_damaged(of, &error.to_string());
                None
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        let Some(Opened { pack, idx, sums }) = opened else {
            return self.hand_out_logged(of, stream).await;
        };
        let answer = PackAnswer::Here {
            pack_bytes: pack.1,
            idx_bytes: idx.1,
        };
        frames::write(stream, &answer).await?;
        let (pack_sums, idx_sums) = match &sums {
            Some(sums) => (Some(&sums.pack), Some(&sums.idx)),
            None => (None, None),
        };
        for (file, sums) in [(pack, pack_sums), (idx, idx_sums)] {
            if let Some(mismatch) = send_compared(file, sums, stream).await? {
                // The other side detects that the file is incomplete.
                self.found_damaged(of, &mismatch.to_string());
                return Err(io::Error::other(mismatch));
            }
        }
        stream.shutdown().await
    }
}

impl Inner {
    /// Sends a small pack from the log, or the answer that it is missing: this replica has no
    /// intact file of it, and the log may hold the only copy.
    async fn hand_out_logged(&self, missing: Missing, stream: &mut BulkStream) -> io::Result<()> {
        let named_at = self.named_at(&missing);
        let effects = Arc::clone(&self.effects);
        let logged = self.work_of_replica.blocking("read logged pack", move || {
            let Some(named_at) = named_at else {
                return Ok(None);
            };
            effects.logged_pack(missing.group, named_at, &missing.pack)
        });
        let Some(inline) = logged.await??.and_then(|named| named.inline) else {
            frames::write(stream, &PackAnswer::Missing).await?;
            return stream.shutdown().await;
        };
        let bytes = |part: &Bytes| u64::try_from(part.len()).unwrap_or(u64::MAX);
        let answer = PackAnswer::Here {
            pack_bytes: bytes(&inline.pack),
            idx_bytes: bytes(&inline.idx),
        };
        frames::write(stream, &answer).await?;
        copy(inline.pack.as_ref(), stream).await?;
        copy(inline.idx.as_ref(), stream).await?;
        stream.shutdown().await
    }
}

type FileOf = (std::fs::File, u64);

/// The open files of a pack.
struct Opened {
    pack: FileOf,
    idx: FileOf,
    /// `None` without a file of checksums: the other side verifies the complete pack in any case.
    sums: Option<BlockSums>,
}

/// Pack and index, if both are here.
fn open_pack(
    objects: &ObjectStore,
    network: &NetworkId,
    pack: &PackId,
) -> Result<Option<Opened>, ObjectError> {
    let sized = |opened: Result<std::fs::File, ObjectError>| match opened {
        Ok(file) => {
            let bytes = file.metadata().map(|file| file.len());
            Ok(bytes.ok().map(|bytes| (file, bytes)))
        }
        Err(ObjectError::MissingPack(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let files = sized(objects.open_pack(network, pack))?;
    let files = files.zip(sized(objects.open_idx(network, pack))?);
    let Some((pack_file, idx_file)) = files else {
        return Ok(None);
    };
    Ok(Some(Opened {
        pack: pack_file,
        idx: idx_file,
        sums: objects.block_sums(network, pack)?,
    }))
}

/// A pack that is staged here; the other side verifies it. `None` when it has been moved meanwhile.
fn open_staged(objects: &ObjectStore, pack: &PackId) -> Option<Opened> {
    let (pack_path, idx_path) = objects.staged_paths(pack);
    let sized = |path: &Path| {
        let file = std::fs::File::open(path).ok()?;
        let bytes = file.metadata().ok()?.len();
        Some((file, bytes))
    };
    let (pack, idx) = sized(&pack_path).zip(sized(&idx_path))?;
    Some(Opened {
        pack,
        idx,
        sums: None,
    })
}

/// Sends a file, each piece after its verification. Returns the first block that differs, which is
/// not sent.
async fn send_compared(
    (file, bytes): FileOf,
    sums: Option<&FileSums>,
    stream: &mut BulkStream,
) -> io::Result<Option<BlockMismatch>> {
    let mut file = tokio::fs::File::from_std(file);
    let Some(sums) = sums else {
        copy(file.take(bytes), stream).await?;
        return Ok(None);
    };
    let mut piece = vec![0; SENT_BLOCKS * BLOCK_BYTES];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).map_or(piece.len(), |left| left.min(piece.len()));
        let piece = piece.get_mut(..length).unwrap_or_default();
        file.read_exact(piece).await?;
        if let Err(mismatch) = sums.check_piece(at, piece) {
            return Ok(Some(mismatch));
        }
        tokio::time::timeout(IDLE_TIMEOUT, stream.write_all(piece)).await??;
        at += length as u64;
    }
    Ok(None)
}

/// A new quarantine: two attempts at one push must not remove each other's files. Blocking.
///
/// # Errors
/// When it cannot be created.
pub(crate) fn quarantine(objects: &ObjectStore) -> io::Result<Quarantine> {
    let name = u128::from_be_bytes(henge_runtime::random_bytes());
    objects
        .quarantine(&format!("{name:032x}"))
        .map_err(io::Error::other)
}

/// Writes the next `bytes` bytes of the stream to a new file.
pub(crate) async fn receive_file(
    stream: &mut BulkStream,
    bytes: u64,
    path: &Path,
) -> io::Result<()> {
    let mut file = tokio::fs::File::create_new(path).await?;
    let copied = copy(stream.take(bytes), &mut file).await?;
    if copied != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Flushed to the operating system; the move makes it durable.
    file.flush().await
}

impl Request for StageRequest {
    const SERVICE: &'static str = frames::STAGE;

    async fn serve(
        self,
        inner: Arc<Inner>,
        peer: NodeId,
        mut stream: BulkStream,
    ) -> io::Result<()> {
        tracing::debug!(%peer, pack = %self.pack, bytes = self.pack_bytes, "pack to stage");
        let answer = inner.stage_for(&self, &mut stream).await?;
        frames::write(&mut stream, &answer).await?;
        tokio::time::timeout(GOODBYE_TIMEOUT, stream.shutdown()).await?
    }
}

impl Request for ReleaseRequest {
    const SERVICE: &'static str = frames::RELEASE;

    async fn serve(self, inner: Arc<Inner>, _: NodeId, mut stream: BulkStream) -> io::Result<()> {
        inner.release_here(self).await;
        stream.shutdown().await
    }
}

impl Request for PackRequest {
    const SERVICE: &'static str = frames::PACK;

    async fn serve(self, inner: Arc<Inner>, _: NodeId, mut stream: BulkStream) -> io::Result<()> {
        inner.hand_out(self, &mut stream).await
    }
}
