//! The quotas of a repository, and the rules for pushes to it.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, LimitRepo};
use henge_types::{PushRules, RepoLimits};

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody};
use crate::routes::{Routes, get};

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/limits",
            get(InspectRepo, limits).put(LimitRepo, set_limits),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/push-rules",
            get(InspectRepo, push_rules).put(LimitRepo, set_push_rules),
        )
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/limits`
async fn limits(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<RepoLimits>, ApiError> {
    Ok(Json(api.backend.limits(&path).await?))
}

/// `PUT /api/henge/v1/repos/{owner}/{repo}/limits`: replaces all of them; a field that is absent or
/// null means no bound.
async fn set_limits(
    by: Authorized<LimitRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(limits): JsonBody<RepoLimits>,
) -> Result<Json<RepoLimits>, ApiError> {
    api.backend
        .set_limits(by.principal(), &path, limits)
        .await?;
    Ok(Json(limits))
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/push-rules`
async fn push_rules(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<PushRules>, ApiError> {
    Ok(Json(api.backend.push_rules(&path).await?))
}

/// `PUT /api/henge/v1/repos/{owner}/{repo}/push-rules`: replaces all of them.
async fn set_push_rules(
    by: Authorized<LimitRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(rules): JsonBody<PushRules>,
) -> Result<Json<PushRules>, ApiError> {
    api.backend
        .set_push_rules(by.principal(), &path, rules)
        .await?;
    Ok(Json(rules))
}
