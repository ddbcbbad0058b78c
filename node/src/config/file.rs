//! The text of `node.toml`, every key optional, and the variables that override its keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use henge_types::{Incarnation, NodeId};
use serde::Deserialize;

use super::units::{Interval, Size, Span};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) node: Node,
    pub(crate) cluster: Cluster,
    pub(crate) auth: Auth,
    pub(crate) http: Http,
    pub(crate) storage: Storage,
    pub(crate) git: Git,
    pub(crate) mirrors: Mirrors,
    pub(crate) maintenance: Maintenance,
    pub(crate) log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Node {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) rpc_listen: Option<SocketAddr>,
    pub(crate) http_advertise: Option<String>,
    pub(crate) rpc_advertise: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    pub(crate) shards: Option<u32>,
    pub(crate) replication: Option<u32>,
    pub(crate) heartbeat: Option<Span>,
    pub(crate) election_min: Option<Span>,
    pub(crate) election_max: Option<Span>,
    pub(crate) founders: Vec<Founder>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Founder {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) rpc: String,
    pub(crate) http: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    pub(crate) admin_token_file: Option<PathBuf>,
    pub(crate) metrics_token_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    pub(crate) anonymous_reads: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Maintenance {
    pub(crate) prune_every: Option<Interval>,
    pub(crate) prune_grace: Option<Span>,
    pub(crate) settle_after: Option<Interval>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Storage {
    pub(crate) wal_segment: Option<Size>,
    pub(crate) wal_max: Option<Size>,
    pub(crate) low_space: Option<Size>,
    pub(crate) low_space_percent: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Git {
    pub(crate) bundle_uri: Option<bool>,
    pub(crate) bundle_uri_min: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mirrors {
    pub(crate) allow_private_addresses: Option<bool>,
    pub(crate) at_once: Option<usize>,
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) filter: Option<String>,
    pub(crate) format: Option<LogFormat>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("neither \"text\" nor \"json\""),
        }
    }
}

/// A variable that overrides a key of the file.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) set: fn(&mut File, &str) -> Result<(), String>,
}

fn parse<T: FromStr<Err: ToString>>(slot: &mut Option<T>, text: &str) -> Result<(), String> {
    *slot = Some(text.parse().map_err(|error: T::Err| error.to_string())?);
    Ok(())
}

macro_rules! variables {
    ($($name:literal => $section:ident . $key:ident;)*) => {
        /// Every variable. Founders have none: a variable cannot hold a list of tables.
        pub(crate) const VARIABLES: &[Variable] = &[$(Variable {
            name: $name,
            set: |file, text| parse(&mut file.$section.$key, text),
        }),*];
    };
}

variables! {
    "HENGE_NODE_DATA_DIR" => node.data_dir;
    "HENGE_NODE_HTTP_LISTEN" => node.http_listen;
    "HENGE_NODE_RPC_LISTEN" => node.rpc_listen;
    "HENGE_NODE_HTTP_ADVERTISE" => node.http_advertise;
    "HENGE_NODE_RPC_ADVERTISE" => node.rpc_advertise;
    "HENGE_CLUSTER_SHARDS" => cluster.shards;
    "HENGE_CLUSTER_REPLICATION" => cluster.replication;
    "HENGE_CLUSTER_HEARTBEAT" => cluster.heartbeat;
    "HENGE_CLUSTER_ELECTION_MIN" => cluster.election_min;
    "HENGE_CLUSTER_ELECTION_MAX" => cluster.election_max;
    "HENGE_AUTH_ADMIN_TOKEN_FILE" => auth.admin_token_file;
    "HENGE_AUTH_METRICS_TOKEN_FILE" => auth.metrics_token_file;
    "HENGE_HTTP_ANONYMOUS_READS" => http.anonymous_reads;
    "HENGE_STORAGE_WAL_SEGMENT" => storage.wal_segment;
    "HENGE_STORAGE_WAL_MAX" => storage.wal_max;
    "HENGE_STORAGE_LOW_SPACE" => storage.low_space;
    "HENGE_STORAGE_LOW_SPACE_PERCENT" => storage.low_space_percent;
    "HENGE_GIT_BUNDLE_URI" => git.bundle_uri;
    "HENGE_GIT_BUNDLE_URI_MIN" => git.bundle_uri_min;
    "HENGE_MIRRORS_ALLOW_PRIVATE_ADDRESSES" => mirrors.allow_private_addresses;
    "HENGE_MIRRORS_AT_ONCE" => mirrors.at_once;
    "HENGE_MIRRORS_CA_FILE" => mirrors.ca_file;
    "HENGE_MAINTENANCE_PRUNE_EVERY" => maintenance.prune_every;
    "HENGE_MAINTENANCE_PRUNE_GRACE" => maintenance.prune_grace;
    "HENGE_MAINTENANCE_SETTLE_AFTER" => maintenance.settle_after;
    "HENGE_LOG_FILTER" => log.filter;
    "HENGE_LOG_FORMAT" => log.format;
}
