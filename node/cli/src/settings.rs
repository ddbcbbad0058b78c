//! `henge repo edit`, `archive`, `unarchive`, `rename`, `transfer`, `protect` and `unprotect`.

use std::io::Write;

use clap::Subcommand;
use henge_client::Client;
use henge_client::model::RepoChange;
use henge_types::names::InvalidName;
use henge_types::{
    ErrorCode, FsckLevel, OwnerName, PushRules, RefPattern, RepoName, RepoPath, Topic,
};

use crate::cluster::write_json;
use crate::context::long_help;
use crate::error::{CliError, failed};
use crate::exit::EXIT_CODES_HELP;

/// Verbs that change what a repository is called, who sees it, and what may be pushed.
#[derive(Debug, Subcommand)]
pub enum SettingsVerb {
    /// Change what is said of a repository, and who sees it
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Edit {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// One line about it
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// What HEAD points at, without refs/heads/
        #[arg(long, value_name = "BRANCH")]
        default_branch: Option<String>,
        /// Only its owner sees it
        #[arg(long, conflicts_with = "public")]
        private: bool,
        /// Everybody may fetch it, without a token
        #[arg(long)]
        public: bool,
        /// What it is about, instead of what was said before; more than once for more topics, once
        /// and empty for none
        #[arg(long, value_name = "TOPIC")]
        topic: Vec<String>,
        /// How pushed objects are checked: as git does, or lenient with what old histories are
        /// known for
        #[arg(long, value_name = "strict|lenient")]
        fsck: Option<FsckLevel>,
    },
    /// Make a repository read-only: pushes are refused, fetches go on
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Archive {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// Let pushes into an archived repository again
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Unarchive {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// Give a repository another name; the old one leads to it until another repository takes it
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Rename {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Its name from here on
        #[arg(value_name = "NEW")]
        name: RepoName,
    },
    /// Give a repository to another owner; the old name leads to it until another repository takes
    /// it
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Transfer {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Who owns it from here on
        #[arg(value_name = "NEW_OWNER")]
        owner: OwnerName,
    },
    /// Protect refs: no push deletes them or takes history from them
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Protect {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Branches (main, release/*) or other refs (refs/tags/*); patterns as in gitignore(5)
        #[arg(value_name = "PATTERN")]
        pattern: RefPattern,
    },
    /// Take the protection of refs away
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Unprotect {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The pattern, as it was given to protect
        #[arg(value_name = "PATTERN")]
        pattern: RefPattern,
    },
}

pub(crate) async fn run(
    client: &Client,
    verb: SettingsVerb,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    match verb {
        SettingsVerb::Edit {
            path,
            description,
            default_branch,
            private,
            public,
            topic,
            fsck,
        } => {
            let change = RepoChange {
                description,
                default_branch,
                private: (private || public).then_some(private),
                ..RepoChange::default()
            };
            edit(client, &path, &change, &topic, fsck).await?;
            said(client, &path, "changed", json, out).await
        }
        SettingsVerb::Archive { path } => {
            archive(client, &path, true).await?;
            said(client, &path, "archived", json, out).await
        }
        SettingsVerb::Unarchive { path } => {
            archive(client, &path, false).await?;
            said(client, &path, "unarchived", json, out).await
        }
        SettingsVerb::Rename { path, name } => {
            let change = RepoChange {
                name: Some(name.clone()),
                ..RepoChange::default()
            };
            let renamed = client.change_repo(&path, &change).await;
            renamed.map_err(failed("rename", &path))?;
            said(client, &path, "renamed", json, out).await
        }
        SettingsVerb::Transfer { path, owner } => {
            let moved = client.transfer_repo(&path, &owner).await;
            moved.map_err(failed("transfer", &path))?;
            said(client, &path, "transferred", json, out).await
        }
        SettingsVerb::Protect { path, pattern } => {
            match client.protect(&path, pattern.as_str()).await {
                Err(error) if error.code() == ErrorCode::AlreadyExists => {}
                protected => protected.map_err(failed("protect refs of", &path))?,
            }
            let what = format!("protected {} in", pattern.short());
            said(client, &path, &what, json, out).await
        }
        SettingsVerb::Unprotect { path, pattern } => {
            let free = client.unprotect(&path, pattern.as_str()).await;
            free.map_err(failed("unprotect refs of", &path))?;
            let what = format!("unprotected {} in", pattern.short());
            said(client, &path, &what, json, out).await
        }
    }
}

async fn edit(
    client: &Client,
    path: &RepoPath,
    change: &RepoChange,
    topics: &[String],
    fsck: Option<FsckLevel>,
) -> Result<(), CliError> {
    if *change == RepoChange::default() && topics.is_empty() && fsck.is_none() {
        return Err(CliError::NothingToChange);
    }
    let named: Result<Vec<Topic>, InvalidName> = match topics {
        // A single empty topic removes all topics.
        [empty] if empty.is_empty() => Ok(Vec::new()),
        named => named.iter().map(|topic| topic.parse()).collect(),
    };
    let named = named.map_err(|source| CliError::Topic { source })?;
    if *change != RepoChange::default() {
        let changed = client.change_repo(path, change).await;
        changed.map_err(failed("change", path))?;
    }
    if !topics.is_empty() {
        let set = client.set_topics(path, &named).await;
        set.map_err(failed("set the topics of", path))?;
    }
    if let Some(fsck) = fsck {
        set_fsck(client, path, fsck).await?;
    }
    Ok(())
}

/// Sets the strictness of the check of pushed objects.
pub(crate) async fn set_fsck(
    client: &Client,
    path: &RepoPath,
    fsck: FsckLevel,
) -> Result<(), CliError> {
    let rules = PushRules { fsck };
    let set = client.set_push_rules(path, &rules).await;
    set.map(|_| ())
        .map_err(failed("set the rules for pushes to", path))
}

async fn archive(client: &Client, path: &RepoPath, archived: bool) -> Result<(), CliError> {
    let what = if archived { "archive" } else { "unarchive" };
    let change = RepoChange {
        archived: Some(archived),
        ..RepoChange::default()
    };
    let changed = client.change_repo(path, &change).await;
    changed.map_err(failed(what, path))
}

/// The result of a change, under the repository's new name.
async fn said(
    client: &Client,
    path: &RepoPath,
    what: &str,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let repo = client.get_repo(path).await.map_err(failed("show", path))?;
    if json {
        write_json(&repo, out)?;
    } else {
        let now = repo.path();
        match now == *path {
            true => writeln!(out, "{what} {now}")?,
            false => writeln!(out, "{what} {path}: it is {now} now")?,
        }
    }
    Ok(())
}
