//! `refs`: listings of many refs and a push of a thousand, beside git's http-backend.

use std::time::Duration;

use anyhow::ensure;
use henge_client::Deadlines;
use henge_runtime::{Clock as _, SystemClock};
use henge_types::{NodeId, RepoPath};
use tokio::time::sleep;

use crate::bench::Bench;
use crate::commits::Commits;
use crate::henge::{DevCluster, change};
use crate::http_backend::HttpBackend;
use crate::process::Program;
use crate::report::{Section, figure, ratio};
use crate::requests::{Curl, Push, Request};
use crate::usage;

/// Number of refs in the two listings.
const FEW: usize = 1_000;
const MANY: usize = 100_000;
/// Tags created by one API request.
const BATCH: usize = 5_000;
/// Refs in the measured push.
const PUSHED: usize = 1_000;
/// Duration of the idle measurement, and of the pause before it.
const REST: Duration = Duration::from_secs(5);
/// Pause before CPU time is read: replicas apply after the answer.
const SETTLE: Duration = Duration::from_millis(100);

/// One repository on both servers.
struct Pair<'a> {
    cluster: &'a DevCluster,
    backend: &'a HttpBackend,
    name: &'static str,
    path: RepoPath,
    leader: NodeId,
    ours: String,
    theirs: String,
    /// CPU seconds per second that the idle nodes use: all of them, and the leader.
    idle: [f64; 2],
}

struct Cost {
    all: f64,
    leader: f64,
    git: f64,
}

impl Cost {
    fn less(&self, other: &Self) -> Self {
        Self {
            all: (self.all - other.all).max(0.0),
            leader: (self.leader - other.leader).max(0.0),
            git: (self.git - other.git).max(0.0),
        }
    }
}

impl<'a> Pair<'a> {
    async fn new(
        cluster: &'a DevCluster,
        backend: &'a HttpBackend,
        name: &'static str,
    ) -> anyhow::Result<Self> {
        let (info, leader) = cluster.create(name).await?;
        Ok(Self {
            cluster,
            backend,
            name,
            path: info.path(),
            leader,
            ours: cluster.push_url(leader, &info.path())?,
            theirs: backend.create(name).await?,
            idle: [0.0; 2],
        })
    }

    /// Measures the idle load of the nodes.
    async fn rest(&mut self) -> anyhow::Result<()> {
        sleep(REST).await;
        let before = self.cpu()?;
        sleep(REST).await;
        let after = self.cpu()?;
        let each = |of: usize| after[of].saturating_sub(before[of]).as_secs_f64();
        self.idle = [each(0), each(1)].map(|used| used / REST.as_secs_f64());
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<[Duration; 3]> {
        Ok([
            self.cluster.cpu()?.iter().sum(),
            usage::cpu(self.cluster.pid(self.leader)?)?,
            self.backend.cpu()?,
        ])
    }

    /// CPU milliseconds of `work`, per item of `count`.
    async fn measure(
        &self,
        count: usize,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Cost> {
        let (before, started) = (self.cpu()?, SystemClock.instant());
        work.await?;
        sleep(SETTLE).await;
        let after = self.cpu()?;
        let took = SystemClock.instant().duration_since(started);
        let each = |of: usize, idle: f64| {
            let used = after[of].saturating_sub(before[of]).as_secs_f64();
            (used - idle * took.as_secs_f64()).max(0.0) * 1_000.0 / count as f64
        };
        Ok(Cost {
            all: each(0, self.idle[0]),
            leader: each(1, self.idle[1]),
            git: each(2, 0.0),
        })
    }
}

/// Sends each listing request over a connection of its own; returns the bytes of the last answer.
async fn list(url: &str, bench: &Bench, requests: &[Request]) -> anyhow::Result<u64> {
    let curl = Curl::new(url, bench.dir());
    let mut bytes = 0;
    for request in requests {
        bytes = curl.send(request).await?;
    }
    Ok(bytes)
}

/// Creates `count` tags in both repositories: through the API, and with git itself.
async fn fill(pair: &Pair<'_>, commits: &Commits, count: usize) -> anyhow::Result<()> {
    for url in [&pair.ours, &pair.theirs] {
        commits.push(url, 0, "refs/heads/base").await?;
        commits.push(url, 1, "refs/heads/main").await?;
    }
    let id = commits.id(1)?;
    let client = pair.cluster.client(pair.leader, Deadlines::default())?;
    for from in (0..count).step_by(BATCH) {
        let numbers = from..count.min(from + BATCH);
        let changes: Vec<_> = numbers
            .map(|number| change(&format!("refs/tags/v{number}"), Some("any"), id))
            .collect();
        let results = client.update_refs(&pair.path, &changes, true).await?;
        ensure!(results.iter().all(|result| result.ok), "a tag was refused");
    }
    let lines: Vec<_> = (0..count)
        .map(|number| format!("create refs/tags/v{number} {id}\n"))
        .collect();
    let git = Program::git().arg("-C").arg(pair.backend.path(pair.name));
    // Not part of the measurement: a hundred thousand syncs would only take time.
    git.args(["-c", "core.fsync=none", "update-ref", "--stdin"])
        .output(lines.concat().as_bytes())
        .await?;
    Ok(())
}

/// Moves a branch back and forth `times` times; sends `listing` after each move if given.
async fn move_a_ref(
    pair: &Pair<'_>,
    commits: &Commits,
    times: usize,
    listing: Option<(&Curl, &Request)>,
) -> anyhow::Result<()> {
    let client = pair.cluster.client(pair.leader, Deadlines::default())?;
    for time in 0..times {
        let to = change("refs/heads/moves", Some("any"), commits.id(time % 2)?);
        let results = client.update_refs(&pair.path, &[to], true).await?;
        ensure!(results.iter().all(|result| result.ok), "a move was refused");
        if let Some((curl, request)) = listing {
            curl.send(request).await?;
        }
    }
    Ok(())
}

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let dir = bench.folder("refs")?;
    let commits = Commits::make(&dir.join("commits.git"), 4).await?;
    let backend = HttpBackend::start(&dir.join("lighttpd"), bench.port(300)?).await?;
    let cluster = bench.cluster(&dir.join("henge")).await?;
    let mut section = Section::new(
        "Many refs",
        &[
            "what",
            "Henge CPU ms, all nodes",
            "leader's",
            "git CPU ms",
            "ratio (all nodes)",
        ],
    );
    for (name, count, times) in [
        ("refs-few", FEW, bench.pick(50, 400)),
        ("refs-many", MANY, bench.pick(5, 40)),
    ] {
        bench.progress(&format!("refs: filling {count}"));
        let mut pair = Pair::new(&cluster, &backend, name).await?;
        fill(&pair, &commits, count).await?;
        backend.maintain(name).await?;
        pair.rest().await?;
        for row in rows(bench, &pair, &commits, count, times).await? {
            section.row(row);
        }
    }
    section.note(
        "CPU = processor time over several requests, of git in clock ticks of 10 ms, less what the nodes use idle; after a \
         ref moved = a listing by the node that leads, each after a move of a branch, whose own cost is taken off; git = lighttpd with http-backend, its refs packed before the listings; \
         client: curl, over one connection, or over a new one each where it says so, and for git always; each push makes \
         1,000 branches at a commit that the server has",
    );
    section.note(format!(
        "versions: henge {}; {}; {}",
        cluster.version().await?,
        HttpBackend::version().await?,
        Program::git().arg("--version").output(b"").await?.trim(),
    ));
    cluster.stop().await?;
    backend.stop().await?;
    Ok(section)
}

/// The figures of a repository with `count` tags.
async fn rows(
    bench: &Bench,
    pair: &Pair<'_>,
    commits: &Commits,
    count: usize,
    times: usize,
) -> anyhow::Result<[Vec<String>; 4]> {
    let all = vec![Request::ls_refs("all refs"); times];
    let curl = Curl::new(&pair.ours, bench.dir());
    let connecting = pair.measure(times, async {
        list(&pair.ours, bench, &all).await.map(drop)
    });
    let connecting = connecting.await?;
    let again = pair.measure(times, async { curl.send_all(&all).await.map(drop) });
    let again = again.await?;
    let theirs = pair.measure(times, async {
        list(&pair.theirs, bench, &all).await.map(drop)
    });
    let git = theirs.await?.git;
    let moving = pair.measure(times, move_a_ref(pair, commits, times, None));
    let moving = moving.await?;
    let listing = Some((&curl, &all[0]));
    let both = pair.measure(times, move_a_ref(pair, commits, times, listing));
    let moved = both.await?.less(&moving);
    let pushed = push(bench, pair, commits, bench.pick(8, 20)).await?;
    let seen = list(&pair.ours, bench, &all[..1]).await?;
    ensure!(
        seen > 40 * count as u64,
        "refs are missing: {seen} bytes were listed"
    );
    let what = |how: &str| format!("ls-refs, {count} refs, {how}");
    Ok([
        row(&what("again, a connection each"), &connecting, git),
        row(&what("again"), &again, git),
        row(&what("after a ref moved"), &moved, git),
        row(
            &format!("atomic push of {PUSHED} refs to {count}"),
            &pushed,
            pushed.git,
        ),
    ])
}

/// Pushes the same new branches to both servers.
async fn push(
    bench: &Bench,
    pair: &Pair<'_>,
    commits: &Commits,
    rounds: usize,
) -> anyhow::Result<Cost> {
    let id = commits.id(1)?;
    let pushes: Vec<_> = (0..rounds)
        .map(|round| {
            let names = (0..PUSHED).map(|number| format!("refs/heads/{round}/{number}"));
            Push::new_refs(id, names)
        })
        .collect();
    let ours = Curl::new(&pair.ours, bench.dir());
    let theirs = Curl::new(&pair.theirs, bench.dir());
    let ours = pair.measure(rounds, ours.push_all(&pushes)).await?;
    let git = pair.measure(rounds, theirs.push_all(&pushes)).await?.git;
    Ok(Cost { git, ..ours })
}

fn row(what: &str, ours: &Cost, git: f64) -> Vec<String> {
    vec![
        what.to_owned(),
        figure(ours.all),
        figure(ours.leader),
        figure(git),
        ratio(ours.all, git),
    ]
}
