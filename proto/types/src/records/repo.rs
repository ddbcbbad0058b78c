//! A repository's record in the catalogue, in two versions.

use serde::{Deserialize, Serialize};

use super::RepoState;
use crate::ids::{Generation, NetworkId, RepoId};
use crate::names::{RefName, RepoPath, Topic};
use crate::object::ObjectFormat;
use crate::stored::{self, DecodeError, Row, StoredRecord};

/// A repository in the catalogue.
///
/// Stored in version 1 while that version has all of its fields, and in version 2 from then on.
/// Only commands of release level [`crate::command::VERSION_REPOS`] set a field of version 2, so a
/// replica that cannot read version 2 never meets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoRecord {
    /// Its id.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// Its owner and name, in the spelling of its creator.
    pub path: RepoPath,
    /// The generation of the name: a repository made again under it has a higher one.
    pub generation: Generation,
    /// Its state.
    pub state: RepoState,
    /// Whether only its owner sees it.
    pub private: bool,
    /// A description of one line.
    pub description: String,
    /// The requested default branch.
    pub default_branch: RefName,
    /// The time of its reservation, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The time of the last edit of this record by a user, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
    /// Its topics: sorted, none twice.
    pub topics: Vec<Topic>,
    /// Whether it is read-only.
    pub archived: bool,
    /// The hash of its object ids.
    pub object_format: ObjectFormat,
    /// The repository it is a fork of.
    pub forked_from: Option<RepoId>,
    /// Former names that still redirect to it, the latest last.
    pub former_paths: Vec<RepoPath>,
}

/// The fields of the first release.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RepoRecordV1 {
    repo: RepoId,
    network: NetworkId,
    path: RepoPath,
    generation: Generation,
    state: RepoState,
    private: bool,
    description: String,
    default_branch: RefName,
    created_at_ms: u64,
}

/// Version 1, and the fields of release level 3.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RepoRecordV2 {
    first: RepoRecordV1,
    updated_at_ms: u64,
    topics: Vec<Topic>,
    archived: bool,
    object_format: ObjectFormat,
    forked_from: Option<RepoId>,
    former_paths: Vec<RepoPath>,
}

impl StoredRecord for RepoRecord {
    const ROW: Row = Row::REPO_RECORD;

    fn encode(&self) -> Vec<u8> {
        let number = Self::ROW.number;
        if self.is_of_version_1() {
            stored::encode(number, 1, &RepoRecordV1::from(self))
        } else {
            stored::encode(number, 2, &RepoRecordV2::from(self))
        }
    }

    /// Reads either version.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let number = Self::ROW.number;
        let (version, body) = stored::open_record(number, Self::ROW.known(), bytes)?;
        match version {
            1 => stored::body(number, version, body).map(|first: RepoRecordV1| first.into()),
            _ => stored::body(number, version, body).map(|second: RepoRecordV2| second.into()),
        }
    }
}

impl RepoRecord {
    /// Whether version 1 can represent the record.
    pub(crate) fn is_of_version_1(&self) -> bool {
        self.updated_at_ms == self.created_at_ms
            && self.topics.is_empty()
            && !self.archived
            && self.object_format == ObjectFormat::Sha1
            && self.forked_from.is_none()
            && self.former_paths.is_empty()
    }
}

impl From<&RepoRecord> for RepoRecordV1 {
    fn from(record: &RepoRecord) -> Self {
        Self {
            repo: record.repo,
            network: record.network,
            path: record.path.clone(),
            generation: record.generation,
            state: record.state,
            private: record.private,
            description: record.description.clone(),
            default_branch: record.default_branch.clone(),
            created_at_ms: record.created_at_ms,
        }
    }
}

impl From<RepoRecordV1> for RepoRecord {
    fn from(first: RepoRecordV1) -> Self {
        Self {
            repo: first.repo,
            network: first.network,
            path: first.path,
            generation: first.generation,
            state: first.state,
            private: first.private,
            description: first.description,
            default_branch: first.default_branch,
            created_at_ms: first.created_at_ms,
            updated_at_ms: first.created_at_ms,
            topics: Vec::new(),
            archived: false,
            object_format: ObjectFormat::Sha1,
            forked_from: None,
            former_paths: Vec::new(),
        }
    }
}

impl From<&RepoRecord> for RepoRecordV2 {
    fn from(record: &RepoRecord) -> Self {
        Self {
            first: record.into(),
            updated_at_ms: record.updated_at_ms,
            topics: record.topics.clone(),
            archived: record.archived,
            object_format: record.object_format,
            forked_from: record.forked_from,
            former_paths: record.former_paths.clone(),
        }
    }
}

impl From<RepoRecordV2> for RepoRecord {
    fn from(second: RepoRecordV2) -> Self {
        Self {
            updated_at_ms: second.updated_at_ms,
            topics: second.topics,
            archived: second.archived,
            object_format: second.object_format,
            forked_from: second.forked_from,
            former_paths: second.former_paths,
            ..second.first.into()
        }
    }
}
