//! `henge repo …`: the verbs. The file of each has its arguments.

use clap::{Args, Subcommand};

use crate::carry::{self, ExportRepo};
use crate::catalogue::{self, Create, Delete, Fork, List, Show};
use crate::certificates::{self, PushCerts};
use crate::console::Console;
use crate::context::{self, Environment, Output, Remote, long_help};
use crate::error::CliError;
use crate::exit::{EXIT_CODES_HELP, Exit};
use crate::fsck::{self, Fsck};
use crate::import::{self, ImportRepo};
use crate::limits::{self, Limits};
use crate::mirror::{self, MirrorRepo};
use crate::packs::{self, Gc, Stats};
use crate::settings::{self, SettingsVerb};

/// `henge repo …`
#[derive(Debug, Args)]
pub struct Repo {
    /// Which cluster.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do in it.
    #[command(subcommand)]
    pub verb: RepoVerb,
}

/// What can be done with repositories.
#[derive(Debug, Subcommand)]
pub enum RepoVerb {
    /// Create an empty repository
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Create(Create),
    /// List repositories
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    List(List),
    /// Show a repository, where it lives, and its branches
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Show(Show),
    /// What people set.
    #[command(flatten)]
    Settings(SettingsVerb),
    /// Count packs, objects and bytes, and tell how compaction stands
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Stats(Stats),
    /// Merge packs on all replicas, and wait until it is done
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Gc(Gc),
    /// Make a repository of another one, with its branches and tags, on the same objects, and as
    /// private
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Fork(Fork),
    /// Show or set what a repository may hold: pushes beyond it are refused
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Limits(Limits),
    /// Read every object on every replica, and tell what is damaged or missing
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Fsck(Fsck),
    /// List who signed which pushes (git push --signed); the cluster does not verify the signatures
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    PushCerts(PushCerts),
    /// Copy a repository from elsewhere into the cluster, without git
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Import(ImportRepo),
    /// Write a repository into a bundle or a bare repository on this machine, without git
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Export(ExportRepo),
    /// Follow another repository, or copy this one there, on a schedule
    Mirror(MirrorRepo),
    /// Delete a repository and everything in it
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Delete(Delete),
}

pub(crate) async fn run(
    command: Repo,
    environment: &Environment,
    console: &mut Console<'_>,
) -> Result<Exit, CliError> {
    let context = context::resolve(&command.remote, environment)?;
    let client = context.client();
    let json = command.remote.output == Output::Json;
    match command.verb {
        RepoVerb::Create(asked) => catalogue::create(&client, asked, json, console.out).await?,
        RepoVerb::List(asked) => catalogue::list(&client, &asked, json, console.out).await?,
        RepoVerb::Show(asked) => catalogue::show(&client, &asked, json, console.out).await?,
        RepoVerb::Settings(change) => settings::run(&client, change, json, console.out).await?,
        RepoVerb::Stats(asked) => packs::stats(&client, &asked, json, console.out).await?,
        RepoVerb::Gc(asked) => packs::gc(&client, &asked, json, console.out).await?,
        RepoVerb::Fork(asked) => catalogue::fork(&client, &asked, json, console.out).await?,
        RepoVerb::Limits(asked) => limits::run(&client, &asked, json, console.out).await?,
        RepoVerb::Fsck(asked) => fsck::run(&client, &asked, json, console).await?,
        RepoVerb::PushCerts(asked) => certificates::run(&client, &asked, json, console.out).await?,
        RepoVerb::Import(args) => import::import(&client, &context, args, json, console).await?,
        RepoVerb::Export(args) => carry::export(&context, args, json, console).await?,
        RepoVerb::Mirror(command) => mirror::run(&client, command, json, console.out).await?,
        RepoVerb::Delete(asked) => catalogue::delete(&client, &asked, json, console).await?,
    }
    Ok(Exit::Ok)
}
