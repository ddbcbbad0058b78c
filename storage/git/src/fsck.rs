//! Checks the content of an object store: checksums, the hash of every object, and that no
//! reachable object is missing.
//!
//! Like `git fsck --full` without its rules of style: a finding means that data is lost or about to
//! be.

mod connectivity;
mod packs;
mod reached;

use std::path::{Path, PathBuf};

use henge_types::{ObjectFormat, ObjectId};

use crate::oid::{from_gix, hash_kind};
use crate::protocol::Stop;
use crate::store::StoreError;

pub use reached::{Reached, reach_anew, reach_from};

/// Maximum number of findings in a report; later ones are only counted.
pub const FINDINGS_MAX: usize = 1000;
/// Interval of deadline checks and progress reports, in objects.
const TELL_EVERY: u64 = 512;

/// A problem in an object store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A file of the store cannot be opened, or its checksum is wrong.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A stored object cannot be read, or its content does not match its id.
    #[error("object {id} in {path} is damaged: {reason}")]
    Damaged {
        /// The object.
        id: ObjectId,
        /// The pack or the loose object's directory.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A reachable object is missing.
    #[error("object {id} is missing{}", needed(.needed_by.as_ref()))]
    Missing {
        /// The object.
        id: ObjectId,
        /// The referring object; `None` for a tip.
        needed_by: Option<ObjectId>,
    },
    /// A reachable object exists and cannot be read.
    #[error("object {id} cannot be read: {reason}")]
    Unreadable {
        /// The object.
        id: ObjectId,
        /// The reason.
        reason: String,
    },
    /// A commit, tree or tag that does not parse.
    #[error("{kind} {id} is malformed")]
    Malformed {
        /// The object.
        id: ObjectId,
        /// Its kind.
        kind: &'static str,
    },
    /// An object is of another kind than the object that refers to it expects.
    #[error("object {id} is a {kind}, {needed_by} says that it is a {expected}")]
    Kind {
        /// The object.
        id: ObjectId,
        /// Its kind.
        kind: &'static str,
        /// The referring object.
        needed_by: ObjectId,
        /// The expected kind.
        expected: &'static str,
    },
    /// A tree with a name that is unsafe in a checkout.
    #[error("tree {id} holds a forbidden path name")]
    ForbiddenName {
        /// The tree.
        id: ObjectId,
    },
}

fn needed(by: Option<&ObjectId>) -> String {
    by.map_or_else(
        || ": a ref points at it".to_owned(),
        |by| format!(": {by} needs it"),
    )
}

/// A stage of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Every object of every pack.
    Packs,
    /// Every loose object.
    Loose,
    /// The objects that are reachable from the tips.
    Connectivity,
}

/// The progress of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsckProgress {
    /// The current stage.
    pub stage: Stage,
    /// Objects checked in this stage.
    pub objects: u64,
    /// The number of all objects, if known.
    pub total: Option<u64>,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Packs that were opened.
    pub packs: u64,
    /// Objects in packs that were checked. An object in several packs counts several times.
    pub packed: u64,
    /// Loose objects that were checked.
    pub loose: u64,
    /// Objects that are reachable from the tips; `None` when this was not checked.
    pub reachable: Option<u64>,
    /// Unreachable objects in packs, each counted once; `None` when this was not checked. They are
    /// no finding: rewritten history and deleted refs leave them.
    pub unreachable: Option<u64>,
    /// The first [`FINDINGS_MAX`] findings.
    pub findings: Vec<Finding>,
    /// Number of further findings.
    pub more_findings: u64,
}

/// The reason why a check has no report.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The store cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deadline passed.
    #[error("the check took too long")]
    Stopped,
}

/// A check in progress.
struct Fsck<'a> {
    format: ObjectFormat,
    report: FsckReport,
    stop: &'a Stop,
    progress: &'a mut dyn FnMut(FsckProgress),
}

impl Fsck<'_> {
    fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.report.more_findings += 1;
        }
    }

    fn tell(&mut self, stage: Stage, objects: u64, total: Option<u64>) -> Result<(), FsckError> {
        if objects.is_multiple_of(TELL_EVERY) || Some(objects) == total {
            if self.stop.is_set() {
                return Err(FsckError::Stopped);
            }
            (self.progress)(FsckProgress {
                stage,
                objects,
                total,
            });
        }
        Ok(())
    }

    fn check_loose(&mut self, objects: &Path) -> Result<(), FsckError> {
        let store = gix_odb::loose::Store::at(objects, hash_kind(self.format));
        let mut buffer = Vec::new();
        for id in store.iter() {
            let id = match id {
                Ok(id) => id,
                Err(error) => {
                    self.find(Finding::File {
                        path: objects.to_owned(),
                        reason: error.to_string(),
                    });
                    continue;
                }
            };
            let reason = match store.try_find(&id, &mut buffer) {
                // It was packed or pruned meanwhile.
                Ok(None) => continue,
                Ok(Some(data)) => hash_mismatch(&id, data.kind, data.data),
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = reason {
                self.find(Finding::Damaged {
                    id: from_gix(&id),
                    path: objects.to_owned(),
                    reason,
                });
            }
            self.report.loose += 1;
            self.tell(Stage::Loose, self.report.loose, None)?;
        }
        Ok(())
    }
}

/// The reason why `data` is not the object `id`; `None` if it is.
fn hash_mismatch(id: &crate::oid::oid, kind: gix_object::Kind, data: &[u8]) -> Option<String> {
    match gix_object::compute_hash(id.kind(), kind, data) {
        Ok(found) if found == id => None,
        Ok(found) => Some(format!("its content has the hash {found}")),
        Err(error) => Some(error.to_string()),
    }
}

/// Checks one pack of objects of this format: its checksums, its index, and every object in it,
/// inflated and hashed.
///
/// # Errors
/// When the deadline passes. Problems in the pack are findings, not errors.
pub fn fsck_pack(idx: &Path, format: ObjectFormat, stop: &Stop) -> Result<FsckReport, FsckError> {
    let mut fsck = Fsck {
        format,
        report: FsckReport::default(),
        stop,
        progress: &mut |_| {},
    };
    fsck.check_one_pack(idx)?;
    Ok(fsck.report)
}

/// Checks the object store `objects`, of objects of this format, and that it holds everything
/// reachable from `tips`.
///
/// Every pack and loose object of the directory itself is read, but not those of its alternates.
/// Reachable objects may be in alternates, too. `progress` is called from time to time. The memory
/// is about 50 bytes per reachable object.
///
/// # Errors
/// When the store cannot be listed or the deadline passes. Problems in the store are findings, not
/// errors.
pub fn fsck(
    objects: &Path,
    format: ObjectFormat,
    tips: &[ObjectId],
    stop: &Stop,
    progress: &mut dyn FnMut(FsckProgress),
) -> Result<FsckReport, FsckError> {
    let mut fsck = Fsck {
        format,
        report: FsckReport::default(),
        stop,
        progress,
    };
    fsck.check_packs(objects)?;
    fsck.check_loose(objects)?;
    fsck.check_connectivity(objects, tips)?;
    Ok(fsck.report)
}
