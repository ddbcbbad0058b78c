//! Refs: branches, and changes without a push.

use serde::{Deserialize, Deserializer, Serialize};

/// A branch and the commit it names, in Gitea's dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its name below `refs/heads/`.
    pub name: String,
    /// What it points at.
    pub commit: Commit,
}

/// A commit, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its id, lower-case hex.
    pub id: String,
}

/// One change of a ref.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefChange {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// What it must be before: an id, `"any"`, or `None` for "must not exist". Null, but never left
    /// out: that would be a guess.
    #[serde(deserialize_with = "given")]
    pub old: Option<String>,
    /// What it becomes: an id, or `None` to delete it. Null, but never left out.
    #[serde(deserialize_with = "given")]
    pub new: Option<String>,
}

/// A value that may be null but not absent.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(value)
}

/// Asks for changes of refs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefChanges {
    /// The changes; each names another ref.
    pub updates: Vec<RefChange>,
    /// Whether all or none are made.
    #[serde(default)]
    pub atomic: bool,
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefResult {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// Whether it was made.
    pub ok: bool,
    /// Why not, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why not, for a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What became of changes, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefResults {
    /// One for each change.
    pub results: Vec<RefResult>,
}
