//! What can be typed after `henge cluster`, `henge repo`, `henge debug` and `henge credential`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use henge_types::{FsckLevel, NodeId, ObjectFormat, OwnerName, RefName, RepoPath};

use crate::exit::EXIT_CODES_HELP;

mod mirrors;
mod settings;

pub use mirrors::{Direction, MirrorChange, MirrorRepo, MirrorVerb};
pub use settings::SettingsVerb;

use mirrors::span;

const CONTEXT_HELP: &str = "Which cluster:
  --url and --token (or --token-file) win over HENGE_URL and HENGE_TOKEN. Where neither a flag nor the
  environment names a cluster or a token, ./.henge-dev/cluster.json is used if `henge dev` left one there.";

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

fn long_help() -> String {
    format!("{CONTEXT_HELP}\n\n{EXIT_CODES_HELP}")
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Which cluster, with which token, and how to answer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Remote {
    /// Addresses of nodes, comma separated, asked in turn [env: HENGE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The token [env: HENGE_TOKEN]; other users of this machine may see it: prefer a file
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// A file with the token, which only its owner may read
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How to write the answer
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Output,
}

/// `henge cluster …`
#[derive(Debug, Args)]
pub struct Cluster {
    /// Which cluster.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do with it.
    #[command(subcommand)]
    pub verb: ClusterVerb,
}

/// `henge debug …`
#[derive(Debug, Args)]
pub struct Debug {
    /// Which cluster.
    #[command(flatten)]
    pub remote: Remote,
    /// What to show.
    #[command(subcommand)]
    pub verb: DebugVerb,
}

/// What can be looked at inside of nodes.
#[derive(Debug, Subcommand)]
pub enum DebugVerb {
    /// The background tasks of the groups that each node leads
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Tasks {
        /// Only those of this node
        #[arg(long, value_name = "NODE")]
        node: Option<NodeId>,
    },
}

/// `henge credential`
#[derive(Debug, Args)]
pub struct Credential {
    /// What git wants: get, store or erase; nothing is kept, so the last two do nothing
    #[arg(value_name = "OPERATION")]
    pub operation: String,
    /// Which cluster.
    #[command(flatten)]
    pub remote: Remote,
}

/// What can be asked of a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Nodes, leaders, lag and problems; answers without a quorum too
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Status {
        /// End with code 6 unless all is well
        #[arg(long)]
        check: bool,
    },
    /// Every group: leader, term, replicas, and whether their states are equal
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Shards,
}

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

/// `henge repo limits …`
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// Bytes of all packs, those of forks included; none for no bound
    #[arg(long, value_name = "BYTES|none")]
    pub max_bytes: Option<Bound<u64>>,
    /// Bytes of one push; none for no bound of its own
    #[arg(long, value_name = "BYTES|none")]
    pub max_push_bytes: Option<Bound<u64>>,
    /// Bytes of one object, uncompressed; none for no bound of its own
    #[arg(long, value_name = "BYTES|none")]
    pub max_object_bytes: Option<Bound<u64>>,
    /// Objects in one push; none for no bound of its own
    #[arg(long, value_name = "COUNT|none")]
    pub max_push_objects: Option<Bound<u32>>,
    /// Branches, tags and other refs; none for no bound
    #[arg(long, value_name = "COUNT|none")]
    pub max_refs: Option<Bound<u64>>,
}

/// A bound, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound<T>(pub Option<T>);

impl<T: FromStr> FromStr for Bound<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number = text.parse().map(|number| Self(Some(number)));
        number.map_err(|_| format!("{text:?} is neither a whole number that fits nor none"))
    }
}

/// Nodes by number, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes(pub Vec<NodeId>);

impl FromStr for Nodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Vec::new()));
        }
        let number = |text: &str| {
            let number = text.trim().parse().map(NodeId::new);
            number.map_err(|_| format!("{text:?} is not the number of a node, nor all"))
        };
        text.split(',')
            .map(number)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What can be done with repositories.
#[derive(Debug, Subcommand)]
pub enum RepoVerb {
    /// Create an empty repository
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Create {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// One line about it
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
        /// Everybody may read it without a token
        #[arg(long)]
        public: bool,
        /// Only its owner sees it: so it is unless --public is given
        #[arg(long, conflicts_with = "public")]
        private: bool,
        /// What HEAD points at, without refs/heads/
        #[arg(long, value_name = "BRANCH")]
        default_branch: Option<String>,
        /// The hash that objects are named by: sha1 or sha256, for ever
        #[arg(long, value_name = "FORMAT")]
        object_format: Option<ObjectFormat>,
    },
    /// List repositories
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    List {
        /// Only those of this owner
        #[arg(long, value_name = "OWNER")]
        owner: Option<OwnerName>,
    },
    /// Show a repository, where it lives, and its branches
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Show {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// What people set.
    #[command(flatten)]
    Settings(SettingsVerb),
    /// Count packs, objects and bytes, and tell how compaction stands
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Stats {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// Merge packs on all replicas, and wait until it is done
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Gc {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// All packs into one, not only those out of proportion
        #[arg(long)]
        aggressive: bool,
        /// Drop what no branch or tag has reached for so many seconds (two weeks unless said): the first time this only
        /// begins to watch, so ask again when they have passed
        #[arg(
            long,
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "1209600",
            value_name = "SECONDS"
        )]
        prune: Option<u64>,
        /// How long to wait; 0 only asks for it
        #[arg(long, default_value_t = 600, value_name = "SECONDS")]
        wait: u64,
    },
    /// Make a repository of another one, with its branches and tags, on the same objects, and as private
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Fork {
        /// The repository to start from
        #[arg(value_name = "OWNER/NAME")]
        parent: RepoPath,
        /// The new repository
        #[arg(value_name = "NEW_OWNER/NAME")]
        path: RepoPath,
    },
    /// Show or set what a repository may hold: pushes beyond it are refused
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Limits(LimitsArgs),
    /// Read every object on every replica, and tell what is damaged or missing
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Fsck {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Only the replicas on these nodes, comma separated, or all of them
        #[arg(long, default_value = "all", value_name = "NODE")]
        node: Nodes,
        /// Fetch damaged packs again from another replica
        #[arg(long)]
        repair: bool,
        /// How long to wait; 0 only asks for it
        #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
        wait: u64,
    },
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
    Delete {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `henge repo push-certs`
#[derive(Debug, Args)]
pub struct PushCerts {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// Only the pushes of this ref, in full: refs/heads/main
    #[arg(long = "ref", value_name = "REF")]
    pub reference: Option<RefName>,
    /// Write the certificates as they came, signatures included, the newest first
    #[arg(long)]
    pub raw: bool,
}

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
    /// Go on as a mirror that follows the source so often (90s, 30m, 8h, 1d), and takes no other pushes
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub mirror: Option<Duration>,
    /// Believe the certificates in this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How its objects are checked, and those of later pushes [default: strict, or as it is with --update]
    #[arg(long, value_name = "strict|lenient")]
    pub fsck: Option<FsckLevel>,
    /// Where packs lie in between [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,
    /// Tell how far it is also where standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

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
