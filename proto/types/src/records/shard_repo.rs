//! A repository's record in its shard, in two versions.

use serde::{Deserialize, Serialize};

use super::ShardRepoState;
use crate::ids::{Generation, LogIndex, NetworkId, RepoId};
use crate::names::RefName;
use crate::object::ObjectFormat;
use crate::stored::{self, DecodeError, Row, StoredRecord};

/// A repository in its shard. Stored in version 1 while that version has all of its fields, as
/// [`super::RepoRecord`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRepo {
    /// Its id.
    pub repo: RepoId,
    /// Its fork network: the object store.
    pub network: NetworkId,
    /// Every update and read must name it.
    pub generation: Generation,
    /// Live or deleted.
    pub state: ShardRepoState,
    /// The target of HEAD; it need not exist.
    pub head: RefName,
    /// The last entry that changed one of its refs or HEAD.
    pub updated_at: LogIndex,
    /// The time of that entry, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
    /// The last revision of its settings in the catalogue that the shard applied; 0 before the
    /// first.
    pub revision: LogIndex,
    /// Whether every push is refused.
    pub archived: bool,
    /// The hash of its object ids.
    pub object_format: ObjectFormat,
}

#[derive(Serialize, Deserialize)]
struct ShardRepoV1 {
    repo: RepoId,
    network: NetworkId,
    generation: Generation,
    state: ShardRepoState,
    head: RefName,
    updated_at: LogIndex,
    updated_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct ShardRepoV2 {
    first: ShardRepoV1,
    revision: LogIndex,
    archived: bool,
    object_format: ObjectFormat,
}

impl StoredRecord for ShardRepo {
    const ROW: Row = Row::SHARD_REPO;

    fn encode(&self) -> Vec<u8> {
        let first = ShardRepoV1 {
            repo: self.repo,
            network: self.network,
            generation: self.generation,
            state: self.state,
            head: self.head.clone(),
            updated_at: self.updated_at,
            updated_at_ms: self.updated_at_ms,
        };
        let plain = !self.archived && self.object_format == ObjectFormat::Sha1;
        if plain && self.revision == LogIndex::new(0) {
            return stored::encode(Self::ROW.number, 1, &first);
        }
        let second = ShardRepoV2 {
            first,
            revision: self.revision,
            archived: self.archived,
            object_format: self.object_format,
        };
        stored::encode(Self::ROW.number, 2, &second)
    }

    /// Reads either version.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let number = Self::ROW.number;
        let (version, body) = stored::open_record(number, Self::ROW.known(), bytes)?;
        let second = match version {
            1 => ShardRepoV2 {
                first: stored::body(number, version, body)?,
                revision: LogIndex::new(0),
                archived: false,
                object_format: ObjectFormat::Sha1,
            },
            _ => stored::body(number, version, body)?,
        };
        let first = second.first;
        Ok(Self {
            repo: first.repo,
            network: first.network,
            generation: first.generation,
            state: first.state,
            head: first.head,
            updated_at: first.updated_at,
            updated_at_ms: first.updated_at_ms,
            revision: second.revision,
            archived: second.archived,
            object_format: second.object_format,
        })
    }
}
