//! Transfers of whole repositories into and out of a cluster: `henge repo export`, and what it
//! shares with `henge repo import`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use henge_client::{Address, Secret};
use henge_git::Stop;
use henge_git_client::{
    AddressPolicy, Credentials, Error, Network, Remote, RemoteUrl, Selection, Timeouts, Trust,
    Watch,
};
use henge_runtime::Scope;
use henge_types::RepoPath;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::cluster::write_json;
use crate::console::{Console, Input};
use crate::context::Context;
use crate::error::CliError;
use crate::private_file;
use crate::progress::{Progress, Told, size};

/// `henge repo export`
#[derive(Debug, Args)]
pub struct ExportRepo {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// The bundle to write, or with --bare the directory; it must not exist
    #[arg(value_name = "FILE|DIR")]
    pub target: PathBuf,
    /// Write a bare repository instead of a bundle
    #[arg(long)]
    pub bare: bool,
    /// Tell how far it is also where standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

/// Transfer jobs at once.
const JOBS_MAX: usize = 1;

fn scope() -> Scope {
    Scope::root("transfer", Handle::current(), JOBS_MAX)
}

pub(crate) fn told(progress: bool, console: &Console<'_>) -> Told {
    match (console.watcher, progress) {
        (Input::Terminal, _) => Told::InPlace,
        (Input::Other, true) => Told::InLines,
        (Input::Other, false) => Told::Not,
    }
}

pub(crate) fn network(ca_file: Option<&Path>, addresses: AddressPolicy) -> Arc<Network> {
    Arc::new(Network {
        handle: Handle::current(),
        trust: ca_file.map_or_else(Trust::system, Trust::file),
        addresses,
        timeouts: Timeouts::default(),
    })
}

/// Runs blocking work and shows its progress meanwhile.
pub(crate) async fn run<T: Send + 'static>(
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

/// The credentials for a remote. A token from a file replaces the password of the URL.
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

/// A repository of the cluster, at one of the cluster's addresses.
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

/// A repository of the cluster, at each of its addresses in order.
pub(crate) fn cluster_remotes(context: &Context, path: &RepoPath) -> Result<Vec<Remote>, CliError> {
    let network = network(None, AddressPolicy::Any);
    let token = context.token.as_ref();
    let addresses = context.addresses.iter();
    addresses
        .map(|address| cluster_remote(&network, address, token, path))
        .collect()
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
