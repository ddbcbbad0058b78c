//! The files of `henge dev`.
//!
//! ```text
//! DIR/dev.toml        how the cluster was made; DIR is ours only if it is there
//! DIR/dev.lock        held by the running `henge dev`
//! DIR/ca.pem, ca.key  the cluster's authority
//! DIR/admin.token     the administrator's token
//! DIR/cluster.json    once all nodes are ready
//! DIR/n1/…            node 1: node.toml, identity.toml, ca.pem, node.pem, node.key,
//!                     henge.log, henge.pid
//! ```

use std::fmt::Write as _;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use henge_cli::private_file::{self, PrivateFileError};
use henge_types::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ports;
use crate::args::Dev;
use crate::certificates::Authority;
use crate::data_dir::{self, TlsPaths};
use crate::identity::{Identity, Life};

const SETTINGS_FILE: &str = "dev.toml";
const LOCK_FILE: &str = "dev.lock";
const NODES: u64 = 3;
const SHARDS: u32 = 8;
const BASE_PORT: u16 = 7400;

/// The reasons to refuse the folder.
#[derive(Debug, Error)]
pub(crate) enum LayoutError {
    /// A file or folder cannot be used.
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// It holds other files.
    #[error("{path} holds files, but no cluster of `henge dev`: choose another --dir")]
    NotOurs { path: PathBuf },
    /// It holds a cluster of another shape.
    #[error(
        "{path} holds a cluster with {key} {has}, not {asked}: leave out --{flag}, choose another --dir, \
         or delete that cluster with --reset"
    )]
    Differs {
        path: PathBuf,
        key: &'static str,
        flag: &'static str,
        has: u64,
        asked: u64,
    },
    /// Another supervisor runs in it.
    #[error("another `henge dev` runs in {path}: stop it, or choose another --dir and --base-port")]
    Supervised { path: PathBuf },
    /// A node of an earlier run still runs.
    #[error("node {node} in {path} still runs: stop it{} and try again", with(*.pid))]
    NodeRuns {
        path: PathBuf,
        node: NodeId,
        pid: Option<u32>,
    },
    /// The settings file is wrong.
    #[error("{path} is wrong: {detail}")]
    Settings { path: PathBuf, detail: String },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A private file cannot be written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
}

fn with(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" with `kill {pid}`"))
}

/// The settings that a cluster was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) cluster_id: ClusterId,
    pub(crate) nodes: u64,
    pub(crate) shards: u32,
    pub(crate) base_port: u16,
}

impl Settings {
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes).map(NodeId::new)
    }
}

/// A cluster on disk, locked by this process.
#[derive(Debug)]
pub(crate) struct Layout {
    /// An absolute path.
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    /// Held, not read: the lock ends with the file.
    _lock: File,
}

impl Layout {
    /// Opens the cluster in the folder, or makes a new one.
    pub(crate) fn prepare(args: &Dev) -> Result<Self, LayoutError> {
        let dir = std::path::absolute(&args.dir).map_err(at(&args.dir))?;
        if let Some(layout) = Self::open(&dir)? {
            for node in layout.settings.nodes() {
                let path = layout.node_dir(node);
                if data_dir::in_use(&path) {
                    let pid = data_dir::pid(&path);
                    return Err(LayoutError::NodeRuns { path, node, pid });
                }
            }
            if !args.reset {
                layout.check(args)?;
                return Ok(layout);
            }
            fs::remove_dir_all(&dir).map_err(at(&dir))?;
        }
        create(&dir, args)?;
        Self::open(&dir)?.ok_or(LayoutError::NotOurs { path: dir })
    }

    /// `None` if the folder is missing or empty.
    fn open(dir: &Path) -> Result<Option<Self>, LayoutError> {
        let path = dir.join(SETTINGS_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if is_vacant(dir)? {
                    Ok(None)
                } else {
                    Err(LayoutError::NotOurs {
                        path: dir.to_owned(),
                    })
                };
            }
            Err(source) => return Err(LayoutError::Io { path, source }),
        };
        let settings = toml::from_str(&text).map_err(|error| LayoutError::Settings {
            path,
            detail: error.to_string(),
        })?;
        Ok(Some(Self {
            dir: dir.to_owned(),
            settings,
            _lock: lock(dir)?,
        }))
    }

    fn check(&self, args: &Dev) -> Result<(), LayoutError> {
        let has = &self.settings;
        let shards = args.shards.map(u64::from);
        let base_port = args.base_port.map(u64::from);
        for (key, flag, has, asked) in [
            ("nodes", "nodes", has.nodes, args.nodes),
            ("shards", "shards", u64::from(has.shards), shards),
            (
                "base port",
                "base-port",
                u64::from(has.base_port),
                base_port,
            ),
        ] {
            if let Some(asked) = asked.filter(|asked| *asked != has) {
                return Err(LayoutError::Differs {
                    path: self.dir.clone(),
                    key,
                    flag,
                    has,
                    asked,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn node_dir(&self, node: NodeId) -> PathBuf {
        node_dir(&self.dir, node)
    }

    pub(crate) fn config(&self, node: NodeId) -> PathBuf {
        self.node_dir(node).join("node.toml")
    }

    pub(crate) fn log(&self, node: NodeId) -> PathBuf {
        self.node_dir(node).join("henge.log")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.join("admin.token")
    }

    pub(crate) fn cluster_file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Io { path, source }
}

fn node_dir(dir: &Path, node: NodeId) -> PathBuf {
    dir.join(format!("n{node}"))
}

fn is_vacant(dir: &Path) -> Result<bool, LayoutError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(at(dir)(source)),
    }
}

fn lock(dir: &Path) -> Result<File, LayoutError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LayoutError::Supervised {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(LayoutError::Io { path, source }),
    }
}

/// Makes a cluster in a temporary folder and renames that to `dir`: an interruption leaves no
/// half-made cluster there.
fn create(dir: &Path, args: &Dev) -> Result<(), LayoutError> {
    let parent = dir.parent().unwrap_or(dir);
    fs::create_dir_all(parent).map_err(at(parent))?;
    let unfinished = tempfile::Builder::new()
        .prefix(".henge-dev-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(at(parent))?;
    let settings = Settings {
        cluster_id: ClusterId::from_bytes(henge_runtime::random_bytes()),
        nodes: args.nodes.unwrap_or(NODES),
        shards: args.shards.unwrap_or(SHARDS),
        base_port: args.base_port.unwrap_or(BASE_PORT),
    };
    fill(unfinished.path(), &settings)?;
    fs::rename(unfinished.path(), dir).map_err(at(dir))?;
    // The folder was renamed: there is nothing left to delete.
    drop(unfinished.keep());
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(at(parent))
}

fn fill(dir: &Path, settings: &Settings) -> Result<(), LayoutError> {
    let authority = Authority::new(settings.cluster_id)?;
    private_file::write(&dir.join("ca.key"), authority.key().as_bytes())?;
    private_file::write(&dir.join("ca.pem"), authority.certificate.as_bytes())?;
    let token = [henge_runtime::random_bytes(), henge_runtime::random_bytes()].concat();
    let token = format!("{}\n", hex::encode(token));
    private_file::write(&dir.join("admin.token"), token.as_bytes())?;

    let members: Vec<(NodeId, Incarnation)> = settings
        .nodes()
        .map(|node| (node, Incarnation::from_bytes(henge_runtime::random_bytes())))
        .collect();
    for &(node, incarnation) in &members {
        let path = node_dir(dir, node);
        data_dir::make(&path).map_err(at(&path))?;
        let identity = Identity {
            cluster_id: settings.cluster_id,
            node_id: node,
            incarnation,
            life: Life::New,
        };
        identity.write(&path)?;
        let leaf = authority.issue(node)?;
        let tls = TlsPaths::in_dir(&path);
        private_file::write(&tls.ca, authority.certificate.as_bytes())?;
        private_file::write(&tls.cert, leaf.certificate.as_bytes())?;
        private_file::write(&tls.key, leaf.key.as_bytes())?;
        let config = config_text(settings, node, &members);
        private_file::write(&path.join("node.toml"), config.as_bytes())?;
    }
    let text = toml::to_string(settings).expect("invariant: plain fields with string keys");
    private_file::write(&dir.join(SETTINGS_FILE), text.as_bytes())?;
    Ok(())
}

fn config_text(settings: &Settings, node: NodeId, members: &[(NodeId, Incarnation)]) -> String {
    let base = settings.base_port;
    let replication = if settings.nodes < 3 { 1 } else { 3 };
    let mut text = format!(
        "# Made by `henge dev`. Relative paths are meant from this folder.\n\
         [node]\n\
         data_dir = \".\"\n\
         http_listen = \"{}\"\n\
         rpc_listen = \"{}\"\n\
         \n\
         [auth]\n\
         admin_token_file = \"../admin.token\"\n\
         \n\
         # Small: several nodes share a developer's disk.\n\
         [storage]\n\
         wal_segment = \"16MiB\"\n\
         wal_max = \"1GiB\"\n\
         low_space = \"256MiB\"\n\
         low_space_percent = 1\n\
         \n\
         # Whoever has the token runs these nodes: a mirror reaches nothing that they do not.\n\
         [mirrors]\n\
         allow_private_addresses = true\n\
         \n\
         [cluster]\n\
         shards = {}\n\
         replication = {replication}\n",
        ports::http(base, node),
        ports::rpc(base, node),
        settings.shards,
    );
    for (member, incarnation) in members {
        write!(
            text,
            "\n[[cluster.founders]]\n\
             id = {member}\n\
             incarnation = \"{incarnation}\"\n\
             http = \"{}\"\n\
             rpc = \"{}\"\n",
            ports::http(base, *member),
            ports::rpc(base, *member),
        )
        .expect("invariant: a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests;
