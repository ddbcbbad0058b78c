//! Refs: branches, and changes without a push.

use serde::{Deserialize, Deserializer, Serialize};

/// A branch and the commit it names, in Gitea's dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its name below `refs/heads/`.
    pub name: String,
    /// Its commit.
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
    /// The expected value: an id, `"any"`, or `None` for "must not exist". May be null but not
    /// absent: a default would be a guess.
    #[serde(deserialize_with = "given")]
    pub old: Option<String>,
    /// The new value: an id, or `None` to delete the ref. May be null but not absent.
    #[serde(deserialize_with = "given")]
    pub new: Option<String>,
}

/// A value that may be null but not absent.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(value)
}

/// A request for changes of refs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefChanges {
    /// The changes; each names another ref.
    pub updates: Vec<RefChange>,
    /// Whether all or none are made.
    #[serde(default)]
    pub atomic: bool,
}

/// The result of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefResult {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// Whether it was made.
    pub ok: bool,
    /// The reason of a refusal, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason of a refusal, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// The results of changes, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefResults {
    /// One for each change.
    pub results: Vec<RefResult>,
}
