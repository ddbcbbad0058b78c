//! Mirrors of a repository.

use henge_client::model::{MirrorEdit, NewMirror};
use henge_types::{Mirror, MirrorChange, MirrorId, Principal, RepoPath};

use super::answer::Answer;

/// The mirrors of a repository. URLs may hold credentials, which are removed from them.
pub trait Mirrors {
    /// The mirrors of a repository, without passwords; linearizable. Errors: `not_found`,
    /// `unavailable`.
    fn mirrors<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<Mirror>>;

    /// Makes a mirror, which is due at once. Errors: `not_found`, `forbidden`, `invalid`,
    /// `conflict`, `unavailable`, `timeout`.
    fn add_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        new: NewMirror,
    ) -> Answer<'a, MirrorId>;

    /// Changes the settings of a mirror, and makes it due. Errors: `not_found`, `forbidden`,
    /// `invalid`, `unavailable`, `timeout`.
    fn edit_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        edit: MirrorEdit,
    ) -> Answer<'a, ()>;

    /// Removes a mirror or makes it due. Errors: `not_found`, `forbidden`, `unavailable`,
    /// `timeout`.
    fn change_mirror<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        change: MirrorChange,
    ) -> Answer<'a, ()>;
}
