//! Repositories that follow others, or are followed.

use henge_types::{MirrorId, RepoPath};
use http::Method;

use super::{ANSWER_BYTES_MAX, Client, Effect, bare, get, with_body};
use crate::error::ClientError;
use crate::model::{Force, Mirror, MirrorEdit, NewMirror};

impl Client {
    /// The mirrors of a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn mirrors(&self, path: &RepoPath) -> Result<Vec<Mirror>, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/mirrors");
        self.json(&get(path, ANSWER_BYTES_MAX), Effect::Reads).await
    }

    /// Makes a mirror, which is due at once.
    ///
    /// # Errors
    /// `not_found`, `invalid`; `conflict`, also where refs would be lost and [`NewMirror::replace`]
    /// does not allow it; `timeout` means that it may have been made.
    pub async fn add_mirror(
        &self,
        path: &RepoPath,
        new: &NewMirror,
    ) -> Result<Mirror, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/mirrors");
        let call = with_body(Method::POST, path, new);
        self.json(&call, Effect::Changes).await
    }

    /// Changes the settings of a mirror, and makes it due.
    ///
    /// # Errors
    /// `not_found`, `invalid`; `conflict` as for a new one; `timeout` means that it may have been
    /// changed. A repeated call does no harm.
    pub async fn edit_mirror(
        &self,
        path: &RepoPath,
        id: MirrorId,
        edit: &MirrorEdit,
    ) -> Result<Mirror, ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/mirrors/{id}");
        let call = with_body(Method::PATCH, path, edit);
        self.json(&call, Effect::Reads).await
    }

    /// Removes a mirror.
    ///
    /// # Errors
    /// `not_found`; `timeout` means that it may have been removed.
    pub async fn remove_mirror(&self, path: &RepoPath, id: MirrorId) -> Result<(), ClientError> {
        let path = format!("/api/henge/v1/repos/{path}/mirrors/{id}");
        let call = bare(Method::DELETE, path);
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Makes a mirror due now; answers at once.
    ///
    /// # Errors
    /// `not_found`, and as every call. A repeated call does no harm.
    pub async fn sync_mirror(
        &self,
        path: &RepoPath,
        id: MirrorId,
        force: Force,
    ) -> Result<(), ClientError> {
        let query = match force {
            Force::No => "",
            Force::Yes => "?force=true",
        };
        let path = format!("/api/henge/v1/repos/{path}/mirrors/{id}/sync{query}");
        let call = bare(Method::POST, path);
        self.ask(&call, Effect::Reads).await.map(|_| ())
    }
}
