//! Entries of trees: lookup by path, pages of a directory, blobs.

use std::sync::Arc;

use gix_object::tree::EntryMode;
use henge_types::ObjectId;

use crate::oid::{Oid, from_gix};
use crate::read::ReadError;
use crate::read::source::{Found, Source, entries, malformed};

/// Bytes of a blob that are searched for a zero byte, as in git.
const BINARY_BYTES: usize = 8000;

/// The kind of an entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A file with the executable bit.
    Executable,
    /// A symbolic link; its blob is the target.
    SymbolicLink,
    /// A submodule; its commit is in another repository.
    Submodule,
}

impl PathKind {
    /// From the mode in a tree; `None` for a mode that git does not write.
    pub(super) const fn of(mode: EntryMode) -> Option<Self> {
        let mode = mode.value();
        match mode & 0o170_000 {
            0o040_000 => Some(Self::Directory),
            0o100_000 if mode & 0o100 != 0 => Some(Self::Executable),
            0o100_000 => Some(Self::File),
            0o120_000 => Some(Self::SymbolicLink),
            0o160_000 => Some(Self::Submodule),
            _ => None,
        }
    }

    /// The mode that git writes for it.
    pub const fn mode(self) -> u32 {
        match self {
            Self::Directory => 0o040_000,
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::SymbolicLink => 0o120_000,
            Self::Submodule => 0o160_000,
        }
    }

    /// Whether the entry's object is a blob of this repository.
    pub const fn is_blob(self) -> bool {
        match self {
            Self::File | Self::Executable | Self::SymbolicLink => true,
            Self::Directory | Self::Submodule => false,
        }
    }

    /// Whether it is a file, executable or not.
    pub const fn is_file(self) -> bool {
        match self {
            Self::File | Self::Executable => true,
            Self::Directory | Self::SymbolicLink | Self::Submodule => false,
        }
    }

    /// Whether a change from one to the other leaves the type as it is: only the executable bit may
    /// differ.
    pub(super) fn is_type_of(self, other: Self) -> bool {
        self == other || (self.is_file() && other.is_file())
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File | Self::Executable => "file",
            Self::SymbolicLink => "symbolic link",
            Self::Submodule => "submodule",
        }
    }
}

/// An entry of a tree. Only a [`Reader`](super::Reader) makes them, so an entry stands for an
/// object that its commit reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    path: Vec<u8>,
    kind: PathKind,
    id: Oid,
}

impl Entry {
    pub(super) const fn new(path: Vec<u8>, kind: PathKind, id: Oid) -> Self {
        Self { path, kind, id }
    }

    /// Its path from the root directory.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The last name of its path; empty for the root directory.
    pub fn name(&self) -> &[u8] {
        let start = memchr::memrchr(b'/', &self.path).map_or(0, |slash| slash + 1);
        &self.path[start..]
    }

    /// Its kind.
    pub const fn kind(&self) -> PathKind {
        self.kind
    }

    /// Its object: a tree, a blob, or the commit of a submodule.
    pub fn id(&self) -> ObjectId {
        from_gix(&self.id)
    }

    pub(super) const fn oid(&self) -> &Oid {
        &self.id
    }

    pub(super) fn expect_blob(&self) -> Result<(), ReadError> {
        if self.kind.is_blob() {
            return Ok(());
        }
        Err(ReadError::Kind {
            id: self.id(),
            found: self.kind.word(),
            wanted: PathKind::File.word(),
        })
    }
}

/// Some entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPage {
    /// The tree of the directory.
    pub tree: ObjectId,
    /// The entries, in the order of the tree.
    pub entries: Vec<Entry>,
    /// The number of the next page's first entry; `None` on the last page.
    pub next: Option<usize>,
}

/// The content of a file or the target of a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its id.
    pub id: ObjectId,
    /// Its bytes.
    pub data: Arc<Vec<u8>>,
}

impl Blob {
    /// Whether git takes it for binary: it has a zero byte among its first 8000.
    pub fn is_binary(&self) -> bool {
        is_binary(&self.data)
    }
}

/// Whether git takes the bytes of a blob for binary.
pub(super) fn is_binary(data: &[u8]) -> bool {
    let head = data.get(..BINARY_BYTES).unwrap_or(data);
    memchr::memchr(0, head).is_some()
}

/// See [`Reader::entry`](super::Reader::entry).
pub(super) fn entry(
    source: &Source<'_>,
    commit: ObjectId,
    path: &[u8],
) -> Result<Option<Entry>, ReadError> {
    let names = source.names(path)?;
    let (_, commit) = source.start(commit)?;
    let found = source.lookup(commit.tree, &names)?;
    Ok(found.map(|Found { kind, id }| Entry::new(path.to_owned(), kind, id)))
}

/// See [`Reader::directory`](super::Reader::directory).
pub(super) fn directory(
    source: &Source<'_>,
    commit: ObjectId,
    path: &[u8],
    first: usize,
) -> Result<Option<DirectoryPage>, ReadError> {
    let Some(at) = entry(source, commit, path)? else {
        return Ok(None);
    };
    if at.kind != PathKind::Directory {
        return Err(ReadError::Kind {
            id: at.id(),
            found: at.kind.word(),
            wanted: PathKind::Directory.word(),
        });
    }
    let limits = source.limits();
    let data = source.tree(&at.id)?;
    let mut page = DirectoryPage {
        tree: at.id(),
        entries: Vec::new(),
        next: None,
    };
    let mut names_bytes = 0;
    for (number, entry) in entries(&data, source.format()).enumerate() {
        let entry = entry.map_err(|_| malformed(&at.id))?;
        let kind = PathKind::of(entry.mode).ok_or_else(|| malformed(&at.id))?;
        if number < first {
            continue;
        }
        names_bytes += entry.filename.len();
        let is_full =
            page.entries.len() >= limits.entries_max || names_bytes > limits.names_bytes_max;
        // A page has an entry in any case: the next one begins behind it.
        if is_full && !page.entries.is_empty() {
            page.next = Some(number);
            break;
        }
        let path = joined(path, entry.filename);
        page.entries
            .push(Entry::new(path, kind, entry.oid.to_owned()));
    }
    Ok(Some(page))
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// See [`Reader::blob_bytes`](super::Reader::blob_bytes).
pub(super) fn blob_bytes(source: &Source<'_>, entry: &Entry) -> Result<u64, ReadError> {
    entry.expect_blob()?;
    source.blob_bytes(&entry.id)
}

/// See [`Reader::blob`](super::Reader::blob).
pub(super) fn blob(source: &Source<'_>, entry: &Entry) -> Result<Blob, ReadError> {
    entry.expect_blob()?;
    let data = source.blob(&entry.id, source.limits().blob_bytes_max)?;
    Ok(Blob {
        id: entry.id(),
        data,
    })
}
