//! Changing repositories: settings, names, protected refs.

use bytes::Bytes;
use henge_types::{OwnerName, RepoPath, Topic};
use http::Method;
use serde::Serialize;

use super::{ANSWER_BYTES_MAX, Call, Client, Effect, get};
use crate::error::ClientError;
use crate::model::{NewOwner, Protection, RepoChange, RuleName, Topics};

impl Client {
    /// Changes what `change` names of a repository, all or nothing.
    ///
    /// # Errors
    /// `not_found`, `already_exists` for a name that is taken, `invalid`, and as every call; `timeout` means that the
    /// change may have been made.
    pub async fn change_repo(
        &self,
        path: &RepoPath,
        change: &RepoChange,
    ) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}");
        let call = call(Method::PATCH, path, Some(change));
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Says what a repository is about, instead of what was said before.
    ///
    /// # Errors
    /// As [`Self::change_repo`].
    pub async fn set_topics(&self, path: &RepoPath, topics: &[Topic]) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}/topics");
        let call = call(Method::PUT, path, Some(&Topics { topics }));
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// Gives a repository to another owner.
    ///
    /// # Errors
    /// As [`Self::change_repo`].
    pub async fn transfer_repo(
        &self,
        path: &RepoPath,
        new_owner: &OwnerName,
    ) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}/transfer");
        let call = call(Method::POST, path, Some(&NewOwner { new_owner }));
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// The protected refs of a repository.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn protections(&self, path: &RepoPath) -> Result<Vec<Protection>, ClientError> {
        let path = format!("/api/v1/repos/{path}/branch_protections");
        self.json(&get(path, ANSWER_BYTES_MAX), Effect::Reads).await
    }

    /// Protects refs from deletion and from losing history.
    ///
    /// # Errors
    /// `already_exists`, and as [`Self::change_repo`].
    pub async fn protect(&self, path: &RepoPath, pattern: &str) -> Result<(), ClientError> {
        let path = format!("/api/v1/repos/{path}/branch_protections");
        let rule = RuleName { rule_name: pattern };
        let call = call(Method::POST, path, Some(&rule));
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }

    /// The opposite; the pattern is written as it was set.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn unprotect(&self, path: &RepoPath, pattern: &str) -> Result<(), ClientError> {
        let pattern = in_path(pattern);
        let path = format!("/api/v1/repos/{path}/branch_protections/{pattern}");
        let call = call(Method::DELETE, path, None::<&()>);
        self.ask(&call, Effect::Changes).await.map(|_| ())
    }
}

fn call(method: Method, path: String, body: Option<&impl Serialize>) -> Call {
    let encode = |body| serde_json::to_vec(body).expect("invariant: the bodies have string keys");
    Call {
        method,
        path,
        body: body.map(|body| Bytes::from(encode(body))),
        answer_bytes_max: ANSWER_BYTES_MAX,
    }
}

/// As it stands in a path or a query: everything but letters, digits, `/` and a few harmless signs by its bytes.
pub(super) fn in_path(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let encode = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_in_paths_by_their_bytes() {
        assert_eq!(in_path("release/v[0-9]*"), "release/v%5B0-9%5D%2A");
        assert_eq!(in_path("a?b%"), "a%3Fb%25");
    }
}
