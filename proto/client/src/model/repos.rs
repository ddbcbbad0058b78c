//! Repositories.

use henge_types::records::RepoState;
use henge_types::{
    Generation, GroupId, NetworkId, NodeId, ObjectFormat, OwnerName, RepoId, RepoName, RepoPath,
};
use serde::{Deserialize, Serialize};

/// A request for a new repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRepo {
    /// Its owner.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// A description of one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether only its owner sees it. A repository that is not private is readable without a
    /// token.
    #[serde(default = "private_unless_said")]
    pub private: bool,
    /// Its default branch, short (`main`); the cluster's own choice when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
    /// The hash of its object ids, `sha1` or `sha256`; SHA-1 when `None`.
    #[serde(
        rename = "object_format_name",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub object_format: Option<String>,
}

const fn private_unless_said() -> bool {
    true
}

impl NewRepo {
    /// A private repository without a description.
    pub fn new(path: RepoPath) -> Self {
        Self {
            owner: path.owner.into(),
            name: path.name.into(),
            description: String::new(),
            private: true,
            default_branch: None,
            object_format: None,
        }
    }
}

/// A repository, and its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoInfo {
    /// Its id.
    pub id: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// Its owner.
    pub owner: OwnerName,
    /// Its name.
    pub name: RepoName,
    /// The group that owns it.
    pub shard: GroupId,
    /// The generation of its name.
    pub generation: Generation,
    /// Its state in the catalogue.
    pub state: RepoState,
    /// The shard's leader, as the node that answered knows it.
    #[serde(default)]
    pub leader: Option<NodeId>,
    /// Whether only its owner sees it.
    #[serde(default)]
    pub private: bool,
    /// A description of one line.
    #[serde(default)]
    pub description: String,
    /// Its default branch.
    #[serde(default)]
    pub default_branch: String,
    /// The hash of its object ids.
    #[serde(rename = "object_format_name", default)]
    pub object_format: ObjectFormat,
    /// The time of its creation, RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// The time of its last change, RFC 3339. Nodes write it; clients do not read it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Whether it is read-only.
    #[serde(default)]
    pub archived: bool,
    /// Its topics.
    #[serde(default)]
    pub topics: Vec<String>,
    /// The repository that it is a fork of, `Some(None)` for none. Nodes write it; clients do not
    /// read it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<Option<RepoId>>,
    /// Former names that still redirect to it.
    #[serde(default)]
    pub former_names: Vec<String>,
}

impl RepoInfo {
    /// `OWNER/NAME`.
    pub fn path(&self) -> RepoPath {
        RepoPath {
            owner: self.owner.clone(),
            name: self.name.clone(),
        }
    }
}

/// A page of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoPage {
    /// The repositories, in the order of their lower-case paths.
    pub repositories: Vec<RepoInfo>,
    /// The `after` of the next page; none after the last one.
    #[serde(default)]
    pub next: Option<String>,
}

/// A request for a fork, in Gitea's dialect.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Fork<'a> {
    pub(crate) organization: &'a OwnerName,
    pub(crate) name: &'a RepoName,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that omitted them would contradict the documentation of the API.
    #[test]
    fn fields_that_only_nodes_write_are_written_and_skipped() {
        let text = r#"{"id":"01010101010101010101010101010101",
            "network":"01010101010101010101010101010101","owner":"a","name":"b","shard":1,
            "generation":1,"state":"ready","updated_at":"2026-01-02T03:04:05Z","forked_from":null}"#;
        let read: RepoInfo = serde_json::from_str(text).expect("a repository");
        assert_eq!((&read.updated_at, read.forked_from), (&None, None));
        let written = RepoInfo {
            updated_at: Some("2026-01-02T03:04:05Z".to_owned()),
            forked_from: Some(None),
            ..read
        };
        let value = serde_json::to_value(&written).expect("JSON");
        assert_eq!(value["updated_at"], "2026-01-02T03:04:05Z");
        assert!(value.get("forked_from").is_some_and(|none| none.is_null()));
    }
}
