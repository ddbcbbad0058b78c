//! The processes of a local cluster, from the start to the last one's end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::future::select_all;
use henge_cli::{ClusterFile, ClusterFileNode, private_file};
use henge_client::{Client, Deadlines, Readiness, Secret};
use henge_cluster::start_progress::STARTING;
use henge_runtime::{Clock as _, SystemClock};
use henge_types::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::layout::Layout;
use super::{ports, warn};
use crate::config;
use crate::data_dir;
use crate::say;
use crate::signals::StopSignals;

/// The time for a node to become ready, from the last sign of progress. Generous: elections are
/// slow in a debug build on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// The time for a node to stop after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The interval of lines about one node's start.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The poll interval of conditions without an event.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Lines of a failed node's log in the error.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

/// Starts, watches and stops the nodes.
pub(crate) struct Supervisor {
    layout: Layout,
    program: PathBuf,
    children: BTreeMap<NodeId, Child>,
}

impl Supervisor {
    /// `program` is the binary of the nodes: this one.
    pub(crate) fn new(layout: Layout, program: PathBuf) -> Self {
        Self {
            layout,
            program,
            children: BTreeMap::new(),
        }
    }

    /// Runs the cluster until a signal or an error ends it, and stops all nodes.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut signals = StopSignals::install().context("cannot take signals")?;
        let outcome = tokio::select! {
            biased;
            _ = signals.next() => Ok(()),
            outcome = self.start_and_watch() => outcome,
        };
        let stopped = tokio::select! {
            biased;
            _ = signals.next() => self.kill("a second signal came"),
            stopped = self.stop() => stopped,
        };
        outcome.and(stopped)
    }

    /// Returns only with an error.
    async fn start_and_watch(&mut self) -> anyhow::Result<()> {
        let cluster_file = self.layout.cluster_file();
        match fs::remove_file(&cluster_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", cluster_file.display()));
            }
            Ok(()) | Err(_) => {}
        }
        for node in self.layout.settings.nodes() {
            let child = self.spawn(node)?;
            self.children.insert(node, child);
        }
        if !self.wait_until_ready().await? {
            bail!(
                "not every node was ready, and none made progress for {} s; logs:\n{}",
                READY_DEADLINE.as_secs(),
                self.tails()
            );
        }
        self.write_cluster_file()?;
        self.tell();
        loop {
            let (node, status) = self.next_exit().await?;
            warn(&format!(
                "node {node} {}; bring it back with henge node run --config {}",
                how(status),
                self.layout.config(node).display()
            ));
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that starts nodes"
    )]
    fn spawn(&self, node: NodeId) -> anyhow::Result<Child> {
        let path = self.layout.log(node);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let errors = log.try_clone().context("cannot share a log")?;
        let mut command = Command::new(&self.program);
        command
            .args(["node", "run", "--config"])
            .arg(self.layout.config(node))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C reaches this process alone: it stops the nodes in order.
            .process_group(0);
        for name in config::variables() {
            // An address in the environment would be the same for all nodes. Settings of the log
            // may be shared.
            if !name.starts_with("HENGE_LOG_") {
                command.env_remove(name);
            }
        }
        command
            .spawn()
            .with_context(|| format!("cannot start node {node}"))
    }

    /// Waits until all nodes are ready; `false` after [`READY_DEADLINE`] without progress of any.
    async fn wait_until_ready(&mut self) -> anyhow::Result<bool> {
        let clock = SystemClock;
        let mut progress_at = clock.instant();
        let mut said: BTreeMap<NodeId, Instant> = BTreeMap::new();
        let client = Client::with_deadlines(Vec::new(), None, Deadlines::default());
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let mut told: BTreeMap<NodeId, Readiness> = BTreeMap::new();
        let base = self.layout.settings.base_port;
        loop {
            tokio::select! {
                biased;
                exit = self.next_exit() => {
                    let (node, status) = exit?;
                    let log = self.layout.log(node);
                    bail!(
                        "node {node} {} before it was ready; the end of {}:\n{}",
                        how(status),
                        log.display(),
                        tail(&log)
                    );
                }
                _ = look.tick() => {}
            }
            for node in self.layout.settings.nodes() {
                if told.get(&node) == Some(&Readiness::Ready) {
                    continue;
                }
                let address = format!("http://{}", ports::http(base, node)).parse()?;
                let readiness = client.readiness(&address).await;
                if told.get(&node) != Some(&readiness) {
                    let now = clock.instant();
                    if is_progress(&readiness) {
                        progress_at = now;
                    }
                    say_change(node, &readiness, &mut said, now);
                }
                told.insert(node, readiness);
            }
            let ready = |node| told.get(&node) == Some(&Readiness::Ready);
            if self.layout.settings.nodes().all(ready) {
                return Ok(true);
            }
            if clock.instant().duration_since(progress_at) > READY_DEADLINE {
                return Ok(false);
            }
        }
    }

    /// Waits for a node to end; forever if there is none.
    async fn next_exit(&mut self) -> anyhow::Result<(NodeId, ExitStatus)> {
        if self.children.is_empty() {
            return std::future::pending().await;
        }
        let exits = self.children.iter_mut().map(|(node, child)| {
            let node = *node;
            Box::pin(async move { (node, child.wait().await) })
        });
        let ((node, status), _, _) = select_all(exits).await;
        self.children.remove(&node);
        Ok((
            node,
            status.with_context(|| format!("cannot wait for node {node}"))?,
        ))
    }

    fn write_cluster_file(&self) -> anyhow::Result<()> {
        let settings = &self.layout.settings;
        let token = private_file::read(&self.layout.token_file())?;
        let nodes = settings.nodes().map(|node| ClusterFileNode {
            id: node,
            http: format!("http://{}", ports::http(settings.base_port, node)),
            ssh: None,
            rpc: ports::rpc(settings.base_port, node).to_string(),
            pid: self.children.get(&node).and_then(Child::id).unwrap_or(0),
            data_dir: self.layout.node_dir(node),
            config: self.layout.config(node),
        });
        let file = ClusterFile {
            cluster_id: settings.cluster_id,
            admin_user: "admin".to_owned(),
            admin_token: Secret::from_file(&token),
            nodes: nodes.collect(),
        };
        file.write(&self.layout.cluster_file())?;
        Ok(())
    }

    /// Prints the cluster's addresses and the next commands. Programs wait for the last line.
    fn tell(&self) {
        let settings = &self.layout.settings;
        let urls: Vec<String> = settings
            .nodes()
            .map(|node| format!("http://{}", ports::http(settings.base_port, node)))
            .collect();
        let first = NodeId::new(1);
        let host = ports::http(settings.base_port, first);
        say(&format!(
            "\ncluster {} with {} shards in {}",
            settings.cluster_id,
            settings.shards,
            self.layout.dir.display()
        ));
        for (node, url) in settings.nodes().zip(&urls) {
            let pid = self.children.get(&node).and_then(Child::id).unwrap_or(0);
            let log = self.layout.log(node);
            say(&format!(
                "  node {node}  {url}  pid {pid}  log {}",
                log.display()
            ));
        }
        say(&format!(
            "
In another terminal:
  export HENGE_URL={urls}
  export HENGE_TOKEN=$(head -n 1 {token})
  export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=credential.helper GIT_CONFIG_VALUE_0='!henge credential'
  henge cluster status
Create a repository by pushing to it, from inside any git repository; git asks henge for the token:
  git push http://{host}/admin/demo.git HEAD:refs/heads/main
Clone it, from any node:
  git clone http://{host}/admin/demo.git
Take a node away and bring it back:
  kill -9 $(cat {pid})
  henge node run --config {config}

Ctrl-C stops all nodes.
ready",
            urls = urls.join(","),
            token = self.layout.token_file().display(),
            pid = self.layout.node_dir(first).join("henge.pid").display(),
            config = self.layout.config(first).display(),
        ));
    }

    /// Sends SIGTERM to every node, those restarted by hand too, and kills those that do not stop.
    async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal_all(Signal::TERM);
        match tokio::time::timeout(STOP_DEADLINE, self.wait_until_gone()).await {
            Ok(gone) => gone,
            Err(_) => self.kill(&format!(
                "it had not stopped after {} s",
                STOP_DEADLINE.as_secs()
            )),
        }
    }

    async fn wait_until_gone(&mut self) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        while !self.children.is_empty() {
            let (node, status) = self.next_exit().await?;
            // A node that is still loading ends by the signal itself: it has not begun any work.
            let by_signal = status.signal() == Some(Signal::TERM.as_raw());
            if !status.success() && !by_signal {
                failed.push(format!("node {node} {} instead of stopping", how(status)));
            }
        }
        while self.layout.settings.nodes().any(|node| self.in_use(node)) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("{}; logs:\n{}", failed.join("; "), self.tails())
    }

    /// Kills the nodes that still run.
    fn kill(&self, why: &str) -> anyhow::Result<()> {
        let killed = self.signal_all(Signal::KILL);
        if killed.is_empty() {
            return Ok(());
        }
        let nodes: Vec<String> = killed.iter().map(|node| format!("node {node}")).collect();
        bail!("killed {}: {why}", nodes.join(", "))
    }

    /// Signals each node: the child, or else the process that holds the lock of the node's
    /// directory and has written its pid there. Returns the nodes that were reached.
    fn signal_all(&self, signal: Signal) -> Vec<NodeId> {
        let mut reached = Vec::new();
        for node in self.layout.settings.nodes() {
            let child = self.children.get(&node).and_then(Child::id);
            let by_hand = || {
                self.in_use(node)
                    .then(|| data_dir::pid(&self.layout.node_dir(node)))
                    .flatten()
            };
            let pid = child
                .or_else(by_hand)
                .and_then(|pid| i32::try_from(pid).ok())
                .and_then(Pid::from_raw);
            // A process that has ended meanwhile needs no signal.
            if pid.is_some_and(|pid| kill_process(pid, signal).is_ok()) {
                reached.push(node);
            }
        }
        reached
    }

    fn in_use(&self, node: NodeId) -> bool {
        data_dir::in_use(&self.layout.node_dir(node))
    }

    fn tails(&self) -> String {
        let nodes = self.layout.settings.nodes();
        let tails = nodes.map(|node| {
            let log = self.layout.log(node);
            format!("{}:\n{}", log.display(), tail(&log))
        });
        tails.collect::<Vec<_>>().join("\n")
    }
}

/// Whether a node made progress since the last poll: it is ready, or its start advanced. Reasons
/// that come and go, such as elections, are no progress.
fn is_progress(readiness: &Readiness) -> bool {
    match readiness {
        Readiness::Ready => true,
        Readiness::NotYet(why) => why.starts_with(STARTING),
        Readiness::Silent(_) => false,
    }
}

/// Prints the state of a node's start. Progress changes the text at every poll: it is printed once
/// in [`PROGRESS_INTERVAL`] at most.
fn say_change(
    node: NodeId,
    readiness: &Readiness,
    said: &mut BTreeMap<NodeId, Instant>,
    now: Instant,
) {
    let why = match readiness {
        Readiness::Ready => return say(&format!("node {node} is ready")),
        Readiness::NotYet(why) => why,
        // The listener is not open yet, and the error of the connection is no news.
        Readiness::Silent(_) => return,
    };
    let last = said.get(&node);
    let recent = last.is_some_and(|last| now.duration_since(*last) < PROGRESS_INTERVAL);
    if !(recent && is_progress(readiness)) {
        say(&format!("node {node} waits: {why}"));
        said.insert(node, now);
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last lines of a log, or the reason why they cannot be read.
fn tail(path: &PathBuf) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(TAIL_LINES);
            let last = lines.get(first..).unwrap_or_default();
            last.iter().map(|line| format!("  {line}\n")).collect()
        }
        Err(error) => format!("  cannot be read: {error}\n"),
    }
}
