//! What a repository may hold.

use axum::Json;
use axum::extract::{Extension, State};
use henge_types::RepoLimits;

use crate::auth::Principal;
use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody};
use crate::router::Api;

/// `GET /api/henge/v1/repos/{owner}/{repo}/limits`
pub(crate) async fn limits(
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<RepoLimits>, ApiError> {
    Ok(Json(api.backend.limits(&path).await?))
}

/// `PUT /api/henge/v1/repos/{owner}/{repo}/limits`: all of them; what is left out or null is not bounded.
pub(crate) async fn set_limits(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    AtRepo(path): AtRepo,
    JsonBody(limits): JsonBody<RepoLimits>,
) -> Result<Json<RepoLimits>, ApiError> {
    api.backend
        .set_limits(principal.name(), &path, limits)
        .await?;
    Ok(Json(limits))
}
