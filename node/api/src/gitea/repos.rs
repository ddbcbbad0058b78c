//! Creation, lookup and deletion of repositories in Gitea's dialect.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use henge_auth::{Authorized, action};
use henge_types::{RepoName, RepoPath, RepoRecord, limits};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::page::{Page, PageParams};
use super::repository::{BRANCHES, Repository};
use super::{edit, new_repo, private_unless_said, user};
use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, JsonBody, Params, Readable, Reader};
use crate::origin::Origin;
use crate::routes::{Routes, get, post};

pub(super) fn routes() -> Routes {
    Routes::new()
        .at("/api/v1/user/repos", post(action::CreateRepo, create_repo))
        .at("/api/v1/repos/search", get(action::ListRepos, search_repos))
        .at(
            "/api/v1/repos/{owner}/{repo}",
            get(action::ReadRepo, get_repo)
                .patch(action::EditRepo, edit::edit_repo)
                .delete(action::DeleteRepo, delete_repo),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/forks",
            get(action::InspectRepo, list_forks).post(action::ForkRepo, fork_repo),
        )
}

/// A request for a new repository. Fields that only change Gitea's display are skipped. Fields that
/// would change the content of the repository are refused below: they would be lost silently.
#[derive(Debug, Deserialize)]
struct CreateRepo {
    name: String,
    #[serde(default)]
    description: String,
    /// Gitea's default is public.
    #[serde(default = "private_unless_said")]
    private: bool,
    default_branch: Option<String>,
    #[serde(default)]
    auto_init: bool,
    #[serde(default)]
    template: bool,
    #[serde(default)]
    object_format_name: String,
}

impl CreateRepo {
    fn refuse_what_is_not_there(&self) -> Result<(), ApiError> {
        if self.auto_init {
            let text = "auto_init is not supported: create the repository and push a first commit";
            return Err(ApiError::invalid(text));
        }
        if self.template {
            return Err(ApiError::invalid("template repositories are not supported"));
        }
        Ok(())
    }
}

/// `POST /api/v1/user/repos`.
async fn create_repo(
    by: Authorized<action::CreateRepo>,
    State(api): State<Api>,
    origin: Origin,
    JsonBody(body): JsonBody<CreateRepo>,
) -> Result<(StatusCode, Json<Repository>), ApiError> {
    body.refuse_what_is_not_there()?;
    let owner = user::owner_of(by.principal())?;
    let name: RepoName = body
        .name
        .parse()
        .map_err(|error| ApiError::invalid(format!("name: {error}")))?;
    let new = new_repo(
        body.description,
        body.private,
        body.default_branch.as_deref(),
        Some(&body.object_format_name),
    )?;
    let path = RepoPath { owner, name };
    let record = api.backend.create(by.principal(), path, new).await?;
    let refs = api.backend.refs(&record.path, BRANCHES).await.ok();
    let repository = Repository::new(&record, refs.as_ref(), &origin);
    Ok((StatusCode::CREATED, Json(repository)))
}

/// `GET /api/v1/repos/{owner}/{repo}`: public ones also without a token.
async fn get_repo(
    readable: Readable,
    State(api): State<Api>,
    origin: Origin,
) -> Result<Json<Repository>, ApiError> {
    let (reader, record) = (readable.reader(), readable.record);
    let refs = api.backend.refs(&record.path, BRANCHES).await?;
    let repository = Repository::new(&record, Some(&refs), &origin);
    let repository = repository.with_family(&api, &record, &origin);
    Ok(Json(match reader {
        Reader::Known => repository,
        Reader::Anybody => repository.read_only(),
    }))
}

/// `DELETE /api/v1/repos/{owner}/{repo}`.
async fn delete_repo(
    by: Authorized<action::DeleteRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<StatusCode, ApiError> {
    api.backend.delete(by.principal(), &path).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
struct SearchParams {
    #[serde(default)]
    q: String,
    page: Option<usize>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Found {
    ok: bool,
    data: Vec<Repository>,
}

/// The matching repositories of one page, and their number on all pages.
async fn matching(
    api: &Api,
    is_wanted: impl Fn(&RepoRecord) -> bool,
    page: Page,
) -> Result<(Vec<RepoRecord>, usize), ApiError> {
    let (mut records, mut total) = (Vec::new(), 0);
    let mut after: Option<RepoPath> = None;
    loop {
        let limit = limits::CATALOGUE_ITEMS_MAX;
        let listed = api.backend.list(None, after.as_ref(), limit).await?;
        let more = listed.len() == limit;
        after = listed.last().map(|record| record.path.clone());
        for record in listed {
            if !is_wanted(&record) {
                continue;
            }
            if (page.start()..page.end()).contains(&total) {
                records.push(record);
            }
            total += 1;
        }
        if !more {
            return Ok((records, total));
        }
    }
}

async fn shown(api: &Api, records: &[RepoRecord], origin: &Origin) -> Vec<Repository> {
    let reads = records
        .iter()
        .map(|record| api.backend.refs(&record.path, BRANCHES));
    let refs = join_all(reads).await;
    let shown = records.iter().zip(&refs);
    shown
        .map(|(record, refs)| {
            let repository = Repository::new(record, refs.as_ref().ok(), origin);
            repository.with_family(api, record, origin)
        })
        .collect()
}

fn query_text(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encode = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// `GET /api/v1/repos/search`. A repository whose shard does not answer is shown with its data in
/// the catalogue: one lost shard does not break the list.
async fn search_repos(
    _: Authorized<action::ListRepos>,
    State(api): State<Api>,
    Params(params): Params<SearchParams>,
    origin: Origin,
) -> Result<Response, ApiError> {
    let page = PageParams {
        page: params.page,
        limit: params.limit,
    };
    let page = page.page()?;
    let q = params.q.to_ascii_lowercase();
    let is_wanted = |record: &RepoRecord| record.path.key().contains(&q);
    let (records, total) = matching(&api, is_wanted, page).await?;
    let found = Found {
        ok: true,
        data: shown(&api, &records, &origin).await,
    };
    let rest = match params.q.as_str() {
        "" => String::new(),
        q => format!("q={}&", query_text(q)),
    };
    let headers = page.headers(total, &origin, "/api/v1/repos/search", &rest);
    Ok((headers, Json(found)).into_response())
}

/// The target of a fork. Gitea's organizations are owners here.
#[derive(Debug, Deserialize)]
struct ForkRepo {
    organization: Option<String>,
    name: Option<String>,
}

/// `POST /api/v1/repos/{owner}/{repo}/forks`.
async fn fork_repo(
    by: Authorized<action::ForkRepo>,
    State(api): State<Api>,
    AtRepo(parent): AtRepo,
    origin: Origin,
    JsonBody(body): JsonBody<ForkRepo>,
) -> Result<(StatusCode, Json<Repository>), ApiError> {
    let owner = match &body.organization {
        Some(owner) => owner
            .parse()
            .map_err(|error| ApiError::invalid(format!("organization: {error}")))?,
        None => user::owner_of(by.principal())?,
    };
    let name = match &body.name {
        Some(name) => name
            .parse()
            .map_err(|error| ApiError::invalid(format!("name: {error}")))?,
        None => parent.name.clone(),
    };
    let path = RepoPath { owner, name };
    let record = api
        .backend
        .fork(by.principal(), &parent, path, None)
        .await?;
    let refs = api.backend.refs(&record.path, BRANCHES).await.ok();
    let repository = Repository::new(&record, refs.as_ref(), &origin);
    let repository = repository.with_family(&api, &record, &origin);
    Ok((StatusCode::ACCEPTED, Json(repository)))
}

/// `GET /api/v1/repos/{owner}/{repo}/forks`.
async fn list_forks(
    _: Authorized<action::InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    Params(params): Params<PageParams>,
    origin: Origin,
) -> Result<Response, ApiError> {
    let parent = api.backend.get(&path).await?;
    let page = params.page()?;
    let is_fork = |record: &RepoRecord| record.forked_from == Some(parent.repo);
    let (records, total) = matching(&api, is_fork, page).await?;
    let forks = shown(&api, &records, &origin).await;
    let route = format!("/api/v1/repos/{path}/forks");
    let headers = page.headers(total, &origin, &route, "");
    Ok((headers, Json(forks)).into_response())
}
