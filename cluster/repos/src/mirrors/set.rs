//! Requests about mirrors: create, change, remove, run now.

use henge_git::http::ServiceError;
use henge_git_client::{Credentials, RemoteUrl};
use henge_types::{
    ChangeMirror, Command, EditMirror, ErrorCode, Generation, Mirror, MirrorChange, MirrorId,
    MirrorRemoval, MirrorSecret, MirrorSettings, NotAccepted, Principal, Refusal, RepoId, RepoPath,
    SecretEdit, SetMirror, ShardCommand, limits,
};

use crate::access::allow;
use crate::catalogue::{QUORUM_WAIT, Reader};
use crate::error::{self, failed, from_cluster, from_refusal, unexpected};
use crate::repos::Repos;

/// The other side of a mirror: its URL and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorAddress {
    /// The URL without credentials.
    pub url: String,
    /// The credentials.
    pub secret: Option<MirrorSecret>,
}

impl MirrorAddress {
    /// Parses a URL that may contain a user and password. `user` and `password` take precedence
    /// over those in the URL.
    ///
    /// # Errors
    /// `Invalid`; the message does not repeat the URL.
    pub fn parse(
        url: &str,
        user: Option<String>,
        password: Option<String>,
    ) -> Result<Self, ServiceError> {
        let (url, inside) =
            RemoteUrl::parse(url).map_err(|error| error::invalid(format!("url: {error}")))?;
        let inside = match inside {
            Some(Credentials::Basic { user, password }) => Some((user, password)),
            Some(Credentials::Bearer(_)) | None => None,
        };
        let (inside_user, inside_password) = inside.unzip();
        Ok(Self {
            url: url.to_string(),
            secret: Self::secret_of(user.or(inside_user), password.or(inside_password)),
        })
    }

    /// Credentials, if a user or a password is given. The default user, `git`, is for tokens.
    pub fn secret_of(user: Option<String>, password: Option<String>) -> Option<MirrorSecret> {
        match (user, password) {
            (None, None) => None,
            (user, password) => Some(MirrorSecret {
                user: user.unwrap_or_else(|| "git".to_owned()),
                password: password.unwrap_or_default(),
            }),
        }
    }
}

/// Changes of a mirror; a `None` field is unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorEdit {
    /// The new address of the other side, with its credentials.
    pub address: Option<MirrorAddress>,
    /// New credentials; they take precedence over those of the address.
    pub secret: Option<MirrorSecret>,
    /// Milliseconds from one run to the next.
    pub interval_ms: Option<u64>,
    /// Whether each change of a ref makes it due.
    pub on_push: Option<bool>,
    /// What the first run at a new address may remove.
    pub removal: MirrorRemoval,
}

impl Repos {
    /// The mirrors of a repository, by id, without passwords. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn mirrors(&self, path: &RepoPath) -> Result<Vec<Mirror>, ServiceError> {
        self.inner.mirrors(path).await
    }

    /// Creates a mirror, due at once; returns its id. Its first run deletes or overwrites refs of
    /// the destination only if `removal` allows it.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Invalid`. `Conflict` when the repository follows another one
    /// already, when it has too many mirrors, or when refs would be lost and `removal` does not
    /// allow it. `Unavailable` or `Timeout` without a quorum.
    pub async fn add_mirror(
        &self,
        principal: &Principal,
        path: &RepoPath,
        settings: MirrorSettings,
        removal: MirrorRemoval,
    ) -> Result<MirrorId, ServiceError> {
        let principal = allow(principal)?;
        if !settings.is_well_formed() {
            return Err(ill_formed());
        }
        if removal == MirrorRemoval::Nothing {
            self.inner.refuse_losses(path, &settings).await?;
        }
        let mirror = MirrorId::from_bytes(self.inner.cluster.random().bytes());
        let conflict = format!(
            "{path} follows another repository already, or has {} mirrors, the most there may be",
            limits::MIRRORS_MAX
        );
        let make = |repo, generation| {
            ShardCommand::SetMirror(SetMirror {
                repo,
                generation,
                mirror,
                settings: settings.clone(),
                removal: Some(removal),
            })
        };
        let conflict = failed(ErrorCode::Conflict, conflict);
        self.tell_shard(principal, path, make, conflict).await?;
        Ok(mirror)
    }

    /// Changes a mirror, and makes it due. A new URL comes with its own credentials, or with none.
    /// The first run at a new URL follows the rules of a new mirror.
    ///
    /// # Errors
    /// `NotFound` also when the repository has no such mirror. `Forbidden`, `Invalid`. `Conflict`
    /// when refs would be lost at or by a new URL and `edit.removal` does not allow it.
    /// `Unavailable` or `Timeout` without a quorum.
    pub async fn edit_mirror(
        &self,
        principal: &Principal,
        path: &RepoPath,
        mirror: MirrorId,
        edit: MirrorEdit,
    ) -> Result<(), ServiceError> {
        let principal = allow(principal)?;
        let removal = match &edit.address {
            Some(address) => {
                let asked = self.removal_at(path, mirror, address, edit.removal);
                asked.await?
            }
            None => None,
        };
        let (url, secret) = match edit.address {
            None => (None, SecretEdit::Keep),
            Some(MirrorAddress { url, secret }) => {
                let secret = secret.map_or(SecretEdit::Remove, SecretEdit::Set);
                (Some(url), secret)
            }
        };
        let secret = edit.secret.map_or(secret, SecretEdit::Set);
        let make = |repo, generation| {
            ShardCommand::EditMirror(EditMirror {
                repo,
                generation,
                mirror,
                url: url.clone(),
                secret: secret.clone(),
                interval_ms: edit.interval_ms,
                on_push: edit.on_push,
                removal,
            })
        };
        let missing = no_such_mirror(path, mirror);
        let told = self.tell_shard(principal, path, make, missing).await;
        told.map_err(|error| match error.code == ErrorCode::Invalid {
            true => ill_formed(),
            false => error,
        })
    }

    /// What the runs of a mirror may remove at a new address; `None` when the address is unchanged.
    async fn removal_at(
        &self,
        path: &RepoPath,
        mirror: MirrorId,
        address: &MirrorAddress,
        asked: MirrorRemoval,
    ) -> Result<Option<MirrorRemoval>, ServiceError> {
        let mirrors = self.mirrors(path).await?;
        let known = mirrors.into_iter().find(|known| known.id == mirror);
        let Some(known) = known else {
            return Err(no_such_mirror(path, mirror));
        };
        if known.settings.url == address.url {
            return Ok(None);
        }
        let settings = MirrorSettings {
            url: address.url.clone(),
            secret: address.secret.clone(),
            ..known.settings
        };
        if asked == MirrorRemoval::Nothing {
            self.inner.refuse_losses(path, &settings).await?;
        }
        Ok(Some(asked))
    }

    /// Removes a mirror, or makes it due now.
    ///
    /// # Errors
    /// `NotFound` also when the repository has no such mirror; `Forbidden`; `Unavailable` or
    /// `Timeout` without a quorum.
    pub async fn change_mirror(
        &self,
        principal: &Principal,
        path: &RepoPath,
        mirror: MirrorId,
        change: MirrorChange,
    ) -> Result<(), ServiceError> {
        let make = |repo, generation| {
            ShardCommand::ChangeMirror(ChangeMirror {
                repo,
                generation,
                mirror,
                change,
            })
        };
        let missing = no_such_mirror(path, mirror);
        self.tell_shard(principal, path, make, missing).await
    }

    async fn tell_shard(
        &self,
        principal: &Principal,
        path: &RepoPath,
        make: impl Fn(RepoId, Generation) -> ShardCommand + Sync,
        wrong_state: ServiceError,
    ) -> Result<(), ServiceError> {
        let principal = allow(principal)?;
        let (inner, make, wrong_state) = (&self.inner, &make, &wrong_state);
        inner
            .in_life(Reader::Known, path, |target| async move {
                let command = Command::Shard(make(target.repo, target.generation));
                let binding =
                    inner
                        .catalogue
                        .binding(target.group, &command, principal, target.repo);
                let called = inner
                    .cluster
                    .call(target.group, command, binding, QUORUM_WAIT)
                    .await;
                let applied = called.map_err(|error| from_cluster(&error))?;
                match applied.reply.accepted() {
                    Ok(()) => Ok(Some(())),
                    Err(NotAccepted::Refused(
                        Refusal::WrongGeneration { .. } | Refusal::NoSuchRepo { .. },
                    )) => Ok(None),
                    Err(NotAccepted::Refused(Refusal::WrongState { .. })) => {
                        Err(wrong_state.clone())
                    }
                    Err(NotAccepted::Refused(refusal)) => Err(from_refusal(&refusal, path)),
                    Err(
                        other @ (NotAccepted::Foreign(_)
                        | NotAccepted::UnknownOutcome
                        | NotAccepted::Recheck),
                    ) => Err(unexpected("mirror", &other)),
                }
            })
            .await
    }
}

fn no_such_mirror(path: &RepoPath, mirror: MirrorId) -> ServiceError {
    let message = format!("repository {path} has no mirror {mirror}");
    failed(ErrorCode::NotFound, message)
}

fn ill_formed() -> ServiceError {
    error::invalid(format!(
        "a mirror's interval lies between {} s and {} s, its credentials have at most {} bytes, and only one that pushes \
         can follow every push",
        limits::MIRROR_INTERVAL_MS_MIN / 1000,
        limits::MIRROR_INTERVAL_MS_MAX / 1000,
        limits::MIRROR_SECRET_BYTES_MAX
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_urls_and_those_beside_them_win() {
        let parse = |user: Option<&str>, password: Option<&str>| {
            let own = |text: &str| text.to_owned();
            let url = "https://me:inside@example.org/a.git";
            MirrorAddress::parse(url, user.map(own), password.map(own)).unwrap()
        };
        let address = parse(None, None);
        assert_eq!(address.url, "https://example.org/a.git");
        assert_eq!(address.secret.unwrap().password, "inside");
        let secret = parse(None, Some("beside")).secret.unwrap();
        assert_eq!(
            (secret.user.as_str(), secret.password.as_str()),
            ("me", "beside")
        );
        let plain = MirrorAddress::parse("http://h/x", None, None).unwrap();
        assert_eq!(plain.secret, None);
        let error = MirrorAddress::parse("ssh://me:hunter2@h/x", None, None).unwrap_err();
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }
}
