//! A cluster of nodes in this process, served over HTTP on loopback, for stock git.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use henge_cluster::{
    ClockState, Cluster, ClusterConfig, Effects, Host, Identity, Reporting, TcpNetwork, Timings,
    TlsFiles,
};
use henge_git::http::{Caller, router};
use henge_repos::{BundlesConfig, PackEffects, Repos};
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock, Scope, SystemClock, SystemRandom};
use henge_storage::disk::OsDisk;
use henge_storage::objects::{ObjectStore, Watermark};
use henge_storage::wal::OnFatal;
use henge_types::{
    ClusterId, GroupId, Incarnation, NodeId, NodeRecord, ObjectFormat, Principal, RepoPath,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};

/// Long, because the machine may be busy; no test waits for its end.
const DEADLINE: Duration = Duration::from_secs(60);

/// The administrator.
pub(crate) static ADMIN: LazyLock<Principal> = LazyLock::new(Principal::admin);

/// Waits until `condition` holds.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) repos: Repos,
    pub(crate) objects: ObjectStore,
    pub(crate) effects: Arc<PackEffects>,
    scope: Scope,
    http: SocketAddr,
    runtime: Option<Runtime>,
}

/// Each node has its own runtime, which ends the tasks of its servers. It ends before the data
/// directory is removed: a node whose directories vanish under a sync aborts the process.
impl Drop for Node {
    fn drop(&mut self) {
        self.scope.cancel();
        if let Some(runtime) = self.runtime.take() {
            tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(10)));
        }
    }
}

/// The nodes are the first field: they are dropped before their directory is.
pub(crate) struct Ring {
    nodes: Vec<Option<Node>>,
    dir: TempDir,
    cluster: ClusterId,
    records: Vec<NodeRecord>,
    replication: u32,
    clocks: Vec<Arc<AheadClock>>,
}

/// The machine's clocks, with an offset in milliseconds on the wall clock.
#[derive(Debug, Default)]
struct AheadClock(AtomicI64);

impl Clock for AheadClock {
    fn unix_ms(&self) -> u64 {
        SystemClock
            .unix_ms()
            .saturating_add_signed(self.0.load(Ordering::Relaxed))
    }

    fn instant(&self) -> Instant {
        SystemClock.instant()
    }
}

/// Creates and connects a node's parts on its runtime.
async fn compose(
    config: ClusterConfig,
    http: SocketAddr,
    scope: Scope,
    clock: Arc<dyn Clock>,
) -> (Cluster, Repos, Arc<PackEffects>, ObjectStore) {
    // The disk of a test machine may be nearly full; these tests do not depend on it.
    let watermark = Watermark {
        bytes: 0,
        percent: 0,
    };
    let objects = ObjectStore::open_with(&config.data_dir, watermark).unwrap();
    let claims = config.data_dir.join("claims");
    let reporting = Reporting::new(Arc::clone(&clock));
    let effects = PackEffects::new(
        objects.clone(),
        claims,
        Arc::clone(&clock),
        reporting.conditions.clone(),
    )
    .unwrap();
    let shared: Arc<dyn Effects> = Arc::<PackEffects>::clone(&effects);
    let host = Host {
        clock: Arc::clone(&clock),
        random: SystemRandom::shared(),
        disk: OsDisk::shared(),
        network: TcpNetwork::shared(),
        on_log_failure: OnFatal::Abort,
    };
    let start = Cluster::start(config, &scope, host, reporting, shared);
    let cluster = Box::pin(start).await.unwrap();
    let repos = Repos::start(cluster.clone(), Arc::clone(&effects), &scope, clock).unwrap();
    repos.offer_bundles(BundlesConfig {
        bytes_min: crate::bundles::BYTES_MIN,
    });
    let admin = Caller {
        principal: Principal::admin(),
        ..Caller::default()
    };
    let routes = router(repos.clone()).layer(axum::Extension(admin));
    let listener = tokio::net::TcpListener::bind(http).await.unwrap();
    scope.spawn("http", OnPanic::Log, async move {
        axum::serve(listener, routes).await.unwrap();
    });
    (cluster, repos, effects, objects)
}

/// Below the ports that the system assigns to outgoing connections: one of those may be taken again
/// before a node binds it. No two rings of this process get the same port.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address = ("127.0.0.1", port);
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return port;
        }
    }
}

fn write_certificates(dir: &Path, cluster: ClusterId, nodes: usize) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for node in 1..=nodes {
        let name = format!("node-{node}.{cluster}.henge.internal");
        let mut params = CertificateParams::new(vec![name]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(dir.join(format!("{node}.pem")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{node}.key")), key.serialize_pem()).unwrap();
    }
}

impl Ring {
    /// Three nodes in service.
    pub(crate) async fn start() -> Self {
        Self::of(3, 3).await
    }

    /// Nodes in service, with this many replicas of each shard.
    pub(crate) async fn of(nodes: usize, replication: u32) -> Self {
        let mut ring = Self::founded(nodes, replication);
        for node in 1..=nodes {
            ring.start_node(node).await;
        }
        for node in 1..=nodes {
            ring.wait_until_ready(node).await;
        }
        ring
    }

    /// Founders of a cluster; none of them runs yet.
    pub(crate) fn founded(nodes: usize, replication: u32) -> Self {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("HENGE_TEST_LOG"))
            .with_test_writer()
            .try_init()
            .ok();
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::from_bytes([0x42; 16]);
        write_certificates(dir.path(), cluster, nodes);
        let records = (1..=nodes).map(|node| NodeRecord {
            node: NodeId::new(node as u64),
            incarnation: Incarnation::from_bytes([u8::try_from(node).unwrap(); 16]),
            rpc: format!("127.0.0.1:{}", free_port()),
            http: format!("127.0.0.1:{}", free_port()),
        });
        Self {
            records: records.collect(),
            dir,
            cluster,
            replication,
            clocks: (0..nodes).map(|_| Arc::default()).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
        }
    }

    pub(crate) async fn wait_until_ready(&self, node: usize) {
        let cluster = &self.node(node).cluster;
        eventually("a node is ready", async || cluster.is_ready().ok()).await;
    }

    /// Moves the wall clocks of all nodes by so much, and waits until every node has compared its
    /// clock with the others.
    pub(crate) async fn jump(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        for node in 1..=self.clocks.len() {
            self.set_clock(node, by);
        }
        for node in self.live() {
            let cluster = &self.node(node).cluster;
            eventually("the clocks are read again", async || {
                (cluster.clock_state() == ClockState::Right).then_some(())
            })
            .await;
        }
    }

    /// Moves the wall clock of one node by so many milliseconds.
    pub(crate) fn set_clock(&self, node: usize, by_ms: i64) {
        self.clocks[node - 1].0.fetch_add(by_ms, Ordering::Relaxed);
    }

    pub(crate) fn data_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("n{node}"))
    }

    pub(crate) fn node(&self, node: usize) -> &Node {
        self.nodes[node - 1].as_ref().expect("the node runs")
    }

    pub(crate) fn live(&self) -> Vec<usize> {
        (1..=self.nodes.len())
            .filter(|node| self.nodes[node - 1].is_some())
            .collect()
    }

    pub(crate) async fn start_node(&mut self, node: usize) {
        let record = self.records[node - 1].clone();
        let data_dir = self.data_dir(node);
        fs::create_dir_all(&data_dir).unwrap();
        let file = |name: String| self.dir.path().join(name);
        let config = ClusterConfig {
            identity: Identity {
                cluster: self.cluster,
                node: record.node,
                incarnation: record.incarnation,
            },
            listen: record.rpc.parse().unwrap(),
            rpc: record.rpc.clone(),
            http: record.http.clone(),
            data_dir: data_dir.clone(),
            tls: TlsFiles {
                ca: file("ca.pem".to_owned()),
                cert: file(format!("{node}.pem")),
                key: file(format!("{node}.key")),
            },
            founders: self.records.clone(),
            shards: 2,
            replication: self.replication,
            timings: Timings {
                heartbeat_ms: 100,
                election_ms_min: 500,
                election_ms_max: 1000,
            },
            wal_segment_bytes: 4 * 1024 * 1024,
            wal_bytes_max: 256 * 1024 * 1024,
            version: "test".to_owned(),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let scope = Scope::root("node", runtime.handle().clone(), 64);
        let http: SocketAddr = record.http.parse().unwrap();
        let clock: Arc<dyn Clock> = Arc::<AheadClock>::clone(&self.clocks[node - 1]);
        let start = compose(config, http, scope.clone(), clock);
        let (cluster, repos, effects, objects) = scope.run("start", start).await.unwrap();
        self.nodes[node - 1] = Some(Node {
            cluster,
            repos,
            objects,
            effects,
            scope,
            http,
            runtime: Some(runtime),
        });
    }

    /// Stops a node with a graceful shutdown.
    pub(crate) async fn stop_node(&mut self, node: usize) {
        let stopped = self.nodes[node - 1].take().expect("the node runs");
        let cluster = stopped.cluster.clone();
        let stop = async move { cluster.shutdown(Duration::from_secs(20)).await };
        stopped.scope.run("stop", stop).await.unwrap();
        stopped.scope.shutdown(Duration::from_secs(20)).await;
        drop(stopped);
        self.wait_until_closed(node).await;
    }

    /// Stops a node like `kill -9`, as far as files show: no drain, no flush, no mark of a clean
    /// stop.
    pub(crate) async fn kill_node(&mut self, node: usize) {
        drop(self.nodes[node - 1].take().expect("the node runs"));
        self.wait_until_closed(node).await;
    }

    async fn wait_until_closed(&self, node: usize) {
        let address: SocketAddr = self.records[node - 1].rpc.parse().unwrap();
        eventually("the stopped node's sockets are closed", async || {
            (UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()).then_some(())
        })
        .await;
    }

    pub(crate) fn url(&self, node: usize, repo: &str) -> String {
        format!("http://{}/{repo}.git", self.node(node).http)
    }

    /// A node's response, as text, to a protocol v2 request as git sends it.
    pub(crate) fn post(&self, node: usize, repo: &str, service: &str, body: &[u8]) -> String {
        let url = format!("{}/{service}", self.url(node, repo));
        let file = self.dir.path().join("request");
        fs::write(&file, body).unwrap();
        let data = format!("@{}", file.display());
        let kind = format!("Content-Type: application/x-{service}-request");
        let version = "Git-Protocol: version=2";
        let output = Command::new("curl")
            .args([
                "-s",
                "-H",
                version,
                "-H",
                &kind,
                "--data-binary",
                &data,
                &url,
            ])
            .output()
            .expect("curl runs: install curl to run these tests");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The shard of a repository that exists.
    pub(crate) async fn shard(&self, repo: &str) -> GroupId {
        let path: RepoPath = repo.parse().unwrap();
        let node = self.node(self.live()[0]);
        let record = node.repos.get(&path).await.unwrap();
        record.network.shard(node.cluster.shards())
    }

    /// The leader of a group, once all running nodes agree.
    pub(crate) async fn leader(&self, group: GroupId) -> usize {
        eventually("a leader", async || {
            let leader = self
                .live()
                .into_iter()
                .find(|node| self.node(*node).cluster.leadership(group).is_some())?;
            for node in self.live() {
                let known = self.node(node).cluster.leader(group).await?;
                if known.get() != leader as u64 {
                    return None;
                }
            }
            Some(leader)
        })
        .await
    }

    /// A new directory with a git repository in it.
    pub(crate) fn work_dir(&self, name: &str) -> Work {
        self.work_dir_of(name, ObjectFormat::Sha1)
    }

    /// The same, with this object format.
    pub(crate) fn work_dir_of(&self, name: &str, format: ObjectFormat) -> Work {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        let work = Work { dir };
        let format = format!("--object-format={format}");
        work.now(&["init", "-q", "-b", "main", &format, "."]);
        work
    }

    /// Clones into a new directory.
    pub(crate) async fn clone(&self, url: &str, name: &str) -> Work {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        let work = Work { dir };
        work.git(&["clone", "-q", url, "."]).await;
        work
    }
}

/// A work tree for stock git.
pub(crate) struct Work {
    pub(crate) dir: PathBuf,
}

impl Work {
    fn command(dir: &Path, args: &[String]) -> Output {
        Command::new("git")
            .args(args)
            .current_dir(dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", "Tess")
            .env("GIT_AUTHOR_EMAIL", "tess@example.com")
            .env("GIT_COMMITTER_NAME", "Tess")
            .env("GIT_COMMITTER_EMAIL", "tess@example.com")
            .output()
            .expect("git runs: install git to run these tests")
    }

    /// Runs a local git command; blocking.
    pub(crate) fn now(&self, args: &[&str]) -> String {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        text(&args, Self::command(&self.dir, &args))
    }

    /// Runs git and expects success.
    pub(crate) async fn git(&self, args: &[&str]) -> String {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        text(&args, self.run(&args).await)
    }

    /// Runs git; returns its success and all its output.
    pub(crate) async fn try_git(&self, args: &[&str]) -> (bool, String) {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let output = self.run(&args).await;
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    async fn run(&self, args: &[String]) -> Output {
        let (dir, args) = (self.dir.clone(), args.to_vec());
        let pool = Scope::root("git", Handle::current(), 1);
        pool.blocking("git", move || Self::command(&dir, &args))
            .await
            .unwrap()
    }

    /// Commits a file with these contents and returns the commit.
    pub(crate) fn commit(&self, file: &str, contents: &[u8]) -> String {
        fs::write(self.dir.join(file), contents).unwrap();
        self.now(&["add", "."]);
        self.now(&["commit", "-q", "-m", file]);
        self.now(&["rev-parse", "HEAD"])
    }

    /// Commits incompressible bytes: their pack does not fit into a log entry.
    pub(crate) fn commit_large(&self, file: &str) -> String {
        let bytes: Vec<u8> = (0..40_000)
            .flat_map(|_| henge_runtime::random_bytes())
            .collect();
        self.commit(file, &bytes)
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.dir.join(file)).unwrap()
    }
}

fn text(args: &[String], output: Output) -> String {
    assert!(
        output.status.success(),
        "git {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
