//! Mirrors of a repository.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, MirrorRepo};
use henge_types::{
    Mirror, MirrorChange, MirrorId, MirrorKind, MirrorLast, MirrorOutcome, Principal, RepoPath,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::backend::{MirrorEdit, NewMirror, Replace};
use crate::error::ApiError;
use crate::extract::{AtRepo, BelowRepo, JsonBody, Params};
use crate::router::Api;
use crate::timestamp::rfc3339;

/// A mirror. Its password is never shown.
#[derive(Debug, Serialize)]
pub(crate) struct MirrorInfo {
    id: MirrorId,
    kind: MirrorKind,
    url: String,
    user: Option<String>,
    interval_s: u64,
    on_push: bool,
    running: bool,
    next_due_at: String,
    failures: u32,
    last: Option<LastRun>,
}

/// A run that ended.
#[derive(Debug, Serialize)]
struct LastRun {
    scheduled_at: String,
    ended_at: String,
    outcome: &'static str,
    changed: u64,
    pack_bytes: u64,
    error: Option<String>,
}

impl From<MirrorLast> for LastRun {
    fn from(last: MirrorLast) -> Self {
        let (outcome, changed, pack_bytes, error) = match last.outcome {
            MirrorOutcome::Done {
                changed,
                pack_bytes,
            } => ("done", changed, pack_bytes, None),
            MirrorOutcome::Failed { why } => ("failed", 0, 0, Some(why)),
        };
        Self {
            scheduled_at: rfc3339(last.scheduled_at_ms),
            ended_at: rfc3339(last.ended_ms),
            outcome,
            changed,
            pack_bytes,
            error,
        }
    }
}

impl From<Mirror> for MirrorInfo {
    fn from(mirror: Mirror) -> Self {
        Self {
            id: mirror.id,
            kind: mirror.settings.kind,
            url: mirror.settings.url,
            user: mirror.settings.secret.map(|secret| secret.user),
            interval_s: mirror.settings.interval_ms / 1000,
            on_push: mirror.settings.on_push,
            running: mirror.run.is_some(),
            next_due_at: rfc3339(mirror.next_due_ms),
            failures: mirror.failures,
            last: mirror.last.map(LastRun::from),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddMirror {
    kind: MirrorKind,
    url: String,
    user: Option<String>,
    password: Option<String>,
    interval_s: u64,
    #[serde(default)]
    on_push: bool,
    /// Whether its first run may take what the other side does not have.
    #[serde(default)]
    replace: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditMirror {
    url: Option<String>,
    user: Option<String>,
    password: Option<String>,
    interval_s: Option<u64>,
    on_push: Option<bool>,
    /// The same at a new URL.
    #[serde(default)]
    replace: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SyncParams {
    /// Whether the next run may take what the other side does not have.
    #[serde(default)]
    force: bool,
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/mirrors`
pub(crate) async fn list_mirrors(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<Vec<MirrorInfo>>, ApiError> {
    let mirrors = api.backend.mirrors(&path).await?;
    Ok(Json(mirrors.into_iter().map(MirrorInfo::from).collect()))
}

async fn find(api: &Api, path: &RepoPath, id: MirrorId) -> Result<MirrorInfo, ApiError> {
    let mirrors = api.backend.mirrors(path).await?;
    let found = mirrors.into_iter().find(|mirror| mirror.id == id);
    let missing = || ApiError::not_found(format!("repository {path} has no mirror {id}"));
    found.map(MirrorInfo::from).ok_or_else(missing)
}

fn parse(id: &str) -> Result<MirrorId, ApiError> {
    let missing = |error| ApiError::not_found(format!("{error}"));
    id.parse().map_err(missing)
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/mirrors`: it is due at once. 409 and what would be lost, where the side that it
/// writes to has what the other one has not; `replace` takes it.
pub(crate) async fn add_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(body): JsonBody<AddMirror>,
) -> Result<(StatusCode, Json<MirrorInfo>), ApiError> {
    let new = NewMirror {
        kind: body.kind,
        url: body.url,
        user: body.user,
        password: body.password,
        interval_ms: body.interval_s.saturating_mul(1000),
        on_push: body.on_push,
        replace: Replace::said(body.replace),
    };
    let added = api.backend.add_mirror(by.principal(), &path, new);
    let id = added.await?;
    let mirror = find(&api, &path, id).await?;
    Ok((StatusCode::CREATED, Json(mirror)))
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}`
pub(crate) async fn get_mirror(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
) -> Result<Json<MirrorInfo>, ApiError> {
    find(&api, &path, parse(&id)?).await.map(Json)
}

/// `PATCH /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}`: what is left out stays, but a new URL comes with its own
/// credentials or none, and is refused as for a new mirror. It is due at once.
pub(crate) async fn edit_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
    JsonBody(body): JsonBody<EditMirror>,
) -> Result<Json<MirrorInfo>, ApiError> {
    let id = parse(&id)?;
    let edit = MirrorEdit {
        url: body.url,
        user: body.user,
        password: body.password,
        interval_ms: body.interval_s.map(|seconds| seconds.saturating_mul(1000)),
        on_push: body.on_push,
        replace: Replace::said(body.replace),
    };
    let edited = api.backend.edit_mirror(by.principal(), &path, id, edit);
    edited.await?;
    find(&api, &path, id).await.map(Json)
}

/// `DELETE /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}`
pub(crate) async fn remove_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
) -> Result<StatusCode, ApiError> {
    change_mirror(
        &api,
        by.principal(),
        &path,
        parse(&id)?,
        MirrorChange::Remove,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}/sync?force`: 202 at once; `last` tells how it went.
pub(crate) async fn sync_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
    Params(params): Params<SyncParams>,
) -> Result<StatusCode, ApiError> {
    let change = match params.force {
        true => MirrorChange::DueWhateverItRemoves,
        false => MirrorChange::Due,
    };
    change_mirror(&api, by.principal(), &path, parse(&id)?, change).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Removes a mirror or makes it due.
pub(crate) async fn change_mirror(
    api: &Api,
    principal: &Principal,
    path: &RepoPath,
    id: MirrorId,
    change: MirrorChange,
) -> Result<(), ApiError> {
    let changed = api.backend.change_mirror(principal, path, id, change);
    Ok(changed.await?)
}
