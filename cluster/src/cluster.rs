//! The handle on a node's part in the cluster: start, stop, and the interface for the layers above.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use henge_proto::cluster::cluster_server::ClusterServer as ClusterServiceServer;
use henge_proto::cluster::raft_server::RaftServer as RaftServiceServer;
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock, Random, Scope};
use henge_state::MetaView;
use henge_storage::kv::{SledKv, Trust};
use henge_storage::snapshots::SnapshotStore;
use henge_storage::wal::{Wal, WalConfig};
use henge_types::status::{ClusterStatus, Role};
use henge_types::{GroupId, NodeId, NodeRecord, StartId, limits};
use tokio::sync::watch;

use crate::acknowledged::Followed;
use crate::builds::Builds;
use crate::clocks::Clocks;
use crate::conditions::Conditions;
use crate::config::{ClusterConfig, raft_config};
use crate::effects::Effects;
use crate::formation::Formation;
use crate::group::{Groups, Leadership};
use crate::host::Host;
use crate::kv_writer::KvWriter;
use crate::leader::{LeaderTasks, Leaderships};
use crate::machine::{MachineDeps, StateAt, View};
use crate::network::SNAPSHOT_SERVICE;
use crate::renewal::InDoubt;
use crate::server::{ClusterServer, RaftServer};
use crate::snapshot_copies::{SNAPSHOT_COPIES, SnapshotCopies};
use crate::snapshot_file;
use crate::snapshot_service::SnapshotService;
use crate::start_error::StartError;
use crate::start_progress::StartProgress;
use crate::starts::{Starts, registration};
use crate::transport::bulk::Bulk;
use crate::transport::doors::Doors;
use crate::transport::listener::GrpcStream;
use crate::transport::members::{Identity, Members};
use crate::transport::peers::Peers;
use crate::transport::tls::Tls;
use crate::{leader, levels, upkeep};

/// Receives the conditions and the start progress of a node's part in the cluster.
#[derive(Debug, Clone)]
pub struct Reporting {
    /// The conditions that hold.
    pub conditions: Conditions,
    /// The progress of the start.
    pub progress: StartProgress,
}

impl Reporting {
    /// No conditions, and a start that has not begun.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            conditions: Conditions::new(clock),
            progress: StartProgress::default(),
        }
    }
}

/// The state shared by all parts of the cluster layer.
pub(crate) struct Shared {
    pub(crate) config: ClusterConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) started: Instant,
    pub(crate) members: Members,
    pub(crate) starts: Starts,
    pub(crate) followed: Followed,
    pub(crate) groups: Groups,
    pub(crate) peers: Peers,
    pub(crate) bulk: Bulk,
    pub(crate) wal: Wal,
    pub(crate) deps: MachineDeps,
    pub(crate) scope: Scope,
    pub(crate) conditions: Conditions,
    /// The progress of the start.
    pub(crate) progress: StartProgress,
    /// The cluster status from the members' last reports.
    pub(crate) heard: Mutex<Option<ClusterStatus>>,
    /// The generation of request records that each group's replicas were last reported to fill.
    pub(crate) generations: Mutex<BTreeMap<GroupId, u64>>,
    /// The members' clocks.
    pub(crate) clocks: Clocks,
    /// Requests that this node proposed and whose outcome is unknown.
    pub(crate) in_doubt: InDoubt,
    /// The groups that this node leads.
    pub(crate) leaderships: Leaderships,
    /// The states of its leader tasks.
    pub(crate) leader_tasks: LeaderTasks,
    counter: AtomicU64,
}

impl Shared {
    /// Serves both directions of snapshots: installs those that leaders send, and sends copies of
    /// this node's.
    fn serve_snapshots(&self) {
        let snapshots = &self.deps.snapshots;
        let service = SnapshotService::new(
            self.groups.clone(),
            snapshots.clone(),
            Arc::clone(&self.deps.effects),
            self.scope.child("snapshots"),
        );
        self.bulk.serve(SNAPSHOT_SERVICE, Arc::new(service));
        let scope = self.scope.child("snapshot copies");
        let copies = SnapshotCopies::new(self.groups.clone(), snapshots.clone(), scope);
        self.bulk.serve(SNAPSHOT_COPIES, Arc::new(copies));
    }

    pub(crate) fn heard_generations(&self) -> MutexGuard<'_, BTreeMap<GroupId, u64>> {
        self.generations
            .lock()
            .expect("invariant: the generations are only read and replaced")
    }
}

/// A node's part in the cluster; clones share it.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("node", &self.node())
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Opens the node's log and state, joins its groups and listens. Runs on the runtime it is
    /// called on.
    ///
    /// # Errors
    /// When data on disk, a certificate or an address cannot be used.
    pub async fn start(
        config: ClusterConfig,
        scope: &Scope,
        host: Host,
        reporting: Reporting,
        effects: Arc<dyn Effects>,
    ) -> Result<Self, StartError> {
        let scope = scope.child("cluster");
        let raft = raft_config(&config.timings)?;
        let tls = Tls::load(config.identity.cluster, &config.tls)?;
        let members = Members::new(config.identity, &config.founders);
        let starts = draw_start(&config, &host, &scope).await?;
        let known = (&members, &starts);
        let doors = Doors::open(config.listen, &host, known, &tls, &scope).await?;

        reporting.progress.stage("reading the write-ahead log");
        let opened = open_storage(&config, &host, &scope).await?;
        let deps = MachineDeps {
            effects,
            kv: KvWriter::start(Arc::clone(&opened.kv) as _, scope.child("machines"))
                .map_err(StartError::io("cannot start the kv writer"))?,
            snapshots: opened.snapshots,
            builds: Builds::default(),
        };
        let groups = Groups::default();
        let Host {
            clock,
            random,
            network,
            ..
        } = host;
        let cluster = Self {
            shared: Arc::new(Shared {
                started: clock.instant(),
                clocks: Clocks::new(config.identity.node, Arc::clone(&clock)),
                generations: Mutex::default(),
                in_doubt: InDoubt::default(),
                leaderships: Leaderships::default(),
                leader_tasks: LeaderTasks::default(),
                peers: Peers::new(members.clone(), starts.clone(), tls, network),
                // The high half separates this run's request ids from those of earlier runs.
                counter: AtomicU64::new(random.number() << 32),
                config,
                clock,
                random,
                members,
                starts,
                followed: Followed::default(),
                groups,
                bulk: doors.bulk,
                wal: opened.wal,
                deps,
                scope: scope.clone(),
                conditions: reporting.conditions,
                progress: reporting.progress,
                heard: Mutex::default(),
            }),
        };
        let shared = &cluster.shared;
        shared.serve_snapshots();
        if let Some(quic) = doors.quic {
            quic.serve(shared.bulk.clone(), &scope);
        }
        cluster.serve_grpc(doors.incoming);
        Formation::start(&cluster, raft, opened.kv).await?;
        cluster.shared.progress.done();
        registration::spawn(&cluster);
        upkeep::start(&cluster);
        leader::start(&cluster);
        levels::start(&cluster);
        Ok(cluster)
    }

    fn serve_grpc(
        &self,
        incoming: impl futures::Stream<Item = io::Result<GrpcStream>> + Send + 'static,
    ) {
        let shared = &self.shared;
        let raft = RaftServer::new(
            (shared.members.clone(), shared.starts.clone()),
            shared.groups.clone(),
            shared.wal.clone(),
            Arc::clone(&shared.clock),
            shared.clocks.clone(),
        );
        let raft = RaftServiceServer::new(raft)
            .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
        let cluster = ClusterServiceServer::new(ClusterServer::new(self.clone()))
            .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
        let server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .add_service(raft)
            .add_service(cluster);
        shared
            .scope
            .spawn("cluster grpc", OnPanic::EndProcess, async move {
                if let Err(error) = server.serve_with_incoming(incoming).await {
                    tracing::error!(%error, "the cluster's gRPC server ended");
                }
            });
    }

    /// This node's number.
    pub fn node(&self) -> NodeId {
        self.shared.config.identity.node
    }

    /// This node's identity.
    pub fn identity(&self) -> Identity {
        self.shared.config.identity
    }

    /// Shards of the cluster.
    pub fn shards(&self) -> u32 {
        self.shared.config.shards
    }

    /// The conditions of this node.
    pub fn conditions(&self) -> &Conditions {
        &self.shared.conditions
    }

    /// Streams of bytes to other nodes.
    pub fn bulk(&self) -> &Bulk {
        &self.shared.bulk
    }

    /// The state of a group in this replica; `None` without a replica.
    pub fn state(&self, group: GroupId) -> Option<StateAt> {
        self.view(group).map(|view| view.now())
    }

    /// Readers' side of a group's machine; `None` without a replica.
    pub fn view(&self, group: GroupId) -> Option<View> {
        self.shared.groups.get(group).ok().map(|group| group.view)
    }

    /// Whether the meta group's state in this replica holds the members and the placement of the
    /// shards.
    pub(crate) fn is_formed(&self) -> bool {
        self.view(GroupId::META)
            .is_some_and(|meta| meta.with(|state, _| MetaView::new(state).cluster().is_some()))
    }

    /// The leader of a group according to the replica here; `None` without one.
    pub fn leader_here(&self, group: GroupId) -> Option<NodeId> {
        self.shared.groups.get(group).ok()?.leader()
    }

    /// The leader of a group, according to the replica here or else to the reports of the others.
    pub async fn leader(&self, group: GroupId) -> Option<NodeId> {
        if let Ok(replica) = self.shared.groups.get(group)
            && replica.is_running()
        {
            return replica.leader();
        }
        // Without a running replica here: ask the nodes that have one.
        let replicas = self.replicas(group);
        let reports = replicas.iter().map(|node| self.ask_report(*node));
        let reports = futures::future::join_all(reports).await;
        let known = reports
            .into_iter()
            .flatten()
            .flat_map(|report| report.replicas);
        known
            .filter(|replica| replica.group == group && replica.role != Role::Stopped)
            .max_by_key(|replica| replica.term)?
            .leader
    }

    /// The term of a group on this node; 0 without a replica.
    pub fn term(&self, group: GroupId) -> u64 {
        self.shared
            .groups
            .get(group)
            .map_or(0, |replica| replica.term())
    }

    /// Term and voters of a group, while this node leads it.
    pub fn leadership(&self, group: GroupId) -> Option<Leadership> {
        self.shared.groups.get(group).ok()?.leadership(self.node())
    }

    /// The nodes that hold a group, in placement order.
    pub fn replicas(&self, group: GroupId) -> Vec<NodeId> {
        let all = || {
            self.shared
                .members
                .all()
                .into_iter()
                .map(|node| node.node)
                .collect()
        };
        if group.is_meta() {
            return all();
        }
        let Some(meta) = self.view(GroupId::META) else {
            return Vec::new();
        };
        meta.with(|state, _| MetaView::new(state).placement(group))
            .map_or_else(Vec::new, |placement| placement.replicas)
    }

    /// The record of a member, with its addresses.
    pub fn node_record(&self, node: NodeId) -> Option<NodeRecord> {
        self.shared.members.get(node)
    }

    /// The groups this node has a replica of, meta first.
    pub fn local_groups(&self) -> Vec<GroupId> {
        self.shared
            .groups
            .all()
            .into_iter()
            .map(|group| group.id)
            .collect()
    }

    /// Stops this node's replica of a group as a storage failure does. For tests of the other
    /// replicas' reaction.
    #[doc(hidden)]
    pub async fn stop_replica(&self, group: GroupId) {
        if let Ok(replica) = self.shared.groups.get(group) {
            replica.raft.shutdown().await.ok();
        }
    }

    /// Changes whenever the meta group applies an entry.
    pub(crate) fn meta_applied(&self) -> Option<watch::Receiver<u64>> {
        self.view(GroupId::META).map(|view| view.applied())
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.shared.groups
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    pub(crate) fn members(&self) -> &Members {
        &self.shared.members
    }

    /// The clock passed to this node.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The source of random numbers passed to this node.
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.shared.random
    }

    pub(crate) fn next_count(&self) -> u64 {
        self.shared.counter.fetch_add(1, Ordering::Relaxed)
    }
}

/// Draws the id of this process's start. It is durable before the node sends or receives a message.
async fn draw_start(
    config: &ClusterConfig,
    host: &Host,
    scope: &Scope,
) -> Result<Starts, StartError> {
    let identity = config.identity;
    let place = (Arc::clone(&host.disk), config.data_dir.clone());
    let start = StartId::from_bytes(host.random.bytes());
    let what = "cannot use the starts of this node in its data directory";
    let drawing = scope.blocking("draw start", move || {
        Starts::draw(identity.node, identity.incarnation, place, start)
    });
    drawing
        .await
        .map_err(StartError::io(what))?
        .map_err(StartError::io(what))
}

struct Opened {
    wal: Wal,
    kv: Arc<SledKv>,
    snapshots: SnapshotStore,
}

/// Opens the log first: no other file on the disk is trusted before it.
async fn open_storage(
    config: &ClusterConfig,
    host: &Host,
    scope: &Scope,
) -> Result<Opened, StartError> {
    let dir = config.data_dir.clone();
    let wal_config = WalConfig {
        dir: dir.join("wal"),
        segment_bytes: config.wal_segment_bytes,
        bytes_max: config.wal_bytes_max,
        tail_bytes_max: limits::WAL_TAIL_BYTES_MAX,
    };
    let (disk, clock) = (Arc::clone(&host.disk), Arc::clone(&host.clock));
    let on_failure = host.on_log_failure;
    let opening = scope.blocking("open storage", move || {
        let wal = Wal::open_with(disk, clock, wal_config, on_failure)?;
        let (kv, trust) = SledKv::open(&dir.join("kv"))?;
        match trust {
            Trust::Clean => tracing::info!("kv kept: the last stop was clean"),
            Trust::Wiped { reason } => {
                tracing::info!(
                    ?reason,
                    "the kv is built again from snapshots and log, which have all of it: nothing is lost"
                );
            }
        }
        let snapshots = SnapshotStore::open(&dir.join("snapshots"), snapshot_file::index_of)?;
        Ok::<_, StartError>(Opened {
            wal,
            kv: Arc::new(kv),
            snapshots,
        })
    });
    opening
        .await
        .map_err(StartError::io("cannot open the node's storage"))?
}
