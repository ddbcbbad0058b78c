//! The commit-graph: trees, parents and dates of commits in one file, so that a walk inflates no
//! commits (gitformat-commit-graph(5)).
//!
//! The single file `info/commit-graph` is read and written. The chains of files that git's
//! maintenance makes instead (`git commit-graph write --split`) are only read. Bloom filters are
//! ignored.

mod write;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use henge_types::ObjectFormat;

use crate::object::Commit;
use crate::oid::{hash_kind, oid};

pub use write::{CommitGraphError, CommitGraphSummary, write_commit_graph};

/// The single file, below the object directory.
const FILE: &str = "info/commit-graph";
/// The folder of a chain, below the object directory, and the file in it that lists the others,
/// oldest first.
const CHAIN_FOLDER: &str = "info/commit-graphs";
const CHAIN_FILE: &str = "commit-graph-chain";
/// Maximum number of files in a chain: each file counts its bases in one byte.
const CHAIN_FILES_MAX: usize = 256;
/// Maximum bytes of the file that lists them.
const CHAIN_BYTES_MAX: u64 = CHAIN_FILES_MAX as u64 * 65;

/// An open commit-graph.
pub(crate) struct CommitGraph {
    graph: gix_commitgraph::Graph,
}

/// Identifies a version of the commit-graph at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    is_chain: bool,
    modified: Option<SystemTime>,
    length: u64,
}

impl Stamp {
    /// The stamp of the commit-graph below an object directory; `None` when there is no usable one.
    /// A shallow repository has none: commits at its shallow boundary name parents that are
    /// missing.
    pub(crate) fn of(objects: &Path) -> Option<Self> {
        let single = std::fs::metadata(objects.join(FILE)).ok();
        let is_chain = single.is_none();
        // git looks for them in this order, too.
        let chain = || std::fs::metadata(objects.join(CHAIN_FOLDER).join(CHAIN_FILE)).ok();
        let metadata = single.or_else(chain)?;
        let shallow = objects.parent()?.join("shallow");
        (!shallow.try_exists().unwrap_or(true)).then(|| Self {
            is_chain,
            modified: metadata.modified().ok(),
            length: metadata.len(),
        })
    }
}

/// The reason for ignoring a commit-graph.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Gix(#[from] gix_error::Error),
    #[error("of another kind")]
    Kind,
    #[error("its chain names no file that could be one of it: {line:?}")]
    Chain { line: String },
}

impl CommitGraph {
    /// Opens the commit-graph below an object directory and verifies its checksums. An unusable one
    /// is logged and ignored.
    pub(crate) fn open(objects: &Path, format: ObjectFormat) -> Option<Self> {
        let path = objects.join(FILE);
        let opened = match path.try_exists() {
            Ok(true) => open_files(std::slice::from_ref(&path), format),
            Ok(false) => chain(objects, format).and_then(|files| open_files(&files, format)),
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok(graph) => Some(Self { graph }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the commit-graph is ignored");
                None
            }
        }
    }

    /// The entry of a commit; `None` when the commit-graph does not have it.
    pub(crate) fn get(&self, id: &oid) -> Option<Commit> {
        let found = self.graph.commit_by_id(id)?;
        let mut parents = Vec::with_capacity(1);
        for parent in found.iter_parents() {
            // A file with a valid checksum that names no valid parent is a writer's error: the
            // commit itself is read.
            let known = |it: &gix_commitgraph::Position| it.0 < self.graph.num_commits();
            let parent = parent.ok().filter(known)?;
            parents.push(self.graph.id_at(parent).to_owned());
        }
        Some(Commit {
            tree: found.root_tree_id().to_owned(),
            parents,
            time: i64::try_from(found.committer_timestamp()).ok()?,
        })
    }
}

/// The files of the chain below an object directory, oldest first.
fn chain(objects: &Path, format: ObjectFormat) -> Result<Vec<PathBuf>, Unusable> {
    let folder = objects.join(CHAIN_FOLDER);
    let mut text = String::new();
    let file = std::fs::File::open(folder.join(CHAIN_FILE))?;
    file.take(CHAIN_BYTES_MAX).read_to_string(&mut text)?;
    let file_of = |line: &str| {
        let is_id = line.len() == 2 * format.id_bytes()
            && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = folder.join(format!("graph-{line}.graph"));
        is_id.then_some(path).ok_or_else(|| Unusable::Chain {
            line: line.chars().take(80).collect(),
        })
    };
    text.lines().take(CHAIN_FILES_MAX).map(file_of).collect()
}

/// Opens files, each of which is based on all files before it.
fn open_files(paths: &[PathBuf], format: ObjectFormat) -> Result<gix_commitgraph::Graph, Unusable> {
    let mut files: Vec<gix_commitgraph::File> = Vec::with_capacity(paths.len());
    for path in paths {
        let file = gix_commitgraph::File::at(path)?;
        file.verify_checksum()?;
        let below = files.iter().map(gix_commitgraph::File::checksum);
        if file.object_hash() != hash_kind(format)
            || usize::from(file.base_graph_count()) != files.len()
            || !file.iter_base_graph_ids().eq(below)
        {
            return Err(Unusable::Kind);
        }
        files.push(file);
    }
    Ok(gix_commitgraph::Graph::new(files)?)
}

#[cfg(test)]
mod tests;
