//! `idle`: the start-up time of a cluster and its load without requests, beside etcd.

use std::time::Duration;

use henge_runtime::{Clock as _, SystemClock};
use tokio::time::sleep;

use crate::bench::{Bench, SHARDS};
use crate::etcd::kv::EtcdClient;
use crate::etcd::{DEFAULT_TIMINGS, EtcdCluster};
use crate::report::{Section, figure, ratio};
use crate::samples::Samples;
use crate::usage;

/// Pause between the start and the idle time.
const SETTLE: Duration = Duration::from_secs(3);

/// The measurements of one cluster.
#[derive(Debug, Default)]
struct Taken {
    startup: Samples,
    /// Of the last start, per process, in percent of one core.
    cpu_percent: Vec<f64>,
    /// Of the last start, per process: resident KiB, total and without a backing file.
    resident: Vec<(u64, u64)>,
}

impl Taken {
    /// Observes the processes for `observed` without requests.
    async fn observe(&mut self, pids: &[u32], observed: Duration) -> anyhow::Result<()> {
        sleep(SETTLE).await;
        let started = SystemClock.instant();
        let before: Vec<Duration> = pids
            .iter()
            .map(|pid| usage::cpu(*pid))
            .collect::<Result<_, _>>()?;
        sleep(observed).await;
        let took = SystemClock.instant().duration_since(started);
        self.cpu_percent.clear();
        self.resident.clear();
        for (pid, before) in pids.iter().zip(before) {
            let used = usage::cpu(*pid)?.saturating_sub(before);
            self.cpu_percent
                .push(used.as_secs_f64() * 100.0 / took.as_secs_f64());
            self.resident.push(usage::resident_kib(*pid)?);
        }
        Ok(())
    }

    fn cpu_all(&self) -> f64 {
        self.cpu_percent.iter().sum()
    }

    fn resident_max_mib(&self) -> f64 {
        let all = self.resident.iter().map(|(all, _)| *all);
        all.max().unwrap_or(0) as f64 / 1_024.0
    }

    fn row(&self, name: &str) -> Vec<String> {
        let list = |values: Vec<String>| values.join(" / ");
        let mib = |kib: u64| figure(kib as f64 / 1_024.0);
        vec![
            name.to_owned(),
            figure(self.startup.percentile_ms(50)),
            list(self.resident.iter().map(|(all, _)| mib(*all)).collect()),
            list(self.resident.iter().map(|(_, own)| mib(*own)).collect()),
            list(self.cpu_percent.iter().map(|cpu| figure(*cpu)).collect()),
            figure(self.cpu_all()),
        ]
    }
}

/// Runs the bench.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let starts = bench.pick(1, 3);
    let observed = Duration::from_secs(bench.pick(5, 20));
    let dir = bench.folder("idle")?;
    let (mut henge, mut etcd) = (Taken::default(), Taken::default());
    let mut versions = (String::new(), String::new());
    for start in 0..starts {
        bench.progress(&format!("idle: start {} of {starts}", start + 1));
        let last = start + 1 == starts;

        let cluster = bench.cluster(&dir.join(format!("henge{start}"))).await?;
        henge.startup.push(cluster.startup);
        if last {
            let pids = cluster.nodes().iter().map(|node| cluster.pid(node.id));
            let pids: Vec<u32> = pids.collect::<Result<_, _>>()?;
            henge.observe(&pids, observed).await?;
            versions.0 = cluster.version().await?;
        }
        cluster.stop().await?;

        let started = SystemClock.instant();
        let etcd_dir = dir.join(format!("etcd{start}"));
        let mut members = EtcdCluster::start(&etcd_dir, bench.port(200)?, DEFAULT_TIMINGS).await?;
        let leader = members.leader().await?;
        let client = EtcdClient::connect(members.url(leader)?).await?;
        client.put(b"idle", b"first").await?;
        etcd.startup
            .push(SystemClock.instant().duration_since(started));
        if last {
            etcd.observe(&members.pids()?, observed).await?;
            versions.1 = members.version().await?;
        }
        members.stop().await?;
    }
    Ok(report(&henge, &etcd, &versions, starts, observed))
}

fn report(
    henge: &Taken,
    etcd: &Taken,
    versions: &(String, String),
    starts: usize,
    observed: Duration,
) -> Section {
    let mut section = Section::new(
        "Start and idle",
        &[
            "cluster",
            "start ms (p50)",
            "RSS MiB per process",
            "of it anonymous",
            "idle CPU, % of a core per process",
            "all",
        ],
    );
    section.row(henge.row(&format!("Henge, 3 nodes, {SHARDS} shards and meta")));
    section.row(etcd.row("etcd, 3 members, 1 group"));
    section.row(vec![
        "Henge / etcd".to_owned(),
        ratio(
            henge.startup.percentile_ms(50),
            etcd.startup.percentile_ms(50),
        ),
        format!(
            "{} (largest)",
            ratio(henge.resident_max_mib(), etcd.resident_max_mib())
        ),
        String::new(),
        String::new(),
        ratio(henge.cpu_all(), etcd.cpu_all()),
    ]);
    section.note(format!(
        "start = from the start of `henge dev` on an empty folder, certificates included, to its `ready` \
         (all nodes serve); for etcd from the start of the first member to the first acknowledged put; \
         {starts} starts"
    ));
    section.note(format!(
        "idle = {} s without a request, from {} s after the last start; no peer that hosts git runs beside it \
         here, and etcd stores no repositories",
        observed.as_secs(),
        SETTLE.as_secs()
    ));
    section.note(format!(
        "versions: henge {}; etcd {}",
        versions.0, versions.1
    ));
    section
}
