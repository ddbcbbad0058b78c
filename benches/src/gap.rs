//! `gap`: the time without writes after a leader is killed, beside etcd.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use henge_client::{Client, Deadlines};
use henge_runtime::{Clock as _, SystemClock};
use henge_types::{NodeId, RepoPath};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::bench::Bench;
use crate::commits::Commits;
use crate::etcd::kv::EtcdClient;
use crate::etcd::{DEFAULT_TIMINGS, EtcdCluster, MEMBERS, Timings};
use crate::henge::{DevCluster, change, update};
use crate::report::{Section, figure, ratio};
use crate::samples::Samples;

/// Interval between two attempts, which run concurrently.
const TRY_INTERVAL: Duration = Duration::from_millis(10);
/// Deadline of a write before the kill: long, because it measures the duration of a write.
const CALM_DEADLINE: Duration = Duration::from_secs(10);
const CALM_WRITES: usize = 10;
/// Deadline of the first successful write.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Pause between the return of a member and the next kill.
const SETTLE: Duration = Duration::from_secs(3);
/// Etcd with half of its default election timeout, as tuned for one site.
const SHORT_TIMINGS: Timings = Timings {
    heartbeat_ms: 100,
    election_ms: 500,
};
const BRANCH: &str = "refs/heads/gap";

/// A survivor for attempted writes, with open connections.
#[derive(Debug, Clone)]
enum Survivor {
    Henge(Box<HengeNode>),
    Etcd(EtcdClient),
}

/// A node, and the repository and commit of the write.
#[derive(Debug, Clone)]
struct HengeNode {
    client: Client,
    path: RepoPath,
    commit: String,
}

impl Survivor {
    /// One write, independent of the old value: an attempt that timed out may have been applied.
    async fn write(&self) -> anyhow::Result<()> {
        match self {
            Self::Henge(node) => {
                let change = change(BRANCH, Some("any"), &node.commit);
                update(&node.client, &node.path, change).await
            }
            Self::Etcd(client) => client.put(b"gap", &[b'v'; 256]).await,
        }
    }
}

/// Attempts writes on the survivors in turn until one succeeds.
async fn first_write(survivors: &[Survivor], deadline: Duration) -> anyhow::Result<()> {
    let mut ticks = interval(TRY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tries: FuturesUnordered<BoxFuture<'_, anyhow::Result<()>>> = FuturesUnordered::new();
    let mut turns = survivors.iter().cycle();
    let mut last = None;
    let outcome = timeout(GIVE_UP, async {
        loop {
            tokio::select! {
                biased;
                Some(tried) = tries.next() => match tried {
                    Ok(()) => return Ok(()),
                    Err(error) => last = Some(error),
                },
                _ = ticks.tick() => {
                    let survivor = turns.next().context("nobody survived")?;
                    tries.push(Box::pin(async move {
                        timeout(deadline, survivor.write()).await.context("no answer")?
                    }));
                }
            }
        }
    });
    let outcome = outcome.await;
    outcome.unwrap_or_else(|_| bail!("no write succeeded in a minute; the last error: {last:?}"))
}

/// The measurements of one cluster.
#[derive(Debug, Default)]
struct Gaps {
    gaps: Samples,
    /// Durations of writes through the later survivors while the leader is alive.
    calm: Samples,
    version: String,
}

impl Gaps {
    /// Opens the connections, and measures undisturbed writes. When these are not well below the
    /// deadline of an attempt, the tool causes the gap and not the cluster.
    async fn calm(&mut self, survivors: &[Survivor]) -> anyhow::Result<()> {
        for survivor in survivors.iter().cycle().take(CALM_WRITES) {
            let began = SystemClock.instant();
            timeout(CALM_DEADLINE, survivor.write())
                .await
                .context("a write before the kill had no answer")??;
            self.calm.push(SystemClock.instant().duration_since(began));
        }
        Ok(())
    }
}

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let rounds = bench.pick(3, 15);
    let dir = bench.folder("gap")?;
    let henge = henge_gaps(bench, &dir, rounds).await?;
    let default = etcd_gaps(bench, &dir.join("etcd"), DEFAULT_TIMINGS, rounds).await?;
    let short = etcd_gaps(bench, &dir.join("etcd-short"), SHORT_TIMINGS, rounds).await?;
    let rows = [
        ("Henge", &henge),
        ("etcd, 100/1000 ms (its defaults)", &default),
        ("etcd, 100/500 ms", &short),
    ];
    Ok(report(rows, bench.try_deadline, rounds))
}

fn report(rows: [(&str, &Gaps); 3], deadline: Duration, rounds: usize) -> Section {
    let mut section = Section::new(
        "Write gap after the leader is killed",
        &[
            "cluster",
            "p50 ms",
            "p99 ms",
            "max ms",
            "etcd / Henge, p50",
            "a write before the kill, p50 / max ms",
            "every round, ms",
        ],
    );
    let [(_, henge), (_, etcd), _] = rows;
    for (name, measured) in rows {
        let (gaps, calm) = (&measured.gaps, &measured.calm);
        section.row(vec![
            name.to_owned(),
            figure(gaps.percentile_ms(50)),
            figure(gaps.percentile_ms(99)),
            figure(gaps.max_ms()),
            ratio(gaps.percentile_ms(50), henge.gaps.percentile_ms(50)),
            format!(
                "{} / {}",
                figure(calm.percentile_ms(50)),
                figure(calm.max_ms())
            ),
            gaps.list_ms(),
        ]);
    }
    section.note(format!(
        "{rounds} rounds: kill -9 of the process that leads (Henge: the shard of the repository written to), \
         then a try every {} ms, given up after {} ms, on the two survivors in turn over connections opened \
         before; the gap ends with the first acknowledged write; the process is brought back and {} s pass \
         before the next round",
        TRY_INTERVAL.as_millis(),
        deadline.as_millis(),
        SETTLE.as_secs()
    ));
    section.note(
        "where a write before the kill takes about as long as a try is given, tries are cut short and the gap \
         is too long: run again with a larger --try-ms",
    );
    section.note("with fewer than a hundred rounds the p99 is the longest one");
    section.note(format!(
        "versions: henge {}; etcd {}",
        henge.version, etcd.version
    ));
    section
}

async fn henge_gaps(bench: &Bench, dir: &Path, rounds: usize) -> anyhow::Result<Gaps> {
    let commits = Commits::make(&dir.join("commits.git"), 1).await?;
    let mut cluster = bench.cluster(&dir.join("henge")).await?;
    let (info, leader) = cluster.create("gap").await?;
    let path = info.path();
    let url = cluster.push_url(leader, &path)?;
    commits.push(&url, 0, "refs/heads/main").await?;
    let mut measured = Gaps::default();
    for round in 0..rounds {
        bench.progress(&format!("gap: henge, {} of {rounds}", round + 1));
        sleep(SETTLE).await;
        let leader = cluster.leader_of(&path).await?;
        let survivors = henge_survivors(&cluster, leader, &path, commits.id(0)?).await?;
        measured.calm(&survivors).await?;
        let killed = SystemClock.instant();
        cluster.kill(leader).await?;
        first_write(&survivors, bench.try_deadline).await?;
        measured
            .gaps
            .push(SystemClock.instant().duration_since(killed));
        cluster.restart(leader).await?;
    }
    measured.version = cluster.version().await?;
    cluster.stop().await?;
    Ok(measured)
}

async fn henge_survivors(
    cluster: &DevCluster,
    leader: NodeId,
    path: &RepoPath,
    commit: &str,
) -> anyhow::Result<Vec<Survivor>> {
    // The attempts have deadlines of their own.
    let deadlines = Deadlines::default();
    let mut survivors = Vec::new();
    for node in cluster.nodes().iter().filter(|node| node.id != leader) {
        let client = cluster.client(node.id, deadlines)?;
        client
            .version()
            .await
            .with_context(|| format!("node {} does not answer", node.id))?;
        survivors.push(Survivor::Henge(Box::new(HengeNode {
            client,
            path: path.clone(),
            commit: commit.to_owned(),
        })));
    }
    Ok(survivors)
}

async fn etcd_gaps(
    bench: &Bench,
    dir: &Path,
    timings: Timings,
    rounds: usize,
) -> anyhow::Result<Gaps> {
    let mut etcd = EtcdCluster::start(dir, bench.port(200)?, timings).await?;
    let mut measured = Gaps::default();
    for round in 0..rounds {
        let election = timings.election_ms;
        bench.progress(&format!(
            "gap: etcd with {election} ms, {} of {rounds}",
            round + 1
        ));
        sleep(SETTLE).await;
        let leader = etcd.leader().await?;
        let mut survivors = Vec::new();
        for member in (0..MEMBERS).filter(|member| *member != leader) {
            let client = EtcdClient::connect(etcd.url(member)?).await?;
            survivors.push(Survivor::Etcd(client));
        }
        measured.calm(&survivors).await?;
        let killed = SystemClock.instant();
        etcd.kill(leader).await?;
        first_write(&survivors, bench.try_deadline).await?;
        measured
            .gaps
            .push(SystemClock.instant().duration_since(killed));
        etcd.restart(leader).await?;
    }
    measured.version = etcd.version().await?;
    etcd.stop().await?;
    Ok(measured)
}
