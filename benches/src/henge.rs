//! A cluster of `henge dev`: three node processes on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use henge_client::model::{NewRepo, RefChange, RepoInfo};
use henge_client::{Address, Client, Deadlines, Readiness, Secret};
use henge_runtime::{Clock as _, SystemClock};
use henge_types::{NodeId, RepoPath};
use rustix::process::Signal;
use serde::Deserialize;
use tokio::io::{BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::time::{sleep, timeout};

use crate::process::{Process, Program, signal};
use crate::usage;

const NODES: u32 = 3;
/// Deadline for all nodes to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(150);
/// Deadline for the nodes to compact, index and become idle after a large push.
const REST_DEADLINE: Duration = Duration::from_secs(600);
/// Length of one measurement of the CPU time.
const REST_WINDOW: Duration = Duration::from_secs(3);
/// A cluster below this share of a core counts as idle.
const REST_SHARE: f64 = 0.15;
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// The same for the end of a killed process, which is part of the measured time.
const DEATH_INTERVAL: Duration = Duration::from_millis(1);
/// Longer than the deadline that `henge dev` has for its nodes.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// The used part of a node's entry in the file of `henge dev`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) http: String,
    data_dir: PathBuf,
    config: PathBuf,
}

#[derive(Deserialize)]
struct ClusterFile {
    admin_token: String,
    nodes: Vec<Node>,
}

/// A running `henge dev`. It is killed with its nodes on drop.
#[derive(Debug)]
pub(crate) struct DevCluster {
    program: PathBuf,
    dir: PathBuf,
    dev: Process,
    /// Read up to `ready`; kept open so that later output does not fail.
    output: Lines<BufReader<ChildStdout>>,
    /// Nodes restarted after a kill.
    restarted: BTreeMap<NodeId, Process>,
    nodes: Vec<Node>,
    token: String,
    /// Time from the start of the process to `ready`.
    pub(crate) startup: Duration,
}

impl DevCluster {
    /// Starts a new cluster of three nodes in `dir`, on ports from `base_port` on, and waits until
    /// it reports `ready`.
    pub(crate) async fn start(
        program: &Path,
        dir: &Path,
        base_port: u16,
        shards: u32,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).context("cannot make a folder for the cluster")?;
        let dir = dir
            .canonicalize()
            .context("cannot find the cluster's folder")?;
        let log = dir.with_extension("dev.log");
        let started = SystemClock.instant();
        let (dev, output) = Program::new(program)
            .args(["dev", "--reset", "--nodes", &NODES.to_string()])
            .args(["--shards", &shards.to_string()])
            .args(["--base-port", &base_port.to_string(), "--dir"])
            .arg(&dir)
            .start_talking(&log)?;
        let mut cluster = Self {
            program: program.to_owned(),
            dir,
            dev,
            output,
            restarted: BTreeMap::new(),
            nodes: Vec::new(),
            token: String::new(),
            startup: Duration::ZERO,
        };
        let ready = timeout(READY_DEADLINE, cluster.wait_for_ready(started)).await;
        ready.context("henge dev was not ready in time")??;
        cluster.read_cluster_file()?;
        cluster.wait_until_healthy().await?;
        Ok(cluster)
    }

    async fn wait_for_ready(&mut self, started: Instant) -> anyhow::Result<()> {
        while let Some(line) = self.output.next_line().await? {
            if line == "ready" {
                self.startup = SystemClock.instant().duration_since(started);
                return Ok(());
            }
        }
        self.dev.wait().await?;
        bail!("henge dev ended before it was ready: {}", self.dev.tail())
    }

    fn read_cluster_file(&mut self) -> anyhow::Result<()> {
        let path = self.dir.join("cluster.json");
        let text = std::fs::read(&path).context("henge dev wrote no cluster.json")?;
        let file: ClusterFile = serde_json::from_slice(&text).context("cluster.json")?;
        (self.nodes, self.token) = (file.nodes, file.admin_token);
        Ok(())
    }

    /// Waits until every node is ready and every group has a leader that all of its members report.
    pub(crate) async fn wait_until_healthy(&self) -> anyhow::Result<()> {
        let wait = async {
            loop {
                if self.is_healthy().await? {
                    return Ok(());
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        timeout(READY_DEADLINE, wait)
            .await
            .unwrap_or_else(|_| bail!("the cluster is not healthy after a long while"))
    }

    async fn is_healthy(&self) -> anyhow::Result<bool> {
        for node in &self.nodes {
            let client = self.client(node.id, Deadlines::default())?;
            let address: Address = node.http.parse()?;
            if client.readiness(&address).await != Readiness::Ready {
                return Ok(false);
            }
            let Ok(status) = client.cluster().await else {
                return Ok(false);
            };
            let replicas = status.nodes.iter().filter_map(|node| node.report.as_ref());
            let led = replicas
                .flat_map(|report| &report.replicas)
                .all(|replica| replica.leader.is_some());
            let all_answer = status.nodes.iter().all(|node| node.report.is_some());
            if !status.healthy || !led || !all_answer {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The nodes, by number.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn node(&self, id: NodeId) -> anyhow::Result<&Node> {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.with_context(|| format!("henge dev has no node {id}"))
    }

    /// The HTTP address of a node.
    pub(crate) fn address(&self, id: NodeId) -> anyhow::Result<Address> {
        Ok(self.node(id)?.http.parse()?)
    }

    /// A client for one node only.
    pub(crate) fn client(&self, id: NodeId, deadlines: Deadlines) -> anyhow::Result<Client> {
        let address = self.address(id)?;
        let token = Secret::new(&self.token);
        Ok(Client::with_deadlines(
            vec![address],
            Some(token),
            deadlines,
        ))
    }

    /// The URL for pushes through one node. It contains the token.
    pub(crate) fn push_url(&self, id: NodeId, path: &RepoPath) -> anyhow::Result<String> {
        let http = &self.node(id)?.http;
        let host = http.trim_start_matches("http://");
        Ok(format!("http://admin:{}@{host}/{path}.git", self.token))
    }

    /// Creates a repository and waits until its shard's leader is known.
    pub(crate) async fn create(&self, name: &str) -> anyhow::Result<(RepoInfo, NodeId)> {
        let first = self.nodes.first().context("henge dev has no nodes")?;
        let client = self.client(first.id, Deadlines::default())?;
        let path: RepoPath = format!("admin/{name}").parse()?;
        client
            .create_repo(&NewRepo::new(path.clone()))
            .await
            .with_context(|| format!("cannot create {path}"))?;
        let leader = self.leader_of(&path).await?;
        let info = client.get_repo(&path).await?;
        Ok((info, leader))
    }

    /// The leader of a repository's shard, once the leader itself reports it.
    pub(crate) async fn leader_of(&self, path: &RepoPath) -> anyhow::Result<NodeId> {
        let wait = async {
            loop {
                for node in &self.nodes {
                    let client = self.client(node.id, Deadlines::default())?;
                    let info = client.get_repo(path).await;
                    if info.is_ok_and(|info| info.leader == Some(node.id)) {
                        return Ok(node.id);
                    }
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        timeout(READY_DEADLINE, wait)
            .await
            .unwrap_or_else(|_| bail!("nobody leads the shard of {path}"))
    }

    /// The process id of a node, restarted ones included.
    pub(crate) fn pid(&self, id: NodeId) -> anyhow::Result<u32> {
        let node = self.node(id)?;
        running(&node.data_dir, &node.config).with_context(|| format!("node {id} does not run"))
    }

    /// Number of packs in all object stores of each node, in the order of the nodes.
    pub(crate) fn packs(&self) -> anyhow::Result<Vec<usize>> {
        let count = |node: &Node| {
            let mut count = 0;
            let mut pending = vec![node.data_dir.join("networks")];
            while let Some(directory) = pending.pop() {
                // Compaction may remove a directory meanwhile.
                let Ok(listing) = std::fs::read_dir(&directory) else {
                    continue;
                };
                for entry in listing {
                    let path = entry?.path();
                    if path
                        .extension()
                        .is_some_and(|extension| extension == "pack")
                    {
                        count += 1;
                    } else if path.is_dir() {
                        pending.push(path);
                    }
                }
            }
            Ok(count)
        };
        self.nodes.iter().map(count).collect()
    }

    /// CPU time of each node, in the order of the nodes.
    pub(crate) fn cpu(&self) -> anyhow::Result<Vec<Duration>> {
        let nodes = self.nodes.iter();
        nodes.map(|node| usage::cpu(self.pid(node.id)?)).collect()
    }

    /// Copies a repository on disk with all refs into one of the cluster's.
    pub(crate) async fn import(&self, from: &Path, to: &RepoPath) -> anyhow::Result<()> {
        let first = self.nodes.first().context("henge dev has no nodes")?;
        let import = Program::new(&self.program)
            .patiently()
            .args(["repo", "import", "--update"])
            .arg(from)
            .arg(to.to_string())
            .env("HENGE_URL", &first.http)
            .env("HENGE_TOKEN", &self.token);
        import.output(b"").await?;
        Ok(())
    }

    /// Waits until the nodes are idle. Returns the remaining load: CPU milliseconds of all nodes
    /// per second.
    pub(crate) async fn rest(&self) -> anyhow::Result<f64> {
        let started = SystemClock.instant();
        while SystemClock.instant().duration_since(started) < REST_DEADLINE {
            let before: Duration = self.cpu()?.iter().sum();
            sleep(REST_WINDOW).await;
            let after: Duration = self.cpu()?.iter().sum();
            let share = after.saturating_sub(before).as_secs_f64() / REST_WINDOW.as_secs_f64();
            if share < REST_SHARE {
                return Ok(share * 1_000.0);
            }
        }
        bail!("the nodes do not come to rest")
    }

    /// Kills a node (SIGKILL) and waits until it can no longer answer.
    pub(crate) async fn kill(&self, id: NodeId) -> anyhow::Result<()> {
        let pid = self.pid(id)?;
        signal(pid, Signal::KILL);
        // Its name disappears before its files are closed, among them the lock of its folder.
        let gone = async {
            while self.pid(id).is_ok() || usage::holds_files(pid) {
                sleep(DEATH_INTERVAL).await;
            }
        };
        timeout(STOP_DEADLINE, gone)
            .await
            .with_context(|| format!("node {id} does not end"))
    }

    /// Restarts a killed node and waits until the cluster is healthy.
    pub(crate) async fn restart(&mut self, id: NodeId) -> anyhow::Result<()> {
        self.start_again(id).await?;
        self.wait_until_healthy().await
    }

    /// Starts a killed node.
    pub(crate) async fn start_again(&mut self, id: NodeId) -> anyhow::Result<()> {
        if let Some(mut killed) = self.restarted.remove(&id) {
            killed.wait().await?;
        }
        let log = self.dir.join(format!("n{id}-again.log"));
        let process = Program::new(&self.program)
            .args(["node", "run", "--config"])
            .arg(&self.node(id)?.config)
            .start(&log)?;
        self.restarted.insert(id, process);
        Ok(())
    }

    /// The release of the nodes.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let first = self.nodes.first().context("henge dev has no nodes")?;
        let client = self.client(first.id, Deadlines::default())?;
        Ok(client.version().await?)
    }

    /// Stops the cluster.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for (_, process) in std::mem::take(&mut self.restarted) {
            process.stop(STOP_DEADLINE).await?;
        }
        let dev = self.dev.pid()?;
        signal(dev, Signal::TERM);
        timeout(STOP_DEADLINE, self.dev.wait())
            .await
            .context("henge dev did not stop in time")?
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        if let Ok(dev) = self.dev.pid() {
            // Stopped first, so that it starts no other node while its children are listed.
            signal(dev, Signal::STOP);
            for child in usage::children(dev) {
                signal(child, Signal::KILL);
            }
            signal(dev, Signal::KILL);
        }
        // If `henge dev` ended earlier, its nodes may still run.
        for number in 1..=NODES {
            let dir = self.dir.join(format!("n{number}"));
            if let Some(pid) = running(&dir, &dir.join("node.toml")) {
                signal(pid, Signal::KILL);
            }
        }
    }
}

/// The process id in a node's folder, while the process with this configuration runs.
fn running(data_dir: &Path, config: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data_dir.join("henge.pid")).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    usage::was_started_with(pid, &config.to_string_lossy()).then_some(pid)
}

/// A change of one ref; with `old` = `"any"` it is independent of the old value.
pub(crate) fn change(name: &str, old: Option<&str>, new: &str) -> RefChange {
    RefChange {
        name: name.to_owned(),
        old: old.map(str::to_owned),
        new: Some(new.to_owned()),
    }
}

/// Sends one change; a refusal is an error.
pub(crate) async fn update(
    client: &Client,
    path: &RepoPath,
    change: RefChange,
) -> anyhow::Result<()> {
    let results = client.update_refs(path, &[change], true).await?;
    let result = results.first().context("no verdict on the change")?;
    ensure!(
        result.ok,
        "refused: {}",
        result.reason.as_deref().unwrap_or("no reason given")
    );
    Ok(())
}
