//! `writes`: small durable changes of replicated state, beside etcd's puts.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use henge_client::{Client, Deadlines};
use henge_types::RepoPath;

use crate::bench::{Bench, SHARDS};
use crate::commits::Commits;
use crate::etcd::kv::EtcdClient;
use crate::etcd::{DEFAULT_TIMINGS, EtcdCluster};
use crate::henge::{DevCluster, change, update};
use crate::load::{Load, Writer, closed_loop};
use crate::report::{Section, figure, ratio};

/// Concurrent clients.
const CLIENTS: [usize; 3] = [1, 64, 256];
/// Repositories, each in a shard of its own.
const GROUPS: [usize; 2] = [1, 8];
/// Warm-up time before the measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// Bytes of an etcd value.
const VALUE_BYTES: usize = 256;
/// Connections of the etcd clients, which share them as HTTP/2 streams.
const CONNECTIONS_MAX: usize = 16;
/// Limit of repositories created until every shard has one: for eight shards 22 are expected.
const CREATE_MAX: usize = 300;

/// A repository with two commits, and its shard's leader.
#[derive(Debug)]
struct Repo {
    path: RepoPath,
    client: Client,
}

/// Moves its own ref between two commits.
#[derive(Debug)]
struct RefWriter {
    client: Client,
    path: RepoPath,
    name: String,
    commits: [String; 2],
    /// Number of moves.
    moves: usize,
    /// Its position; unknown after an error, missing at first.
    at: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Missing,
    Known,
    Unknown,
}

impl Writer for RefWriter {
    async fn write(&mut self) -> anyhow::Result<()> {
        let [even, odd] = &self.commits;
        let (new, old) = if self.moves.is_multiple_of(2) {
            (even, odd)
        } else {
            (odd, even)
        };
        let old = match self.at {
            Position::Missing => None,
            Position::Known => Some(old.as_str()),
            Position::Unknown => Some("any"),
        };
        let change = change(&self.name, old, new);
        self.at = Position::Unknown;
        update(&self.client, &self.path, change).await?;
        self.at = Position::Known;
        self.moves += 1;
        Ok(())
    }
}

/// Puts its own key.
#[derive(Debug)]
struct KeyWriter {
    client: EtcdClient,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Writer for KeyWriter {
    async fn write(&mut self) -> anyhow::Result<()> {
        self.client.put(&self.key, &self.value).await
    }
}

/// One row of the table.
#[derive(Debug)]
struct Cell {
    clients: usize,
    groups: usize,
    henge: Load,
    etcd: Load,
}

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let measured = Duration::from_secs(bench.pick(2, 5));
    let rounds = bench.pick(1, 3);
    let dir = bench.folder("writes")?;
    let commits = Commits::make(&dir.join("commits.git"), 2).await?;
    let mut cells = Vec::new();
    for groups in GROUPS {
        cells.extend(CLIENTS.map(|clients| Cell {
            clients,
            groups,
            henge: Load::default(),
            etcd: Load::default(),
        }));
    }
    let mut versions = (String::new(), String::new());
    for round in 0..rounds {
        // One system at a time: the other one's heartbeats would cost processor time.
        let dir = dir.join(round.to_string());
        versions.1 = etcd_round(bench, &dir.join("etcd"), &mut cells, measured).await?;
        versions.0 = henge_round(bench, &dir.join("henge"), &mut cells, &commits, measured).await?;
    }
    let mut section = report(&cells);
    section.note(format!(
        "{rounds} × {} s per cell after a second of warm-up, the two systems in turn, never both at once; \
         closed loop, each client on a ref or key of its own, sent to the leader",
        measured.as_secs()
    ));
    section.note(format!(
        "versions: henge {}; etcd {}",
        versions.0, versions.1
    ));
    Ok(section)
}

async fn etcd_round(
    bench: &Bench,
    dir: &Path,
    cells: &mut [Cell],
    measured: Duration,
) -> anyhow::Result<String> {
    let mut etcd = EtcdCluster::start(dir, bench.port(200)?, DEFAULT_TIMINGS).await?;
    for cell in cells {
        bench.progress(&format!("writes: etcd, {} clients", cell.clients));
        let leader = etcd.leader().await?;
        let mut connections = Vec::new();
        for _ in 0..cell.clients.min(CONNECTIONS_MAX) {
            connections.push(EtcdClient::connect(etcd.url(leader)?).await?);
        }
        let connections = connections.iter().cycle().take(cell.clients);
        let writers = connections
            .enumerate()
            .map(|(client, connection)| KeyWriter {
                client: connection.clone(),
                key: format!("bench/{client}").into_bytes(),
                value: vec![b'v'; VALUE_BYTES],
            });
        let load = closed_loop(&bench.scope, writers.collect(), WARM_UP, measured).await?;
        cell.etcd.append(load);
    }
    let version = etcd.version().await?;
    etcd.stop().await?;
    Ok(version)
}

async fn henge_round(
    bench: &Bench,
    dir: &Path,
    cells: &mut [Cell],
    commits: &Commits,
    measured: Duration,
) -> anyhow::Result<String> {
    let cluster = bench.cluster(dir).await?;
    let groups_max = GROUPS.into_iter().max().unwrap_or(1);
    let paths = repos(&cluster, commits, groups_max).await?;
    for (number, cell) in cells.iter_mut().enumerate() {
        bench.progress(&format!(
            "writes: henge, {} clients, {} groups",
            cell.clients, cell.groups
        ));
        // Looked up for each cell: leaders may change between them.
        let mut used = Vec::new();
        for path in paths.iter().take(cell.groups) {
            let leader = cluster.leader_of(path).await?;
            used.push(Repo {
                path: path.clone(),
                client: cluster.client(leader, Deadlines::default())?,
            });
        }
        let ids = [commits.id(0)?.to_owned(), commits.id(1)?.to_owned()];
        let homes = used.iter().cycle().take(cell.clients).enumerate();
        let writers = homes.map(|(client, repo)| RefWriter {
            client: repo.client.clone(),
            path: repo.path.clone(),
            name: format!("refs/heads/cell{number}/client{client}"),
            commits: ids.clone(),
            moves: 0,
            at: Position::Missing,
        });
        let load = closed_loop(&bench.scope, writers.collect(), WARM_UP, measured).await?;
        cell.henge.append(load);
    }
    let version = cluster.version().await?;
    cluster.stop().await?;
    Ok(version)
}

/// Repositories in `groups` shards, each with both commits.
async fn repos(
    cluster: &DevCluster,
    commits: &Commits,
    groups: usize,
) -> anyhow::Result<Vec<RepoPath>> {
    let mut shards = Vec::new();
    let mut paths = Vec::new();
    for number in 0..CREATE_MAX {
        if paths.len() == groups {
            break;
        }
        let (info, leader) = cluster.create(&format!("writes{number}")).await?;
        if shards.contains(&info.shard) {
            continue;
        }
        let url = cluster.push_url(leader, &info.path())?;
        // A ref may be set to a commit of an existing branch, so each commit has a branch.
        commits.push(&url, 0, "refs/heads/first").await?;
        commits.push(&url, 1, "refs/heads/main").await?;
        shards.push(info.shard);
        paths.push(info.path());
    }
    ensure!(
        paths.len() == groups,
        "{CREATE_MAX} repositories lie in {} of {SHARDS} shards only",
        paths.len()
    );
    Ok(paths)
}

fn report(cells: &[Cell]) -> Section {
    let mut section = Section::new(
        "Small writes",
        &[
            "clients",
            "groups (Henge)",
            "Henge writes/s",
            "etcd puts/s",
            "ratio",
            "Henge p50 ms",
            "etcd p50 ms",
            "Henge p99 ms",
            "etcd p99 ms",
            "ratio p99",
            "errors",
        ],
    );
    for cell in cells {
        let (henge, etcd) = (&cell.henge, &cell.etcd);
        let p99 = henge.latencies.percentile_ms(99);
        section.row(vec![
            cell.clients.to_string(),
            cell.groups.to_string(),
            figure(henge.rate()),
            figure(etcd.rate()),
            ratio(henge.rate(), etcd.rate()),
            figure(henge.latencies.percentile_ms(50)),
            figure(etcd.latencies.percentile_ms(50)),
            figure(p99),
            figure(etcd.latencies.percentile_ms(99)),
            ratio(p99, etcd.latencies.percentile_ms(99)),
            format!("{} / {}", henge.errors, etcd.errors),
        ]);
        for (name, load) in [("Henge", henge), ("etcd", etcd)] {
            if let Some(error) = &load.error {
                section.note(format!(
                    "first error of {name}, {} clients: {error}",
                    cell.clients
                ));
            }
        }
    }
    section.note(format!(
        "Henge: compare-and-set of one ref between two commits, HTTP/1.1 keep-alive with JSON, one connection \
         per client (henge-client); etcd: put of a {VALUE_BYTES}-byte value, native gRPC, at most \
         {CONNECTIONS_MAX} connections (tonic), three members, heartbeat 100 ms, election 1000 ms; \
         load generator on the same machine"
    ));
    section.note(
        "etcd has one group whatever the second column says: its rows with the same clients repeat one load",
    );
    section
}
