//! Mirrors.

use henge_api::{Answer, Mirrors};
use henge_client::model::{MirrorEdit, NewMirror};
use henge_git::http::ServiceError;
use henge_types::{
    ErrorCode, LogIndex, Mirror, MirrorChange, MirrorId, MirrorLast, MirrorOutcome, MirrorSecret,
    MirrorSettings, Principal, RepoPath,
};

use super::{CREATED_AT_MS, Memory, UPDATED_AT_MS, no_such};

/// The URL of a mirror that would remove refs.
pub(crate) const FULL_URL: &str = "https://example.org/full.git";

fn refuse_losses(url: &str, replace: bool) -> Result<(), ServiceError> {
    if url == FULL_URL && !replace {
        let message = "1 of 2 refs would be deleted: refs/heads/mine";
        return Err(ServiceError::new(ErrorCode::Conflict, message.to_owned()));
    }
    Ok(())
}

impl Mirrors for Memory {
    fn mirrors<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<Mirror>> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.mirrors.clone())
        })
    }

    /// The first one that is made has failed already, the others never ran.
    fn add_mirror<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        new: NewMirror,
    ) -> Answer<'a, MirrorId> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            refuse_losses(&new.url, new.replace)?;
            let first = repo.mirrors.is_empty();
            let id = MirrorId::from_bytes([u8::try_from(repo.mirrors.len()).expect("few"); 16]);
            repo.mirrors.push(Mirror {
                id,
                repo: repo.record.repo,
                settings: MirrorSettings {
                    kind: new.kind,
                    url: new.url,
                    secret: new.password.map(|password| MirrorSecret {
                        user: new.user.unwrap_or_default(),
                        password,
                    }),
                    interval_ms: new.interval_s * 1000,
                    on_push: new.on_push,
                },
                made_ms: CREATED_AT_MS,
                next_due_ms: UPDATED_AT_MS,
                fence: LogIndex::new(1),
                run: None,
                failures: u32::from(first),
                last: first.then(|| MirrorLast {
                    scheduled_at_ms: CREATED_AT_MS,
                    ended_ms: CREATED_AT_MS,
                    outcome: MirrorOutcome::Failed {
                        why: "nobody answers".to_owned(),
                    },
                }),
            });
            Ok(id)
        })
    }

    fn edit_mirror<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        edit: MirrorEdit,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let known = repo.mirrors.iter_mut().find(|known| known.id == mirror);
            let settings = &mut known.ok_or_else(|| no_such(path))?.settings;
            refuse_losses(edit.url.as_deref().unwrap_or_default(), edit.replace)?;
            let secret = edit.password.map(|password| MirrorSecret {
                user: edit.user.unwrap_or_default(),
                password,
            });
            if secret.is_some() || edit.url.is_some() {
                settings.secret = secret;
            }
            settings.url = edit.url.unwrap_or_else(|| settings.url.clone());
            let interval_ms = edit.interval_s.map(|seconds| seconds * 1000);
            settings.interval_ms = interval_ms.unwrap_or(settings.interval_ms);
            settings.on_push = edit.on_push.unwrap_or(settings.on_push);
            Ok(())
        })
    }

    fn change_mirror<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        mirror: MirrorId,
        change: MirrorChange,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let known = repo.mirrors.iter_mut().find(|known| known.id == mirror);
            let known = known.ok_or_else(|| no_such(path))?;
            match change {
                MirrorChange::Due => {
                    known.next_due_ms = CREATED_AT_MS;
                    repo.forced = false;
                }
                MirrorChange::DueWhateverItRemoves => {
                    known.next_due_ms = CREATED_AT_MS;
                    repo.forced = true;
                }
                MirrorChange::Remove => repo.mirrors.retain(|known| known.id != mirror),
            }
            Ok(())
        })
    }
}
