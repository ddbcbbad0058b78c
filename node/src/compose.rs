//! The wiring of a node's parts. No other module names all of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use henge_api::{AnonymousReads, ApiDeps, MetricsHandle, Tokens};
use henge_cluster::{
    Cluster, ClusterConfig, Conditions, Effects, Host, Reporting, StartProgress, TcpNetwork,
    Timings, TlsFiles,
};
use henge_git_client::{AddressPolicy, Trust};
use henge_repos::{BundlesConfig, MirrorsConfig, PackEffects, Repos};
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock, Scope, SystemClock, SystemRandom, failpoint};
use henge_storage::disk::OsDisk;
use henge_storage::objects::{ObjectStore, Watermark};
use henge_storage::wal::OnFatal;
use tokio::runtime::Handle;

use crate::backend::NodeBackend;
use crate::config::Config;
use crate::data_dir::TlsPaths;
use crate::environment;
use crate::http_server::HttpServer;
use crate::identity::Identity;
use crate::logging;
use crate::start_gate::StartGate;

/// Jobs of API requests that run at once. They search lists, and do not wait for disks or other
/// nodes.
const API_JOBS_MAX: usize = 4;

/// The interval of the metrics' own upkeep.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// The input of a node's start.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) identity: Identity,
    pub(crate) tls: TlsPaths,
    pub(crate) tokens: Tokens,
    /// Raft's runtime.
    pub(crate) raft: Handle,
    /// The scope of everything else.
    pub(crate) scope: Scope,
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    scope: Scope,
    http: HttpServer,
    cluster: Cluster,
}

impl Node {
    /// Starts the parts, each after its dependencies.
    pub(crate) async fn start(parts: Parts<'_>) -> anyhow::Result<Self> {
        let config = parts.config;
        let host = this_machine();
        let clock = Arc::clone(&host.clock);
        let metrics = describe_metrics()?;
        if environment::text("HENGE_FAILPOINTS").is_some() {
            failpoint::arm_from(config.data_dir.join("failpoints"));
        }
        let reporting = Reporting::new(Arc::clone(&clock));
        // The listener comes before every slow step: the replay of a log is visible from outside.
        let (http, gate) = listen(&parts, reporting.progress.clone()).await?;
        reporting.progress.stage("opening the object stores");
        let conditions = reporting.conditions.clone();
        let effects = open_objects(&parts, &clock, conditions).await?;
        let cluster = start_cluster(&parts, host, reporting, Arc::clone(&effects)).await?;
        let repos = Repos::start(cluster.clone(), effects, &parts.scope, Arc::clone(&clock))
            .context("cannot open the repositories")?;
        repos.start_mirrors(mirrors_config(config));
        if let Some(schedule) = config.prune {
            repos.start_pruning(schedule);
        }
        if let Some(after) = config.settle_after {
            repos.settle_networks(after);
        }
        if let Some(bytes_min) = config.git.bundle_bytes_min {
            repos.offer_bundles(BundlesConfig { bytes_min });
        }
        let deps = ApiDeps {
            backend: Arc::new(NodeBackend {
                repos: repos.clone(),
                cluster: cluster.clone(),
            }),
            git: henge_git::http::router(repos),
            tokens: parts.tokens.clone(),
            anonymous_reads: match config.anonymous_reads {
                true => AnonymousReads::Allowed,
                false => AnonymousReads::Refused,
            },
            metrics: metrics.clone(),
            version: env!("CARGO_PKG_VERSION"),
            clock,
            // A pool of its own: API requests, some of them without a token, take no permit from a
            // replica's work.
            work: Scope::root("api", Handle::current(), API_JOBS_MAX),
        };
        parts.scope.spawn("metrics", OnPanic::Log, async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP).await;
                metrics.upkeep();
            }
        });
        gate.open(henge_api::router(deps));
        Ok(Self {
            scope: parts.scope,
            http,
            cluster,
        })
    }

    /// Waits until the node must stop; returns the reason.
    pub(crate) async fn ended(&self) -> String {
        self.cluster.ended().await
    }

    /// Stops the parts in the reverse order of their start, each within its share of `deadline`.
    pub(crate) async fn stop(self, deadline: Duration) {
        let share = deadline / 4;
        if !self.http.stop(share).await {
            // Their clients retry, or saw a broken connection: every acknowledged write is durable.
            tracing::warn!("requests that did not end in time are cut off");
        }
        logging::stopping();
        self.cluster.shutdown(share * 2).await;
        if !self.scope.shutdown(share).await {
            tracing::warn!(
                seconds = deadline.as_secs(),
                "tasks that did not end in time are cut off"
            );
        }
    }
}

/// The parts of the machine that a node runs on.
fn this_machine() -> Host {
    Host {
        clock: SystemClock::shared(),
        random: SystemRandom::shared(),
        disk: OsDisk::shared(),
        network: TcpNetwork::shared(),
        on_log_failure: OnFatal::Abort,
    }
}

/// Listens at once. Until the gate is open, requests that are not about the start get 503.
async fn listen(
    parts: &Parts<'_>,
    progress: StartProgress,
) -> anyhow::Result<(HttpServer, StartGate)> {
    let listen = parts.config.http_listen;
    let gate = StartGate::new(progress);
    let http = HttpServer::start(listen, gate.router(), &parts.scope)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    Ok((http, gate))
}

fn mirrors_config(config: &Config) -> MirrorsConfig {
    let mirrors = &config.mirrors;
    MirrorsConfig {
        addresses: match mirrors.allow_private_addresses {
            true => AddressPolicy::Private,
            false => AddressPolicy::Public,
        },
        trust: mirrors
            .ca_file
            .as_deref()
            .map_or_else(Trust::system, Trust::file),
        at_once: mirrors.at_once,
    }
}

fn describe_metrics() -> anyhow::Result<MetricsHandle> {
    let metrics = MetricsHandle::install().context("cannot install the metrics")?;
    henge_api::metrics::describe();
    henge_storage::metrics::describe();
    henge_cluster::metrics::describe();
    henge_repos::metrics::describe();
    Ok(metrics)
}

async fn open_objects(
    parts: &Parts<'_>,
    clock: &Arc<dyn Clock>,
    conditions: Conditions,
) -> anyhow::Result<Arc<PackEffects>> {
    let storage = parts.config.storage;
    let watermark = Watermark {
        bytes: storage.low_space,
        percent: storage.low_space_percent,
    };
    let (dir, clock) = (parts.config.data_dir.clone(), Arc::clone(clock));
    let opening = parts.scope.blocking("open objects", move || {
        let objects = ObjectStore::open_with(&dir, watermark)?;
        PackEffects::new(
            objects,
            dir.join("staged").join("claims"),
            clock,
            conditions,
        )
        .map_err(anyhow::Error::from)
    });
    opening.await?.context("cannot open the object stores")
}

/// Starts the cluster on Raft's own runtime, so that pack work never delays a heartbeat.
async fn start_cluster(
    parts: &Parts<'_>,
    host: Host,
    reporting: Reporting,
    effects: Arc<PackEffects>,
) -> anyhow::Result<Cluster> {
    let config = cluster_config(parts);
    let scope = parts.scope.on("raft", parts.raft.clone());
    let starter = scope.clone();
    let start = async move {
        let effects = effects as Arc<dyn Effects>;
        Cluster::start(config, &starter, host, reporting, effects).await
    };
    let cluster = scope.run("cluster start", start).await?;
    cluster.context("cannot join the cluster")
}

fn cluster_config(parts: &Parts<'_>) -> ClusterConfig {
    let (config, identity, tls) = (parts.config, &parts.identity, &parts.tls);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    ClusterConfig {
        identity: henge_cluster::Identity {
            cluster: identity.cluster_id,
            node: identity.node_id,
            incarnation: identity.incarnation,
        },
        listen: config.rpc_listen,
        rpc: config.rpc_advertise.clone(),
        http: config.http_advertise.clone(),
        data_dir: config.data_dir.clone(),
        tls: TlsFiles {
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: tls.key.clone(),
        },
        founders: config.cluster.founders.clone(),
        shards: config.cluster.shards,
        replication: config.cluster.replication,
        timings: Timings {
            heartbeat_ms: millis(config.cluster.heartbeat),
            election_ms_min: millis(config.cluster.election_min),
            election_ms_max: millis(config.cluster.election_max),
        },
        wal_segment_bytes: config.storage.wal_segment,
        wal_bytes_max: config.storage.wal_max,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
