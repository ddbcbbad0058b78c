//! `henge repo mirror …`

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use henge_client::model::{Force, Mirror, MirrorEdit, NewMirror};
use henge_client::{Client, ClientError};
use henge_git_client::{Credentials, RemoteUrl};
use henge_types::{MirrorKind, RepoPath};

use crate::args::{MirrorChange, MirrorRepo, MirrorVerb};
use crate::carry::with_token;
use crate::cluster::write_json;
use crate::error::CliError;
use crate::table::{Table, printable};

fn failed(what: &str, path: &RepoPath) -> impl FnOnce(ClientError) -> CliError {
    let what = format!("cannot {what} {path}");
    move |source| CliError::Call { what, source }
}

/// Carries a verb out.
pub(crate) async fn run(
    client: &Client,
    command: MirrorRepo,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    match command.verb {
        MirrorVerb::Add {
            path,
            direction,
            every,
            remote_token_file,
            on_push,
            replace,
        } => {
            let (kind, url) = match (direction.pull, direction.push) {
                (Some(url), _) => (MirrorKind::Pull, url),
                (None, url) => (MirrorKind::Push, url.unwrap_or_default()),
            };
            let new = NewMirror {
                on_push,
                replace,
                ..new_mirror(kind, &url, remote_token_file.as_deref(), every)?
            };
            let added = client.add_mirror(&path, &new).await;
            let mirror = added.map_err(failed("add a mirror to", &path))?;
            show(&[mirror], json, out)
        }
        MirrorVerb::Edit { path, id, change } => {
            let edited = client.edit_mirror(&path, id, &edit(&change)?).await;
            let mirror = edited.map_err(failed("change a mirror of", &path))?;
            show(&[mirror], json, out)
        }
        MirrorVerb::List { path } => {
            let mirrors = client.mirrors(&path).await;
            let mirrors = mirrors.map_err(failed("list the mirrors of", &path))?;
            show(&mirrors, json, out)
        }
        MirrorVerb::Remove { path, id } => {
            let removed = client.remove_mirror(&path, id).await;
            removed.map_err(failed("remove a mirror of", &path))?;
            if json {
                write_json(&serde_json::json!({ "removed": id }), out)?;
            } else {
                writeln!(out, "removed mirror {id} of {path}")?;
            }
            Ok(())
        }
        MirrorVerb::Sync { path, id, force } => {
            let force = if force { Force::Yes } else { Force::No };
            let asked = client.sync_mirror(&path, id, force).await;
            asked.map_err(failed("sync a mirror of", &path))?;
            if json {
                write_json(&serde_json::json!({ "due": id }), out)?;
            } else {
                writeln!(out, "mirror {id} of {path} is due now")?;
            }
            Ok(())
        }
    }
}

fn parts(credentials: Option<Credentials>) -> (Option<String>, Option<String>) {
    match credentials {
        Some(Credentials::Basic { user, password }) => (Some(user), Some(password)),
        Some(Credentials::Bearer(_)) | None => (None, None),
    }
}

/// A mirror of the repository at `url`, in which a user and password may stand.
pub(crate) fn new_mirror(
    kind: MirrorKind,
    url: &str,
    token_file: Option<&Path>,
    every: Duration,
) -> Result<NewMirror, CliError> {
    let (url, credentials) = RemoteUrl::parse(url).map_err(CliError::SourceUrl)?;
    let (user, password) = parts(with_token(credentials, token_file)?);
    Ok(NewMirror {
        kind,
        url: url.to_string(),
        user,
        password,
        interval_s: every.as_secs(),
        on_push: false,
        replace: false,
    })
}

fn edit(change: &MirrorChange) -> Result<MirrorEdit, CliError> {
    let parsed = change
        .remote_url
        .as_deref()
        .map(RemoteUrl::parse)
        .transpose();
    let (url, credentials) = parsed.map_err(CliError::SourceUrl)?.unzip();
    let credentials = credentials.flatten();
    let (user, password) = parts(with_token(
        credentials,
        change.remote_token_file.as_deref(),
    )?);
    Ok(MirrorEdit {
        url: url.map(|url| url.to_string()),
        user,
        password,
        interval_s: change.every.map(|every| every.as_secs()),
        on_push: change.on_push,
        replace: change.replace,
    })
}

fn show(mirrors: &[Mirror], json: bool, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    if json {
        write_json(&mirrors, out)?;
        return Ok(());
    }
    let mut table = Table::new(&["ID", "KIND", "URL", "EVERY", "NEXT", "LAST", "FAILURES"]);
    for mirror in mirrors {
        let kind = match mirror.kind {
            MirrorKind::Pull => "pull",
            MirrorKind::Push => "push",
        };
        let next = if mirror.running {
            "running".to_owned()
        } else {
            mirror.next_due_at.clone()
        };
        table.row([
            mirror.id.to_string(),
            kind.to_owned(),
            mirror.url.clone(),
            every(mirror),
            next,
            last(mirror),
            mirror.failures.to_string(),
        ]);
    }
    table.write(out)?;
    Ok(())
}

fn every(mirror: &Mirror) -> String {
    match mirror.on_push {
        true => format!("{} s, push", mirror.interval_s),
        false => format!("{} s", mirror.interval_s),
    }
}

fn last(mirror: &Mirror) -> String {
    let Some(last) = &mirror.last else {
        return "never".to_owned();
    };
    match &last.error {
        Some(error) => format!("{} {}", last.ended_at, printable(error)),
        None => format!("{} {} refs changed", last.ended_at, last.changed),
    }
}
