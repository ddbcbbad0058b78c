//! Protected branches in Gitea's dialect: here a protection only forbids deletions and the loss of
//! history.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::{InspectRepo, ProtectRefs};
use henge_types::{RefPattern, RefProtection};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::edit::refuse_the_rest;
use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, BelowRepo, JsonBody};
use crate::routes::{Routes, get};
use crate::timestamp::rfc3339;

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/api/v1/repos/{owner}/{repo}/branch_protections",
            get(InspectRepo, list_protections).post(ProtectRefs, create_protection),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/branch_protections/{*name}",
            get(InspectRepo, get_protection)
                .patch(ProtectRefs, edit_protection)
                .delete(ProtectRefs, delete_protection),
        )
}

/// A rule in Gitea's shape.
#[derive(Debug, Serialize)]
struct Protection {
    /// The pattern: of branches below `refs/heads/`, of other refs in full.
    rule_name: String,
    /// The same: older clients read this field.
    branch_name: String,
    enable_push: bool,
    enable_push_whitelist: bool,
    enable_force_push: bool,
    required_approvals: u64,
    created_at: String,
    updated_at: String,
}

impl Protection {
    fn new(rule: &RefProtection) -> Self {
        let at = rfc3339(rule.created_at_ms);
        Self {
            rule_name: rule.pattern.short().to_owned(),
            branch_name: rule.pattern.short().to_owned(),
            enable_push: true,
            enable_push_whitelist: false,
            enable_force_push: false,
            required_approvals: 0,
            created_at: at.clone(),
            updated_at: at,
        }
    }
}

/// A request to protect refs. Protection does not limit the accounts that may push: a request for
/// such a limit is refused.
#[derive(Debug, Deserialize)]
struct NewProtection {
    rule_name: Option<String>,
    branch_name: Option<String>,
    enable_push: Option<bool>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl NewProtection {
    /// Refuses fields that request more than a protection does.
    fn check(&self) -> Result<(), ApiError> {
        if self.enable_push == Some(false) {
            let text = "\"enable_push\": false is not supported: protected refs take pushes that keep their history";
            return Err(ApiError::invalid(text));
        }
        refuse_the_rest(&self.rest)
    }

    /// The pattern in the request, if any.
    fn named(&self) -> Result<Option<RefPattern>, ApiError> {
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let name = named(&self.rule_name).or_else(|| named(&self.branch_name));
        let name = name.map(|name| name.parse()).transpose();
        name.map_err(|error| ApiError::invalid(format!("rule_name: {error}")))
    }
}

/// `GET /api/v1/repos/{owner}/{repo}/branch_protections`.
async fn list_protections(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
) -> Result<Json<Vec<Protection>>, ApiError> {
    let rules = api.backend.protections(&path).await?;
    Ok(Json(rules.iter().map(Protection::new).collect()))
}

fn no_such(name: &str) -> ApiError {
    ApiError::not_found(format!("no refs are protected by the pattern {name:?}"))
}

/// `GET /api/v1/repos/{owner}/{repo}/branch_protections/{name}`.
async fn get_protection(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    BelowRepo(path, name): BelowRepo,
) -> Result<Json<Protection>, ApiError> {
    let pattern: RefPattern = name.parse().map_err(|_| no_such(&name))?;
    let rules = api.backend.protections(&path).await?;
    let rule = rules.iter().find(|rule| rule.pattern == pattern);
    let rule = rule.ok_or_else(|| no_such(&name))?;
    Ok(Json(Protection::new(rule)))
}

/// `POST /api/v1/repos/{owner}/{repo}/branch_protections`.
async fn create_protection(
    by: Authorized<ProtectRefs>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    JsonBody(body): JsonBody<NewProtection>,
) -> Result<(StatusCode, Json<Protection>), ApiError> {
    body.check()?;
    let missing = || ApiError::invalid("rule_name: which refs?");
    let pattern = body.named()?.ok_or_else(missing)?;
    api.backend.protect(by.principal(), &path, &pattern).await?;
    let rules = api.backend.protections(&path).await?;
    let rule = rules.iter().find(|rule| rule.pattern == pattern);
    let rule = rule.ok_or_else(|| no_such(pattern.short()))?;
    Ok((StatusCode::CREATED, Json(Protection::new(rule))))
}

/// `PATCH /api/v1/repos/{owner}/{repo}/branch_protections/{name}`. A rule is its pattern and
/// nothing else: a request without a change is accepted, and every other one is refused.
async fn edit_protection(
    _: Authorized<ProtectRefs>,
    State(api): State<Api>,
    BelowRepo(path, name): BelowRepo,
    JsonBody(body): JsonBody<NewProtection>,
) -> Result<Json<Protection>, ApiError> {
    let pattern: RefPattern = name.parse().map_err(|_| no_such(&name))?;
    let rules = api.backend.protections(&path).await?;
    let rule = rules.iter().find(|rule| rule.pattern == pattern);
    let rule = rule.ok_or_else(|| no_such(&name))?;
    body.check()?;
    if body.named()?.is_some_and(|other| other != pattern) {
        let text = "rule_name: a rule keeps its pattern: make another one and delete this";
        return Err(ApiError::invalid(text));
    }
    Ok(Json(Protection::new(rule)))
}

/// `DELETE /api/v1/repos/{owner}/{repo}/branch_protections/{name}`.
async fn delete_protection(
    by: Authorized<ProtectRefs>,
    State(api): State<Api>,
    BelowRepo(path, name): BelowRepo,
) -> Result<StatusCode, ApiError> {
    let pattern: RefPattern = name.parse().map_err(|_| no_such(&name))?;
    api.backend
        .unprotect(by.principal(), &path, &pattern)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
