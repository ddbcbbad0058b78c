//! Packs of a repository: figures, compaction, and checks of what is in them.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, MaintainRepo};
use henge_types::NodeId;
use henge_types::status::{
    CheckOutcome, CompactionDepth, CompactionState, LastCompaction, ReplicaCheck, RepoCheck,
    RepoStats,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody};
use crate::router::Api;
use crate::timestamp::rfc3339;

/// What a repository's fork network takes on disk.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    leader: NodeId,
    packs: u64,
    objects: u64,
    pack_bytes: u64,
    idx_bytes: u64,
    bitmap: bool,
    compaction: CompactionState,
    last_compaction: Option<Compaction>,
    prune_mark: Option<String>,
}

/// A compaction that ended.
#[derive(Debug, Serialize)]
struct Compaction {
    at: String,
    took_ms: u64,
    replaced: u32,
    bytes: u64,
    failed: Option<String>,
    dropped: Option<u64>,
    run: u64,
}

impl From<LastCompaction> for Compaction {
    fn from(last: LastCompaction) -> Self {
        Self {
            at: rfc3339(last.at_ms),
            took_ms: last.took_ms,
            replaced: last.replaced,
            bytes: last.bytes,
            failed: last.failed,
            dropped: last.dropped,
            run: last.run,
        }
    }
}

impl From<RepoStats> for Stats {
    fn from(stats: RepoStats) -> Self {
        Self {
            leader: stats.leader,
            packs: stats.packs,
            objects: stats.objects,
            pack_bytes: stats.pack_bytes,
            idx_bytes: stats.idx_bytes,
            bitmap: stats.bitmap,
            compaction: stats.compaction,
            last_compaction: stats.last_compaction.map(Compaction::from),
            prune_mark: stats.prune_mark_ms.map(rfc3339),
        }
    }
}

/// The figures, and what every replica found when it last checked its store.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    stats: Stats,
    /// None when the replicas cannot be asked now.
    last_fsck: Option<Vec<ReplicaFsck>>,
}

#[derive(Debug, Serialize)]
struct ReplicaFsck {
    node: NodeId,
    /// None when there was none yet.
    last: Option<LastFsck>,
    /// Why the node could not be asked.
    failed: Option<String>,
}

/// A check that ended.
#[derive(Debug, Serialize)]
struct LastFsck {
    at: String,
    took_ms: u64,
    objects: u64,
    findings: u64,
    repaired: u64,
    failed: Option<String>,
}

impl From<ReplicaCheck> for ReplicaFsck {
    fn from(check: ReplicaCheck) -> Self {
        Self {
            node: check.node,
            last: check.last.map(LastFsck::from),
            failed: check.failed,
        }
    }
}

impl From<CheckOutcome> for LastFsck {
    fn from(outcome: CheckOutcome) -> Self {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Self {
            at: rfc3339(outcome.ended_at_ms),
            took_ms: outcome.took_ms,
            objects: outcome.objects,
            findings: count(outcome.problems.len()).saturating_add(outcome.more_problems),
            repaired: count(outcome.repaired.len()),
            failed: outcome.failed,
        }
    }
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/stats`
pub(crate) async fn stats(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<Shown>, ApiError> {
    let (stats, checks) = tokio::join!(api.backend.stats(&path), api.backend.checks(&path, &[]));
    let last_fsck = checks
        .inspect_err(|error| tracing::debug!(%path, %error, "the last checks cannot be told"))
        .map(|checks| checks.replicas.into_iter().map(ReplicaFsck::from).collect());
    Ok(Json(Shown {
        stats: stats?.into(),
        last_fsck: last_fsck.ok(),
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gc {
    #[serde(default)]
    aggressive: bool,
    /// Drops what no ref has reached for so many seconds.
    prune: Option<u64>,
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/gc`: 202 at once. It is over when `stats` says `idle` and has another
/// `last_compaction`.
pub(crate) async fn gc(
    by: Authorized<MaintainRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(body): JsonBody<Gc>,
) -> Result<(StatusCode, Json<Stats>), ApiError> {
    let depth = match (body.prune, body.aggressive) {
        (Some(seconds), _) => CompactionDepth::Prune {
            grace_ms: seconds.saturating_mul(1000),
        },
        (None, true) => CompactionDepth::Everything,
        (None, false) => CompactionDepth::Geometric,
    };
    let stats = api.backend.compact(by.principal(), &path, depth).await?;
    Ok((StatusCode::ACCEPTED, Json(stats.into())))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fsck {
    /// None: all replicas.
    #[serde(default)]
    nodes: Vec<NodeId>,
    #[serde(default)]
    repair: bool,
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/fsck`: 202 at once. A replica's check is over when its `last.run` is no lower
/// than the `run` of this answer.
pub(crate) async fn start_fsck(
    by: Authorized<MaintainRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(body): JsonBody<Fsck>,
) -> Result<(StatusCode, Json<RepoCheck>), ApiError> {
    let started = api
        .backend
        .start_check(by.principal(), &path, &body.nodes, body.repair)
        .await?;
    Ok((StatusCode::ACCEPTED, Json(started)))
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/fsck`
pub(crate) async fn fsck(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<RepoCheck>, ApiError> {
    Ok(Json(api.backend.checks(&path, &[]).await?))
}
