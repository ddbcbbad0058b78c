//! `replay`: the time until nodes that were killed after many small pushes serve again, beside
//! etcd.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use henge_client::{Deadlines, Readiness};
use henge_runtime::{Clock as _, SystemClock};
use henge_types::NodeId;
use tokio::time::{sleep, timeout};

use crate::bench::{Bench, SHARDS};
use crate::chain::Chain;
use crate::etcd::kv::EtcdClient;
use crate::etcd::{DEFAULT_TIMINGS, EtcdCluster};
use crate::henge::DevCluster;
use crate::report::{Section, figure, ratio};
use crate::requests::{Curl, Push};

/// Number of repositories.
const REPOS: usize = 64;
const PUSHES_EACH: usize = 800;
const PUSHES_EACH_QUICK: usize = 20;
/// Pushes over one connection.
const PUSHES_AT_ONCE: usize = 100;
/// Connections, and clients of etcd.
const CLIENTS: usize = 8;
/// Approximate size of the log entry of such a push.
const VALUE_BYTES: usize = 512;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const READY_DEADLINE: Duration = Duration::from_secs(300);

/// Times since the start of the processes.
#[derive(Debug, Clone, Copy)]
struct Back {
    /// Until the slowest first answer.
    answers: Duration,
    /// Until the slowest node is ready.
    ready: Duration,
}

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let each = bench.pick(PUSHES_EACH_QUICK, PUSHES_EACH);
    let dir = bench.folder("replay")?;
    let mut cluster = bench.cluster(&dir.join("henge")).await?;
    push_all(bench, &cluster, &dir, ("first", each)).await?;
    let nodes: Vec<NodeId> = cluster.nodes().iter().map(|node| node.id).collect();
    let one = kill_and_start(&mut cluster, nodes.get(..1).context("no nodes")?).await?;
    cluster.wait_until_healthy().await?;
    push_all(bench, &cluster, &dir, ("second", each)).await?;
    let all = kill_and_start(&mut cluster, &nodes).await?;
    cluster.wait_until_healthy().await?;
    let version = cluster.version().await?;
    cluster.stop().await?;
    let (etcd, etcd_version) = etcd(bench, &dir, each * REPOS).await?;
    let mut section = Section::new(
        "Back after many small pushes and kill -9",
        &[
            "pushes",
            "what was killed",
            "answers after, s",
            "ready after, s",
            "etcd, s",
            "Henge / etcd",
        ],
    );
    let rows = [(1, "one node", one), (2, "all nodes", all)];
    for (times, killed, back) in rows {
        let is_one = times == 1;
        section.row(vec![
            (times * each * REPOS).to_string(),
            killed.to_owned(),
            figure(back.answers.as_secs_f64()),
            figure(back.ready.as_secs_f64()),
            if is_one {
                figure(etcd.as_secs_f64())
            } else {
                String::new()
            },
            if is_one {
                ratio(back.ready.as_secs_f64(), etcd.as_secs_f64())
            } else {
                String::new()
            },
        ]);
    }
    section.note(format!(
        "one commit each, to {REPOS} repositories in {SHARDS} shards, {CLIENTS} at once; killed right after the last answer; \
         answers: `/readyz` says something; ready: it says that the node serves; etcd: as many puts of {VALUE_BYTES} bytes, one \
         member killed, until all members know one leader"
    ));
    section.note(format!("versions: henge {version}; etcd {etcd_version}"));
    Ok(section)
}

/// Pushes `each` commits to each of the newly created repositories.
async fn push_all(
    bench: &Bench,
    cluster: &DevCluster,
    dir: &Path,
    (round, each): (&str, usize),
) -> anyhow::Result<()> {
    let mut repos = Vec::with_capacity(REPOS);
    for number in 0..REPOS {
        let name = format!("{round}-{number}");
        let (info, leader) = cluster.create(&name).await?;
        repos.push((cluster.push_url(leader, &info.path())?, Chain::new(&name)));
    }
    let pushing = repos.into_iter().map(async |(url, mut chain)| {
        let mut left = each;
        while left > 0 {
            let count = left.min(PUSHES_AT_ONCE);
            let pushes: anyhow::Result<Vec<Push>> =
                (0..count).map(|_| Push::next_of(&mut chain)).collect();
            Curl::new(&url, dir).push_all(&pushes?).await?;
            left -= count;
        }
        anyhow::Ok(())
    });
    let mut pushing = futures::stream::iter(pushing).buffer_unordered(CLIENTS);
    let mut done = 0;
    while let Some(pushed) = pushing.next().await {
        pushed?;
        done += 1;
        bench.progress(&format!("replay: pushed to {done} of {REPOS} repositories"));
    }
    Ok(())
}

async fn kill_and_start(cluster: &mut DevCluster, nodes: &[NodeId]) -> anyhow::Result<Back> {
    for node in nodes {
        cluster.kill(*node).await?;
    }
    let began = SystemClock.instant();
    for node in nodes {
        cluster.start_again(*node).await?;
    }
    let mut back = Back {
        answers: Duration::ZERO,
        ready: Duration::ZERO,
    };
    let looks = nodes.iter().map(|node| look(cluster, *node, began));
    for looked in futures::future::join_all(looks).await {
        let looked = looked?;
        back.answers = back.answers.max(looked.answers);
        back.ready = back.ready.max(looked.ready);
    }
    Ok(back)
}

async fn look(cluster: &DevCluster, node: NodeId, began: Instant) -> anyhow::Result<Back> {
    let client = cluster.client(node, Deadlines::default())?;
    let address = cluster.address(node)?;
    let passed = || SystemClock.instant().duration_since(began);
    let mut answers = None;
    while passed() < READY_DEADLINE {
        match client.readiness(&address).await {
            Readiness::Silent(_) => {}
            Readiness::NotYet(_) => {
                answers.get_or_insert_with(passed);
            }
            Readiness::Ready => {
                let ready = passed();
                return Ok(Back {
                    answers: answers.unwrap_or(ready),
                    ready,
                });
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
    bail!(
        "node {node} is not ready after {} s",
        READY_DEADLINE.as_secs()
    )
}

/// The time until a member serves again after `puts` puts.
async fn etcd(bench: &Bench, dir: &Path, puts: usize) -> anyhow::Result<(Duration, String)> {
    let mut etcd = EtcdCluster::start(&dir.join("etcd"), bench.port(200)?, DEFAULT_TIMINGS).await?;
    let leader = etcd.leader().await?;
    let client = EtcdClient::connect(etcd.url(leader)?).await?;
    let value = vec![b'v'; VALUE_BYTES];
    let writing = (0..puts).map(|number| {
        let (client, value) = (client.clone(), &value);
        async move { client.put(format!("key-{number}").as_bytes(), value).await }
    });
    let mut writing = futures::stream::iter(writing).buffer_unordered(CLIENTS * 8);
    while let Some(written) = timeout(READY_DEADLINE, writing.next()).await? {
        written?;
    }
    drop(writing);
    etcd.kill(leader).await?;
    let began = SystemClock.instant();
    etcd.restart(leader).await?;
    let back = SystemClock.instant().duration_since(began);
    let version = etcd.version().await?;
    etcd.stop().await?;
    Ok((back, version))
}
