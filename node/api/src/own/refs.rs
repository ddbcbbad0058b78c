//! Changing refs without a push: to objects that the repository already reaches.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::WriteRefs;
use henge_types::{ObjectId, PreviousValue, RefName, RefRefusal, RefUpdate, RefVerdict, limits};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ApiError;
use crate::extract::{AtRepo, UnreadJson};
use crate::router::Api;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    updates: Vec<Change>,
    #[serde(default)]
    atomic: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(rename = "ref")]
    name: String,
    /// An id, `"any"`, or null for "must not exist". Never left out: that would be a guess.
    #[serde(deserialize_with = "given")]
    old: Option<String>,
    /// An id, or null to delete the ref.
    #[serde(deserialize_with = "given")]
    new: Option<String>,
}

/// A value that may be null but not absent.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(value)
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

impl Change {
    fn update(&self) -> Result<RefUpdate, ApiError> {
        let name: RefName = self
            .name
            .parse()
            .map_err(|error| ApiError::invalid(format!("ref: {error}")))?;
        let new = self.new.as_deref().map(|text| object("new", text));
        let new = new.transpose()?;
        let expected = match self.old.as_deref() {
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
}

impl Changes {
    fn updates(&self) -> Result<Vec<RefUpdate>, ApiError> {
        if self.updates.is_empty() {
            return Err(ApiError::invalid("updates: there are none"));
        }
        if self.updates.len() > limits::REF_UPDATES_MAX {
            let updates_max = limits::REF_UPDATES_MAX;
            let text = format!("updates: more than {updates_max}: send them in parts");
            return Err(ApiError::invalid(text));
        }
        let mut seen = BTreeSet::new();
        let mut updates = Vec::with_capacity(self.updates.len());
        for change in &self.updates {
            let update = change.update()?;
            if !seen.insert(update.name.clone()) {
                let text = format!("updates: {} is named twice", update.name);
                return Err(ApiError::invalid(text));
            }
            updates.push(update);
        }
        Ok(updates)
    }
}

/// Why one change was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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

/// What became of one change.
#[derive(Debug, Serialize)]
pub(crate) struct ChangeResult {
    #[serde(rename = "ref")]
    name: RefName,
    ok: bool,
    /// For a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// For a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<RefusalCode>,
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

impl From<RefVerdict> for ChangeResult {
    fn from(verdict: RefVerdict) -> Self {
        let explained = verdict.result.as_ref().err().map(explain);
        let (reason, code) = explained.unzip();
        Self {
            name: verdict.name,
            ok: verdict.result.is_ok(),
            reason,
            code,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Results {
    results: Vec<ChangeResult>,
}

/// `POST /api/henge/v1/repos/{owner}/{repo}/refs`: 200 with one result per update, in their order, also
/// when some or all were refused.
pub(crate) async fn update_refs(
    by: Authorized<WriteRefs>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    body: UnreadJson<{ limits::REF_UPDATES_BODY_BYTES_MAX }>,
) -> Result<Json<Results>, ApiError> {
    let reading = api.blocking("ref updates", move || {
        let changes: Changes = body.read()?;
        Ok::<_, ApiError>((changes.updates()?, changes.atomic))
    });
    let (updates, atomic) = reading.await??;
    let verdicts = api
        .backend
        .update_refs(by.principal(), &path, updates, atomic)
        .await?;
    let explaining = api.blocking("verdicts", move || {
        verdicts.into_iter().map(ChangeResult::from).collect()
    });
    let results = explaining.await?;
    Ok(Json(Results { results }))
}
