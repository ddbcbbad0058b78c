//! Packs of a repository: figures and compaction.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, MaintainRepo};
use henge_client::model::{Compaction, Gc, LastFsck, ReplicaFsck, RepoStats};
use henge_types::status::{self, CheckOutcome, LastCompaction, ReplicaCheck};
use http::StatusCode;

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody};
use crate::routes::{Routes, get, post};
use crate::timestamp::rfc3339;

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/stats",
            get(InspectRepo, stats),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/gc",
            post(MaintainRepo, gc),
        )
}

fn compaction(last: LastCompaction) -> Compaction {
    Compaction {
        at: rfc3339(last.at_ms),
        took_ms: last.took_ms,
        replaced: last.replaced,
        bytes: last.bytes,
        failed: last.failed,
        dropped: last.dropped,
        run: last.run,
    }
}

/// The figures, without the last checks.
fn figures(stats: status::RepoStats) -> RepoStats {
    RepoStats {
        leader: stats.leader,
        packs: stats.packs,
        objects: stats.objects,
        pack_bytes: stats.pack_bytes,
        idx_bytes: stats.idx_bytes,
        bitmap: stats.bitmap,
        compaction: stats.compaction,
        last_compaction: stats.last_compaction.map(compaction),
        prune_mark: stats.prune_mark_ms.map(rfc3339),
        last_fsck: None,
    }
}

fn replica_fsck(check: ReplicaCheck) -> ReplicaFsck {
    ReplicaFsck {
        node: check.node,
        last: check.last.map(last_fsck),
        failed: check.failed,
    }
}

fn last_fsck(outcome: CheckOutcome) -> LastFsck {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    LastFsck {
        at: rfc3339(outcome.ended_at_ms),
        took_ms: outcome.took_ms,
        objects: outcome.objects,
        findings: count(outcome.problems.len()).saturating_add(outcome.more_problems),
        repaired: count(outcome.repaired.len()),
        failed: outcome.failed,
    }
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/stats`: `last_fsck` is null when the replicas cannot be
/// queried now.
async fn stats(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<RepoStats>, ApiError> {
    let (stats, checks) = tokio::join!(api.backend.stats(&path), api.backend.checks(&path, &[]));
    let last_fsck = checks
        .inspect_err(|error| tracing::debug!(%path, %error, "the last checks cannot be told"))
        .map(|checks| checks.replicas.into_iter().map(replica_fsck).collect());
    Ok(Json(RepoStats {
        last_fsck: Some(last_fsck.ok()),
        ..figures(stats?)
    }))
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/gc`: 202 at once. It is over when `stats` has `idle`
/// and another `last_compaction`.
async fn gc(
    by: Authorized<MaintainRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(body): JsonBody<Gc>,
) -> Result<(StatusCode, Json<RepoStats>), ApiError> {
    let compacted = api.backend.compact(by.principal(), &path, body.depth());
    let stats = compacted.await?;
    Ok((StatusCode::ACCEPTED, Json(figures(stats))))
}
