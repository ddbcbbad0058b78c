//! The command line of `henge`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use henge_types::limits;

/// A ring of equal nodes that keeps your git standing
#[derive(Debug, Parser)]
#[command(name = "henge", version)]
pub(crate) struct Henge {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a real cluster of node processes on this machine
    #[command(after_help = DEV_HELP)]
    Dev(Dev),
    /// Run one node
    Node(Node),
    /// Serve plain bare repositories over HTTP, without a cluster and without accounts
    #[command(after_help = SERVE_BARE_HELP)]
    ServeBare(ServeBare),
    /// Answer one fetch on standard input and output, as git-upload-pack does
    #[command(after_help = UPLOAD_PACK_HELP)]
    UploadPack(UploadPack),
    /// Answer one push on standard input and output, as git-receive-pack does
    #[command(after_help = RECEIVE_PACK_HELP)]
    ReceivePack(ReceivePack),
    #[command(flatten)]
    Remote(henge_cli::Command),
}

const DEV_HELP: &str = "\
Node I listens on 127.0.0.1: HTTP on base port + I, the cluster's own traffic (TCP and UDP) on base port
+ 40 + I; base port + 20 + I is kept for SSH. Its data, log and pid are in DIR/nI. Addresses and the
administrator's token are in DIR/cluster.json once all nodes are ready, which `ready` on the last line says.

Started again, the same cluster comes back. A node that dies stays dead until `henge node run` brings it
back. Ctrl-C stops all nodes.

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage";

/// `henge dev`
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Nodes, 1 to 19 [default: 3, or as many as the folder has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=limits::DEV_NODES_MAX))]
    pub(crate) nodes: Option<u64>,
    /// Shards, 1 to 256 [default: 8, or as many as the folder has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    pub(crate) shards: Option<u32>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = ".henge-dev")]
    pub(crate) dir: PathBuf,
    /// Ports are counted from here [default: 7400, or what the folder has]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_476))]
    pub(crate) base_port: Option<u16>,
    /// Delete what is in DIR and start a new cluster
    #[arg(long)]
    pub(crate) reset: bool,
}

/// `henge node …`
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) verb: NodeVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Run a node in the foreground until SIGTERM or SIGINT
    #[command(after_help = RUN_HELP)]
    Run(Run),
    /// Write every repository of a node that does not run as a plain bare repository
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
}

const EXPORT_HELP: &str = "\
Reads the node's newest state from its log, snapshots and kv, without any other node, and changes nothing in the data
directory. Repositories are written as DEST/OWNER/NAME.git with names, refs and HEAD; stock git opens them. What is
missing is said on standard output, a line per repository. DEST must be empty, and needs room for copies of the log and
the kv beside the packs; these copies are removed at the end.

Exit codes: 0 everything was written, 1 something is missing or failed, 2 wrong usage";

/// `henge node export`
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The data directory of a stopped node, or a copy of one
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Read the directory itself: no node is asked
    #[arg(long, required = true)]
    pub(crate) offline: bool,
    /// Where to write to
    #[arg(value_name = "DEST")]
    pub(crate) dest: PathBuf,
}

const RUN_HELP: &str = "\
Flags win over HENGE_* variables, these over the file: [node] data_dir is HENGE_NODE_DATA_DIR, and so on.
The log goes to standard error. A second signal ends the process without waiting. SIGHUP has the node read its
tokens again.

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage or configuration; ended by SIGABRT: the disk
failed or a part that the node cannot do without panicked, and starting it again recovers";

/// `henge node run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The node's configuration [env: HENGE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Instead of `[node] data_dir`
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Instead of `[node] http_listen`
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) http_listen: Option<SocketAddr>,
    /// Instead of `[node] rpc_listen`
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) rpc_listen: Option<SocketAddr>,
    /// Instead of `[log] filter`
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
    /// The data directory was moved to another disk, and no other copy of it is used: take it over.
    /// The node serves once every member has answered that it knows nothing newer
    #[arg(long)]
    pub(crate) moved: bool,
}

const SERVE_BARE_HELP: &str = "\
A repository is at its path below ROOT, with or without .git. `ready` is the last line once it serves.

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage";

/// `henge serve-bare`
#[derive(Debug, Args)]
pub(crate) struct ServeBare {
    /// The folder above the repositories
    #[arg(value_name = "ROOT")]
    pub(crate) root: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7480")]
    pub(crate) listen: SocketAddr,
    /// Take pushes from every client on this machine where a repository does not say otherwise
    /// (http.receivepack); needs a loopback address
    #[arg(long)]
    pub(crate) allow_push: bool,
}

const UPLOAD_PACK_HELP: &str = "\
git clone -u 'henge upload-pack' DIR, or over ssh. GIT_PROTOCOL says which version of the protocol is spoken.

Exit codes: 0 answered, 1 failed, 2 wrong usage";

/// `henge upload-pack`
#[derive(Debug, Args)]
pub(crate) struct UploadPack {
    /// Take DIR as it stands: try neither DIR/.git nor DIR.git
    #[arg(long)]
    pub(crate) strict: bool,
    /// Give up when the client says or takes nothing for so many seconds [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: Option<u32>,
    #[command(flatten)]
    pub(crate) part: PartOf,
    /// The repository
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

const RECEIVE_PACK_HELP: &str = "\
git push --receive-pack='henge receive-pack' DIR main, or over ssh.

Exit codes: 0 answered, also where updates were refused; 1 failed, 2 wrong usage";

/// `henge receive-pack`
#[derive(Debug, Args)]
pub(crate) struct ReceivePack {
    #[command(flatten)]
    pub(crate) part: PartOf,
    /// The repository
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// Which part of a conversation takes place.
#[derive(Debug, Args)]
pub(crate) struct PartOf {
    /// Answer one request, without saying first what there is
    #[arg(long)]
    pub(crate) stateless_rpc: bool,
    /// Say what there is, and no more
    #[arg(long, visible_alias = "advertise-refs")]
    pub(crate) http_backend_info_refs: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Henge::command().debug_assert();
    }

    /// Regression: the status advised commands that no release had.
    #[test]
    fn advised_commands_exist() {
        for kind in henge_types::ConditionKind::ALL {
            let quoted = kind.advice().split('`').skip(1).step_by(2);
            for command in quoted.filter_map(|quoted| quoted.strip_prefix("henge ")) {
                let mut at = Henge::command();
                let names = command.split(' ');
                for name in names.take_while(|name| name.chars().all(|c| c.is_ascii_lowercase())) {
                    let found = at.find_subcommand(name).cloned();
                    at = found.unwrap_or_else(|| panic!("{command}: {name}"));
                }
                assert!(!at.has_subcommands(), "{command}");
            }
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for args in [
            ["dev", "--nodes", "0"],
            ["dev", "--nodes", "20"],
            ["dev", "--shards", "257"],
            ["dev", "--base-port", "65477"],
        ] {
            let parsed = Henge::try_parse_from(std::iter::once("henge").chain(args));
            assert!(parsed.is_err(), "{args:?}");
        }
    }
}
