//! The configuration of a node. Flags override `HENGE_*` variables, these override `node.toml`, and
//! that overrides the defaults. An invalid configuration is refused before anything is touched.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use henge_repos::PruneSchedule;
use henge_types::records::NodeRecord;
use henge_types::{NodeId, limits};
use thiserror::Error;

mod defaults;
mod file;
mod units;

pub(crate) use file::LogFormat;
use file::{File, VARIABLES};

/// The reasons to refuse a configuration.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// It is not TOML, has an unknown key, or a value of the wrong kind.
    #[error("the configuration {path} is wrong: {detail}")]
    Parse { path: PathBuf, detail: String },
    /// A variable's value is of the wrong kind.
    #[error("the variable {name} is wrong: {detail}")]
    Variable { name: &'static str, detail: String },
    /// A key without a default is missing.
    #[error("the configuration does not say {key}")]
    Missing { key: &'static str },
    /// A value that cannot work.
    #[error("{key}: {detail}")]
    Invalid { key: &'static str, detail: String },
}

/// The names of all variables that override the file.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().map(|variable| variable.name)
}

/// Values that override the file and the variables: the flags of `henge node run`.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) rpc_listen: Option<SocketAddr>,
    pub(crate) log_filter: Option<String>,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) http_listen: SocketAddr,
    pub(crate) rpc_listen: SocketAddr,
    /// `HOST:PORT` of the HTTP listener, as seen by others.
    pub(crate) http_advertise: String,
    /// `HOST:PORT` of the cluster listener, as seen by other nodes.
    pub(crate) rpc_advertise: String,
    pub(crate) cluster: ClusterSettings,
    pub(crate) admin_token_file: PathBuf,
    /// The file of tokens that open the page of metrics and nothing else.
    pub(crate) metrics_token_file: Option<PathBuf>,
    /// Whether public repositories can be read without a token.
    pub(crate) anonymous_reads: bool,
    pub(crate) storage: StorageSettings,
    pub(crate) git: GitSettings,
    pub(crate) mirrors: MirrorSettings,
    /// The schedule of pruning unreachable objects; `None`: never.
    pub(crate) prune: Option<PruneSchedule>,
    /// The time without a push after which all packs of a network are merged into one; `None`:
    /// never.
    pub(crate) settle_after: Option<Duration>,
    pub(crate) log_filter: String,
    pub(crate) log_format: LogFormat,
}

/// Settings that are equal on all nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterSettings {
    pub(crate) founders: Vec<NodeRecord>,
    pub(crate) shards: u32,
    pub(crate) replication: u32,
    pub(crate) heartbeat: Duration,
    pub(crate) election_min: Duration,
    pub(crate) election_max: Duration,
}

/// Limits of disk space, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorageSettings {
    pub(crate) wal_segment: u64,
    pub(crate) wal_max: u64,
    pub(crate) low_space: u64,
    /// Percent of the file system.
    pub(crate) low_space_percent: u64,
}

/// Features for git clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GitSettings {
    /// The smallest size of a bundle, in bytes; `None`: no bundles.
    pub(crate) bundle_bytes_min: Option<u64>,
}

/// Settings of mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MirrorSettings {
    /// Whether the remote may have an address outside of the public internet.
    pub(crate) allow_private_addresses: bool,
    pub(crate) at_once: usize,
    /// The file of certificates to trust instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Config {
    /// Reads the file, applies variables and flags over it, and checks the result. Relative paths
    /// in the file start at its folder.
    pub(crate) fn load(
        path: &Path,
        variable: impl Fn(&str) -> Option<String>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut file: File = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            detail: error.to_string().trim_end().to_owned(),
        })?;
        for known in VARIABLES {
            if let Some(text) = variable(known.name) {
                (known.set)(&mut file, &text).map_err(|detail| ConfigError::Variable {
                    name: known.name,
                    detail,
                })?;
            }
        }
        let Overrides {
            data_dir,
            http_listen,
            rpc_listen,
            log_filter,
        } = overrides;
        // A path on the command line starts at the working directory, not at the file's folder.
        let typed_data_dir = data_dir.map(|path| std::path::absolute(&path).unwrap_or(path));
        file.node.data_dir = typed_data_dir.or(file.node.data_dir);
        file.node.http_listen = http_listen.or(file.node.http_listen);
        file.node.rpc_listen = rpc_listen.or(file.node.rpc_listen);
        file.log.filter = log_filter.or(file.log.filter);
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        check(file, folder)
    }
}

fn check(file: File, folder: &Path) -> Result<Config, ConfigError> {
    let File {
        node,
        cluster,
        auth,
        http,
        storage,
        git,
        mirrors,
        maintenance,
        log,
    } = file;
    let http_listen = need(node.http_listen, "[node] http_listen")?;
    let rpc_listen = need(node.rpc_listen, "[node] rpc_listen")?;
    check_loopback("[node] rpc_listen", &rpc_listen.to_string())?;
    let rpc_advertise = advertised("[node] rpc_advertise", node.rpc_advertise, rpc_listen)?;
    check_loopback("[node] rpc_advertise", &rpc_advertise)?;
    let http_advertise = advertised("[node] http_advertise", node.http_advertise, http_listen)?;
    Ok(Config {
        data_dir: within(folder, &need(node.data_dir, "[node] data_dir")?),
        http_listen,
        rpc_listen,
        http_advertise,
        rpc_advertise,
        cluster: check_cluster(&cluster)?,
        admin_token_file: within(
            folder,
            &need(auth.admin_token_file, "[auth] admin_token_file")?,
        ),
        metrics_token_file: auth.metrics_token_file.map(|file| within(folder, &file)),
        anonymous_reads: http.anonymous_reads.unwrap_or(defaults::ANONYMOUS_READS),
        storage: check_storage(&storage)?,
        git: check_git(&git),
        mirrors: check_mirrors(mirrors, folder)?,
        prune: check_prune(&maintenance)?,
        settle_after: check_settle(&maintenance)?,
        log_filter: log
            .filter
            .unwrap_or_else(|| defaults::LOG_FILTER.to_owned()),
        log_format: log.format.unwrap_or_default(),
    })
}

/// The path, seen from the folder, without a `.` for the folder itself.
fn within(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path).components().collect()
}

fn need<T>(value: Option<T>, key: &'static str) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing { key })
}

fn invalid<T>(key: &'static str, detail: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid {
        key,
        detail: detail.into(),
    })
}

fn advertised(
    key: &'static str,
    value: Option<String>,
    listen: SocketAddr,
) -> Result<String, ConfigError> {
    match value {
        Some(address) => Ok(address),
        None if listen.ip().is_unspecified() => invalid(
            key,
            format!("must be given: nobody can be told to connect to {listen}"),
        ),
        None => Ok(listen.to_string()),
    }
}

/// Other addresses are refused until the listener has been reviewed: no slip of the configuration
/// makes it reachable from another machine.
fn check_loopback(key: &'static str, address: &str) -> Result<(), ConfigError> {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(()),
        Ok(_) | Err(_) => invalid(
            key,
            format!(
                "{address:?} is not a loopback IP address and port, and in this release the cluster listener takes no other"
            ),
        ),
    }
}

fn check_cluster(cluster: &file::Cluster) -> Result<ClusterSettings, ConfigError> {
    if cluster.founders.is_empty() {
        return Err(ConfigError::Missing {
            key: "[[cluster.founders]]",
        });
    }
    let founders = check_founders(&cluster.founders)?;
    let enough = u32::try_from(founders.len()).unwrap_or(u32::MAX);
    let usual = if enough >= defaults::REPLICATION {
        defaults::REPLICATION
    } else {
        1
    };
    let replication = cluster.replication.unwrap_or(usual);
    if ![1, 3, 5].contains(&replication) || replication > enough {
        return invalid(
            "[cluster] replication",
            format!("{replication} is not 1, 3 or 5, or more than the {enough} founders"),
        );
    }
    let shards = cluster.shards.unwrap_or(defaults::SHARDS);
    if shards == 0 || shards > limits::SHARDS_MAX {
        return invalid(
            "[cluster] shards",
            format!("{shards} is not between 1 and {}", limits::SHARDS_MAX),
        );
    }
    let span = |value: Option<units::Span>, default| value.map_or(default, units::Span::duration);
    let heartbeat = span(cluster.heartbeat, defaults::HEARTBEAT);
    let election_min = span(cluster.election_min, defaults::ELECTION_MIN);
    let election_max = span(cluster.election_max, defaults::ELECTION_MAX);
    if heartbeat.is_zero() || election_min < heartbeat * 2 || election_max <= election_min {
        return invalid(
            "[cluster] heartbeat, election_min, election_max",
            "need 0 < 2 * heartbeat <= election_min < election_max",
        );
    }
    Ok(ClusterSettings {
        founders,
        shards,
        replication,
        heartbeat,
        election_min,
        election_max,
    })
}

fn check_founders(founders: &[file::Founder]) -> Result<Vec<NodeRecord>, ConfigError> {
    let mut seen = BTreeSet::new();
    let mut records = Vec::new();
    for founder in founders {
        if founder.id == NodeId::new(0) {
            return invalid("[[cluster.founders]] id", "nodes are numbered from 1");
        }
        check_loopback("[[cluster.founders]] rpc", &founder.rpc)?;
        let own = [
            format!("id {}", founder.id),
            format!("incarnation {}", founder.incarnation),
            format!("address {}", founder.rpc),
            format!("address {}", founder.http),
        ];
        for claim in own {
            if let Some(twice) = seen.replace(claim) {
                return invalid("[[cluster.founders]]", format!("{twice} appears twice"));
            }
        }
        records.push(NodeRecord {
            node: founder.id,
            incarnation: founder.incarnation,
            rpc: founder.rpc.clone(),
            http: founder.http.clone(),
        });
    }
    records.sort_by_key(|record| record.node);
    Ok(records)
}

fn check_storage(storage: &file::Storage) -> Result<StorageSettings, ConfigError> {
    let size = |value: Option<units::Size>, default| value.map_or(default, units::Size::bytes);
    let settings = StorageSettings {
        wal_segment: size(storage.wal_segment, defaults::WAL_SEGMENT_BYTES),
        wal_max: size(storage.wal_max, defaults::WAL_BYTES_MAX),
        low_space: size(storage.low_space, defaults::LOW_SPACE_BYTES),
        low_space_percent: storage
            .low_space_percent
            .unwrap_or(defaults::LOW_SPACE_PERCENT),
    };
    if settings.wal_segment < WAL_SEGMENT_BYTES_MIN || !settings.wal_segment.is_multiple_of(4096) {
        return invalid(
            "[storage] wal_segment",
            "needs at least 16MiB, in whole multiples of 4KiB",
        );
    }
    if settings.wal_max / WAL_SEGMENTS_MIN < settings.wal_segment {
        return invalid(
            "[storage] wal_max",
            format!("must hold at least {WAL_SEGMENTS_MIN} segments"),
        );
    }
    if settings.low_space_percent > 90 {
        return invalid("[storage] low_space_percent", "is more than 90");
    }
    Ok(settings)
}

fn check_git(git: &file::Git) -> GitSettings {
    let min = git
        .bundle_uri_min
        .map_or(defaults::BUNDLE_URI_MIN_BYTES, units::Size::bytes);
    let is_on = git.bundle_uri.unwrap_or(defaults::BUNDLE_URI);
    GitSettings {
        bundle_bytes_min: is_on.then_some(min),
    }
}

fn check_mirrors(mirrors: file::Mirrors, folder: &Path) -> Result<MirrorSettings, ConfigError> {
    let at_once = mirrors.at_once.unwrap_or(defaults::MIRRORS_AT_ONCE);
    if !(1..=limits::MIRRORS_AT_ONCE_MAX).contains(&at_once) {
        return invalid(
            "[mirrors] at_once",
            format!(
                "{at_once} is not between 1 and {}",
                limits::MIRRORS_AT_ONCE_MAX
            ),
        );
    }
    Ok(MirrorSettings {
        allow_private_addresses: mirrors
            .allow_private_addresses
            .unwrap_or(defaults::MIRRORS_ALLOW_PRIVATE_ADDRESSES),
        at_once,
        ca_file: mirrors.ca_file.map(|file| within(folder, &file)),
    })
}

fn check_prune(maintenance: &file::Maintenance) -> Result<Option<PruneSchedule>, ConfigError> {
    let every = match maintenance.prune_every {
        Some(units::Interval::Off) => return Ok(None),
        Some(units::Interval::Every(every)) => every.duration(),
        None => defaults::PRUNE_EVERY,
    };
    if every < PRUNE_EVERY_MIN {
        return invalid("[maintenance] prune_every", "is less than \"1s\"");
    }
    let grace = maintenance.prune_grace;
    let grace = grace.map_or(defaults::PRUNE_GRACE, units::Span::duration);
    Ok(Some(PruneSchedule { every, grace }))
}

fn check_settle(maintenance: &file::Maintenance) -> Result<Option<Duration>, ConfigError> {
    let after = match maintenance.settle_after {
        Some(units::Interval::Off) => return Ok(None),
        Some(units::Interval::Every(after)) => after.duration(),
        None => defaults::SETTLE_AFTER,
    };
    if after < SETTLE_AFTER_MIN {
        return invalid("[maintenance] settle_after", "is less than \"1s\"");
    }
    Ok(Some(after))
}

/// Each settling rewrites all packs.
const SETTLE_AFTER_MIN: Duration = Duration::from_secs(1);
/// Each run checks every network.
const PRUNE_EVERY_MIN: Duration = Duration::from_secs(1);
/// A segment must hold the largest batch many times over.
const WAL_SEGMENT_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// One segment that is written, one spare, and room for groups that lag.
const WAL_SEGMENTS_MIN: u64 = 4;

#[cfg(test)]
mod tests;
