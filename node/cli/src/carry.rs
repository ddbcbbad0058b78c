//! `henge repo import` and `henge repo export`: whole repositories into a cluster and out of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_client::model::NewRepo;
use henge_client::{Address, Client, ClientError, Secret};
use henge_git::Stop;
use henge_git_client::{
    AddressPolicy, Credentials, Destination, Directory, Error, Listing, Network, Prune, Remote,
    RemoteUrl, Selection, Source, Timeouts, Transfer, TransferSummary, Trust, Watch,
    transfer_listed,
};
use henge_runtime::Scope;
use henge_types::{ErrorCode, MirrorKind, ObjectFormat, RepoPath, limits};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::args::{ExportRepo, ImportRepo};
use crate::cluster::write_json;
use crate::console::{Console, Input};
use crate::context::Context;
use crate::error::CliError;
use crate::mirror::new_mirror;
use crate::private_file;
use crate::progress::{Progress, Told, size};
use crate::table::printable;

/// Jobs at once: there is one.
const JOBS_MAX: usize = 1;
/// Refs that a person is told were refused.
const REFUSED_SHOWN: usize = 20;

/// Where the objects of an import come from.
type AnySource = Box<dyn Source + Send>;

fn scope() -> Scope {
    Scope::root("transfer", Handle::current(), JOBS_MAX)
}

fn told(progress: bool, console: &Console<'_>) -> Told {
    match (console.watcher, progress) {
        (Input::Terminal, _) => Told::InPlace,
        (Input::Other, true) => Told::InLines,
        (Input::Other, false) => Told::Not,
    }
}

fn network(ca_file: Option<&Path>) -> Arc<Network> {
    Arc::new(Network {
        handle: Handle::current(),
        trust: ca_file.map_or_else(Trust::system, Trust::file),
        // Whoever runs a command reaches these addresses without it.
        addresses: AddressPolicy::Any,
        timeouts: Timeouts::default(),
    })
}

/// Runs blocking work and tells meanwhile how far it is.
async fn run<T: Send + 'static>(
    what: String,
    told: Told,
    console: &mut Console<'_>,
    job: impl FnOnce(&mut Watch<'_>) -> Result<T, Error> + Send + 'static,
) -> Result<T, CliError> {
    let progress = Progress::default();
    let noted = progress.clone();
    let scope = scope();
    let done = scope.blocking("transfer", move || {
        let stop = Stop::default();
        let mut watch = Watch {
            stop: &stop,
            tell: &mut |event| noted.note(event),
        };
        job(&mut watch)
    });
    let done = progress.during(told, console.err, done).await?;
    done.map_err(|source| CliError::Transfer { what, source })
}

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
    let network = network(args.ca_file.as_deref());
    Ok(Box::new(Remote::new(network, url, credentials, u64::MAX)))
}

/// The token of a file takes the place of a password in the URL.
pub(crate) fn with_token(
    credentials: Option<Credentials>,
    file: Option<&Path>,
) -> Result<Option<Credentials>, CliError> {
    let Some(file) = file else {
        return Ok(credentials);
    };
    let token = private_file::read(file)?;
    let user = credentials.and_then(|found| found.user().map(str::to_owned));
    Ok(Some(Credentials::token(user, &token)))
}

/// A repository of the cluster, asked at one of its addresses.
fn cluster_remote(
    network: &Arc<Network>,
    address: &Address,
    token: Option<&Secret>,
    path: &RepoPath,
) -> Result<Remote, CliError> {
    let (url, _) =
        RemoteUrl::parse(&format!("{address}/{path}.git")).map_err(CliError::SourceUrl)?;
    let credentials = token.map(|token| Credentials::Bearer(token.reveal().to_owned()));
    Ok(Remote::new(Arc::clone(network), url, credentials, u64::MAX))
}

/// The same at each of the addresses, in turn.
fn cluster_remotes(context: &Context, path: &RepoPath) -> Result<Vec<Remote>, CliError> {
    let network = network(None);
    let token = context.token.as_ref();
    let addresses = context.addresses.iter();
    addresses
        .map(|address| cluster_remote(&network, address, token, path))
        .collect()
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
    create(client, &args, &listing).await?;
    let remotes = cluster_remotes(context, &args.path)?;
    let directory = args.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let prune = if args.prune {
        Prune::Delete
    } else {
        Prune::Keep
    };
    let what = format!("cannot import {shown} into {}", args.path);
    let summary = run(what, told, console, move |watch| {
        copy(from, &listing, remotes, prune, &directory, watch)
    })
    .await?;
    if let Some(new) = mirror.filter(|_| summary.refused.is_empty()) {
        let added = client.add_mirror(&args.path, &new).await;
        added.map_err(|source| CliError::Call {
            what: format!("imported, but cannot add a mirror to {}", args.path),
            source,
        })?;
    }
    tell_import(&args.path, &summary, json, console)?;
    if summary.refused.is_empty() {
        Ok(())
    } else {
        Err(CliError::RefsRefused {
            repo: args.path.to_string(),
            refs: summary.refused.len(),
        })
    }
}

/// The source as it may be shown: a URL without what is secret in it.
fn shown_source(text: &str) -> String {
    match RemoteUrl::parse(text) {
        Ok((url, _)) => url.to_string(),
        Err(_) if text.contains("://") => "that URL".to_owned(),
        Err(_) => printable(text),
    }
}

async fn create(client: &Client, args: &ImportRepo, listing: &Listing) -> Result<(), CliError> {
    let mut new = NewRepo::new(args.path.clone());
    new.private = args.private;
    new.description.clone_from(&args.description);
    new.object_format = Some(listing.format).filter(|format| *format != ObjectFormat::Sha1);
    let head = listing
        .default_branch()
        .filter(henge_types::RefName::is_branch);
    new.default_branch = head.map(|name| name.short().to_owned());
    let repo = args.path.to_string();
    let failed = |source: ClientError| CliError::Call {
        what: format!("cannot create {repo}"),
        source,
    };
    if args.update {
        match client.get_repo(&args.path).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == ErrorCode::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    match client.create_repo(&new).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == ErrorCode::AlreadyExists => {
            Err(CliError::ImportExists { repo })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Goes on at the next address where one does not answer: what is done already is not done again.
fn copy(
    mut from: AnySource,
    listing: &Listing,
    remotes: Vec<Remote>,
    prune: Prune,
    directory: &Path,
    watch: &mut Watch<'_>,
) -> Result<TransferSummary, Error> {
    let how = Transfer {
        selection: Selection::Project,
        prune,
        directory,
        updates_max: limits::REF_UPDATES_MAX,
    };
    let mut failed = None;
    for mut remote in remotes {
        let there = match Destination::list(&mut remote, watch) {
            Ok(there) => there,
            Err(error) if error.may_pass() => {
                failed = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        return transfer_listed(&mut *from, listing, &mut remote, &there, &how, watch);
    }
    Err(failed.unwrap_or(Error::Stopped))
}

#[derive(Serialize)]
struct Imported<'a> {
    repository: String,
    created: u64,
    updated: u64,
    deleted: u64,
    unchanged: u64,
    left_out: u64,
    /// Those among them whose names cannot be held: the first, and how many more.
    unholdable: &'a [String],
    unholdable_more: usize,
    refused: Vec<RefusedRef<'a>>,
    objects: u64,
    pack_bytes: u64,
}

#[derive(Serialize)]
struct RefusedRef<'a> {
    name: &'a str,
    reason: &'a str,
}

fn tell_import(
    path: &RepoPath,
    summary: &TransferSummary,
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
    Ok(())
}

#[derive(Serialize)]
struct ExportedRepo {
    file: PathBuf,
    refs: u64,
    objects: u64,
    pack_bytes: u64,
}

/// `henge repo export`
pub(crate) async fn export(
    context: &Context,
    args: ExportRepo,
    json: bool,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let told = told(args.progress, console);
    let remotes = cluster_remotes(context, &args.path)?;
    let what = format!("cannot export {}", args.path);
    let (target, bare) = (args.target.clone(), args.bare);
    let done = run(what, told, console, move |watch| {
        let mut failed = None;
        for mut remote in remotes {
            let select = Selection::Project;
            let done = if bare {
                henge_git_client::export::write_bare(&mut remote, &target, select, watch)
            } else {
                henge_git_client::bundle::write(&mut remote, &target, select, watch)
            };
            match done {
                Err(error) if error.may_pass() => failed = Some(error),
                done => return done,
            }
        }
        Err(failed.unwrap_or(Error::Stopped))
    })
    .await?;
    if json {
        let exported = ExportedRepo {
            file: args.target,
            refs: done.refs,
            objects: done.objects,
            pack_bytes: done.pack_bytes,
        };
        write_json(&exported, console.out)?;
    } else {
        let (target, pack) = (args.target.display(), size(done.pack_bytes));
        writeln!(
            console.out,
            "exported {} into {target}: {} refs, {} objects, {pack}",
            args.path, done.refs, done.objects
        )?;
    }
    Ok(())
}
