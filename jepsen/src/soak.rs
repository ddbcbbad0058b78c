//! A run: a ring, its writers, a schedule, and a ledger line.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::checker::{Checker, Served};
use crate::clock;
use crate::ledger::{Finding, Ledger, Sort};
use crate::plan::{Kind, Plan};
use crate::probe;
use crate::process::Program;
use crate::pushers::{Pusher, Shared};
use crate::ring::{Ending, Ring, Shape};
use crate::step::{self, Runner};

/// Time limit for a ring to be ready for the first time.
const FORM_LIMIT: Duration = Duration::from_secs(180);
/// Time limit for the last check.
const LAST_LIMIT: Duration = Duration::from_secs(120);
/// Number of nodes.
const NODES: u64 = 3;
/// Number of shards: few, so that each is written continuously.
const SHARDS: u32 = 4;
/// Number of repositories.
const REPOS: usize = 4;
/// Number of writers, each with a branch in two repositories.
const WRITERS: u64 = 4;

/// The settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The binary.
    pub henge: PathBuf,
    /// The directory of the run; must be unused.
    pub dir: PathBuf,
    /// The first port.
    pub base_port: u16,
    /// The seed.
    pub seed: u64,
    /// Maximum number of faults.
    pub faults: u32,
    /// Maximum duration, minutes.
    pub minutes: u64,
    /// The kinds of faults; all kinds when empty.
    pub only: Vec<Kind>,
    /// The file for the ledger line.
    pub ledger: Option<PathBuf>,
    /// Whether to keep the directory of the run.
    pub keep: bool,
    /// Plain folders instead of a file system for each node.
    pub rootless: bool,
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

/// Performs a run; returns whether the verdict is clean.
///
/// # Errors
/// When the harness itself fails: the run then has no verdict.
pub fn run(settings: &Settings) -> anyhow::Result<bool> {
    let began = clock::now();
    say(&format!("seed {}", settings.seed))?;
    let mut ledger = Ledger {
        began_ms: clock::unix_ms(),
        binary: binary(&settings.henge),
        seed: settings.seed,
        ..Ledger::default()
    };
    say(&format!("binary {}", ledger.binary))?;
    let shared = Shared::default();
    let outcome = soak(settings, &shared, &mut ledger);
    ledger.count(shared.book().counts());
    ledger.seconds = began.elapsed().as_secs();
    if let Err(error) = &outcome {
        ledger.findings.push(Finding {
            sort: Sort::Stuck,
            step: 0,
            text: format!("the run broke off: {error:#}"),
        });
    }
    if let Some(path) = &settings.ledger {
        ledger.append(path)?;
    }
    summary(&ledger)?;
    outcome?;
    Ok(ledger.objections().is_empty())
}

/// The binary's version, and its checksum.
fn binary(henge: &PathBuf) -> String {
    let version = Program::new(henge).arg("--version").output();
    let version = version.unwrap_or_else(|error| format!("unknown: {error:#}"));
    let sum = Program::new("sha256sum").arg(henge).output();
    let sum = sum.ok().and_then(|sum| sum.get(..12).map(str::to_owned));
    let sum = sum.map_or_else(String::new, |sum| format!(" sha256 {sum}"));
    format!("{}{sum}", version.trim())
}

fn soak(settings: &Settings, shared: &Shared, ledger: &mut Ledger) -> anyhow::Result<()> {
    let plan = Plan::draw(settings.seed, NODES, settings.faults, &settings.only);
    let mut ring = ring(settings)?;
    for id in ring.ids() {
        ring.start(id)?;
    }
    let ids = ring.ids();
    ensure!(ring.wait_ready(&ids, FORM_LIMIT), "the ring is not ready");
    let repos: Vec<String> = (1..=REPOS).map(|n| format!("admin/r{n}")).collect();
    create(&ring, &repos)?;
    let mut pushers = Vec::new();
    for number in 0..WRITERS {
        let first = usize::try_from(number)?;
        let theirs = [first, first + 1].map(|at| repos.get(at % REPOS).cloned());
        let theirs: Vec<String> = theirs.into_iter().flatten().collect();
        let (seed, nodes) = (settings.seed, ring.addresses());
        let pusher = Pusher::new(&ring.dir, number + 1, seed, nodes, &theirs, shared)?;
        pushers.push(pusher);
    }
    let token = ring.token.clone();
    thread::scope(|scope| {
        for pusher in &mut pushers {
            let token = &token;
            scope.spawn(move || pusher.run(shared, token));
        }
        let outcome = steps(settings, &plan, &mut ring, shared, &repos, ledger);
        shared.stop();
        outcome
    })?;
    if !ledger.findings.iter().any(|f| f.sort.ends_the_run()) {
        last_check(&mut ring, shared, &repos, ledger)?;
    }
    let dir = ring.dir.clone();
    drop(ring);
    if !settings.keep && ledger.objections().is_empty() {
        std::fs::remove_dir_all(&dir).context("cannot remove the run's folder")?;
    }
    Ok(())
}

fn ring(settings: &Settings) -> anyhow::Result<Ring> {
    let shape = Shape {
        henge: settings.henge.clone(),
        dir: settings.dir.clone(),
        base_port: settings.base_port,
        nodes: NODES,
        shards: SHARDS,
        disks: false,
    };
    if settings.rootless {
        return Ring::make(&shape);
    }
    let probe = settings.dir.with_extension("disk-probe");
    std::fs::create_dir_all(&probe).context("cannot make the run's folder")?;
    let possible = crate::disk::Disk::make(probe.join("image"), probe.join("mount")).map(drop);
    std::fs::remove_dir_all(&probe).context("cannot clean up")?;
    let disks = match possible {
        Ok(()) => true,
        Err(error) => {
            say(&format!(
                "NOT CHECKED: no file system for each node ({error:#}): full disks, power cuts and old images"
            ))?;
            false
        }
    };
    Ring::make(&Shape { disks, ..shape })
}

fn create(ring: &Ring, repos: &[String]) -> anyhow::Result<()> {
    let urls: Vec<String> = ring
        .addresses()
        .iter()
        .map(|(_, http)| format!("http://{http}"))
        .collect();
    for repo in repos {
        let verb = ["repo", "create", repo, "--token", &ring.token, "--url"];
        ring.henge().args(verb).arg(urls.join(",")).output()?;
    }
    Ok(())
}

fn steps(
    settings: &Settings,
    plan: &Plan,
    ring: &mut Ring,
    shared: &Shared,
    repos: &[String],
    ledger: &mut Ledger,
) -> anyhow::Result<()> {
    let end = clock::now() + Duration::from_secs(settings.minutes * 60);
    let mut runner = Runner {
        ring,
        shared,
        repos,
    };
    for step in &plan.steps {
        if clock::now() >= end || settings.dir.join("stop").is_file() {
            break;
        }
        let name = step.kind.name();
        let report = runner
            .run(step)
            .with_context(|| format!("step {} ({name} on node {})", step.number, step.node))?;
        let tally = ledger.faults.entry(name).or_default();
        tally.scheduled += 1;
        tally.bit += u32::from(report.bit);
        tally.not_checked += u32::from(!report.bit);
        say(&report.line)?;
        for finding in &report.findings {
            say(&format!("     FOUND {finding}"))?;
        }
        let over = report.broken || report.findings.iter().any(|f| f.sort.ends_the_run());
        ledger.findings.extend(report.findings);
        if over {
            say("     the run ends here: nothing that follows could be believed")?;
            break;
        }
        clock::pause(step::rest(step));
    }
    Ok(())
}

/// The last check, without pushes: every node stops, starts, and serves all data.
fn last_check(
    ring: &mut Ring,
    shared: &Shared,
    repos: &[String],
    ledger: &mut Ledger,
) -> anyhow::Result<()> {
    let ids = ring.ids();
    for id in &ids {
        ring.end(*id, Ending::Stop)?;
        ring.start(*id)?;
    }
    ring.wait_ready(&ids, LAST_LIMIT);
    let checker = Checker {
        ring,
        shared,
        repos,
    };
    let left = checker.everything(&ids, LAST_LIMIT);
    let mut found = |sort: Sort, text: String| {
        ledger.findings.push(Finding {
            sort,
            step: 0,
            text: format!("at the end: {text}"),
        });
    };
    for served in left.into_values().flatten() {
        match served {
            Served::Wrong(texts) => texts.into_iter().for_each(|text| found(Sort::Lost, text)),
            Served::Refused(text) => found(Sort::Unserved, text),
            Served::Right => {}
        }
    }
    let status = clock::wait_for(LAST_LIMIT, || {
        let status = probe::status(ring, &ids).ok()?;
        status.is_ok().then_some(())
    });
    if status.is_none() {
        found(Sort::Stuck, format!("{}", probe::status(ring, &ids)?));
    }
    Ok(())
}

fn summary(ledger: &Ledger) -> anyhow::Result<()> {
    say("")?;
    for (kind, tally) in &ledger.faults {
        let (bit, scheduled) = (tally.bit, tally.scheduled);
        let missed = match tally.not_checked {
            0 => String::new(),
            missed => format!(", NOT CHECKED {missed}"),
        };
        say(&format!("{kind:<14} {bit} of {scheduled} bit{missed}"))?;
    }
    say(&format!(
        "{} faults in {} s; pushes: {} acknowledged, {} refused, {} unknown",
        ledger.bit(),
        ledger.seconds,
        ledger.acknowledged,
        ledger.refused,
        ledger.unknown
    ))?;
    let objections = ledger.objections();
    for objection in &objections {
        say(&format!("NOT CLEAN: {objection}"))?;
    }
    let verdict = if objections.is_empty() {
        "clean"
    } else {
        "not clean"
    };
    say(&format!(
        "verdict {verdict}; replay with: henge-jepsen replay {}",
        ledger.seed
    ))
}
