//! Three nodes in this process, and the clients that write and read through them.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use henge_cluster::transport::memory::{LinkFaults, MemoryNetwork};
use henge_cluster::{
    Cluster, ClusterConfig, Host, Identity, Reporting, StartError, Timings, TlsFiles, Wakes,
};
use henge_runtime::{Clock, Random as _, Scope, SeededRandom, SystemClock};
use henge_storage::disk::Disk as _;
use henge_storage::disk::sim::SimDisk;
use henge_storage::kv::KvError;
use henge_storage::wal::OnFatal;
use henge_types::{
    ClusterId, Command, Generation, GroupId, Incarnation, NodeId, NodeRecord, ObjectFormat,
    RefName, Reply, RequestBinding, ShardCommand,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::disk::{Mount, SyncPace};
use crate::effects::NoPacks;
use crate::history::{History, lacking};

/// Nodes of a ring.
pub(crate) const NODES: usize = 3;
/// The group that clients write to.
pub(crate) const SHARD: GroupId = GroupId::new(1);

/// Time-out of a condition: long, because the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Clients of a ring.
const CLIENTS: usize = 3;
/// Time-out of a client's write.
const WRITE_TIMEOUT: Duration = Duration::from_millis(400);
/// Time-out of a client's read.
const READ_TIMEOUT: Duration = Duration::from_millis(300);
/// Pause of a client between two requests: several rings run at once on few processors.
const CLIENT_PAUSE: Duration = Duration::from_millis(5);
/// Acknowledged writes that a read looks for.
const LOOKED_FOR: usize = 20;
/// The largest difference between two wall clocks, milliseconds.
const SKEW_MS_MAX: u64 = 200;

/// The ways a node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// By a graceful shutdown.
    Clean,
    /// As `kill -9` does: all written bytes stay, synced or not.
    Kill,
    /// With its machine: unsynced bytes are lost, some of them or all.
    PowerCut,
}

/// The machine's clocks, with a wall clock that is this many milliseconds ahead.
#[derive(Debug)]
struct AheadClock(u64);

impl Clock for AheadClock {
    fn unix_ms(&self) -> u64 {
        SystemClock.unix_ms() + self.0
    }

    fn instant(&self) -> Instant {
        SystemClock.instant()
    }
}

/// The parts that end with a node. It has a runtime of its own, so that the tasks of its servers
/// end with it.
struct Life {
    mount: Mount,
    scope: Scope,
    runtime: Option<Runtime>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.mount.end();
        self.scope.cancel();
        if let Some(runtime) = self.runtime.take() {
            tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(10)));
        }
    }
}

/// A running node. Its life ends before the last handle on its cluster is dropped.
struct Node {
    life: Life,
    cluster: Cluster,
}

/// Three nodes in this process. They are dropped before their directories are.
pub(crate) struct Ring {
    nodes: Mutex<Vec<Option<Node>>>,
    /// The choices of the seed beside the network and the nodes' own draws.
    pub(crate) random: SeededRandom,
    pub(crate) history: History,
    network: MemoryNetwork,
    disks: Vec<SimDisk>,
    records: Vec<NodeRecord>,
    clocks: Vec<Arc<dyn Clock>>,
    dir: TempDir,
}

/// Waits until a condition holds.
pub(crate) async fn eventually<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(value) = holds().await {
                return value;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(DEADLINE, looking).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// The address of a node's host.
fn address(node: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(node).expect("few nodes")])
}

fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([0x42; 16])
}

impl Ring {
    /// Three nodes that serve, over a network with delays.
    pub(crate) async fn formed(seed: u64) -> Self {
        let ring = Self::founded(seed);
        for node in 1..=NODES {
            ring.start(node).await;
        }
        for node in 1..=NODES {
            eventually("a node is ready", async || {
                ring.look(node, |cluster| cluster.is_ready().ok()).flatten()
            })
            .await;
        }
        // Some rings reset connections as well.
        let reset_one_in = [0, 1_000, 5_000][usize::try_from(seed % 3).expect("small")];
        ring.network.set_faults(LinkFaults {
            delay_us_max: ring.random.within(0..3_000),
            reset_one_in,
        });
        ring
    }

    /// Founders of a cluster, none of them started.
    fn founded(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        let dir = tempfile::tempdir().expect("a directory");
        write_certificates(dir.path());
        let records = (1..=NODES).map(|node| NodeRecord {
            node: NodeId::new(node as u64),
            incarnation: Incarnation::from_bytes([u8::try_from(node).expect("few nodes"); 16]),
            rpc: SocketAddr::new(address(node), 7441).to_string(),
            http: SocketAddr::new(address(node), 7440).to_string(),
        });
        let clocks = (1..=NODES)
            .map(|_| Arc::new(AheadClock(random.within(0..SKEW_MS_MAX))) as Arc<dyn Clock>);
        let ring = Self {
            nodes: Mutex::new((1..=NODES).map(|_| None).collect()),
            history: History::default(),
            network: MemoryNetwork::new(random.number(), SystemClock::shared()),
            disks: (1..=NODES).map(|_| SimDisk::new()).collect(),
            records: records.collect(),
            clocks: clocks.collect(),
            dir,
            random,
        };
        for node in 1..=NODES {
            // The kv and the snapshots are in a real directory with the same path.
            let data_dir = ring.data_dir(node);
            fs::create_dir_all(&data_dir).expect("makes the data directory");
            let made = ring.disk(node).create_dir_all(&data_dir);
            made.expect("makes it on the simulated disk");
        }
        ring
    }

    fn data_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("n{node}"))
    }

    fn disk(&self, node: usize) -> &SimDisk {
        &self.disks[node - 1]
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Option<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self, node: usize) -> ClusterConfig {
        let record = self.records[node - 1].clone();
        let file = |name: String| self.dir.path().join(name);
        ClusterConfig {
            identity: Identity {
                cluster: cluster_id(),
                node: record.node,
                incarnation: record.incarnation,
            },
            listen: record.rpc.parse().expect("an address"),
            rpc: record.rpc,
            http: record.http,
            data_dir: self.data_dir(node),
            tls: TlsFiles {
                ca: file("ca.pem".to_owned()),
                cert: file(format!("{node}.pem")),
                key: file(format!("{node}.key")),
            },
            founders: self.records.clone(),
            shards: 1,
            replication: u32::try_from(NODES).expect("few nodes"),
            timings: Timings {
                heartbeat_ms: 30,
                election_ms_min: 150,
                election_ms_max: 300,
            },
            wal_segment_bytes: 256 * 1024,
            wal_bytes_max: 16 * 1024 * 1024,
            version: "test".to_owned(),
        }
    }

    /// Starts a stopped node.
    pub(crate) async fn start(&self, node: usize) {
        let closed = "the kv of the life before is closed";
        let started = eventually(closed, async || match self.attempt(node).await {
            Ok(started) => Some(started),
            Err(StartError::Kv(KvError::Locked)) => None,
            Err(error) => panic!("node {node} does not start: {error}"),
        });
        let started = started.await;
        let notes = self.history.terms_of(started.cluster.node());
        let scope = &started.life.scope;
        started.cluster.lead(notes, Wakes::default(), scope);
        self.nodes()[node - 1] = Some(started);
    }

    async fn attempt(&self, node: usize) -> Result<Node, StartError> {
        let mount = Mount::new(self.disk(node));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let scope = Scope::root("node", runtime.handle().clone(), 16);
        let host = Host {
            clock: Arc::clone(&self.clocks[node - 1]),
            random: SeededRandom::shared(self.random.number()),
            disk: Arc::new(mount.clone()),
            network: self.network.host(address(node)),
            // The process is the test's own.
            on_log_failure: OnFatal::Die,
        };
        let life = Life {
            mount,
            scope: scope.clone(),
            runtime: Some(runtime),
        };
        let reporting = Reporting::new(Arc::clone(&host.clock));
        let (config, starter) = (self.config(node), scope.clone());
        let start = async move {
            let start = Cluster::start(config, &starter, host, reporting, Arc::new(NoPacks));
            Box::pin(start).await
        };
        let started = scope.run("start", start).await;
        let cluster = started.expect("a start is not cut off")?;
        Ok(Node { life, cluster })
    }

    /// Stops a running node.
    pub(crate) async fn stop(&self, node: usize, how: Stop) {
        let stopped = self.nodes()[node - 1].take().expect("the node runs");
        match how {
            Stop::Clean => {
                let cluster = stopped.cluster.clone();
                let stop = async move { cluster.shutdown(DEADLINE).await };
                let stop = stopped.life.scope.run("stop", stop);
                stop.await.expect("a stop is not cut off");
            }
            Stop::Kill => {
                stopped.life.mount.end();
                self.disk(node).restart();
            }
            Stop::PowerCut => {
                stopped.life.mount.end();
                self.disk(node).crash(self.random.number());
            }
        }
        drop(stopped);
    }

    /// One of the ways to stop, chosen by the seed.
    pub(crate) fn any_stop(&self) -> Stop {
        match self.random.within(0..3) {
            0 => Stop::Clean,
            1 => Stop::Kill,
            _ => Stop::PowerCut,
        }
    }

    /// One of the nodes, chosen by the seed.
    pub(crate) fn any_node(&self) -> usize {
        self.shuffled()[0]
    }

    /// One of the other nodes.
    pub(crate) fn any_other(&self, than: usize) -> usize {
        let others = self.shuffled().into_iter().find(|node| *node != than);
        others.expect("there are three")
    }

    /// The nodes in an order chosen by the seed.
    pub(crate) fn shuffled(&self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (1..=NODES).collect();
        nodes.sort_by_cached_key(|_| self.random.number());
        nodes
    }

    /// Changes the duration of a node's syncs.
    pub(crate) fn set_pace(&self, node: usize, pace: SyncPace) {
        if let Some(node) = &self.nodes()[node - 1] {
            node.life.mount.set_pace(pace);
        }
    }

    /// From now on nothing from one node arrives at the other.
    pub(crate) fn part(&self, from: usize, to: usize) {
        self.network.part(address(from), address(to));
    }

    /// Ends all partitions.
    pub(crate) fn heal(&self) {
        self.network.heal();
    }

    /// Resets the connections between a node and all others.
    pub(crate) fn reset(&self, node: usize) {
        for other in (1..=NODES).filter(|other| *other != node) {
            self.network.reset(address(node), address(other));
        }
    }

    /// Reads from a node; `None` where it does not run.
    pub(crate) fn look<T>(&self, node: usize, look: impl FnOnce(&Cluster) -> T) -> Option<T> {
        let nodes = self.nodes();
        let node = nodes[node - 1].as_ref()?;
        Some(look(&node.cluster))
    }

    /// Runs a call on a node, on its own runtime; `None` where the node does not run or stops
    /// meanwhile.
    pub(crate) async fn ask<T, F>(&self, node: usize, ask: impl FnOnce(Cluster) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (scope, asked) = {
            let nodes = self.nodes();
            let node = nodes[node - 1].as_ref()?;
            // No handle stays here: a log ends with its last handle.
            (node.life.scope.clone(), ask(node.cluster.clone()))
        };
        scope.run("question of the test", asked).await.ok()
    }

    /// The node that leads a group: of several, the one with the highest term.
    pub(crate) async fn leader(&self, group: GroupId) -> usize {
        eventually("a leader", async || {
            let terms = (1..=NODES).filter_map(|node| {
                let leadership = self.look(node, |cluster| cluster.leadership(group));
                Some((leadership.flatten()?.term, node))
            });
            terms.max().map(|(_, node)| node)
        })
        .await
    }

    /// Writes through a node. Returns whether the write was acknowledged.
    pub(crate) async fn write(&self, via: usize) -> bool {
        let repo = self.history.begin();
        let command = Command::Shard(ShardCommand::CreateRepo {
            repo,
            network: repo.root_network(),
            generation: Generation::new(1),
            head: RefName::branch("main").expect("a branch"),
            object_format: ObjectFormat::Sha1,
        });
        let called = self.ask(via, move |cluster| async move {
            let request = RequestBinding {
                id: cluster.next_request_id(SHARD),
                principal: "test".to_owned(),
                repo: Some(repo),
                digest: [0; 32],
            };
            cluster.call(SHARD, command, request, WRITE_TIMEOUT).await
        });
        match called.await {
            Some(Ok(applied)) => {
                assert_eq!(applied.reply, Reply::Done, "an id of its own");
                self.history.acknowledge(repo, via);
                true
            }
            Some(Err(_)) | None => false,
        }
    }

    /// Reads earlier acknowledged writes through a node. Returns whether the node answered.
    pub(crate) async fn read(&self, via: usize) -> bool {
        let acknowledged = self.history.newest(LOOKED_FOR);
        let read = self.ask(via, move |cluster| async move {
            cluster.read_barrier(SHARD, READ_TIMEOUT).await.ok()?;
            let at = cluster.state(SHARD)?;
            Some(lacking(&at, acknowledged))
        });
        let Some(missing) = read.await.flatten() else {
            return false;
        };
        assert!(missing.is_empty(), "stale: node {via} lacks {missing:?}");
        true
    }

    /// Runs clients that write and read through all nodes while `faults` runs.
    pub(crate) async fn under_load(&self, faults: impl Future<Output = ()>) {
        let clients = futures::future::join_all((0..CLIENTS).map(|_| self.client()));
        tokio::select! {
            biased;
            () = faults => {}
            _ = clients => {}
        }
    }

    async fn client(&self) {
        loop {
            let via = self.any_node();
            if self.write(via).await {
                self.read(via).await;
            }
            tokio::time::sleep(CLIENT_PAUSE).await;
        }
    }

    /// Waits for `more` further acknowledged writes, by nodes for which `counts` holds.
    pub(crate) async fn more_writes(&self, more: usize, counts: impl Fn(usize) -> bool) {
        let before = self.history.count(&counts);
        eventually("more writes are acknowledged", async || {
            (self.history.count(&counts) >= before + more).then_some(())
        })
        .await;
    }

    /// After the faults: every node takes writes and shows all acknowledged ones, the replicas are
    /// equal, and no term had two leaders.
    pub(crate) async fn settle(&self) {
        self.heal();
        self.network.set_faults(LinkFaults::default());
        for node in 1..=NODES {
            eventually("a node takes writes", async || {
                self.write(node).await.then_some(())
            })
            .await;
        }
        for node in 1..=NODES {
            eventually("a node answers reads", async || {
                self.read(node).await.then_some(())
            })
            .await;
            let state = self.look(node, |cluster| cluster.state(SHARD));
            self.history
                .check(node, &state.flatten().expect("it has read it"));
        }
        for group in [GroupId::META, SHARD] {
            eventually("the replicas are equal", async || self.compare(group)).await;
        }
        self.history.check_terms();
    }

    /// Compares the replicas of a group at the same entry; `None` while they differ in it.
    fn compare(&self, group: GroupId) -> Option<()> {
        let states = (1..=NODES).map(|node| self.look(node, |cluster| cluster.state(group)));
        let states: Option<Vec<_>> = states.map(Option::flatten).collect();
        let states = states?;
        let first = states.first()?;
        if states.iter().any(|state| state.applied != first.applied) {
            return None;
        }
        for state in &states {
            let (one, other) = (first.state.hash(), state.state.hash());
            assert_eq!(one, other, "group {group} at entry {}", first.applied);
        }
        Some(())
    }
}

fn write_certificates(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("signs");
    fs::write(dir.join("ca.pem"), ca.pem()).expect("writes");
    let issuer = Issuer::new(params, key);
    for node in 1..=NODES {
        let name = format!("node-{node}.{}.henge.internal", cluster_id());
        let mut params = CertificateParams::new(vec![name]).expect("parameters");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("signs");
        fs::write(dir.join(format!("{node}.pem")), certificate.pem()).expect("writes");
        fs::write(dir.join(format!("{node}.key")), key.serialize_pem()).expect("writes");
    }
}
