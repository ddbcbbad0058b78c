//! Mirrors of a repository.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, MirrorRepo};
use henge_client::model::{self, MirrorEdit, MirrorRun, NewMirror};
use henge_types::{Mirror, MirrorChange, MirrorId, MirrorLast, MirrorOutcome, RepoPath};
use http::StatusCode;
use serde::Deserialize;

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, BelowRepo, JsonBody, Params};
use crate::routes::{Routes, get, post};
use crate::timestamp::rfc3339;

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors",
            get(InspectRepo, list_mirrors).post(MirrorRepo, add_mirror),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}",
            get(InspectRepo, get_mirror)
                .patch(MirrorRepo, edit_mirror)
                .delete(MirrorRepo, remove_mirror),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}/sync",
            post(MirrorRepo, sync_mirror),
        )
}

fn last_run(last: MirrorLast) -> MirrorRun {
    let (outcome, changed, pack_bytes, error) = match last.outcome {
        MirrorOutcome::Done {
            changed,
            pack_bytes,
        } => ("done", changed, pack_bytes, None),
        MirrorOutcome::Failed { why } => ("failed", 0, 0, Some(why)),
    };
    MirrorRun {
        scheduled_at: rfc3339(last.scheduled_at_ms),
        ended_at: rfc3339(last.ended_ms),
        outcome: outcome.to_owned(),
        changed,
        pack_bytes,
        error,
    }
}

/// A mirror in answers, without its password.
fn shown(mirror: Mirror) -> model::Mirror {
    model::Mirror {
        id: mirror.id,
        kind: mirror.settings.kind,
        url: mirror.settings.url,
        user: mirror.settings.secret.map(|secret| secret.user),
        interval_s: mirror.settings.interval_ms / 1000,
        on_push: mirror.settings.on_push,
        running: mirror.run.is_some(),
        next_due_at: rfc3339(mirror.next_due_ms),
        failures: mirror.failures,
        last: mirror.last.map(last_run),
    }
}

async fn find(api: &Api, path: &RepoPath, id: MirrorId) -> Result<model::Mirror, ApiError> {
    let mirrors = api.backend.mirrors(path).await?;
    let found = mirrors.into_iter().find(|mirror| mirror.id == id);
    let missing = || ApiError::not_found(format!("repository {path} has no mirror {id}"));
    found.map(shown).ok_or_else(missing)
}

fn parse(id: &str) -> Result<MirrorId, ApiError> {
    let missing = |error| ApiError::not_found(format!("{error}"));
    id.parse().map_err(missing)
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/mirrors`
async fn list_mirrors(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<Vec<model::Mirror>>, ApiError> {
    let mirrors = api.backend.mirrors(&path).await?;
    Ok(Json(mirrors.into_iter().map(shown).collect()))
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/mirrors`: the mirror is due at once. The answer is 409
/// and a list where the side that it writes to has refs that the other one lacks, unless `replace`.
async fn add_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(new): JsonBody<NewMirror>,
) -> Result<(StatusCode, Json<model::Mirror>), ApiError> {
    let added = api.backend.add_mirror(by.principal(), &path, new);
    let id = added.await?;
    let mirror = find(&api, &path, id).await?;
    Ok((StatusCode::CREATED, Json(mirror)))
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}`
async fn get_mirror(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
) -> Result<Json<model::Mirror>, ApiError> {
    find(&api, &path, parse(&id)?).await.map(Json)
}

/// `PATCH /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}`: an absent field stays. A new URL comes
/// with its own credentials or none, and is refused as for a new mirror. The mirror is due at once.
async fn edit_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
    JsonBody(edit): JsonBody<MirrorEdit>,
) -> Result<Json<model::Mirror>, ApiError> {
    let id = parse(&id)?;
    let edited = api.backend.edit_mirror(by.principal(), &path, id, edit);
    edited.await?;
    find(&api, &path, id).await.map(Json)
}

/// `DELETE /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}`
async fn remove_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
) -> Result<StatusCode, ApiError> {
    let id = parse(&id)?;
    api.backend
        .change_mirror(by.principal(), &path, id, MirrorChange::Remove)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
struct SyncParams {
    /// Whether the next run may remove refs that the other side does not have.
    #[serde(default)]
    force: bool,
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/mirrors/{id}/sync?force`: 202 at once; `last` has the
/// result.
async fn sync_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    BelowRepo(path, id): BelowRepo,
    Params(params): Params<SyncParams>,
) -> Result<StatusCode, ApiError> {
    let change = match params.force {
        true => MirrorChange::DueWhateverItRemoves,
        false => MirrorChange::Due,
    };
    let id = parse(&id)?;
    api.backend
        .change_mirror(by.principal(), &path, id, change)
        .await?;
    Ok(StatusCode::ACCEPTED)
}
