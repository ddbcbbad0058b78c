//! Repositories with their homes.

use axum::Json;
use axum::extract::State;
use henge_auth::{Authorized, action};
use henge_client::model::{NewRepo, RepoInfo, RepoPage};
use henge_types::{OwnerName, RepoPath, RepoRecord, limits};
use http::StatusCode;
use serde::Deserialize;

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody, Params};
use crate::gitea;
use crate::routes::{Routes, get};
use crate::timestamp::rfc3339;

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/henge/v1/repos",
            get(action::ListRepos, list_repos).post(action::CreateRepo, create_repo),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}",
            get(action::InspectRepo, get_repo),
        )
}

fn info(api: &Api, record: RepoRecord) -> RepoInfo {
    let home = api.backend.home(&record);
    RepoInfo {
        id: record.repo,
        network: record.network,
        owner: record.path.owner,
        name: record.path.name,
        shard: home.shard,
        generation: record.generation,
        state: record.state,
        leader: home.leader,
        private: record.private,
        description: record.description,
        default_branch: record.default_branch.short().to_owned(),
        object_format: record.object_format,
        created_at: rfc3339(record.created_at_ms),
        updated_at: Some(rfc3339(record.updated_at_ms)),
        archived: record.archived,
        topics: record.topics.into_iter().map(String::from).collect(),
        forked_from: Some(record.forked_from),
        former_names: record
            .former_paths
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// `POST /api/henge/v1/repos`: for any owner. Private by default.
async fn create_repo(
    by: Authorized<action::CreateRepo>,
    State(api): State<Api>,
    JsonBody(body): JsonBody<NewRepo>,
) -> Result<(StatusCode, Json<RepoInfo>), ApiError> {
    let owner = body.owner.parse();
    let owner = owner.map_err(|error| ApiError::invalid(format!("owner: {error}")))?;
    let name = body.name.parse();
    let name = name.map_err(|error| ApiError::invalid(format!("name: {error}")))?;
    let default_branch = body.default_branch.as_deref();
    let format = body.object_format.as_deref();
    let new = gitea::new_repo(body.description, body.private, default_branch, format)?;
    let path = RepoPath { owner, name };
    let record = api.backend.create(by.principal(), path, new).await?;
    Ok((StatusCode::CREATED, Json(info(&api, record))))
}

/// `GET /api/henge/v1/repos/{owner}/{repo}`: from the catalogue alone, so it needs no shard.
async fn get_repo(
    _: Authorized<action::InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<RepoInfo>, ApiError> {
    let record = api.backend.get(&path).await?;
    Ok(Json(info(&api, record)))
}

#[derive(Debug, Deserialize)]
struct ListParams {
    owner: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/henge/v1/repos?owner&after&limit`, in the order of lower-case paths.
async fn list_repos(
    _: Authorized<action::ListRepos>,
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<RepoPage>, ApiError> {
    let invalid = |field: &str, error: &dyn std::fmt::Display| {
        let field = field.to_owned();
        ApiError::invalid(format!("{field}: {error}"))
    };
    let owner = params.owner.as_deref().map(str::parse::<OwnerName>);
    let owner = owner
        .transpose()
        .map_err(|error| invalid("owner", &error))?;
    let after = params.after.as_deref().map(str::parse::<RepoPath>);
    let after = after
        .transpose()
        .map_err(|error| invalid("after", &error))?;
    let limit = match params.limit {
        None | Some(0) => limits::PAGE_ITEMS_MAX,
        Some(limit) => limit.min(limits::CATALOGUE_ITEMS_MAX),
    };
    let listed = api.backend.list(owner.as_ref(), after.as_ref(), limit);
    let listed = listed.await?;
    let full = listed.len() == limit;
    let next = listed.last().filter(|_| full);
    let next = next.map(|record| record.path.to_string());
    let infos = listed.into_iter().map(|record| info(&api, record));
    Ok(Json(RepoPage {
        repositories: infos.collect(),
        next,
    }))
}
