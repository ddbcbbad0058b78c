//! Settings of repositories, in Gitea's dialect, as far as the client uses it.

use henge_types::{OwnerName, RepoName, Topic};
use serde::{Deserialize, Serialize};

/// Changes of a repository; a field that is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepoChange {
    /// Its name below its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<RepoName>,
    /// A description of one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether only its owner sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
    /// Whether it is read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// Its default branch, short (`main`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Topics<'a> {
    pub(crate) topics: &'a [Topic],
}

#[derive(Debug, Serialize)]
pub(crate) struct NewOwner<'a> {
    pub(crate) new_owner: &'a OwnerName,
}

#[derive(Debug, Serialize)]
pub(crate) struct RuleName<'a> {
    pub(crate) rule_name: &'a str,
}

/// A pattern of refs that are protected from deletion and from losing history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The pattern: of branches below `refs/heads/`, of other refs in full.
    pub rule_name: String,
}
