//! `storm`: small pushes at a steady rate while clones run, and the effect of compaction.

use std::time::Duration;

use henge_runtime::{Clock as _, SystemClock};
use tokio::time::{sleep, sleep_until};

use crate::bench::Bench;
use crate::commits::Commits;
use crate::henge::DevCluster;
use crate::process::Program;
use crate::report::{Section, figure, ratio};
use crate::samples::Samples;

const BRANCH: &str = "refs/heads/main";
/// Commits of the repository before the storm.
const SEED_COMMITS: usize = 100;
/// Pushes per second.
const RATE: u32 = 20;
/// Deadline of the compaction after the last push.
const QUIET_DEADLINE: Duration = Duration::from_secs(60);
/// Deadline for the packs to become one.
const SETTLED_DEADLINE: Duration = Duration::from_secs(30);
/// Maximum number of packs after the compaction.
const PACKS_MAX: usize = 8;

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let dir = bench.folder("storm")?;
    let pushes = bench.pick(100, 400);
    let commits = Commits::make(&dir.join("commits.git"), SEED_COMMITS + pushes).await?;
    let cluster = bench.cluster(&dir.join("henge")).await?;
    let (info, leader) = cluster.create("storm").await?;
    let url = cluster.push_url(leader, &info.path())?;
    commits.push(&url, SEED_COMMITS - 1, BRANCH).await?;
    let idle = cluster.rest().await?;
    let (before, started) = (sum(&cluster)?, SystemClock.instant());
    let storm = storm(bench, &cluster, &commits, &url, pushes);
    let clones = clone_for_ever(&url, &dir);
    let wall = tokio::select! {
        biased;
        wall = storm => wall?,
        failed = clones => return Err(failed),
    };
    let took = SystemClock.instant().duration_since(started);
    let left = wait_for_packs(&cluster, PACKS_MAX, QUIET_DEADLINE).await?;
    let settled = wait_for_packs(&cluster, 1, SETTLED_DEADLINE).await?;
    // The work for bitmaps is included.
    cluster.rest().await?;
    let observed = SystemClock.instant().duration_since(started);
    let cpu = sum(&cluster)?.saturating_sub(before).as_secs_f64() * 1_000.0;
    let cpu = cpu - idle * observed.as_secs_f64();
    let after = clone_cost(&cluster, &url, &dir, "after", bench.pick(10, 60)).await?;
    // The same history pushed at once is one pack.
    let (fresh, fresh_leader) = cluster.create("fresh").await?;
    let fresh_url = cluster.push_url(fresh_leader, &fresh.path())?;
    commits
        .push(&fresh_url, SEED_COMMITS + pushes - 1, BRANCH)
        .await?;
    let fresh = clone_cost(&cluster, &fresh_url, &dir, "fresh", bench.pick(10, 60)).await?;
    let mut section = table();
    section.row(vec![
        pushes.to_string(),
        figure(pushes as f64 / took.as_secs_f64()),
        figure(wall.percentile_ms(50)),
        figure(wall.percentile_ms(99)),
        figure(cpu / pushes as f64),
        each(&left),
        each(&settled),
        figure(after),
        figure(fresh),
        ratio(after, fresh),
    ]);
    explain(&mut section, &cluster).await?;
    cluster.stop().await?;
    Ok(section)
}

/// Pushes at a steady rate.
async fn storm(
    bench: &Bench,
    cluster: &DevCluster,
    commits: &Commits,
    url: &str,
    pushes: usize,
) -> anyhow::Result<Samples> {
    let started = SystemClock.instant();
    let mut wall = Samples::default();
    for number in 0..pushes {
        let due = started + Duration::from_secs(1) * u32::try_from(number)? / RATE;
        sleep_until(due.into()).await;
        wall.push(commits.push(url, SEED_COMMITS + number, BRANCH).await?);
        if number % 50 == 0 {
            let packs = cluster.packs()?;
            bench.progress(&format!("storm: {number} of {pushes}, packs {packs:?}"));
        }
    }
    Ok(wall)
}

/// Clones repeatedly until one fails; returns its error.
async fn clone_for_ever(url: &str, dir: &std::path::Path) -> anyhow::Error {
    for count in 0_u32.. {
        if let Err(error) = clone(url, &dir.join(format!("clone-{count}.git"))).await {
            return error;
        }
        sleep(Duration::from_millis(500)).await;
    }
    anyhow::anyhow!("there were more clones than numbers")
}

fn table() -> Section {
    Section::new(
        "Many small pushes while clones run",
        &[
            "pushes",
            "a second",
            "wall p50 ms",
            "wall p99 ms",
            "CPU ms per push, all nodes",
            "packs left per node",
            "a pause later",
            "clone CPU ms",
            "of one pack",
            "ratio",
        ],
    )
}

async fn explain(section: &mut Section, cluster: &DevCluster) -> anyhow::Result<()> {
    section.note(format!(
        "one commit each by stock git, {RATE} a second as far as one client gets there, clones one after the other meanwhile; \
         CPU = processor time of all nodes from the first push until they rest, clones and compaction included, less what \
         they use idle; packs left: once no node holds more than {PACKS_MAX}, and once nobody pushed for some seconds; \
         clone CPU = of all nodes less \
         what they use idle, for a listing and a clone that was not asked for before, once they rest"
    ));
    section.note(format!(
        "versions: henge {}; {}",
        cluster.version().await?,
        Program::git().arg("--version").output(b"").await?.trim(),
    ));
    Ok(())
}

fn sum(cluster: &DevCluster) -> anyhow::Result<Duration> {
    Ok(cluster.cpu()?.iter().sum())
}

fn each(packs: &[usize]) -> String {
    let packs: Vec<_> = packs.iter().map(usize::to_string).collect();
    packs.join(" ")
}

/// Number of packs on each node, once at most `most` are left or the deadline has passed.
async fn wait_for_packs(
    cluster: &DevCluster,
    most: usize,
    deadline: Duration,
) -> anyhow::Result<Vec<usize>> {
    let started = SystemClock.instant();
    loop {
        let packs = cluster.packs()?;
        let waited = SystemClock.instant().duration_since(started);
        if packs.iter().all(|count| *count <= most) || waited > deadline {
            return Ok(packs);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn clone(url: &str, to: &std::path::Path) -> anyhow::Result<()> {
    let git = Program::git()
        .args(["clone", "-q", "--mirror", url])
        .arg(to);
    // git's messages contain the URL, and the URL a token.
    let cloned = git.output(b"").await;
    cloned.map_err(|_| anyhow::anyhow!("a clone failed"))?;
    std::fs::remove_dir_all(to)?;
    Ok(())
}

/// CPU milliseconds of one clone with its listing. No two requests are equal, so the response cache
/// answers none of them.
async fn clone_cost(
    cluster: &DevCluster,
    url: &str,
    dir: &std::path::Path,
    name: &str,
    times: usize,
) -> anyhow::Result<f64> {
    // The first measurement may include the end of earlier work.
    let idle = cluster.rest().await?.min(cluster.rest().await?);
    let (before, started) = (sum(cluster)?, SystemClock.instant());
    for number in 0..times {
        let curl = crate::requests::Curl::new(url, dir);
        let tip = Program::git()
            .args(["ls-remote", url, BRANCH])
            .output(b"")
            .await
            .map_err(|_| anyhow::anyhow!("ls-remote failed ({name}, {number})"))?;
        let tip = tip.split_whitespace().next().unwrap_or_default().to_owned();
        let request = crate::requests::Request::fetch("clone", &[], &[tip].into());
        curl.send(&request.varied()).await?;
    }
    sleep(Duration::from_millis(50)).await;
    let used = sum(cluster)?.saturating_sub(before).as_secs_f64() * 1_000.0;
    let took = SystemClock.instant().duration_since(started);
    Ok((used - idle * took.as_secs_f64()).max(0.0) / times as f64)
}
