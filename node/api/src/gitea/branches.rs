//! Branches in Gitea's dialect.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use henge_auth::action::ReadRepo;
use henge_types::{ObjectId, RefName, RefPatterns, RefProtection, limits};
use serde::Serialize;

use super::page::{Page, PageParams};
use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{Params, Readable, Reader};
use crate::origin::Origin;
use crate::routes::{Routes, get};

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/v1/repos/{owner}/{repo}/branches",
            get(ReadRepo, list_branches),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/branches/{*branch}",
            get(ReadRepo, get_branch),
        )
}

/// A commit as far as a ref has it: its id. Gitea's clients accept the absence of the other fields.
#[derive(Debug, Serialize)]
struct Commit {
    id: String,
}

/// A branch in Gitea's shape.
#[derive(Debug, Serialize)]
struct Branch {
    name: String,
    commit: Commit,
    protected: bool,
    required_approvals: u64,
    enable_status_check: bool,
    status_check_contexts: Vec<String>,
    user_can_push: bool,
    user_can_merge: bool,
    effective_branch_protection_name: String,
}

impl Branch {
    fn new(name: &RefName, tip: &ObjectId, rules: &RefPatterns, reader: Reader) -> Self {
        let rule = rules.first_match(name);
        let is_known = reader == Reader::Known;
        Self {
            name: name.short().to_owned(),
            commit: Commit {
                id: tip.to_string(),
            },
            protected: rule.is_some(),
            required_approvals: 0,
            enable_status_check: false,
            status_check_contexts: Vec::new(),
            // A protected branch accepts pushes too, as long as they keep its history.
            user_can_push: is_known,
            user_can_merge: is_known,
            effective_branch_protection_name: rule
                .filter(|_| is_known)
                .map(|pattern| pattern.short().to_owned())
                .unwrap_or_default(),
        }
    }
}

fn patterns(rules: &[RefProtection]) -> RefPatterns {
    RefPatterns::new(rules.iter().map(|rule| rule.pattern.clone()))
}

/// `GET /api/v1/repos/{owner}/{repo}/branches`. Without `page` and `limit` every branch up to
/// [`limits::BRANCHES_UNPAGED_MAX`].
async fn list_branches(
    readable: Readable,
    State(api): State<Api>,
    Params(params): Params<PageParams>,
    origin: Origin,
) -> Result<Response, ApiError> {
    let (reader, record) = (readable.reader(), readable.record);
    let page = if params.asks_for_pages() {
        params.page()?
    } else {
        Page::whole(limits::BRANCHES_UNPAGED_MAX)
    };
    let path = record.path;
    let refs = api.backend.refs(&path, "refs/heads/").await?.refs;
    let rules = api.backend.protections(&path).await?;
    let url = format!("/api/v1/repos/{path}/branches");
    let headers = page.headers(refs.len(), &origin, &url, "");
    let (begin, end) = (page.start(), page.end());
    let showing = api.blocking("branches", move || {
        let rules = patterns(&rules);
        let on_page = refs.iter().take(end).skip(begin);
        let branches = on_page.map(|(name, tip)| Branch::new(name, tip, &rules, reader));
        branches.collect::<Vec<_>>()
    });
    let branches = showing.await?;
    Ok((headers, Json(branches)).into_response())
}

/// `GET /api/v1/repos/{owner}/{repo}/branches/{branch}`.
async fn get_branch(readable: Readable, State(api): State<Api>) -> Result<Json<Branch>, ApiError> {
    let reader = readable.reader();
    let (path, branch) = (readable.record.path, readable.below);
    let missing = || ApiError::not_found(format!("there is no branch {branch:?} in {path}"));
    let name = RefName::branch(&branch).map_err(|_| missing())?;
    let refs = api.backend.refs(&path, name.as_str()).await?.refs;
    let found = refs.iter().find(|(other, _)| *other == name);
    let (name, tip) = found.ok_or_else(missing)?;
    let rules = api.backend.protections(&path).await?;
    Ok(Json(Branch::new(name, tip, &patterns(&rules), reader)))
}
