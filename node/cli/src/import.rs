//! `henge repo import`: imports of whole repositories into a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use henge_client::Client;
use henge_client::model::{NewMirror, NewRepo, RepoChange};
use henge_git_client::{
    AddressPolicy, Destination, Directory, Error, Listing, Prune, Remote, RemoteUrl, Removals,
    Selection, Source, Transfer, TransferSummary, Watch, transfer_listed,
};
use henge_types::{ErrorCode, FsckLevel, MirrorKind, ObjectFormat, RepoPath, limits};
use serde::Serialize;

use crate::carry::{cluster_remotes, network, run, told, with_token};
use crate::catalogue::{told_visibility, visibility};
use crate::cluster::write_json;
use crate::console::{Console, Input};
use crate::context::Context;
use crate::error::{CliError, failed};
use crate::mirror::{new_mirror, span};
use crate::progress::{Told, size};
use crate::settings::set_fsck;
use crate::table::printable;

/// Refused refs that the output for people lists.
const REFUSED_SHOWN: usize = 20;

/// `henge repo import`
#[derive(Debug, Args)]
pub struct ImportRepo {
    /// Where from: an http:// or https:// URL, or a directory with a repository, bare or not
    #[arg(value_name = "URL|DIR")]
    pub source: String,
    /// The repository to create
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// One line about it
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub description: String,
    /// Everybody may read it without a token, once all of it is there
    #[arg(long)]
    pub public: bool,
    /// Only its owner sees it: so a new one is unless --public is given
    #[arg(long, conflicts_with = "public")]
    pub private: bool,
    /// Bring it up to date if it exists already
    #[arg(long)]
    pub update: bool,
    /// Delete refs that the source does not have; asks before more than half of them go
    #[arg(long, requires = "update")]
    pub prune: bool,
    /// Do not ask, however many refs --prune deletes
    #[arg(long, requires = "prune")]
    pub force: bool,
    /// A file with a token or password for the source, which only its owner may read
    #[arg(long, value_name = "FILE")]
    pub remote_token_file: Option<PathBuf>,
    /// Go on as a mirror that follows the source so often (90s, 30m, 8h, 1d), and takes no other
    /// pushes
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub mirror: Option<Duration>,
    /// Believe the certificates in this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How its objects are checked, and those of later pushes [default: strict, or as it is with
    /// --update]
    #[arg(long, value_name = "strict|lenient")]
    pub fsck: Option<FsckLevel>,
    /// Where packs lie in between [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,
    /// Tell how far it is also where standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

/// The source of an import's objects.
type AnySource = Box<dyn Source + Send>;

fn source(args: &ImportRepo) -> Result<AnySource, CliError> {
    if !args.source.contains("://") {
        let path = Path::new(&args.source);
        let directory =
            Directory::open(path, u64::MAX).map_err(|source| CliError::NotARepository {
                path: path.to_owned(),
                detail: source.to_string(),
            })?;
        return Ok(Box::new(directory));
    }
    let (url, credentials) = RemoteUrl::parse(&args.source).map_err(CliError::SourceUrl)?;
    let credentials = with_token(credentials, args.remote_token_file.as_deref())?;
    // Private addresses need no option: the process runs as the user of the command.
    let network = network(args.ca_file.as_deref(), AddressPolicy::Private);
    Ok(Box::new(Remote::new(network, url, credentials, u64::MAX)))
}

/// `henge repo import`
pub(crate) async fn import(
    client: &Client,
    context: &Context,
    args: ImportRepo,
    json: bool,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let told = told(args.progress, console);
    let shown = shown_source(&args.source);
    let token_file = args.remote_token_file.as_deref();
    let mirror = match args.mirror {
        // A node of the cluster has no such directory.
        Some(_) if !args.source.contains("://") => return Err(CliError::MirrorOfDirectory),
        Some(every) => Some(new_mirror(
            MirrorKind::Pull,
            &args.source,
            token_file,
            every,
        )?),
        None => None,
    };
    let mut from = source(&args)?;
    let what = format!("cannot import from {shown}");
    let (from, listing) = run(what, told, console, move |watch| {
        let listing = from.list(watch)?;
        Ok((from, listing))
    })
    .await?;
    let target = target(client, &args, &listing).await?;
    if !json && target.made == Made::Now {
        let until = if args.public {
            " until all of it is there"
        } else {
            ""
        };
        writeln!(console.out, "created {}, private{until}", args.path)?;
    }
    if let Some(fsck) = args.fsck {
        set_fsck(client, &args.path, fsck).await?;
    }
    let job = Job {
        from,
        listing,
        remotes: cluster_remotes(context, &args.path)?,
        prune: match args.prune {
            true => Prune::Delete,
            false => Prune::Keep,
        },
        removals: match args.force {
            true => Removals::Everything,
            false => Removals::Half,
        },
        directory: args.temp_dir.clone().unwrap_or_else(std::env::temp_dir),
    };
    let what = format!("cannot import {shown} into {}", args.path);
    let summary = copy(job, what, &args.path, told, console).await?;
    let is_whole = summary.refused.is_empty();
    if let Some(new) = mirror.filter(|_| is_whole) {
        // Refs that an older repository has and the source has not are removed only with `--force`.
        let replace = target.made == Made::Now || args.force;
        follow(client, &args.path, NewMirror { replace, ..new }).await?;
    }
    let private = match is_whole && args.public && target.private {
        true => publish(client, &args.path).await?,
        false => target.private,
    };
    tell_import(&args.path, &summary, private, json, console)?;
    if is_whole {
        return Ok(());
    }
    Err(CliError::RefsRefused {
        repo: args.path.to_string(),
        refs: summary.refused.len(),
        stays_private: args.public && private,
    })
}

/// Adds a pull mirror of the source to the repository.
async fn follow(client: &Client, path: &RepoPath, new: NewMirror) -> Result<(), CliError> {
    let added = client.add_mirror(path, &new).await;
    let failed = |source| CliError::Call {
        what: format!("imported, but cannot add a mirror to {path}"),
        source,
    };
    added.map(|_| ()).map_err(failed)
}

/// Makes the completely imported repository public. Returns whether it is private afterwards.
async fn publish(client: &Client, path: &RepoPath) -> Result<bool, CliError> {
    set_private(client, path, false).await.map(|()| false)
}

async fn set_private(client: &Client, path: &RepoPath, private: bool) -> Result<(), CliError> {
    let change = RepoChange {
        private: Some(private),
        ..RepoChange::default()
    };
    let changed = client.change_repo(path, &change).await;
    changed.map_err(|source| CliError::Call {
        what: format!("cannot make {path} {}", visibility(private)),
        source,
    })
}

/// The source for output: a URL without its credentials.
fn shown_source(text: &str) -> String {
    match RemoteUrl::parse(text) {
        Ok((url, _)) => url.to_string(),
        Err(_) if text.contains("://") => "that URL".to_owned(),
        Err(_) => printable(text),
    }
}

/// Whether an import made its target repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// The import made it.
    Now,
    /// It existed before.
    Before,
}

/// The target repository of an import.
#[derive(Debug, Clone, Copy)]
struct Target {
    made: Made,
    private: bool,
}

/// The target repository, created if it does not exist. It is private until the import is complete,
/// even if it becomes public then.
async fn target(client: &Client, args: &ImportRepo, listing: &Listing) -> Result<Target, CliError> {
    let mut new = NewRepo::new(args.path.clone());
    new.description.clone_from(&args.description);
    let format = Some(listing.format).filter(|format| *format != ObjectFormat::Sha1);
    new.object_format = format.map(|format| format.to_string());
    let head = listing
        .default_branch()
        .filter(henge_types::RefName::is_branch);
    new.default_branch = head.map(|name| name.short().to_owned());
    let repo = args.path.to_string();
    if args.update {
        match client.get_repo(&args.path).await {
            Ok(known) => {
                if args.private && !known.private {
                    set_private(client, &args.path, true).await?;
                }
                return Ok(Target {
                    made: Made::Before,
                    private: known.private || args.private,
                });
            }
            Err(error) if error.code() == ErrorCode::NotFound => {}
            Err(error) => return Err(failed("create", &repo)(error)),
        }
    }
    match client.create_repo(&new).await {
        Ok(made) => Ok(Target {
            made: Made::Now,
            private: made.private,
        }),
        Err(error) if error.code() == ErrorCode::AlreadyExists => {
            Err(CliError::ImportExists { repo })
        }
        Err(error) => Err(failed("create", &repo)(error)),
    }
}

/// The source, the targets and the rules of an import.
struct Job {
    from: AnySource,
    listing: Listing,
    /// The repository at each address of the cluster.
    remotes: Vec<Remote>,
    prune: Prune,
    removals: Removals,
    directory: PathBuf,
}

impl Job {
    /// Continues at the next address when one does not answer; work that is done is not repeated.
    fn copy(&mut self, watch: &mut Watch<'_>) -> Result<TransferSummary, Error> {
        let how = Transfer {
            selection: Selection::Project,
            prune: self.prune,
            removals: self.removals.clone(),
            directory: &self.directory,
            updates_max: limits::REF_UPDATES_MAX,
        };
        let mut failed = None;
        for remote in &mut self.remotes {
            let there = match Destination::list(remote, watch) {
                Ok(there) => there,
                Err(error) if error.may_pass() => {
                    failed = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let from = &mut *self.from;
            return transfer_listed(from, &self.listing, remote, &there, &how, watch);
        }
        Err(failed.unwrap_or(Error::Stopped))
    }
}

/// Copies. At a terminal the user is asked before more refs are deleted than usual.
async fn copy(
    job: Job,
    what: String,
    path: &RepoPath,
    told: Told,
    console: &mut Console<'_>,
) -> Result<TransferSummary, CliError> {
    let again = what.clone();
    let copied = run(what.clone(), told, console, move |watch| {
        let mut job = job;
        let copied = job.copy(watch);
        Ok((job, copied))
    });
    let (mut job, copied) = copied.await?;
    let losses = match copied {
        Ok(summary) => return Ok(summary),
        Err(Error::Losses(losses)) if console.input == Input::Terminal => losses,
        Err(source) => return Err(CliError::Transfer { what, source }),
    };
    let repo = path.to_string();
    let question = format!("{losses}\ntype {repo} to delete them:");
    if console.ask(&question)? != repo {
        return Err(CliError::NotPruned { repo });
    }
    // The user agreed only to these deletions: refs that appeared since are not deleted.
    job.removals = Removals::Agreed(losses.deleted.into_iter().collect());
    run(again, told, console, move |watch| job.copy(watch)).await
}

#[derive(Serialize)]
struct Imported<'a> {
    repository: String,
    created: u64,
    updated: u64,
    deleted: u64,
    unchanged: u64,
    left_out: u64,
    /// Those of them with names that the cluster does not accept: the first, and the number of the
    /// others.
    unholdable: &'a [String],
    unholdable_more: usize,
    refused: Vec<RefusedRef<'a>>,
    objects: u64,
    pack_bytes: u64,
    private: bool,
}

#[derive(Serialize)]
struct RefusedRef<'a> {
    name: &'a str,
    reason: &'a str,
}

fn tell_import(
    path: &RepoPath,
    summary: &TransferSummary,
    private: bool,
    json: bool,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let refused = summary.refused.iter();
    let refused = refused.map(|(name, reason)| RefusedRef {
        name: name.as_str(),
        reason,
    });
    if json {
        let imported = Imported {
            repository: path.to_string(),
            created: summary.created,
            updated: summary.updated,
            deleted: summary.deleted,
            unchanged: summary.unchanged,
            left_out: summary.left_out,
            unholdable: &summary.unholdable.names,
            unholdable_more: summary.unholdable.more,
            refused: refused.collect(),
            objects: summary.objects,
            pack_bytes: summary.pack_bytes,
            private,
        };
        return Ok(write_json(&imported, console.out)?);
    }
    for one in refused.take(REFUSED_SHOWN) {
        let (name, reason) = (printable(one.name), printable(one.reason));
        writeln!(console.err, "refused {name}: {reason}")?;
    }
    if !summary.unholdable.is_empty() {
        writeln!(
            console.err,
            "left out {}: names of refs are UTF-8 of at most {} bytes",
            summary.unholdable,
            limits::REF_NAME_BYTES_MAX
        )?;
    }
    let (created, updated, deleted) = (summary.created, summary.updated, summary.deleted);
    writeln!(
        console.out,
        "imported into {path}: {created} refs created, {updated} updated, {deleted} deleted, {} unchanged, {} left out",
        summary.unchanged, summary.left_out
    )?;
    writeln!(
        console.out,
        "{} objects, {}",
        summary.objects,
        size(summary.pack_bytes)
    )?;
    writeln!(console.out, "{path} is {}", told_visibility(private))?;
    Ok(())
}
