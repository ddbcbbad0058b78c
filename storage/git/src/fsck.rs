//! Checks everything that an object store holds: checksums, the hash of every object, and that nothing reachable is
//! missing.
//!
//! Like `git fsck --full` without its rules of style: a finding means that something is lost or about to be.

mod connectivity;
mod packs;
mod reached;

use std::path::{Path, PathBuf};

use henge_types::{ObjectFormat, ObjectId};

use crate::oid::{from_gix, hash_kind};
use crate::protocol::Stop;
use crate::store::StoreError;

pub use reached::{Reached, reach_anew, reach_from};

/// Findings that are kept; later ones are only counted.
pub const FINDINGS_MAX: usize = 1000;
/// How often the deadline is looked at and progress is told, in objects.
const TELL_EVERY: u64 = 512;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A file of the store cannot be opened, or its checksum is wrong.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An object that is there cannot be read, or is not what its id says.
    #[error("object {id} in {path} is damaged: {reason}")]
    Damaged {
        /// The object.
        id: ObjectId,
        /// The pack or the loose object's directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A reachable object is not there.
    #[error("object {id} is missing{}", needed(.needed_by.as_ref()))]
    Missing {
        /// The object.
        id: ObjectId,
        /// Who refers to it; none for a tip.
        needed_by: Option<ObjectId>,
    },
    /// A reachable object is there and cannot be read.
    #[error("object {id} cannot be read: {reason}")]
    Unreadable {
        /// The object.
        id: ObjectId,
        /// Why not.
        reason: String,
    },
    /// A commit, tree or tag that does not parse.
    #[error("{kind} {id} is malformed")]
    Malformed {
        /// The object.
        id: ObjectId,
        /// What it says that it is.
        kind: &'static str,
    },
    /// An object of another kind than the one that refers to it says.
    #[error("object {id} is a {kind}, {needed_by} says that it is a {expected}")]
    Kind {
        /// The object.
        id: ObjectId,
        /// What it is.
        kind: &'static str,
        /// Who refers to it.
        needed_by: ObjectId,
        /// As what.
        expected: &'static str,
    },
    /// A tree that a checkout must not be made from.
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

/// What is being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Every object of every pack.
    Packs,
    /// Every loose object.
    Loose,
    /// What can be reached from the tips.
    Connectivity,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsckProgress {
    /// What is being checked.
    pub stage: Stage,
    /// Objects that were checked in this stage.
    pub objects: u64,
    /// How many there are, where that is known.
    pub total: Option<u64>,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Packs that were opened.
    pub packs: u64,
    /// Objects in packs that were checked, one in several packs as often.
    pub packed: u64,
    /// Loose objects that were checked.
    pub loose: u64,
    /// Objects that can be reached from the tips; none when the store could not be opened for it.
    pub reachable: Option<u64>,
    /// Objects in packs that cannot be reached from the tips, each counted once; none as above. They are no finding:
    /// rewritten history and deleted refs leave them.
    pub unreachable: Option<u64>,
    /// The first [`FINDINGS_MAX`] findings.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more_findings: u64,
}

/// Why a check has no report.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The store cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The time for it is over.
    #[error("the check took too long")]
    Stopped,
}

/// A check under way.
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
                // It was packed or pruned in between.
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

/// Why `data` is not the object `id`.
fn hash_mismatch(id: &crate::oid::oid, kind: gix_object::Kind, data: &[u8]) -> Option<String> {
    match gix_object::compute_hash(id.kind(), kind, data) {
        Ok(found) if found == id => None,
        Ok(found) => Some(format!("its content has the hash {found}")),
        Err(error) => Some(error.to_string()),
    }
}

/// Checks one pack of objects of this format: its checksums and its index, and every object of it, inflated and hashed.
///
/// # Errors
/// When the time is over. What is wrong inside is no error but a finding.
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

/// Checks the object store `objects`, of objects of this format, and that everything reachable from `tips` is in it.
///
/// Every pack and loose object of the directory itself is read, not those of its alternates; reachable objects may lie
/// there as well. `progress` is called now and then. Keeps about 50 bytes for every reachable object.
///
/// # Errors
/// When the store cannot be listed or the time is over. What is wrong inside is no error but a finding.
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
