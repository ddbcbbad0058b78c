//! The verbs of `henge`. The file of each verb has its arguments.

use clap::Subcommand;

use crate::cluster::Cluster;
use crate::context::long_help;
use crate::credential::Credential;
use crate::debug::Debug;
use crate::exit::EXIT_CODES_HELP;
use crate::repo::Repo;

/// A verb that talks to a running cluster.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What the cluster says of itself
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Cluster(Cluster),
    /// Create, list, show, change and delete repositories
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Repo(Repo),
    /// What nodes do inside
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Debug(Debug),
    /// Tell git the token, as its credential helper
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Credential(Credential),
}
