//! The subject of a finding of a check, and its text.

use std::path::Path;

use henge_git::fsck::Finding;
use henge_types::{ObjectId, PackId};

pub(super) fn path_of(finding: &Finding) -> Option<&Path> {
    match finding {
        Finding::File { path, .. } | Finding::Damaged { path, .. } => Some(path),
        Finding::Missing { .. }
        | Finding::Unreadable { .. }
        | Finding::Malformed { .. }
        | Finding::Kind { .. }
        | Finding::ForbiddenName { .. } => None,
    }
}

pub(super) const fn object_of(finding: &Finding) -> Option<ObjectId> {
    match finding {
        Finding::File { .. } => None,
        Finding::Damaged { id, .. }
        | Finding::Missing { id, .. }
        | Finding::Unreadable { id, .. }
        | Finding::Malformed { id, .. }
        | Finding::Kind { id, .. }
        | Finding::ForbiddenName { id } => Some(*id),
    }
}

pub(super) fn pack_of(path: &Path) -> Option<PackId> {
    let name = path.file_stem()?.to_str()?;
    name.strip_prefix("pack-")?.parse().ok()
}

/// Without the folders of this node's disk: they mean nothing to a caller.
pub(super) fn text_of(finding: &Finding, objects: &Path) -> String {
    let folder = format!("{}/", objects.display());
    finding.to_string().replace(&folder, "")
}
