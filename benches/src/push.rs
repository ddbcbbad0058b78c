//! `push`: a push of one commit, replicated by three nodes, beside git's http-backend on one.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use henge_runtime::{Clock as _, SystemClock, random_bytes};
use henge_types::{NodeId, RepoPath};
use tokio::time::sleep;

use crate::bench::Bench;
use crate::commits::Commits;
use crate::henge::DevCluster;
use crate::http_backend::HttpBackend;
use crate::process::Program;
use crate::report::{Section, figure, ratio};
use crate::repository::Repository;
use crate::samples::Samples;

/// Commits and tags of the repositories before the measurement.
const SEED_COMMITS: usize = 100;
const SEED_TAGS: usize = 100;
const BRANCH: &str = "refs/heads/main";
/// Pause after each push before the CPU time is read: replicas apply after the answer.
const SETTLE: Duration = Duration::from_millis(20);

/// The repository of a series of pushes to Henge, with their measurements.
#[derive(Debug)]
struct Way {
    path: RepoPath,
    url: String,
    leader: NodeId,
    /// The leader's index among the nodes.
    place: usize,
    wall: Samples,
    cpu_all: Duration,
    cpu_leader: Duration,
    /// Duration of the CPU measurement, for the subtraction of the idle load.
    observed: Duration,
}

impl Way {
    async fn new(
        cluster: &DevCluster,
        name: &'static str,
        through: Through,
    ) -> anyhow::Result<Self> {
        let (info, leader) = cluster.create(name).await?;
        let mut nodes = cluster.nodes().iter().map(|node| node.id);
        let place = nodes.clone().position(|node| node == leader);
        let node = match through {
            Through::Leader => leader,
            Through::Another => nodes
                .find(|node| *node != leader)
                .context("there is one node only")?,
        };
        let path = info.path();
        Ok(Self {
            url: cluster.push_url(node, &path)?,
            path,
            leader,
            place: place.context("the leader is not one of the nodes")?,
            wall: Samples::default(),
            cpu_all: Duration::ZERO,
            cpu_leader: Duration::ZERO,
            observed: Duration::ZERO,
        })
    }

    async fn push(
        &mut self,
        cluster: &DevCluster,
        commits: &Commits,
        index: usize,
    ) -> anyhow::Result<()> {
        let started = SystemClock.instant();
        let before = cluster.cpu()?;
        let wall = commits.push(&self.url, index, BRANCH).await?;
        sleep(SETTLE).await;
        let after = cluster.cpu()?;
        self.observed += SystemClock.instant().duration_since(started);
        self.wall.push(wall);
        for (place, (after, before)) in after.iter().zip(&before).enumerate() {
            let used = after.saturating_sub(*before);
            self.cpu_all += used;
            if place == self.place {
                self.cpu_leader += used;
            }
        }
        Ok(())
    }

    fn row(&self, through: &str, peer: &Peer, idle: &Idle) -> Vec<String> {
        let seconds = self.observed.as_secs_f64() / self.wall.len() as f64;
        let all = per_push_ms(self.cpu_all, &self.wall);
        let leader = per_push_ms(self.cpu_leader, &self.wall);
        let idle_leader = idle.per_node.get(self.place).copied().unwrap_or(0.0);
        let wall = |percent| self.wall.percentile_ms(percent);
        vec![
            format!("Henge, three nodes, {through}"),
            figure(wall(50)),
            figure(wall(99)),
            self.wall.range_ms(),
            ratio(wall(50), peer.wall.percentile_ms(50)),
            ratio(wall(99), peer.wall.percentile_ms(99)),
            figure(all),
            figure(all - idle.all() * seconds),
            figure(leader),
            figure(leader - idle_leader * seconds),
        ]
    }
}

/// The node that receives a push.
#[derive(Debug, Clone, Copy)]
enum Through {
    Leader,
    Another,
}

/// The measurements of http-backend.
#[derive(Debug)]
struct Peer {
    url: String,
    wall: Samples,
    cpu: Duration,
}

impl Peer {
    async fn push(
        &mut self,
        backend: &HttpBackend,
        commits: &Commits,
        index: usize,
    ) -> anyhow::Result<()> {
        let before = backend.cpu()?;
        let wall = commits.push(&self.url, index, BRANCH).await?;
        sleep(SETTLE).await;
        self.cpu += backend.cpu()?.saturating_sub(before);
        self.wall.push(wall);
        Ok(())
    }
}

/// The receiver of a push.
#[derive(Debug, Clone, Copy)]
enum Who {
    Leader,
    Another,
    Peer,
}

const ORDERS: [[Who; 3]; 6] = [
    [Who::Leader, Who::Peer, Who::Another],
    [Who::Another, Who::Peer, Who::Leader],
    [Who::Peer, Who::Leader, Who::Another],
    [Who::Another, Who::Leader, Who::Peer],
    [Who::Peer, Who::Another, Who::Leader],
    [Who::Leader, Who::Another, Who::Peer],
];

/// The branch's value in a client's listing.
async fn remote_id(url: &str) -> anyhow::Result<String> {
    let listed = Program::git()
        .args(["ls-remote", url, BRANCH])
        .output(b"")
        .await;
    // git's messages contain the URL, and the URL a token.
    let listed = listed.map_err(|_| anyhow::anyhow!("ls-remote failed after the pushes"))?;
    let id = listed.split_whitespace().next();
    Ok(id.unwrap_or("no such branch").to_owned())
}

/// Copies a repository to all servers. Returns the peer's URL and a description of the contents.
async fn place(
    given: &Repository,
    backend: &HttpBackend,
    cluster: &DevCluster,
    ours: [&RepoPath; 2],
) -> anyhow::Result<(String, String)> {
    let copy = given.copy_maintained(&backend.path("push")).await?;
    for path in ours {
        cluster.import(copy.path(), path).await?;
    }
    Ok((backend.url("push"), copy.describe().await?))
}

/// All participants.
#[derive(Debug)]
struct Race {
    commits: Commits,
    backend: HttpBackend,
    cluster: DevCluster,
    /// The commit that all repositories have before the measurement.
    seed: usize,
    /// Description of the other contents.
    holding: String,
    leader: Way,
    another: Way,
    peer: Peer,
}

impl Race {
    /// Starts the servers and gives each repository the same first commits and tags.
    async fn prepare(bench: &Bench, pushes: usize) -> anyhow::Result<Self> {
        let dir = bench.folder("push")?;
        let given = bench.repository().map(Repository::at);
        let path = dir.join("commits.git");
        let (commits, seed) = match &given {
            None => (
                Commits::make(&path, SEED_COMMITS + pushes).await?,
                SEED_COMMITS - 1,
            ),
            Some(given) => (Commits::on(&path, given, 1 + pushes).await?, 0),
        };
        let backend = HttpBackend::start(&dir.join("lighttpd"), bench.port(300)?).await?;
        let cluster = bench.cluster(&dir.join("henge")).await?;
        let leader = Way::new(&cluster, "push-leader", Through::Leader).await?;
        let another = Way::new(&cluster, "push-another", Through::Another).await?;
        bench.progress("push: the repositories are filled");
        let (url, holding) = match &given {
            None => (
                backend.create("push").await?,
                format!("{SEED_COMMITS} commits and {SEED_TAGS} tags"),
            ),
            Some(given) => place(given, &backend, &cluster, [&leader.path, &another.path]).await?,
        };
        let peer = Peer {
            url,
            wall: Samples::default(),
            cpu: Duration::ZERO,
        };
        for url in [&leader.url, &another.url, &peer.url] {
            commits.push(url, seed, BRANCH).await?;
            if given.is_none() {
                commits.push_tags(url, seed, SEED_TAGS).await?;
            }
        }
        backend.maintain("push").await?;
        bench.progress("push: waiting until the nodes rest");
        cluster.rest().await?;
        Ok(Self {
            commits,
            backend,
            cluster,
            seed,
            holding,
            leader,
            another,
            peer,
        })
    }

    /// Pushes commit `index` to each server, in every order equally often and after a random pause.
    /// With a fixed order and fixed pauses, a server with a periodic task would always be measured
    /// at the same point of its period.
    async fn round(&mut self, round: usize, index: usize) -> anyhow::Result<()> {
        let (cluster, commits) = (&self.cluster, &self.commits);
        for who in ORDERS[round % ORDERS.len()] {
            let [pause_ms, ..] = random_bytes();
            sleep(Duration::from_millis(u64::from(pause_ms))).await;
            match who {
                Who::Leader => self.leader.push(cluster, commits, index).await?,
                Who::Another => self.another.push(cluster, commits, index).await?,
                Who::Peer => self.peer.push(&self.backend, commits, index).await?,
            }
        }
        Ok(())
    }

    /// Fails unless every server, and every node of Henge's, has the last commit: acknowledged
    /// pushes that are lost would give a good figure.
    async fn check(&self, index: usize) -> anyhow::Result<()> {
        let expected = self.commits.id(index)?;
        for way in [&self.leader, &self.another] {
            for node in self.cluster.nodes() {
                let url = self.cluster.push_url(node.id, &way.path)?;
                let found = remote_id(&url).await?;
                ensure!(
                    found == expected,
                    "{}: node {} has {found}",
                    way.path,
                    node.id
                );
            }
        }
        let found = remote_id(&self.peer.url).await?;
        ensure!(found == expected, "http-backend has {found}");
        Ok(())
    }

    async fn report(&self, idle: &Idle, pushes: usize) -> anyhow::Result<Section> {
        let rows = [
            self.leader.row("through the leader", &self.peer, idle),
            self.another.row("through another node", &self.peer, idle),
        ];
        let mut section = report(rows, &self.peer);
        explain(&mut section, pushes, &self.holding);
        for way in [&self.leader, &self.another] {
            if self.cluster.leader_of(&way.path).await? != way.leader {
                section.note(format!(
                    "the leader of {} moved during the run: the leader's CPU time above is not one node's",
                    way.path
                ));
            }
        }
        section.note(format!(
            "versions: henge {}; {}; {}",
            self.cluster.version().await?,
            HttpBackend::version().await?,
            Program::git().arg("--version").output(b"").await?.trim(),
        ));
        Ok(section)
    }
}

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let pushes = bench.pick(18, 102);
    let mut race = Race::prepare(bench, pushes).await?;
    let observed = Duration::from_secs(bench.pick(2, 5));
    let before = race.cluster.cpu()?;
    sleep(observed).await;
    let idle = Idle::between(&before, &race.cluster.cpu()?, observed);
    for round in 0..pushes {
        bench.progress(&format!("push: {} of {pushes}", round + 1));
        race.round(round, race.seed + 1 + round).await?;
    }
    race.check(race.seed + pushes).await?;
    let section = race.report(&idle, pushes).await?;
    race.cluster.stop().await?;
    race.backend.stop().await?;
    Ok(section)
}

/// The idle load of the nodes, in milliseconds of CPU per second.
#[derive(Debug)]
struct Idle {
    per_node: Vec<f64>,
}

impl Idle {
    fn between(before: &[Duration], after: &[Duration], observed: Duration) -> Self {
        let used = after.iter().zip(before);
        let used = used.map(|(after, before)| after.saturating_sub(*before));
        let per_node = used.map(|used| used.as_secs_f64() * 1_000.0 / observed.as_secs_f64());
        Self {
            per_node: per_node.collect(),
        }
    }

    fn all(&self) -> f64 {
        self.per_node.iter().sum()
    }
}

fn report(ways: [Vec<String>; 2], peer: &Peer) -> Section {
    let mut section = Section::new(
        "Push of one commit",
        &[
            "server",
            "wall p50 ms",
            "wall p99 ms",
            "wall min - max ms",
            "ratio p50",
            "ratio p99",
            "CPU ms per push",
            "without idle",
            "leader's CPU ms",
            "without idle",
        ],
    );
    for row in ways {
        section.row(row);
    }
    let cpu = figure(per_push_ms(peer.cpu, &peer.wall));
    section.row(vec![
        "git http-backend, one node, not replicated".to_owned(),
        figure(peer.wall.percentile_ms(50)),
        figure(peer.wall.percentile_ms(99)),
        peer.wall.range_ms(),
        "1".to_owned(),
        "1".to_owned(),
        cpu.clone(),
        cpu,
        String::new(),
        String::new(),
    ]);
    section
}

fn explain(section: &mut Section, pushes: usize, holding: &str) {
    section.note(format!(
        "{pushes} pushes of one commit each (4 objects) per row, in alternation (every order equally often, \
         pauses of 0 to 255 ms by chance), with stock git over HTTP \
         with basic authentication on all sides; the repositories held before: {holding}; http-backend's \
         was repacked and its refs packed, Henge's nodes had come to rest; at the end every node had the last commit"
    ));
    section.note(
        "wall = from the start of `git push` to its end, the client's own time included; ratio = Henge / \
         http-backend, below 1 is better than the peer",
    );
    section.note(format!(
        "CPU = processor time of all three nodes, for http-backend of lighttpd and of every process it \
         started, over the push and {} ms after it, for http-backend in clock ticks of 10 ms, so that only the mean \
         says something; `without idle` takes off what the nodes used before the first push",
        SETTLE.as_millis()
    ));
}

fn per_push_ms(cpu: Duration, wall: &Samples) -> f64 {
    cpu.as_secs_f64() * 1_000.0 / wall.len() as f64
}
