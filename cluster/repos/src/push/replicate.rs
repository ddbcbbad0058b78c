//! Replication of a large pack to a quorum: sent to every voter at once; only answers in the term
//! of the request count.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use henge_runtime::tasks::OnPanic;
use henge_types::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::frames::{self, RELEASE, ReleaseRequest, STAGE, StageAnswer, StageRequest};
use crate::push::input::IDLE_TIMEOUT;
use crate::quorum::is_quorum;
use crate::repos::Inner;

/// How long opening a stream to a voter may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a voter may take from the last byte to its answer: it verifies and fsyncs the pack.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often leadership and voters are read while answers are pending.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Answers of voters that are queued.
const ANSWERS_MAX: usize = 16;
/// Bytes copied at once.
const COPY_BYTES: usize = 256 * 1024;

/// Why a pack may not be proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotDurable {
    /// This node no longer leads in that term.
    NotLeader,
    /// Too few voters hold the pack.
    NoQuorum {
        /// The last error of a voter.
        why: String,
    },
}

/// Sends the pack, staged here already, to every other voter. Returns when a quorum of every voter
/// set in force holds it durably; the other voters go on receiving it in the background. This node
/// counts as long as the pack is staged here; the others count by their answers.
///
/// # Errors
/// When leadership in the claim's term is lost, or too few voters can hold it.
pub(crate) async fn make_durable(
    inner: &Arc<Inner>,
    stage: &StageRequest,
) -> Result<(), NotDurable> {
    let own = inner.cluster.node();
    let (sender, mut answers) = mpsc::channel(ANSWERS_MAX);
    let mut asked = BTreeSet::from([own]);
    let mut durable = BTreeSet::new();
    let mut waiting = 0_usize;
    let mut last = "no other voter answers".to_owned();
    loop {
        let leadership = inner.cluster.leadership(stage.claim.group);
        let leadership = leadership.filter(|leads| leads.term == stage.claim.term);
        let voters = leadership.ok_or(NotDurable::NotLeader)?.voters;
        if holds(inner, stage).await {
            durable.insert(own);
        } else {
            durable.remove(&own);
            tracing::warn!(pack = %stage.pack, "a staged pack is not here any more: another voter must hold it");
        }
        if is_quorum(&voters, &durable) {
            return Ok(());
        }
        // Voters may join during the transfer.
        let new: Vec<_> = voters
            .iter()
            .flatten()
            .filter(|node| !asked.contains(node))
            .copied()
            .collect();
        for node in new {
            if asked.insert(node) {
                waiting += 1;
                ask(inner, stage.clone(), node, sender.clone());
            }
        }
        if waiting == 0 {
            return Err(NotDurable::NoQuorum { why: last });
        }
        match tokio::time::timeout(LOOK_EVERY, answers.recv()).await {
            Ok(Some((node, Ok(())))) => {
                waiting -= 1;
                durable.insert(node);
            }
            Ok(Some((node, Err(why)))) => {
                waiting -= 1;
                tracing::warn!(%node, pack = %stage.pack, why, "a voter does not hold a pack");
                last = format!("node {node}: {why}");
            }
            Ok(None) | Err(_) => {}
        }
    }
}

async fn holds(inner: &Inner, stage: &StageRequest) -> bool {
    let (effects, stage) = (Arc::clone(&inner.effects), stage.clone());
    let looked = inner
        .work_of_replica
        .blocking("look for staged pack", move || {
            effects.staging().holds_for(&stage)
        });
    looked.await.unwrap_or(false)
}

type Answer = (NodeId, Result<(), String>);

fn ask(inner: &Arc<Inner>, stage: StageRequest, node: NodeId, answers: mpsc::Sender<Answer>) {
    let replicator = Arc::clone(inner);
    inner.scope.spawn("stage pack", OnPanic::Log, async move {
        let answer = match send(&replicator, &stage, node).await {
            Ok(StageAnswer::Durable { pack, term })
                if pack == stage.pack && term == stage.claim.term =>
            {
                Ok(())
            }
            Ok(StageAnswer::Durable { term, .. }) => Err(format!("it answered for term {term}")),
            Ok(StageAnswer::Refused(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        };
        if answers.send((node, answer)).await.is_err() {
            tracing::debug!(%node, pack = %stage.pack, "pack replicated after the push was decided");
        }
    });
}

async fn send(inner: &Inner, stage: &StageRequest, node: NodeId) -> io::Result<StageAnswer> {
    let (pack, idx) = inner.effects.staging().paths(&stage.pack);
    // Opened first: an applied entry moves the files, and open ones stay readable.
    let pack = open(&pack, stage.pack_bytes).await?;
    let idx = open(&idx, stage.idx_bytes).await?;
    let opened = inner
        .cluster
        .bulk()
        .open(node, STAGE, frames::head(stage), OPEN_TIMEOUT)
        .await;
    let mut stream = opened.map_err(io::Error::other)?;
    copy(pack, &mut stream).await?;
    copy(idx, &mut stream).await?;
    stream.flush().await?;
    let answer = tokio::time::timeout(DURABLE_TIMEOUT, frames::read(&mut stream)).await;
    answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn open(path: &Path, bytes: u64) -> io::Result<impl AsyncRead + Unpin> {
    let file = tokio::fs::File::open(path).await?;
    let length = file.metadata().await?.len();
    if length == bytes {
        return Ok(file.take(bytes));
    }
    Err(io::Error::other(format!(
        "{} has {length} bytes, not {bytes}",
        path.display()
    )))
}

/// Copies all bytes, with an idle time-out of [`IDLE_TIMEOUT`] on both sides.
pub(crate) async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<u64> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0_u64;
    loop {
        let step = async {
            let read = from.read(&mut buffer).await?;
            let bytes = buffer.get(..read).unwrap_or_default();
            to.write_all(bytes).await?;
            io::Result::Ok(read)
        };
        let read = tokio::time::timeout(IDLE_TIMEOUT, step).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 => return Ok(copied),
            read => copied = copied.saturating_add(u64::try_from(read).unwrap_or(u64::MAX)),
        }
    }
}

/// Notifies every replica in the background that the pack will not be proposed. A replica that
/// misses this drops the pack when the term is over.
pub(crate) fn release(inner: &Arc<Inner>, stage: &StageRequest) {
    let request = ReleaseRequest {
        network: stage.network,
        pack: stage.pack,
        claim: stage.claim,
    };
    let releasing = Arc::clone(inner);
    inner.scope.spawn("release pack", OnPanic::Log, async move {
        releasing.release_here(request.clone()).await;
        for node in releasing.cluster.replicas(request.claim.group) {
            if node == releasing.cluster.node() {
                continue;
            }
            let head = frames::head(&request);
            let opened = releasing
                .cluster
                .bulk()
                .open(node, RELEASE, head, OPEN_TIMEOUT)
                .await;
            if let Err(error) = opened {
                tracing::debug!(%node, %error, "cannot tell a replica to release a pack");
            }
        }
    });
}
