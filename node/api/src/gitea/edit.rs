//! Changes of a repository in Gitea's dialect: settings, name, owner, topics.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{EditRepo, ReadRepo, TransferRepo};
use henge_types::{OwnerName, Principal, RefName, RepoName, RepoPath, Topic, TopicsEdit};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check_description;
use super::repository::{BRANCHES, Repository};
use crate::api::Api;
use crate::backend::RepoEdit;
use crate::error::ApiError;
use crate::extract::{AtRepo, BelowRepo, JsonBody, Readable};
use crate::origin::Origin;
use crate::routes::{Routes, get, post, put};

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/v1/repos/{owner}/{repo}/transfer",
            post(TransferRepo, transfer_repo),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/topics",
            get(ReadRepo, get_topics).put(EditRepo, put_topics),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/topics/{topic}",
            put(EditRepo, add_topic).delete(EditRepo, remove_topic),
        )
}

/// The changes that a client requests. Any other field must have an empty value: an unsupported
/// change would be lost silently.
#[derive(Debug, Deserialize)]
pub(super) struct Edit {
    name: Option<String>,
    description: Option<String>,
    private: Option<bool>,
    archived: Option<bool>,
    default_branch: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Refuses unsupported fields with a value: any but null, false, zero and empty ones.
pub(super) fn refuse_the_rest(rest: &Map<String, Value>) -> Result<(), ApiError> {
    let asks = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    };
    match rest.iter().find(|(_, value)| asks(value)) {
        Some((field, _)) => {
            let field: String = field.chars().take(64).collect();
            Err(ApiError::invalid(format!(
                "{field:?} is not supported here"
            )))
        }
        None => Ok(()),
    }
}

impl Edit {
    fn checked(self, path: &RepoPath) -> Result<RepoEdit, ApiError> {
        refuse_the_rest(&self.rest)?;
        let name = self.name.filter(|name| !name.is_empty());
        let name = name.map(|name| name.parse::<RepoName>()).transpose();
        let name = name.map_err(|error| ApiError::invalid(format!("name: {error}")))?;
        if let Some(description) = &self.description {
            check_description(description)?;
        }
        let branch = self.default_branch.filter(|branch| !branch.is_empty());
        let branch = branch.map(|branch| {
            let short = branch.strip_prefix("refs/heads/").unwrap_or(&branch);
            RefName::branch(short)
        });
        let default_branch = branch
            .transpose()
            .map_err(|error| ApiError::invalid(format!("default_branch: {error}")))?;
        Ok(RepoEdit {
            path: name.map(|name| RepoPath {
                owner: path.owner.clone(),
                name,
            }),
            description: self.description,
            private: self.private,
            archived: self.archived,
            default_branch,
            topics: TopicsEdit::Keep,
        })
    }
}

async fn change(
    api: &Api,
    principal: &Principal,
    path: &RepoPath,
    edit: RepoEdit,
    origin: &Origin,
) -> Result<Json<Repository>, ApiError> {
    let record = api.backend.edit(principal, path, edit).await?;
    // The change is made, even if its shard does not answer now.
    let refs = api.backend.refs(&record.path, BRANCHES).await.ok();
    let repository = Repository::new(&record, refs.as_ref(), origin);
    Ok(Json(repository.with_family(api, &record, origin)))
}

/// `PATCH /api/v1/repos/{owner}/{repo}`, a method of a path that `repos` has.
pub(super) async fn edit_repo(
    by: Authorized<EditRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    origin: Origin,
    JsonBody(body): JsonBody<Edit>,
) -> Result<Json<Repository>, ApiError> {
    // A new name stays below the current owner of the repository, even when the request used a
    // former path.
    let now = match body.name {
        Some(_) => api.backend.get(&path).await?.path,
        None => path,
    };
    let edit = body.checked(&now)?;
    change(&api, by.principal(), &now, edit, &origin).await
}

#[derive(Debug, Deserialize)]
struct Transfer {
    new_owner: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `POST /api/v1/repos/{owner}/{repo}/transfer`.
async fn transfer_repo(
    by: Authorized<TransferRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    origin: Origin,
    JsonBody(body): JsonBody<Transfer>,
) -> Result<(StatusCode, Json<Repository>), ApiError> {
    refuse_the_rest(&body.rest)?;
    let owner = body.new_owner.parse::<OwnerName>();
    let owner = owner.map_err(|error| ApiError::invalid(format!("new_owner: {error}")))?;
    let now = api.backend.get(&path).await?.path;
    let edit = RepoEdit {
        path: Some(RepoPath {
            owner,
            name: now.name.clone(),
        }),
        ..RepoEdit::default()
    };
    let moved = change(&api, by.principal(), &now, edit, &origin).await?;
    Ok((StatusCode::ACCEPTED, moved))
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topics {
    topics: Vec<String>,
}

fn topic(text: &str) -> Result<Topic, ApiError> {
    // As Gitea does: upper case and surrounding spaces are accepted.
    let topic = text.trim().to_ascii_lowercase().parse();
    topic.map_err(|error| ApiError::invalid(format!("topics: {error}")))
}

/// `GET /api/v1/repos/{owner}/{repo}/topics`: of public ones also without a token.
async fn get_topics(Readable { record, .. }: Readable) -> Json<Topics> {
    let topics = record.topics.into_iter().map(String::from);
    Json(Topics {
        topics: topics.collect(),
    })
}

async fn set_topics(
    api: &Api,
    principal: &Principal,
    path: &RepoPath,
    topics: TopicsEdit,
) -> Result<StatusCode, ApiError> {
    let edit = RepoEdit {
        topics,
        ..RepoEdit::default()
    };
    api.backend.edit(principal, path, edit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /api/v1/repos/{owner}/{repo}/topics`.
async fn put_topics(
    by: Authorized<EditRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(body): JsonBody<Topics>,
) -> Result<StatusCode, ApiError> {
    let topics: Result<_, _> = body.topics.iter().map(|text| topic(text)).collect();
    set_topics(&api, by.principal(), &path, TopicsEdit::Set(topics?)).await
}

/// `PUT /api/v1/repos/{owner}/{repo}/topics/{topic}`.
async fn add_topic(
    by: Authorized<EditRepo>,
    State(api): State<Api>,
    BelowRepo(path, text): BelowRepo,
) -> Result<StatusCode, ApiError> {
    set_topics(&api, by.principal(), &path, TopicsEdit::Add(topic(&text)?)).await
}

/// `DELETE /api/v1/repos/{owner}/{repo}/topics/{topic}`.
async fn remove_topic(
    by: Authorized<EditRepo>,
    State(api): State<Api>,
    BelowRepo(path, text): BelowRepo,
) -> Result<StatusCode, ApiError> {
    let topic = topic(&text)?;
    let record = api.backend.get(&path).await?;
    if !record.topics.contains(&topic) {
        let text = format!("{} is not about {topic:?}", record.path);
        return Err(ApiError::not_found(text));
    }
    set_topics(&api, by.principal(), &path, TopicsEdit::Remove(topic)).await
}
