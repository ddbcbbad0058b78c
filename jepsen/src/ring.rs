//! A ring of node processes on loopback, each with a folder or a file system of its own.
//!
//! `henge dev` creates certificates, identities and configurations once. After that every node is a
//! separate process, so that a run can stop it, damage it and start it with flags and variables of
//! its own.
//!
//! ```text
//! DIR/layout/       the output of `henge dev`
//! DIR/disk1/        node 1's file system; disk1/data is its data directory
//! DIR/aside/        data that was moved out of a data directory and is restored later
//! DIR/conf/n1.toml  node 1's configuration
//! DIR/log/n1.log    node 1's log
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::clock;
use crate::disk::Disk;
use crate::probe;
use crate::process::{self, Program};

/// Time limit for the first start of a ring, on a shared machine.
const FORM_LIMIT: Duration = Duration::from_secs(180);
/// A graceful shutdown of a node takes up to 8 seconds; the rest is for a loaded machine.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Time for the kernel to release memory and files after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Maximum size of a log in a report.
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The parameters of a ring.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The binary.
    pub henge: PathBuf,
    /// The directory of the run.
    pub dir: PathBuf,
    /// The first port.
    pub base_port: u16,
    /// Number of nodes.
    pub nodes: u64,
    /// Number of shards.
    pub shards: u32,
    /// Whether each node has a file system of its own.
    pub disks: bool,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: u64,
    /// `IP:PORT` of its HTTP listener.
    pub http: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Its file system, if it has one.
    pub disk: Option<Disk>,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    /// The directory of the run.
    pub dir: PathBuf,
    /// The administrator's token.
    pub token: String,
    henge: PathBuf,
    nodes: Vec<Node>,
}

/// The way in which a node is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
}

impl Ring {
    /// Creates the ring without starting a node.
    ///
    /// # Errors
    /// When `henge dev` fails or a folder cannot be created.
    pub fn make(shape: &Shape) -> anyhow::Result<Self> {
        fs::create_dir_all(&shape.dir).context("cannot make the run's folder")?;
        let dir = fs::canonicalize(&shape.dir).context("the run's folder is gone")?;
        for folder in ["aside", "conf", "log", "clones", "clock"] {
            fs::create_dir(dir.join(folder))
                .with_context(|| format!("{} is used: choose another --dir", dir.display()))?;
        }
        let layout = dir.join("layout");
        lay_out(shape, &layout, &dir.join("log/dev.log"))?;
        let token = fs::read_to_string(layout.join("admin.token")).context("no token")?;
        let mut ring = Self {
            dir,
            token: token.trim().to_owned(),
            henge: shape.henge.clone(),
            nodes: Vec::new(),
        };
        for id in 1..=shape.nodes {
            let node = ring.prepare(shape, id, &layout)?;
            ring.nodes.push(node);
        }
        // The files of an operator's setup are long durable before a power cut.
        rustix::fs::sync();
        Ok(ring)
    }

    fn prepare(&self, shape: &Shape, id: u64, layout: &Path) -> anyhow::Result<Node> {
        let point = self.dir.join(format!("disk{id}"));
        let disk = match shape.disks {
            true => Some(Disk::make(
                self.dir.join(format!("disk{id}.img")),
                point.clone(),
            )?),
            false => None,
        };
        let data = point.join("data");
        fs::create_dir_all(&data).context("cannot make a data directory")?;
        fs::set_permissions(&data, Permissions::from_mode(0o700)).context("cannot close it")?;
        let from = layout.join(format!("n{id}"));
        for name in ["ca.pem", "node.pem", "node.key"] {
            fs::copy(from.join(name), data.join(name)).with_context(|| format!("no {name}"))?;
        }
        let identity = fs::read_to_string(from.join("identity.toml")).context("no identity")?;
        let keys = ["cluster_id", "node_id", "incarnation"];
        let kept = identity
            .lines()
            .filter(|line| keys.iter().any(|key| line.starts_with(key)));
        let text = kept.map(|line| format!("{line}\n")).collect::<String>() + "life = \"new\"\n";
        let path = data.join("identity.toml");
        fs::write(&path, text).context("cannot write an identity")?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context("cannot close it")?;

        let config = fs::read_to_string(from.join("node.toml")).context("no configuration")?;
        let token = layout.join("admin.token");
        let text = config
            .replace(
                "data_dir = \".\"",
                &format!("data_dir = \"{}\"", data.display()),
            )
            .replace("../admin.token", &token.display().to_string());
        let listen = text.lines().find_map(|line| {
            let value = line.strip_prefix("http_listen = \"")?;
            value.strip_suffix('"')
        });
        let http = listen
            .context("no http_listen in the configuration")?
            .to_owned();
        let config = self.dir.join(format!("conf/n{id}.toml"));
        fs::write(&config, text).context("cannot write a configuration")?;
        Ok(Node {
            id,
            http,
            data,
            disk,
            config,
            log: self.dir.join(format!("log/n{id}.log")),
            child: None,
        })
    }

    /// Every node's number.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Every node's number and HTTP address.
    pub fn addresses(&self) -> Vec<(u64, String)> {
        let addresses = self.nodes.iter();
        addresses.map(|node| (node.id, node.http.clone())).collect()
    }

    /// A node.
    ///
    /// # Errors
    /// When there is no node with this number.
    pub fn node(&self, id: u64) -> anyhow::Result<&Node> {
        let found = self.nodes.iter().find(|node| node.id == id);
        found.with_context(|| format!("no node {id}"))
    }

    /// A node, mutable.
    ///
    /// # Errors
    /// When there is no node with this number.
    pub fn node_mut(&mut self, id: u64) -> anyhow::Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.id == id);
        found.with_context(|| format!("no node {id}"))
    }

    /// The binary.
    pub fn henge(&self) -> Program {
        Program::new(&self.henge)
    }

    /// Starts a node. Small segments and a short log make snapshots and purges frequent.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(
        &mut self,
        id: u64,
        flags: &[&str],
        variables: &[(&str, String)],
    ) -> anyhow::Result<()> {
        let mut program = self
            .henge()
            .args(["node", "run", "--config"])
            .env("HENGE_STORAGE_WAL_SEGMENT", "16MiB")
            .env("HENGE_STORAGE_WAL_MAX", "64MiB")
            .env("HENGE_STORAGE_LOW_SPACE", "128MiB")
            .env("HENGE_STORAGE_LOW_SPACE_PERCENT", "1")
            .env("HENGE_MAINTENANCE_SETTLE_AFTER", "3s");
        for (name, value) in variables {
            program = program.env(name, value);
        }
        let node = self.node_mut(id)?;
        if node.child.is_some() {
            bail!("node {id} runs already");
        }
        program = program.arg(&node.config).args(flags);
        node.child = Some(program.start(&node.log)?);
        Ok(())
    }

    /// Starts a node as an operator would.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, id: u64) -> anyhow::Result<()> {
        self.start_with(id, &[], &[])
    }

    /// Whether the process was started and its end was not observed yet.
    pub fn runs(&self, id: u64) -> bool {
        self.node(id).is_ok_and(|node| node.child.is_some())
    }

    /// The exit status of a node that ended by itself; returned once.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn ended(&mut self, id: u64) -> anyhow::Result<Option<ExitStatus>> {
        let node = self.node_mut(id)?;
        let Some(child) = &mut node.child else {
            return Ok(None);
        };
        let status = child.try_wait().context("cannot look after a node")?;
        if status.is_some() {
            node.child = None;
        }
        Ok(status)
    }

    /// Sends the signal without waiting.
    ///
    /// # Errors
    /// When there is no such node.
    fn signal(&self, id: u64, ending: Ending) -> anyhow::Result<()> {
        if let Some(child) = &self.node(id)?.child {
            let which = match ending {
                Ending::Stop => Signal::TERM,
                Ending::Kill => Signal::KILL,
            };
            process::signal(child, which);
        }
        Ok(())
    }

    /// Ends a node; returns how, and whether it had to be killed.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn end(&mut self, id: u64, ending: Ending) -> anyhow::Result<String> {
        self.signal(id, ending)?;
        self.wait_end(id, ending)
    }

    /// Ends nodes at the same time: one after the other they would transfer their leaderships.
    ///
    /// # Errors
    /// When one cannot be waited for.
    pub fn end_together(
        &mut self,
        ids: &BTreeSet<u64>,
        ending: Ending,
    ) -> anyhow::Result<Vec<(u64, String)>> {
        for id in ids {
            self.signal(*id, ending)?;
        }
        ids.iter()
            .map(|id| Ok((*id, self.wait_end(*id, ending)?)))
            .collect()
    }

    /// Waits for the end of a node after its signal: a second signal would abort the graceful
    /// shutdown.
    fn wait_end(&mut self, id: u64, ending: Ending) -> anyhow::Result<String> {
        let node = self.node_mut(id)?;
        let Some(mut child) = node.child.take() else {
            return Ok("was not running".to_owned());
        };
        let limit = match ending {
            Ending::Stop => STOP_LIMIT,
            Ending::Kill => KILL_LIMIT,
        };
        let (status, killed) = process::end(&mut child, limit)?;
        Ok(match killed {
            true => format!("did not stop in {}s and was killed", limit.as_secs()),
            false => status.to_string(),
        })
    }

    /// Whether it reports ready.
    pub fn is_ready(&self, id: u64) -> bool {
        let address = self.node(id).map(|node| node.http.clone());
        address.is_ok_and(|address| probe::ready(&address).is_ok())
    }

    /// Waits until these nodes are ready.
    pub fn wait_ready(&mut self, ids: &[u64], limit: Duration) -> bool {
        let ready = clock::wait_for(limit, || {
            ids.iter().all(|id| self.is_ready(*id)).then_some(())
        });
        ready.is_some()
    }

    /// The length of a node's log.
    pub fn log_position(&self, id: u64) -> u64 {
        let log = self.node(id).map(|node| node.log.clone());
        log.and_then(|log| Ok(fs::metadata(log)?.len()))
            .unwrap_or(0)
    }

    /// A node's log from `position` on.
    pub fn log_since(&self, id: u64, position: u64) -> String {
        let read = || -> anyhow::Result<String> {
            let mut file = File::open(&self.node(id)?.log)?;
            file.seek(SeekFrom::Start(position))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Kills every node.
    pub fn kill_all(&mut self) {
        for id in self.ids() {
            self.end(id, Ending::Kill).ok();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.kill_all();
        for node in &self.nodes {
            // An aborted run must leave folders that can be deleted.
            let lift = Program::new("chattr").args(["-R", "-f", "-i"]);
            lift.arg(&node.data).run().ok();
        }
    }
}

/// Creates a cluster with `henge dev`, and stops it.
fn lay_out(shape: &Shape, layout: &Path, log: &Path) -> anyhow::Result<()> {
    let (nodes, shards) = (shape.nodes.to_string(), shape.shards.to_string());
    let base_port = shape.base_port.to_string();
    let mut dev = Program::new(&shape.henge)
        .args(["dev", "--nodes", &nodes, "--shards", &shards])
        .args(["--base-port", &base_port, "--dir"])
        .arg(layout)
        .start(log)?;
    let made = clock::wait_for(FORM_LIMIT, || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let ready = text.lines().any(|line| line == "ready");
        (ready || !matches!(dev.try_wait(), Ok(None))).then_some(ready)
    });
    process::signal(&dev, Signal::TERM);
    process::end(&mut dev, STOP_LIMIT)?;
    if made != Some(true) {
        let text = fs::read_to_string(log).unwrap_or_default();
        bail!("henge dev did not become ready:\n{text}");
    }
    Ok(())
}
