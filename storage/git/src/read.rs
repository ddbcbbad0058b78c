//! Reads trees, files, history, differences and blame, from one object directory.
//!
//! - `entry`: entries of trees: lookup by path, pages of a directory, blobs.
//! - `commit`: the fields of a commit that people see.
//! - `log`: history in pages, of a repository or of a path.
//! - `changes`: changed paths between two commits; `renames` pairs deletions with additions.
//! - `lines`: changed lines between two blobs.
//! - `blame`: the commit that each line of a file comes from.
//! - `source`: objects of one read, with its limits and its deadline.
//!
//! Contract: every commit that a caller names is reachable from the refs of the repository that it
//! answers for. An object directory belongs to a network of forks and keeps unreachable objects for
//! a while, so presence of an object proves nothing. The reader opens no refs. Everything that it
//! returns is reachable from the commits that were named.
//!
//! ADR 0013 says which parts of gix the reader stands on.

mod blame;
mod changes;
mod commit;
mod entry;
mod lines;
mod log;
mod renames;
mod source;

use std::fmt;
use std::ops::Range;

use henge_types::{ObjectId, limits};

use crate::protocol::Stop;
use crate::reach::ReachError;
use crate::store::{ObjectStore, Objects, StoreError};

pub use blame::{Blame, BlameEntry};
pub use changes::{Change, ChangeKind, Changes, RenameDetection, RenameSearch};
pub use commit::{CommitDetails, Person};
pub use entry::{Blob, DirectoryPage, Entry, PathKind};
pub use lines::{BlobDiff, LineDiff, LineHunk};
pub use log::{LogCursor, LogNext, LogPage};

use source::Source;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An object is missing, damaged or malformed; the message names it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deadline passed.
    #[error("the read was given up at its deadline")]
    Stopped,
    /// An id of the other object format: it names no object here.
    #[error("{id} is not an id of this repository's object format")]
    Format {
        /// The id.
        id: ObjectId,
    },
    /// An object or an entry of another kind than the operation needs.
    #[error("{id} is a {found}, not a {wanted}")]
    Kind {
        /// The object.
        id: ObjectId,
        /// Its kind.
        found: &'static str,
        /// The kind that the operation needs.
        wanted: &'static str,
    },
    /// An object is larger than the bound of the operation.
    #[error("object {id} has {bytes} bytes, at most {bytes_max} are read")]
    TooLarge {
        /// The object.
        id: ObjectId,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// A file has more lines than the bound of the operation.
    #[error("object {id} has {lines} lines, at most {lines_max} are compared")]
    TooManyLines {
        /// The blob.
        id: ObjectId,
        /// Its lines.
        lines: usize,
        /// The bound.
        lines_max: usize,
    },
    /// A path that no entry can have: with an empty component, or too long.
    #[error("not a path in a repository: it has an empty component or more than {bytes_max} bytes")]
    Path {
        /// The bound.
        bytes_max: usize,
    },
    /// A cursor with no commits, or with too many.
    #[error("not a cursor of a log: it has {commits} commits, 1 to {commits_max} are valid")]
    Cursor {
        /// Commits of the cursor.
        commits: usize,
        /// The bound.
        commits_max: usize,
    },
}

impl From<ReachError> for ReadError {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Store(error) => Self::Store(error),
            ReachError::Stopped => Self::Stopped,
        }
    }
}

/// Bounds of one read. The defaults are those of [`limits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLimits {
    /// Entries of one page of a directory.
    pub entries_max: usize,
    /// Names on such a page, together, in bytes.
    pub names_bytes_max: usize,
    /// A path, in bytes: one that is looked up, and one that is reported.
    pub path_bytes_max: usize,
    /// A blob that is returned whole, in bytes.
    pub blob_bytes_max: u64,
    /// The message of a commit, in bytes; the rest is cut off.
    pub message_bytes_max: usize,
    /// Commits of one page of a log.
    pub log_commits_max: usize,
    /// Commits that are walked for one page of a log.
    pub log_walked_max: usize,
    /// Commits of a cursor.
    pub log_pending_max: usize,
    /// Changed paths of one comparison.
    pub changes_max: usize,
    /// Entries that differ in one comparison, directories included.
    pub compared_max: usize,
    /// Paths of these entries, together, in bytes.
    pub paths_bytes_max: usize,
    /// A blob that is compared line by line, in bytes.
    pub diff_blob_bytes_max: u64,
    /// Its lines, and those of a file that is blamed.
    pub diff_lines_max: usize,
    /// Deleted paths that are compared with as many added ones, to find renames.
    pub rename_candidates_max: usize,
    /// Blobs that are read to find renames, together, in bytes.
    pub rename_bytes_max: u64,
    /// Chunks of blobs that are compared to find renames.
    pub rename_chunks_max: u64,
    /// A blob of a blame, in bytes.
    pub blame_blob_bytes_max: u64,
    /// Commits that a blame follows.
    pub blame_commits_max: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            entries_max: limits::READ_ENTRIES_MAX,
            names_bytes_max: limits::READ_NAMES_BYTES_MAX,
            path_bytes_max: limits::READ_PATH_BYTES_MAX,
            blob_bytes_max: limits::READ_BLOB_BYTES_MAX,
            message_bytes_max: limits::READ_MESSAGE_BYTES_MAX,
            log_commits_max: limits::LOG_COMMITS_MAX,
            log_walked_max: limits::LOG_WALKED_MAX,
            log_pending_max: limits::LOG_PENDING_MAX,
            changes_max: limits::DIFF_CHANGES_MAX,
            compared_max: limits::DIFF_COMPARED_MAX,
            paths_bytes_max: limits::DIFF_PATHS_BYTES_MAX,
            diff_blob_bytes_max: limits::DIFF_BLOB_BYTES_MAX,
            diff_lines_max: limits::DIFF_LINES_MAX,
            rename_candidates_max: limits::RENAME_CANDIDATES_MAX,
            rename_bytes_max: limits::RENAME_BYTES_MAX,
            rename_chunks_max: limits::RENAME_CHUNKS_MAX,
            blame_blob_bytes_max: limits::BLAME_BLOB_BYTES_MAX,
            blame_commits_max: limits::BLAME_COMMITS_MAX,
        }
    }
}

/// Reads one object directory as it was when the reader was opened.
///
/// Every commit in an argument is one that the repository's own refs reach; the caller has proven
/// it (see the module). Paths are raw bytes with single slashes between names, without a slash at
/// either end; the empty path is the root directory.
///
/// All operations fail with [`ReadError::Store`] when an object is missing or damaged, and with
/// [`ReadError::Stopped`] at the deadline. They block.
pub struct Reader {
    store: ObjectStore,
    limits: ReadLimits,
    stop: Stop,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("format", &self.store.format())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens the directory's packs as they are now.
    ///
    /// # Errors
    /// When the directory or a pack in it cannot be opened.
    pub fn open(objects: &Objects, limits: ReadLimits, stop: Stop) -> Result<Self, ReadError> {
        Ok(Self {
            store: objects.open()?,
            limits,
            stop,
        })
    }

    fn source(&self) -> Source<'_> {
        Source::new(&self.store, &self.limits, &self.stop)
    }

    /// The fields of a commit.
    ///
    /// # Errors
    /// [`ReadError::Kind`] when `commit` is another object.
    pub fn commit(&self, commit: ObjectId) -> Result<CommitDetails, ReadError> {
        let source = self.source();
        let (id, _) = source.start(commit)?;
        commit::details(&source, &id)
    }

    /// The entry at a path; `None` when there is none.
    ///
    /// # Errors
    /// [`ReadError::Path`] when no entry can have the path.
    pub fn entry(&self, commit: ObjectId, path: &[u8]) -> Result<Option<Entry>, ReadError> {
        entry::entry(&self.source(), commit, path)
    }

    /// One page of the directory at a path, in the order of the tree; `None` when there is no
    /// entry. `first` is the number of the page's first entry: 0, or [`DirectoryPage::next`] of the
    /// page before. The directory of a commit never changes, so pages fit together.
    ///
    /// # Errors
    /// [`ReadError::Kind`] when the entry is no directory.
    pub fn directory(
        &self,
        commit: ObjectId,
        path: &[u8],
        first: usize,
    ) -> Result<Option<DirectoryPage>, ReadError> {
        entry::directory(&self.source(), commit, path, first)
    }

    /// The size of a file or of a symbolic link's target, in bytes.
    ///
    /// # Errors
    /// [`ReadError::Kind`] when the entry is a directory or a submodule.
    pub fn blob_bytes(&self, entry: &Entry) -> Result<u64, ReadError> {
        entry::blob_bytes(&self.source(), entry)
    }

    /// The content of a file, or the target of a symbolic link.
    ///
    /// # Errors
    /// [`ReadError::Kind`] when the entry is a directory or a submodule, [`ReadError::TooLarge`]
    /// for more than [`ReadLimits::blob_bytes_max`].
    pub fn blob(&self, entry: &Entry) -> Result<Blob, ReadError> {
        entry::blob(&self.source(), entry)
    }

    /// One page of history, in the order of `git log`: newest first by the date of the committer.
    /// With a path, only the commits that change what is there, simplified as `git log -- PATH`
    /// does it: of a merge that has the path as one parent has it, only that parent is followed. A
    /// page of a path may be empty and not the last one, because only
    /// [`ReadLimits::log_walked_max`] commits are walked for it.
    ///
    /// A commit is never twice on one page. It is on two pages only where its date is newer than
    /// that of a commit that descends from it.
    ///
    /// # Errors
    /// [`ReadError::Cursor`] for a cursor with no commits or too many.
    pub fn log(
        &self,
        from: &LogCursor,
        path: &[u8],
        commits_max: usize,
    ) -> Result<LogPage, ReadError> {
        log::log(&self.source(), from, path, commits_max)
    }

    /// The paths that differ between two commits, sorted; without an old commit, those of the new
    /// one. Directories are not listed, submodules are.
    ///
    /// # Errors
    /// Those of all operations.
    pub fn changes(
        &self,
        old: Option<ObjectId>,
        new: ObjectId,
        renames: RenameDetection,
    ) -> Result<Changes, ReadError> {
        let source = self.source();
        let (_, new) = source.start(new)?;
        let old = old.map(|old| source.start(old)).transpose()?;
        let old = old.map(|(_, commit)| commit.tree);
        changes::changes(&source, old, new.tree, renames)
    }

    /// The paths that a commit changes in its first parent: those that `git log -m --first-parent`
    /// shows for a merge.
    ///
    /// # Errors
    /// Those of all operations.
    pub fn commit_changes(
        &self,
        commit: ObjectId,
        renames: RenameDetection,
    ) -> Result<Changes, ReadError> {
        let source = self.source();
        let (_, commit) = source.start(commit)?;
        let parent = commit.parents.first();
        let parent = parent.map(|parent| source.commit(parent)).transpose()?;
        changes::changes(
            &source,
            parent.map(|parent| parent.tree),
            commit.tree,
            renames,
        )
    }

    /// The lines that differ in a changed path. A side that is not there counts as empty.
    ///
    /// # Errors
    /// Those of all operations. Binary and large blobs are no errors.
    pub fn diff(&self, change: &Change) -> Result<BlobDiff, ReadError> {
        lines::diff(&self.source(), change)
    }

    /// The commit that each of `lines` of a file comes from, through renames; `None` when there is
    /// no entry. Lines are counted from 0; those behind the end of the file are left out.
    ///
    /// # Errors
    /// [`ReadError::Kind`] when the entry is a directory or a submodule, [`ReadError::TooLarge`]
    /// for more than [`ReadLimits::blame_blob_bytes_max`], [`ReadError::TooManyLines`] for more
    /// than [`ReadLimits::diff_lines_max`].
    pub fn blame(
        &self,
        commit: ObjectId,
        path: &[u8],
        lines: Range<u32>,
    ) -> Result<Option<Blame>, ReadError> {
        blame::blame(&self.source(), commit, path, lines)
    }
}
