//! `henge repo mirror …`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use henge_client::Client;
use henge_client::model::{Force, Mirror, MirrorEdit, NewMirror};
use henge_git_client::{Credentials, RemoteUrl};
use henge_types::{MirrorId, MirrorKind, RepoPath};

use crate::carry::with_token;
use crate::cluster::write_json;
use crate::context::long_help;
use crate::error::{CliError, failed};
use crate::exit::EXIT_CODES_HELP;
use crate::table::{Table, printable};

/// `henge repo mirror …`
#[derive(Debug, Args)]
pub struct MirrorRepo {
    /// What to do.
    #[command(subcommand)]
    pub verb: MirrorVerb,
}

/// What can be done with mirrors.
#[derive(Debug, Subcommand)]
pub enum MirrorVerb {
    /// Make a mirror, which is due at once
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Add {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Which way.
        #[command(flatten)]
        direction: Direction,
        /// From one firing to the next: 90s, 30m, 8h, 1d
        #[arg(long, value_name = "TIME", value_parser = span)]
        every: Duration,
        /// A file with a token or password for the other side, which only its owner may read
        #[arg(long, value_name = "FILE")]
        remote_token_file: Option<PathBuf>,
        /// Also after every push; only with --push
        #[arg(long, conflicts_with = "pull")]
        on_push: bool,
        /// Let the side that is written to lose what the other one does not have: without it that
        /// is refused and listed
        #[arg(long)]
        replace: bool,
    },
    /// Change where a mirror leads, when it is due, or with what it asks; it is due at once
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Edit {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The mirror
        #[arg(value_name = "ID")]
        id: MirrorId,
        /// What changes.
        #[command(flatten)]
        change: MirrorChange,
    },
    /// Tell the mirrors of a repository, when they are due, and how they went
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    List {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// Remove a mirror
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Remove {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The mirror
        #[arg(value_name = "ID")]
        id: MirrorId,
    },
    /// Make a mirror due now
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Sync {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The mirror
        #[arg(value_name = "ID")]
        id: MirrorId,
        /// Let the next run remove all refs that the other side does not have, also more than half
        /// of them
        #[arg(long)]
        force: bool,
    },
}

/// What changes of a mirror.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct MirrorChange {
    /// The other repository; the password for the one before is forgotten
    #[arg(long, value_name = "URL")]
    pub remote_url: Option<String>,
    /// From one firing to the next: 90s, 30m, 8h, 1d
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub every: Option<Duration>,
    /// A file with a token or password for the other side, which only its owner may read
    #[arg(long, value_name = "FILE")]
    pub remote_token_file: Option<PathBuf>,
    /// Whether it is due after every push too; only for one that pushes
    #[arg(long, value_name = "true|false")]
    pub on_push: Option<bool>,
    /// At another URL, let the side that is written to lose what the other one does not have
    #[arg(long, requires = "remote_url")]
    pub replace: bool,
}

/// Which way a mirror goes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Direction {
    /// The repository becomes what this one is, and takes no other pushes
    #[arg(long, value_name = "URL")]
    pub pull: Option<String>,
    /// This one becomes what the repository is
    #[arg(long, value_name = "URL")]
    pub push: Option<String>,
}

/// A number and its unit: `s`, `m`, `h` or `d`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a time: write 90s, 30m, 8h or 1d");
    let unit = text.chars().last().ok_or_else(invalid)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(invalid()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let seconds = number.checked_mul(seconds).ok_or_else(invalid)?;
    Ok(Duration::from_secs(seconds))
}

/// Runs a verb.
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

/// A mirror of the repository at `url`, which may contain a user and a password.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("8h", 28_800), ("1d", 86_400)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "5",
            "s",
            "1w",
            "-1h",
            "1.5h",
            "99999999999999999999s",
            "1é",
        ] {
            assert!(span(text).is_err(), "{text:?}");
        }
    }
}
