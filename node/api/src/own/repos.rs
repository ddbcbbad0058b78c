//! Repositories with where they live.

use axum::Json;
use axum::extract::State;
use henge_auth::{Authorized, action};
use henge_types::{
    Generation, GroupId, NetworkId, NodeId, ObjectFormat, OwnerName, RepoId, RepoName, RepoPath,
    RepoRecord, RepoState, Topic, limits,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody, Params};
use crate::gitea;
use crate::router::Api;
use crate::timestamp::rfc3339;

/// A repository, and where it lives.
#[derive(Debug, Serialize)]
pub(crate) struct RepoInfo {
    id: RepoId,
    network: NetworkId,
    owner: OwnerName,
    name: RepoName,
    shard: GroupId,
    generation: Generation,
    state: RepoState,
    leader: Option<NodeId>,
    private: bool,
    description: String,
    default_branch: String,
    object_format_name: ObjectFormat,
    created_at: String,
    updated_at: String,
    archived: bool,
    topics: Vec<Topic>,
    /// The repository it is a fork of.
    forked_from: Option<RepoId>,
    /// Former names that still lead to it.
    former_names: Vec<String>,
}

impl RepoInfo {
    fn new(api: &Api, record: RepoRecord) -> Self {
        let home = api.backend.home(&record);
        Self {
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
            object_format_name: record.object_format,
            created_at: rfc3339(record.created_at_ms),
            updated_at: rfc3339(record.updated_at_ms),
            archived: record.archived,
            topics: record.topics,
            forked_from: record.forked_from,
            former_names: record
                .former_paths
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateRepo {
    owner: String,
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default = "gitea::private_unless_said")]
    private: bool,
    default_branch: Option<String>,
    object_format_name: Option<String>,
}

/// `POST /api/henge/v1/repos`: for any owner. Private unless it is said to be public.
pub(crate) async fn create_repo(
    by: Authorized<action::CreateRepo>,
    State(api): State<Api>,
    JsonBody(body): JsonBody<CreateRepo>,
) -> Result<(StatusCode, Json<RepoInfo>), ApiError> {
    let owner = body.owner.parse();
    let owner = owner.map_err(|error| ApiError::invalid(format!("owner: {error}")))?;
    let name = body.name.parse();
    let name = name.map_err(|error| ApiError::invalid(format!("name: {error}")))?;
    let default_branch = body.default_branch.as_deref();
    let format = body.object_format_name.as_deref();
    let new = gitea::new_repo(body.description, body.private, default_branch, format)?;
    let path = RepoPath { owner, name };
    let record = api.backend.create(by.principal(), path, new).await?;
    Ok((StatusCode::CREATED, Json(RepoInfo::new(&api, record))))
}

/// `GET /api/henge/v1/repos/{owner}/{repo}`: from the catalogue alone, so it needs no shard.
pub(crate) async fn get_repo(
    _: Authorized<action::InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<RepoInfo>, ApiError> {
    let record = api.backend.get(&path).await?;
    Ok(Json(RepoInfo::new(&api, record)))
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListParams {
    owner: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RepoPage {
    repositories: Vec<RepoInfo>,
    /// The `after` of the next page; none after the last one.
    next: Option<String>,
}

/// `GET /api/henge/v1/repos?owner&after&limit`, in the order of lower-case paths.
pub(crate) async fn list_repos(
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
    let infos = listed.into_iter().map(|record| RepoInfo::new(&api, record));
    Ok(Json(RepoPage {
        repositories: infos.collect(),
        next,
    }))
}
