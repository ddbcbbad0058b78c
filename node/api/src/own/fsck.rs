//! Checks of a repository's stores.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, MaintainRepo};
use henge_client::model::Fsck;
use henge_types::status::RepoCheck;
use http::StatusCode;

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody};
use crate::routes::{Routes, get};

pub(super) fn routes() -> Routes {
    Routes::new().at(
        "/api/henge/v1/repos/{owner}/{repo}/fsck",
        get(InspectRepo, fsck).post(MaintainRepo, start_fsck),
    )
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/fsck`: 202 at once. A replica's check is over when its
/// `last.run` is no lower than the `run` of this answer.
async fn start_fsck(
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
async fn fsck(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<RepoCheck>, ApiError> {
    Ok(Json(api.backend.checks(&path, &[]).await?))
}
