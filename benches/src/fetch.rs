//! `fetch`: clones and fetches of one repository from a node of three, beside git's http-backend
//! with bitmaps.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::try_join_all;
use henge_runtime::{Clock as _, SystemClock};
use henge_types::NodeId;
use tokio::time::sleep;

use crate::bench::Bench;
use crate::commits::Commits;
use crate::henge::DevCluster;
use crate::http_backend::HttpBackend;
use crate::process::Program;
use crate::report::{Section, figure, ratio};
use crate::repository::Repository;
use crate::requests::{Curl, Request};
use crate::usage;

/// Number of commits in a fetch of "the last commits".
const LAST_COMMITS: usize = 50;
/// Concurrent clones.
const CROWD: usize = 50;
/// Pause before CPU time is read: background work of an answer counts too.
const SETTLE: Duration = Duration::from_millis(50);
/// Sampling interval of the memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// One kind of request and its cost.
#[derive(Debug)]
struct Row {
    name: &'static str,
    henge_bytes: u64,
    git_bytes: u64,
    /// CPU milliseconds of the very first request of its kind.
    new_ms: f64,
    /// CPU milliseconds of each request.
    first_ms: f64,
    again_ms: f64,
    git_ms: f64,
}

/// Both servers with the same repository.
#[derive(Debug)]
struct Pair {
    cluster: DevCluster,
    node: NodeId,
    backend: HttpBackend,
    ours: Curl,
    theirs: Curl,
    /// CPU milliseconds that the idle nodes use in a second.
    idle: f64,
}

impl Pair {
    fn henge_cpu(&self) -> anyhow::Result<Duration> {
        Ok(self.cluster.cpu()?.iter().sum())
    }

    /// Sends the requests one after the other; returns the bytes of the last answer and the CPU
    /// milliseconds per request.
    async fn measure_henge(&self, requests: &[Request]) -> anyhow::Result<(u64, f64)> {
        let (before, started) = (self.henge_cpu()?, SystemClock.instant());
        let mut bytes = 0;
        for request in requests {
            bytes = self.ours.send(request).await?;
        }
        sleep(SETTLE).await;
        let used = self.henge_cpu()?.saturating_sub(before);
        let observed = SystemClock.instant().duration_since(started);
        let idle = self.idle * observed.as_secs_f64();
        let each = (used.as_secs_f64() * 1_000.0 - idle).max(0.0) / requests.len() as f64;
        Ok((bytes, each))
    }

    async fn measure_git(&self, requests: &[Request]) -> anyhow::Result<(u64, f64)> {
        let before = self.backend.cpu()?;
        let mut bytes = 0;
        for request in requests {
            bytes = self.theirs.send(request).await?;
        }
        sleep(SETTLE).await;
        let used = self.backend.cpu()?.saturating_sub(before);
        Ok((bytes, used.as_secs_f64() * 1_000.0 / requests.len() as f64))
    }

    async fn measure(&self, request: &Request, first: usize, again: usize) -> anyhow::Result<Row> {
        let (_, new_ms) = self.measure_henge(&[request.varied()]).await?;
        let varied: Vec<_> = (0..first).map(|_| request.varied()).collect();
        let (henge_bytes, first_ms) = self.measure_henge(&varied).await?;
        self.ours.send(request).await?;
        let same = vec![request.clone(); again];
        let (_, again_ms) = self.measure_henge(&same).await?;
        let (git_bytes, git_ms) = self.measure_git(&varied).await?;
        Ok(Row {
            name: request.name,
            henge_bytes,
            git_bytes,
            new_ms,
            first_ms,
            again_ms,
            git_ms,
        })
    }

    /// Peak memory of the node in KiB while `work` runs: total, and the part without a backing
    /// file.
    async fn watch_memory<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(u64, u64)> {
        let pid = self.cluster.pid(self.node)?;
        let mut peak = (0, 0);
        let mut work = Box::pin(work);
        loop {
            let (all, anonymous) = usage::resident_kib(pid)?;
            peak = (peak.0.max(all), peak.1.max(anonymous));
            tokio::select! {
                biased;
                done = work.as_mut() => {
                    done?;
                    return Ok(peak);
                }
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}

async fn prepare(bench: &Bench, dir: &std::path::Path) -> anyhow::Result<(Pair, Repository)> {
    let source = match bench.repository() {
        Some(path) => path.to_owned(),
        None => {
            let path: PathBuf = dir.join("generated.git");
            Commits::make(&path, bench.commits).await?;
            let git = Program::git().arg("-C").arg(&path);
            git.args(["symbolic-ref", "HEAD", "refs/heads/chain"])
                .output(b"")
                .await?;
            path
        }
    };
    bench.progress("fetch: git packs the repository");
    let backend = HttpBackend::start(&dir.join("lighttpd"), bench.port(300)?).await?;
    let theirs = backend.url("fetch");
    let maintained = Repository::at(&source)
        .copy_maintained(&backend.path("fetch"))
        .await?;
    let cluster = bench.cluster(&dir.join("henge")).await?;
    let (info, leader) = cluster.create("fetch").await?;
    let url = cluster.push_url(leader, &info.path())?;
    bench.progress("fetch: the repository is imported");
    cluster.import(maintained.path(), &info.path()).await?;
    let ours = Curl::new(&url, dir);
    let mut pair = Pair {
        cluster,
        node: leader,
        backend,
        ours,
        theirs: Curl::new(&theirs, dir),
        idle: 0.0,
    };
    bench.progress("fetch: waiting until the nodes rest");
    pair.idle = pair.cluster.rest().await?;
    Ok((pair, maintained))
}

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let dir = bench.folder("fetch")?;
    let (pair, repository) = prepare(bench, &dir).await?;
    let tips = repository.tips().await?;
    let head = BTreeSet::from([repository.head().await?]);
    let base = repository.behind_head(LAST_COMMITS).await?;
    let few = bench.pick(2, 5);
    let many = bench.pick(50, 200);
    let cases = [
        (Request::ls_refs("ls-refs, all refs"), many, many),
        (Request::fetch("full clone", &[], &tips), few, few),
        (
            Request::fetch("clone, filter blob:none", &["filter blob:none"], &tips),
            few,
            few,
        ),
        (
            Request::fetch("depth 1", &["deepen 1"], &head),
            few,
            4 * few,
        ),
        (
            Request::fetch("what came since HEAD~50", &[], &head).have(&base),
            4 * few,
            many,
        ),
    ];
    let mut rows = Vec::new();
    for (request, first, again) in &cases {
        bench.progress(&format!("fetch: {}", request.name));
        match pair.measure(request, *first, *again).await {
            Ok(row) => rows.push(row),
            Err(error) => bench.progress(&format!("fetch: {}: {error:#}", request.name)),
        }
    }
    let clone = Request::fetch("full clone", &[], &tips);
    let quiet = usage::resident_kib(pair.cluster.pid(pair.node)?)?;
    let one = pair.watch_memory(pair.ours.send(&clone.varied())).await?;
    bench.progress("fetch: fifty clones at once");
    let (before, started) = (pair.henge_cpu()?, SystemClock.instant());
    let crowd = try_join_all((0..CROWD).map(|_| pair.ours.send(&clone)));
    let fifty = pair.watch_memory(crowd).await?;
    let used = pair.henge_cpu()?.saturating_sub(before);
    let took = SystemClock.instant().duration_since(started);
    let mut section = report(&rows);
    section.note(format!(
        "{}; HEAD~{LAST_COMMITS}..HEAD: {} commits",
        repository.describe().await?,
        repository.commits_since(&base).await?
    ));
    section.note(format!(
        "memory of the serving node, MB: {} ({} that no file backs) before, at most {} ({}) during one clone, {} ({}) during \
         {CROWD} equal clones at once, which took {} s and {} s of CPU",
        quiet.0 / 1000,
        quiet.1 / 1000,
        one.0 / 1000,
        one.1 / 1000,
        fifty.0 / 1000,
        fifty.1 / 1000,
        figure(took.as_secs_f64()),
        figure(used.as_secs_f64()),
    ));
    explain(&mut section, &pair).await?;
    pair.cluster.stop().await?;
    pair.backend.stop().await?;
    Ok(section)
}

fn report(rows: &[Row]) -> Section {
    let mut section = Section::new(
        "Clone and fetch",
        &[
            "request",
            "Henge KB",
            "git KB",
            "Henge CPU ms, the very first",
            "first",
            "again",
            "git CPU ms",
            "ratio first",
            "ratio again",
        ],
    );
    for row in rows {
        section.row(vec![
            row.name.to_owned(),
            (row.henge_bytes / 1000).to_string(),
            (row.git_bytes / 1000).to_string(),
            figure(row.new_ms),
            figure(row.first_ms),
            figure(row.again_ms),
            figure(row.git_ms),
            ratio(row.first_ms, row.git_ms),
            ratio(row.again_ms, row.git_ms),
        ]);
    }
    section
}

async fn explain(section: &mut Section, pair: &Pair) -> anyhow::Result<()> {
    section.note(
        "CPU = processor time of all three nodes less what they use idle, for http-backend of lighttpd and of every \
         process it started in clock ticks of 10 ms, in the mean over several requests sent by curl; first = a request that was not made before, the very first of \
         them apart (a single one): what was compared for it is kept for the others; \
         again = the same request as before; http-backend's repository is one pack with bitmaps, a commit-graph and \
         packed refs, and each of its requests is answered anew",
    );
    section.note(format!(
        "versions: henge {}; {}; {}",
        pair.cluster.version().await?,
        HttpBackend::version().await?,
        Program::git().arg("--version").output(b"").await?.trim(),
    ));
    Ok(())
}
