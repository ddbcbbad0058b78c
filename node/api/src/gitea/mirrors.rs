//! Mirrors in Gitea's dialect. A push mirror's name is its id here, and its remote has no other.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, MirrorRepo};
use henge_client::model::NewMirror;
use henge_types::{Mirror, MirrorChange, MirrorId, MirrorKind, MirrorOutcome, RepoPath, limits};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, BelowRepo, JsonBody};
use crate::routes::{Routes, get, post};
use crate::timestamp::rfc3339;

/// Gitea's default.
const INTERVAL_MS: u64 = 8 * 60 * 60 * 1000;

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/v1/repos/{owner}/{repo}/mirror-sync",
            post(MirrorRepo, sync_pull_mirror),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/push_mirrors",
            get(InspectRepo, list_push_mirrors).post(MirrorRepo, add_push_mirror),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/push_mirrors/{name}",
            get(InspectRepo, get_push_mirror).delete(MirrorRepo, delete_push_mirror),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/push_mirrors-sync",
            post(MirrorRepo, sync_push_mirrors),
        )
}

/// A push mirror in Gitea's shape.
#[derive(Debug, Serialize)]
struct PushMirror {
    repo_name: String,
    remote_name: MirrorId,
    remote_address: String,
    created: String,
    last_update: Option<String>,
    last_error: String,
    /// In Go's notation of a duration.
    interval: String,
    sync_on_commit: bool,
}

impl PushMirror {
    fn new(path: &RepoPath, mirror: Mirror) -> Self {
        let (last_update, last_error) = match mirror.last {
            Some(last) => {
                let error = match last.outcome {
                    MirrorOutcome::Done { .. } => String::new(),
                    MirrorOutcome::Failed { why } => why,
                };
                (Some(rfc3339(last.ended_ms)), error)
            }
            None => (None, String::new()),
        };
        Self {
            repo_name: path.name.to_string(),
            remote_name: mirror.id,
            remote_address: mirror.settings.url,
            created: rfc3339(mirror.made_ms),
            last_update,
            last_error,
            interval: go_duration(mirror.settings.interval_ms),
            sync_on_commit: mirror.settings.on_push,
        }
    }
}

fn go_duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Milliseconds of a duration in whole hours, minutes and seconds, such as `8h`, `1h30m` or
/// `8h0m0s`. `0` has no unit.
fn parse_go_duration(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut total_ms, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(unit);
        let (ms, behind) = match behind.split_at_checked(1)? {
            ("h", behind) => (3_600_000, behind),
            ("m", behind) => (60_000, behind),
            ("s", behind) => (1000, behind),
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(ms)?;
        total_ms = total_ms.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total_ms)
}

/// A request for a new push mirror.
#[derive(Deserialize)]
struct CreatePushMirror {
    remote_address: String,
    #[serde(default)]
    remote_username: String,
    #[serde(default)]
    remote_password: String,
    #[serde(default)]
    interval: String,
    #[serde(default)]
    sync_on_commit: bool,
    /// Not a field of Gitea, where a mirror overwrites the other side.
    #[serde(default)]
    replace: bool,
}

impl CreatePushMirror {
    fn interval_ms(&self) -> Result<u64, ApiError> {
        let interval = match self.interval.as_str() {
            "" => Some(INTERVAL_MS),
            text => parse_go_duration(text),
        };
        let invalid = || {
            let text = format!(
                "interval: {:?} is not a duration such as \"8h0m0s\"",
                self.interval
            );
            ApiError::invalid(text)
        };
        match interval.ok_or_else(invalid)? {
            // Due after pushes only: the interval is the longest that a mirror may have.
            0 if self.sync_on_commit => Ok(limits::MIRROR_INTERVAL_MS_MAX),
            ms => Ok(ms),
        }
    }
}

async fn push_mirrors_of(api: &Api, path: &RepoPath) -> Result<Vec<Mirror>, ApiError> {
    let mirrors = api.backend.mirrors(path).await?.into_iter();
    Ok(mirrors
        .filter(|mirror| mirror.settings.kind == MirrorKind::Push)
        .collect())
}

async fn find(api: &Api, path: &RepoPath, name: &str) -> Result<Mirror, ApiError> {
    let mirrors = push_mirrors_of(api, path).await?.into_iter();
    let found = mirrors
        .map(|mirror| (mirror.id.to_string(), mirror))
        .find(|(id, _)| id == name);
    let missing = || ApiError::not_found(format!("repository {path} has no push mirror {name:?}"));
    found.map(|(_, mirror)| mirror).ok_or_else(missing)
}

/// `GET /api/v1/repos/{owner}/{repo}/push_mirrors`.
async fn list_push_mirrors(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<Vec<PushMirror>>, ApiError> {
    let mirrors = push_mirrors_of(&api, &path).await?.into_iter();
    let shown = mirrors.map(|mirror| PushMirror::new(&path, mirror));
    Ok(Json(shown.collect()))
}

/// `POST /api/v1/repos/{owner}/{repo}/push_mirrors`: 200 and the mirror, which is due at once. 409
/// where the other side would lose something, unless `replace`.
async fn add_push_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(body): JsonBody<CreatePushMirror>,
) -> Result<Json<PushMirror>, ApiError> {
    let interval_ms = body.interval_ms()?;
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let new = NewMirror {
        kind: MirrorKind::Push,
        url: body.remote_address,
        user: said(body.remote_username),
        password: said(body.remote_password),
        // Whole seconds: a duration has no smaller unit.
        interval_s: interval_ms / 1000,
        on_push: body.sync_on_commit,
        replace: body.replace,
    };
    let added = api.backend.add_mirror(by.principal(), &path, new);
    let id = added.await?;
    let mirror = find(&api, &path, &id.to_string()).await?;
    Ok(Json(PushMirror::new(&path, mirror)))
}

/// `GET /api/v1/repos/{owner}/{repo}/push_mirrors/{name}`.
async fn get_push_mirror(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    BelowRepo(path, name): BelowRepo,
) -> Result<Json<PushMirror>, ApiError> {
    let mirror = find(&api, &path, &name).await?;
    Ok(Json(PushMirror::new(&path, mirror)))
}

/// `DELETE /api/v1/repos/{owner}/{repo}/push_mirrors/{name}`.
async fn delete_push_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    BelowRepo(path, name): BelowRepo,
) -> Result<StatusCode, ApiError> {
    let mirror = find(&api, &path, &name).await?.id;
    api.backend
        .change_mirror(by.principal(), &path, mirror, MirrorChange::Remove)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/repos/{owner}/{repo}/push_mirrors-sync`: 200 at once; all of them are due now.
async fn sync_push_mirrors(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<StatusCode, ApiError> {
    for mirror in push_mirrors_of(&api, &path).await? {
        api.backend
            .change_mirror(by.principal(), &path, mirror.id, MirrorChange::Due)
            .await?;
    }
    Ok(StatusCode::OK)
}

/// `POST /api/v1/repos/{owner}/{repo}/mirror-sync`: makes the pull mirror of the repository due.
async fn sync_pull_mirror(
    by: Authorized<MirrorRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<StatusCode, ApiError> {
    let mirrors = api.backend.mirrors(&path).await?;
    let pull = |mirror: &&Mirror| mirror.settings.kind == MirrorKind::Pull;
    let missing = || ApiError::invalid(format!("repository {path} is not a mirror"));
    let mirror = mirrors.iter().find(pull).ok_or_else(missing)?;
    api.backend
        .change_mirror(by.principal(), &path, mirror.id, MirrorChange::Due)
        .await?;
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_and_read_as_go_does() {
        for (text, ms) in [
            ("8h0m0s", 28_800_000),
            ("1h30m0s", 5_400_000),
            ("10m0s", 600_000),
            ("59s", 59_000),
        ] {
            assert_eq!(go_duration(ms), text);
            assert_eq!(parse_go_duration(text), Some(ms));
        }
        assert_eq!(parse_go_duration("1h30m"), Some(5_400_000));
        assert_eq!(parse_go_duration("0"), Some(0));
        for text in [
            "",
            "8",
            "h",
            "1.5h",
            "-1h",
            "8h0",
            "1d",
            "8é",
            "99999999999999999999h",
        ] {
            assert_eq!(parse_go_duration(text), None, "{text:?}");
        }
    }
}
