//! Changes of refs without a push: to objects that the repository already reaches.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::WriteRefs;
use henge_client::model::{RefChange, RefChanges, RefResult, RefResults};
use henge_types::{ObjectId, PreviousValue, RefName, RefRefusal, RefUpdate, RefVerdict, limits};

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, UnreadJson};
use crate::routes::{Routes, post};

pub(super) fn routes() -> Routes {
    Routes::new().at(
        "/api/henge/v1/repos/{owner}/{repo}/refs",
        post(WriteRefs, update_refs),
    )
}

fn object(field: &str, text: &str) -> Result<ObjectId, ApiError> {
    let id: ObjectId = text
        .parse()
        .map_err(|error| ApiError::invalid(format!("{field}: {error}")))?;
    if id.as_bytes().iter().all(|byte| *byte == 0) {
        let text = format!("{field}: write null instead of zeros");
        return Err(ApiError::invalid(text));
    }
    Ok(id)
}

fn update(change: &RefChange) -> Result<RefUpdate, ApiError> {
    let name: RefName = change
        .name
        .parse()
        .map_err(|error| ApiError::invalid(format!("ref: {error}")))?;
    let new = change.new.as_deref().map(|text| object("new", text));
    let new = new.transpose()?;
    let expected = match change.old.as_deref() {
        Some("any") => PreviousValue::Any,
        Some(text) => PreviousValue::MustExistAndMatch(object("old", text)?),
        None if new.is_none() => {
            let text = format!("{name}: old and new are both null: nothing would change");
            return Err(ApiError::invalid(text));
        }
        None => PreviousValue::MustNotExist,
    };
    Ok(RefUpdate {
        name,
        expected,
        new,
    })
}

fn updates(changes: &[RefChange]) -> Result<Vec<RefUpdate>, ApiError> {
    if changes.is_empty() {
        return Err(ApiError::invalid("updates: there are none"));
    }
    if changes.len() > limits::REF_UPDATES_MAX {
        let updates_max = limits::REF_UPDATES_MAX;
        let text = format!("updates: more than {updates_max}: send them in parts");
        return Err(ApiError::invalid(text));
    }
    let mut seen = BTreeSet::new();
    let mut updates = Vec::with_capacity(changes.len());
    for change in changes {
        let update = update(change)?;
        if !seen.insert(update.name.clone()) {
            let text = format!("updates: {} is named twice", update.name);
            return Err(ApiError::invalid(text));
        }
        updates.push(update);
    }
    Ok(updates)
}

/// The reason why one change was refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusalCode {
    Stale,
    Exists,
    Missing,
    NameConflict,
    AtomicAborted,
    Archived,
    Protected,
    Quota,
}

impl RefusalCode {
    /// Its name in answers.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Exists => "exists",
            Self::Missing => "missing",
            Self::NameConflict => "name_conflict",
            Self::AtomicAborted => "atomic_aborted",
            Self::Archived => "archived",
            Self::Protected => "protected",
            Self::Quota => "quota",
        }
    }
}

fn explain(refusal: &RefRefusal) -> (String, RefusalCode) {
    match refusal {
        RefRefusal::Stale {
            current: Some(current),
        } => (
            format!("stale: the ref is at {current}"),
            RefusalCode::Stale,
        ),
        RefRefusal::Stale { current: None } => (
            "stale: the ref does not exist".to_owned(),
            RefusalCode::Stale,
        ),
        RefRefusal::Exists { current } => (
            format!("the ref exists already, at {current}"),
            RefusalCode::Exists,
        ),
        RefRefusal::Missing => ("the ref does not exist".to_owned(), RefusalCode::Missing),
        RefRefusal::NameConflict { with } => (
            format!("{with} exists: one of the names is a folder of the other"),
            RefusalCode::NameConflict,
        ),
        RefRefusal::AtomicAborted => (
            "another update of the same atomic request was refused".to_owned(),
            RefusalCode::AtomicAborted,
        ),
        RefRefusal::Archived => (
            "the repository is archived: it is read-only".to_owned(),
            RefusalCode::Archived,
        ),
        RefRefusal::ProtectedFromDeletion { pattern } => (
            format!("the ref is protected by {pattern}: it must not be deleted"),
            RefusalCode::Protected,
        ),
        RefRefusal::ProtectedFromForce { pattern } => (
            format!(
                "the ref is protected by {pattern}: it must keep its history, which only commits have"
            ),
            RefusalCode::Protected,
        ),
        RefRefusal::TooManyRefs { .. } | RefRefusal::PacksFull { .. } => {
            (henge_git::refusal_text(refusal), RefusalCode::Quota)
        }
    }
}

fn result(verdict: RefVerdict) -> RefResult {
    let explained = verdict.result.as_ref().err().map(explain);
    let (reason, code) = explained.unzip();
    RefResult {
        name: verdict.name.into(),
        ok: verdict.result.is_ok(),
        reason,
        code: code.map(|code| code.as_str().to_owned()),
    }
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/refs`: 200 with one result per update, in their order,
/// also when some or all were refused.
async fn update_refs(
    by: Authorized<WriteRefs>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    body: UnreadJson<{ limits::REF_UPDATES_BODY_BYTES_MAX }>,
) -> Result<Json<RefResults>, ApiError> {
    let reading = api.blocking("ref updates", move || {
        let changes: RefChanges = body.read()?;
        Ok::<_, ApiError>((updates(&changes.updates)?, changes.atomic))
    });
    let (updates, atomic) = reading.await??;
    let verdicts = api
        .backend
        .update_refs(by.principal(), &path, updates, atomic)
        .await?;
    let explaining = api.blocking("verdicts", move || {
        verdicts.into_iter().map(result).collect()
    });
    let results = explaining.await?;
    Ok(Json(RefResults { results }))
}
