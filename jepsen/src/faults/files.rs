//! The kinds of files in a data directory.

use std::fs;
use std::path::{Path, PathBuf};

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A segment of the write-ahead log.
    Wal,
    /// A snapshot of a group.
    Snapshot,
    /// A file of the state store.
    Kv,
    /// A pack.
    Pack,
    /// A pack's index.
    Index,
    /// Another file beside packs: bitmap, commit-graph, checksums.
    Sidecar,
    /// A file at the top level: identity, certificates, key, claims.
    Identity,
    /// A pack that is acknowledged and not named by an entry yet.
    Staged,
    /// The whole folder of a fork network.
    Network,
}

impl FileKind {
    /// All kinds of single files.
    pub(super) const FILES: [Self; 8] = [
        Self::Wal,
        Self::Snapshot,
        Self::Kv,
        Self::Pack,
        Self::Index,
        Self::Sidecar,
        Self::Identity,
        Self::Staged,
    ];

    /// The log words with which a node may refuse to start without it; `None` when it must start.
    pub(super) const fn refusal(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Wal => Some(&["wal", "log"]),
            Self::Snapshot => Some(&["snapshot"]),
            Self::Identity => Some(&[
                "identity",
                "incarnation",
                "certificate",
                "node.pem",
                "node.key",
                "ca.pem",
                "clean",
                "start",
            ]),
            // All of these can be restored from the log, the snapshots or another replica.
            Self::Kv | Self::Pack | Self::Index | Self::Sidecar | Self::Staged | Self::Network => {
                None
            }
        }
    }

    /// Whether a node reads it only at start or keeps it open: damage shows at the next start.
    pub(super) const fn read_at_start(self) -> bool {
        matches!(self, Self::Wal | Self::Snapshot | Self::Kv | Self::Identity)
    }

    /// Whether the file never changes once it is named, so that its old bytes can be restored.
    pub(super) const fn immutable(self) -> bool {
        !matches!(self, Self::Kv)
    }

    /// All files of this kind, sorted.
    pub(super) fn list(self, data: &Path) -> Vec<PathBuf> {
        let suffix = |path: &Path, wanted: &str| {
            path.extension()
                .is_some_and(|extension| extension == wanted)
        };
        let below = |top: &str, keep: &dyn Fn(&Path) -> bool| {
            let mut found = Vec::new();
            files(&data.join(top), &mut found);
            found.retain(|path| keep(path));
            found
        };
        let mut found = match self {
            Self::Wal => below("wal", &|path| suffix(path, "seg")),
            Self::Snapshot => below("snapshots", &|path| suffix(path, "snap")),
            Self::Kv => below("kv", &|path| !path.ends_with("lock")),
            Self::Pack => below("networks", &|path| suffix(path, "pack")),
            Self::Index => below("networks", &|path| suffix(path, "idx")),
            Self::Sidecar => below("networks", &|path| {
                let beside = path
                    .parent()
                    .is_some_and(|folder| folder.ends_with("pack") || folder.ends_with("info"));
                beside && !suffix(path, "pack") && !suffix(path, "idx") && !suffix(path, "lock")
            }),
            Self::Identity => top_files(data),
            Self::Staged => below("staged", &|_| true),
            Self::Network => networks(data),
        };
        found.sort();
        found
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn top_files(data: &Path) -> Vec<PathBuf> {
    // Files without state: the lock, the process id, a log.
    let idle = ["henge.lock", "henge.pid", "henge.log", "proof"];
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let kept = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        entry.file_type().is_ok_and(|kind| kind.is_file()) && !idle.contains(&name.as_str())
    });
    kept.map(|entry| entry.path()).collect()
}

fn networks(data: &Path) -> Vec<PathBuf> {
    let folders = |top: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(top).into_iter().flatten().flatten();
        let kept = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        kept.map(|entry| entry.path()).collect()
    };
    let tops = folders(&data.join("networks"));
    tops.iter().flat_map(|top| folders(top)).collect()
}
