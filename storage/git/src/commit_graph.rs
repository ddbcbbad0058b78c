//! The commit-graph: trees, parents and dates of commits in one file, so that a walk inflates none of them
//! (gitformat-commit-graph(5)).
//!
//! Only the single file `info/commit-graph` is read and written. Git's chains of files and its Bloom filters are not.

mod write;

use std::path::Path;
use std::time::SystemTime;

use henge_types::ObjectFormat;

use crate::object::Commit;
use crate::oid::{hash_kind, oid};

pub use write::{CommitGraphError, CommitGraphSummary, write_commit_graph};

/// Below the object directory.
const FILE: &str = "info/commit-graph";

/// An open commit-graph.
pub(crate) struct CommitGraph {
    file: gix_commitgraph::File,
}

/// Tells one file at the same path from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Stamp {
    /// Of the commit-graph below an object directory; `None` when there is none that may be used: where history is cut
    /// off, commits have not the parents that they name.
    pub(crate) fn of(objects: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(objects.join(FILE)).ok()?;
        let shallow = objects.parent()?.join("shallow");
        (!shallow.try_exists().unwrap_or(true)).then(|| Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
        })
    }
}

impl CommitGraph {
    /// Opens the one below an object directory, its checksum compared. What cannot be used is reported and left alone.
    pub(crate) fn open(objects: &Path, format: ObjectFormat) -> Option<Self> {
        let path = objects.join(FILE);
        let open = || {
            let file = gix_commitgraph::File::at(&path)?;
            file.verify_checksum()?;
            Ok::<_, gix_error::Error>(file)
        };
        match open() {
            Ok(file) if file.object_hash() == hash_kind(format) && file.base_graph_count() == 0 => {
                Some(Self { file })
            }
            Ok(_) => {
                tracing::warn!(path = %path.display(), "ignored: of another kind");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignored");
                None
            }
        }
    }

    /// What it says of a commit; `None` when it does not know it.
    pub(crate) fn get(&self, id: &oid) -> Option<Commit> {
        let found = self.file.commit_at(self.file.lookup(id)?);
        let mut parents = Vec::with_capacity(1);
        for parent in found.iter_parents() {
            // A file whose checksum is right and that names none is somebody's mistake: the commit itself is read.
            let parent = parent.ok().filter(|it| it.0 < self.file.num_commits())?;
            parents.push(
                self.file
                    .id_at(gix_commitgraph::file::Position(parent.0))
                    .to_owned(),
            );
        }
        Some(Commit {
            tree: found.root_tree_id().to_owned(),
            parents,
            time: i64::try_from(found.committer_timestamp()).ok()?,
        })
    }
}
