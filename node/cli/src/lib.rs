//! The verbs of `henge` that call a running cluster: `henge cluster …`, `henge repo …`,
//! `henge debug …` and `henge credential`.
//!
//! - [`args`]: the verbs. Each has a file with its arguments and its code.
//! - [`context`]: the cluster, the token and the output format of a command.
//! - [`cluster_file`]: `cluster.json`, which `henge dev` leaves for the commands in the same
//!   folder.
//! - [`exit`]: the exit codes.
//! - [`run`]: runs a command.
//!
//! It reads neither the environment nor the clock: both are parameters. It uses only the public
//! API, and for whole repositories the git protocol.

pub mod args;
mod carry;
mod catalogue;
mod certificates;
mod cluster;
pub mod cluster_file;
pub mod console;
pub mod context;
mod credential;
mod debug;
pub mod error;
pub mod exit;
mod fsck;
mod import;
mod limits;
mod mirror;
mod packs;
pub mod private_file;
mod progress;
mod repo;
mod settings;
mod table;

pub use args::Command;
pub use cluster_file::{ClusterFile, ClusterFileNode};
pub use console::Console;
pub use context::Environment;
pub use error::CliError;
pub use exit::Exit;

/// Runs a command, prints its result to the console and returns the exit code.
pub async fn run(command: Command, environment: &Environment, console: &mut Console<'_>) -> Exit {
    let done = match command {
        Command::Cluster(cluster) => cluster::run(cluster, environment, console).await,
        Command::Repo(repo) => repo::run(repo, environment, console).await,
        Command::Debug(debug) => debug::run(debug, environment, console).await,
        Command::Credential(asked) => credential::run(&asked, environment, console),
    };
    done.unwrap_or_else(|error| error.tell(console))
}
