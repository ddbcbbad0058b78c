//! A ring of real processes on loopback, and stock git against it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(super) use crate::gits::gits;

/// The deadline of every wait. Generous: a loaded machine is slow, a broken product never gets
/// there.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Ring {
    /// Room for work trees and clones; the ring too, unless it was started elsewhere.
    pub(super) dir: tempfile::TempDir,
    place: PathBuf,
    supervisor: Child,
    restarted: Vec<Child>,
    cluster: Value,
    token: String,
}

impl Ring {
    /// Starts `henge dev` with three nodes and `shards` shards, and waits until it is ready.
    pub(crate) fn start(shards: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let place = dir.path().join("ring");
        Self::start_with(dir, place, shards)
    }

    /// The same in this directory.
    pub(super) fn start_at(place: &Path, shards: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::start_with(dir, place.to_owned(), shards)
    }

    fn start_with(dir: tempfile::TempDir, place: PathBuf, shards: u32) -> Self {
        let supervisor = dev(&place, shards, crate::process::base_port());
        let mut ring = Self {
            dir,
            place,
            supervisor,
            restarted: Vec::new(),
            cluster: Value::Null,
            token: String::new(),
        };
        ring.read_cluster_file();
        ring
    }

    fn read_cluster_file(&mut self) {
        let text =
            std::fs::read_to_string(self.ring_dir().join("cluster.json")).expect("cluster.json");
        self.cluster = serde_json::from_str(&text).expect("cluster.json is JSON");
        self.token = self.cluster["admin_token"]
            .as_str()
            .expect("a token")
            .to_owned();
    }

    pub(super) fn ring_dir(&self) -> PathBuf {
        self.place.clone()
    }

    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.cluster["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .map(|node| node["id"].as_u64().expect("an id"))
            .collect()
    }

    fn node(&self, node: u64) -> &Value {
        let nodes = self.cluster["nodes"].as_array().expect("nodes");
        nodes
            .iter()
            .find(|value| value["id"] == node)
            .expect("a node of the ring")
    }

    pub(super) fn node_dir(&self, node: u64) -> PathBuf {
        self.ring_dir().join(format!("n{node}"))
    }

    pub(super) fn pid(&self, node: u64) -> Option<i32> {
        let text = std::fs::read_to_string(self.node_dir(node).join("henge.pid")).ok()?;
        text.trim().parse().ok()
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, node: u64) {
        let pid = self.pid(node).expect("a running node has a pid file");
        signal(pid, "KILL");
        wait("the killed process to be gone", || !alive(pid));
        for child in &mut self.restarted {
            child.try_wait().expect("a child's state");
        }
    }

    /// Stops a node with SIGTERM.
    pub(super) fn stop(&mut self, node: u64) {
        let pid = self.pid(node).expect("a running node has a pid file");
        signal(pid, "TERM");
        wait("the stopped process to be gone", || !alive(pid));
        for child in &mut self.restarted {
            child.try_wait().expect("a child's state");
        }
    }

    /// Arms a failpoint: the node ends when it next reaches it.
    pub(super) fn arm(&self, node: u64, failpoint: &str) {
        let dir = self.node_dir(node).join("failpoints");
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join(failpoint), "").expect("armed");
    }

    /// Disarms a lasting failpoint.
    pub(super) fn disarm(&self, node: u64, failpoint: &str) {
        std::fs::remove_file(self.node_dir(node).join("failpoints").join(failpoint))
            .expect("armed before");
    }

    /// Cuts the power of the disk, kills every process of the ring, and mounts the disk again.
    pub(super) fn cut_power(&mut self, disk: &super::disk::Disk) {
        let pids: Vec<i32> = self
            .nodes()
            .iter()
            .filter_map(|node| self.pid(*node))
            .collect();
        disk.cut();
        for pid in &pids {
            signal(*pid, "KILL");
        }
        self.end_supervisor();
        for child in &mut self.restarted {
            child.wait().expect("a child's state");
        }
        self.restarted.clear();
        wait("the processes to be gone", || {
            pids.iter().all(|pid| !alive(*pid))
        });
        disk.boot();
    }

    fn end_supervisor(&mut self) {
        self.supervisor.kill().ok();
        self.supervisor.wait().ok();
    }

    /// Restarts a killed node as its operator would, with additional variables.
    pub(super) fn restart_with(&mut self, node: u64, variables: &[(&str, &str)]) {
        self.run_node(node, &[], variables);
    }

    /// Starts a stopped node in a directory that was moved.
    pub(super) fn restart_moved(&mut self, node: u64) {
        self.run_node(node, &["--moved"], &[]);
    }

    fn run_node(&mut self, node: u64, arguments: &[&str], variables: &[(&str, &str)]) {
        let log = self.node_dir(node).join("henge.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let child = henge()
            .args(["node", "run", "--config"])
            .arg(self.node_dir(node).join("node.toml"))
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("henge starts");
        self.restarted.push(child);
    }

    /// Restarts a killed node as its operator would.
    pub(super) fn restart(&mut self, node: u64) {
        self.restart_with(node, &[]);
    }

    pub(super) fn wait_ready(&self, node: u64) {
        wait(&format!("node {node} to be ready"), || {
            self.get(node, "/readyz")
                .is_some_and(|(status, _)| status == 200)
        });
    }

    /// A GET with the admin token; `None` when the node does not answer.
    pub(super) fn get(&self, node: u64, path: &str) -> Option<(u16, String)> {
        self.request(node, "GET", path, "")
    }

    pub(crate) fn request(
        &self,
        node: u64,
        method: &str,
        path: &str,
        body: &str,
    ) -> Option<(u16, String)> {
        let address = self.node(node)["http"]
            .as_str()?
            .strip_prefix("http://")?
            .to_owned();
        let mut stream = TcpStream::connect(&address).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .ok()?;
        let token = &self.token;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: token {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    pub(super) fn json(&self, node: u64, path: &str) -> Value {
        let (status, body) = self
            .get(node, path)
            .unwrap_or_else(|| panic!("node {node} answers {path}"));
        assert_eq!(status, 200, "{path}: {body}");
        // A chunked body has the chunk sizes around the one JSON value.
        let from = body.find(['{', '[']).expect("JSON");
        let to = body.rfind(['}', ']']).expect("JSON");
        serde_json::from_str(&body[from..=to]).expect("JSON")
    }

    /// The URL for stock git, with the token.
    pub(crate) fn url(&self, node: u64, repo: &str) -> String {
        let http = self.node(node)["http"].as_str().expect("an address");
        let address = http.strip_prefix("http://").expect("http");
        format!("http://admin:{}@{address}/{repo}.git", self.token)
    }

    /// `HOST:PORT` of a node's HTTP listener.
    pub(super) fn address(&self, node: u64) -> String {
        let http = self.node(node)["http"].as_str().expect("an address");
        http.strip_prefix("http://").expect("http").to_owned()
    }

    /// The URL without the token.
    pub(super) fn open_url(&self, node: u64, repo: &str) -> String {
        format!("http://{}/{repo}.git", self.address(node))
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The leader of the shard of a repository, as a node of `alive` reports it; waits until one is
    /// known.
    pub(super) fn leader_of(&self, repo: &str, alive: &[u64]) -> u64 {
        let mut leader = None;
        wait(&format!("a leader of {repo}"), || {
            leader = alive.iter().find_map(|node| {
                let (status, body) = self.get(*node, &format!("/api/henge/v1/repos/{repo}"))?;
                let from = body.find('{')?;
                let to = body.rfind('}')?;
                let value: Value = serde_json::from_str(&body[from..=to]).ok()?;
                (status == 200).then(|| value["leader"].as_u64()).flatten()
            });
            leader.is_some_and(|leader| alive.contains(&leader))
        });
        leader.expect("waited for it")
    }

    /// A metric's value on a node, summed over the lines that contain `label`.
    pub(super) fn metric(&self, node: u64, name: &str, label: &str) -> f64 {
        let (status, body) = self.get(node, "/metrics").expect("metrics");
        assert_eq!(status, 200);
        body.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until all replicas of each group have applied the same entries and report equal state
    /// hashes.
    pub(super) fn wait_equal_hashes(&self) {
        let mut last = String::new();
        let equal = || {
            let status = self.json(self.nodes()[0], "/api/henge/v1/cluster");
            let mut groups = std::collections::BTreeMap::<u64, Vec<(u64, String)>>::new();
            for node in status["nodes"].as_array().into_iter().flatten() {
                for replica in node["report"]["replicas"].as_array().into_iter().flatten() {
                    let group = replica["group"].as_u64().unwrap_or(u64::MAX);
                    let applied = replica["applied_index"].as_u64().unwrap_or(0);
                    let hash = replica["state_hash"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    groups.entry(group).or_default().push((applied, hash));
                }
            }
            last = format!("{groups:?}");
            !groups.is_empty()
                && groups.values().all(|replicas| {
                    replicas.len() == 3 && replicas.windows(2).all(|pair| pair[0] == pair[1])
                })
        };
        wait_saying("equal state hashes", equal, String::new);
        assert!(!last.is_empty());
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let nodes = self.cluster["nodes"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for node in nodes.iter().filter_map(|node| node["id"].as_u64()) {
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.node_dir(node).join("henge.log"))
                    .unwrap_or_default();
                let ours = log.lines().filter(|line| !line.contains(" openraft::"));
                let ours: Vec<&str> = ours.collect();
                let tail: Vec<&str> = ours.into_iter().rev().take(40).collect();
                eprintln!("--- the end of node {node}'s log");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            if let Some(pid) = self.pid(node).filter(|pid| alive(*pid)) {
                signal(pid, "KILL");
            }
        }
        self.end_supervisor();
        for child in &mut self.restarted {
            child.wait().ok();
        }
    }
}

pub(super) fn henge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command
        .env_remove("HENGE_URL")
        .env_remove("HENGE_TOKEN")
        .env("HENGE_FAILPOINTS", "1")
        // Tests start compactions themselves: a leader's own settling would come between.
        .env("HENGE_MAINTENANCE_SETTLE_AFTER", "off");
    command
}

/// Starts `henge dev` and waits for its last line.
fn dev(dir: &Path, shards: u32, base_port: u16) -> Child {
    let mut child = henge()
        .args([
            "dev",
            "--shards",
            &shards.to_string(),
            "--base-port",
            &base_port.to_string(),
            "--dir",
        ])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("henge starts");
    let stdout = child.stdout.take().expect("piped");
    let mut said = String::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.expect("text");
        said.push_str(&line);
        said.push('\n');
        if line == "ready" {
            return child;
        }
    }
    panic!("henge dev ended without being ready:\n{said}");
}

pub(super) fn signal(pid: i32, name: &str) {
    Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .expect("kill runs");
}

/// Whether a process runs or still closes its files. A dead process that was not reaped has only
/// its first thread left, a zombie.
pub(super) fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat
        .rsplit(") ")
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads > 1 || !zombie
}

pub(super) fn wait(what: &str, condition: impl FnMut() -> bool) {
    wait_saying(what, condition, String::new);
}

fn wait_saying(what: &str, mut condition: impl FnMut() -> bool, say: impl Fn() -> String) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < PATIENCE,
            "waited {PATIENCE:?} for {what} {}",
            say()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs git without the machine's and the user's configuration.
pub(super) fn git_raw(git: &Path, dir: &Path, args: &[&str]) -> Output {
    Command::new(git)
        .current_dir(dir)
        .args([
            "-c",
            "user.name=A",
            "-c",
            "user.email=a@example.invalid",
            "-c",
            "init.defaultBranch=main",
        ])
        .args([
            "-c",
            "gc.auto=0",
            "-c",
            "maintenance.auto=false",
            "-c",
            "http.lowSpeedLimit=1",
            "-c",
            "http.lowSpeedTime=120",
        ])
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .expect("git runs")
}

/// The same with the first git, which must succeed; returns its standard output.
pub(super) fn git(dir: &Path, args: &[&str]) -> String {
    git_with(&gits()[0], dir, args)
}

pub(super) fn git_with(git: &Path, dir: &Path, args: &[&str]) -> String {
    let output = git_raw(git, dir, args);
    assert!(
        output.status.success(),
        "git {args:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes a work tree with one commit.
pub(super) fn work_tree(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir(&path).expect("a directory");
    git(&path, &["init", "-q"]);
    commit(&path, "first");
    path
}

/// Makes one more commit; returns its id.
pub(super) fn commit(tree: &Path, text: &str) -> String {
    std::fs::write(tree.join("file.txt"), format!("{text}\n")).expect("a file");
    git(tree, &["add", "-A"]);
    git(tree, &["commit", "-q", "-m", text]);
    git(tree, &["rev-parse", "HEAD"])
}

/// Makes a commit with `bytes` bytes that do not compress; returns its id. A pack above 128 KiB is
/// staged, a smaller one is inline in the log entry.
pub(super) fn commit_large(tree: &Path, name: &str, bytes: usize, seed: u64) -> String {
    let mut state = seed | 1;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(bytes)
    .collect();
    std::fs::write(tree.join(name), noise).expect("a file");
    git(tree, &["add", "-A"]);
    git(tree, &["commit", "-q", "-m", name]);
    git(tree, &["rev-parse", "HEAD"])
}

/// Makes a work tree whose commits have 32 MiB that do not compress.
pub(crate) fn large_tree(dir: &Path, name: &str) -> PathBuf {
    let tree = work_tree(dir, name);
    // Compression gains nothing here, and is slow.
    git(&tree, &["config", "core.compression", "0"]);
    for number in 0..4 {
        commit_large(&tree, &format!("noise-{number}"), 8 << 20, 2 * number + 1);
    }
    tree
}

/// Makes a bare repository of `commits` commits with about four objects each, by fast-import.
pub(super) fn generated(dir: &Path, name: &str, commits: u32) -> PathBuf {
    let path = dir.join(name);
    git(dir, &["init", "-q", "--bare", name]);
    let mut script = String::new();
    for number in 1..=commits {
        let (a, b) = (number % 97, number % 31);
        let body = format!("contents of version {number} of {a} and {b}\n");
        let message = format!("commit {number}");
        script.push_str(&format!(
            "commit refs/heads/main\ncommitter A <a@example.invalid> {} +0000\ndata {}\n{message}\nM 100644 inline d{b}/f{a}.txt\ndata {}\n{body}\n",
            1_600_000_000 + number,
            message.len(),
            body.len()
        ));
    }
    let mut child = Command::new(&gits()[0])
        .current_dir(&path)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("git runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(script.as_bytes())
        .expect("git reads");
    assert!(child.wait().expect("git ends").success());
    path
}

/// Pushes one commit after another to a branch, through all nodes in turn, until a push fails or it
/// is stopped.
pub(super) struct Pusher {
    pushed: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<String>,
}

impl Pusher {
    /// `change` makes the next commit and returns its id; `acknowledged` is the commit of the
    /// branch now.
    pub(super) fn start(
        ring: &Ring,
        repo: &str,
        tree: &Path,
        acknowledged: &str,
        change: impl Fn(&Path, usize) -> String + Send + 'static,
    ) -> Self {
        let pushed = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let urls: Vec<String> = ring
            .nodes()
            .iter()
            .map(|node| ring.url(*node, repo))
            .collect();
        let (tree, mut last) = (tree.to_owned(), acknowledged.to_owned());
        let (counted, stopped) = (Arc::clone(&pushed), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let tip = change(&tree, number);
                let url = &urls[number % urls.len()];
                if !git_raw(&gits()[0], &tree, &["push", "-q", url, "main"])
                    .status
                    .success()
                {
                    break;
                }
                last = tip;
                counted.fetch_add(1, Ordering::SeqCst);
            }
            last
        });
        Self {
            pushed,
            stop,
            thread,
        }
    }

    pub(super) fn wait_for_more_than(&self, pushes: u32) {
        wait("pushes of this round", || {
            self.pushed.load(Ordering::SeqCst) > pushes
        });
    }

    /// Stops, and returns the last commit whose push was acknowledged.
    pub(super) fn end(self) -> String {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the pusher ends")
    }
}

/// Makes a fresh mirror clone from a node and checks it.
pub(super) fn clone_checked(ring: &Ring, node: u64, repo: &str, name: &str) -> PathBuf {
    git(
        ring.dir.path(),
        &["clone", "-q", "--mirror", &ring.url(node, repo), name],
    );
    let path = ring.dir.path().join(name);
    git(&path, &["fsck", "--full", "--strict"]);
    path
}

/// Every ref, HEAD and every object of a repository, as text to compare.
pub(super) fn contents(repo: &Path) -> String {
    let refs = git(repo, &["for-each-ref", "--format=%(objectname) %(refname)"]);
    let head = git(repo, &["symbolic-ref", "HEAD"]);
    let objects = git(
        repo,
        &["rev-list", "--all", "--objects", "--no-object-names"],
    );
    let mut objects: Vec<&str> = objects.lines().collect();
    objects.sort_unstable();
    format!("{head}\n{refs}\n{}", objects.join("\n"))
}
