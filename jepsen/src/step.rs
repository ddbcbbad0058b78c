//! One step: a fault is injected, has its effect, is observed and removed, and the ring must
//! recover.

mod whole;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::Rng as _;

use crate::checker::{Checker, Served};
use crate::clock;
use crate::exits::{self, Exit};
use crate::faults::{self, Bite, Ends, Fault, Field, Injected, Shows};
use crate::ledger::{Finding, Sort};
use crate::plan::{Company, Kind, Step};
use crate::probe;
use crate::pushers::{Progress, Shared};
use crate::ring::{Ending, Ring};
use crate::watch::{Sample, Watch};

/// Interval between two reads of the status.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time limit for the status to report a problem.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);
/// Time limit for a ring to recover by itself, on a shared machine.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// Time limit for every node to serve every repository once the status is ok.
const SERVE_LIMIT: Duration = Duration::from_secs(45);
/// Maximum number of starts of one node in one step.
const STARTS_MAX: u32 = 4;

/// The result of a step.
#[derive(Debug, Default)]
pub struct Report {
    /// Whether the fault had an effect.
    pub bit: bool,
    /// The findings.
    pub findings: Vec<Finding>,
    /// The step in one line.
    pub line: String,
    /// Whether the ring is unusable: it did not recover even after a restart, or a node accepted an
    /// old directory.
    pub broken: bool,
}

/// Runs steps on a ring.
#[derive(Debug)]
pub struct Runner<'a> {
    /// The ring of nodes.
    pub ring: &'a mut Ring,
    /// The writers.
    pub shared: &'a Shared,
    /// The repositories.
    pub repos: &'a [String],
}

/// A step in progress.
struct Scene {
    step: Step,
    bite: Option<Bite>,
    began: Instant,
    /// The length of each node's log at the start of the step, or at the last judgement.
    marks: BTreeMap<u64, u64>,
    down_since: BTreeMap<u64, Instant>,
    starts: BTreeMap<u64, u32>,
    watch: Watch,
    notes: Vec<String>,
    findings: Vec<Finding>,
}

impl Scene {
    fn found(&mut self, sort: Sort, text: String) {
        let step = self.step.number;
        // A restarted node logs the same message again, with another time in front.
        let words = |text: &str| text.split(": ").take(2).map(str::len).sum::<usize>();
        let same = |f: &Finding| f.sort == sort && words(&f.text) == words(&text);
        if matches!(sort, Sort::Words | Sort::Panic) && self.findings.iter().any(same) {
            return;
        }
        self.findings.push(Finding { sort, step, text });
    }

    fn ends(&self, node: u64) -> Option<Ends> {
        let bite = self.bite.as_ref()?;
        bite.affected.contains(&node).then_some(bite.ends)
    }
}

impl Runner<'_> {
    /// Runs one step.
    ///
    /// # Errors
    /// When the harness itself fails.
    pub fn run(&mut self, step: &Step) -> anyhow::Result<Report> {
        let mut fault = faults::make(step);
        let marks = self.ring.ids().into_iter();
        let mut scene = Scene {
            step: *step,
            bite: None,
            began: clock::now(),
            marks: marks.map(|id| (id, self.ring.log_position(id))).collect(),
            down_since: BTreeMap::new(),
            starts: BTreeMap::new(),
            watch: Watch::default(),
            notes: Vec::new(),
            findings: Vec::new(),
        };
        let marks = scene.marks.clone();
        let mut field = Field {
            ring: &mut *self.ring,
            shared: self.shared,
            rng: step.rng(),
            node: step.node,
        };
        let injected = fault.inject(&mut field)?;
        let rng = field.rng.clone();
        let mut report = Report::default();
        let what = match injected {
            Injected::Bit(bite) => {
                report.bit = true;
                let what = bite.proof.clone();
                scene.began = clock::now();
                scene.bite = Some(bite);
                let before = self.shared.progress();
                self.hold(&mut scene, &before)?;
                what
            }
            Injected::NotPossible(why) => format!("NOT CHECKED: {why}"),
        };
        let mut field = Field {
            ring: &mut *self.ring,
            shared: self.shared,
            rng,
            node: step.node,
        };
        fault.heal(&mut field)?;
        let rng = field.rng.clone();
        report.broken = !self.settle(&mut scene, fault.as_mut(), &rng)?;
        self.read_logs(&mut scene, &marks);
        for text in self.shared.take_wrong() {
            scene.found(Sort::Lost, text);
        }
        report.line = line(&scene, &what);
        // A node that accepted an old directory acknowledged entries in another log than the one
        // that is restored.
        let accepted = scene.findings.iter().any(|f| f.sort == Sort::Accepted);
        report.broken |= accepted && matches!(step.kind, Kind::OldCopy | Kind::OldImage);
        report.findings = scene.findings;
        Ok(report)
    }

    /// Observes the cluster during the fault.
    fn hold(&mut self, scene: &mut Scene, before: &Progress) -> anyhow::Result<()> {
        let Some(bite) = scene.bite.clone() else {
            return Ok(());
        };
        for text in &bite.complaints {
            scene.found(Sort::Noise, text.clone());
        }
        let company = self.begin_company(scene)?;
        let mut looked = false;
        loop {
            self.look(scene)?;
            let lasted = scene.began.elapsed();
            if !looked && lasted * 2 >= bite.hold {
                looked = true;
                self.look_at_content(scene);
            }
            let unseen = bite.shows == Shows::Problem && scene.watch.first_problem().is_none();
            let runs_on = matches!(bite.ends, Ends::Must(_))
                && bite.affected.iter().any(|node| self.ring.runs(*node));
            let done = lasted >= bite.hold || (matches!(bite.ends, Ends::Must(_)) && !runs_on);
            if done && (!unseen || lasted >= bite.hold + NOTICE_LIMIT) {
                break;
            }
            clock::pause(LOOK_EVERY);
        }
        if bite.shows == Shows::Problem && scene.watch.was_ok() {
            let text = format!("status ok all the while: {}", bite.proof);
            scene.found(Sort::Status, text);
        }
        if matches!(bite.ends, Ends::Must(_)) {
            for node in bite.affected.iter().filter(|node| self.ring.runs(**node)) {
                let ready = match self.ring.is_ready(*node) {
                    true => "runs and says that it is ready",
                    false => "runs on, not ready",
                };
                let text = format!("node {node} {ready}: {}", bite.proof);
                scene.findings.push(Finding {
                    sort: Sort::Accepted,
                    step: scene.step.number,
                    text,
                });
            }
        }
        if company.is_none() && bite.affected.len() == 1 {
            self.pushed_meanwhile(scene, &bite, before);
        }
        if let Some(other) = company
            && !self.ring.runs(other)
        {
            self.ring.start(other)?;
        }
        Ok(())
    }

    /// Ends another node where the schedule requires it; returns that node.
    fn begin_company(&mut self, scene: &mut Scene) -> anyhow::Result<Option<u64>> {
        let affected = scene.bite.as_ref().map(|bite| bite.affected.clone());
        let affected = affected.unwrap_or_default();
        let others = self.ring.ids().into_iter();
        let mut others = others.filter(|id| !affected.contains(id));
        let (Some(other), ending) = (
            others.next(),
            match scene.step.company {
                Company::Alone => return Ok(None),
                Company::KillAnother => Ending::Kill,
                Company::StopAnother => Ending::Stop,
            },
        ) else {
            return Ok(None);
        };
        let how = self.ring.end(other, ending)?;
        scene
            .notes
            .push(format!("with n{other} {ending:?} ({how})"));
        Ok(Some(other))
    }

    /// Takes one sample, and judges the processes that ended by themselves since the last one.
    fn look(&mut self, scene: &mut Scene) -> anyhow::Result<()> {
        self.judge_ends(scene)?;
        let now = clock::now();
        let mut running = Vec::new();
        for id in self.ring.ids() {
            if self.ring.runs(id) {
                scene.down_since.remove(&id);
                running.push(id);
            } else {
                scene.down_since.entry(id).or_insert(now);
            }
        }
        let mut ready = BTreeMap::new();
        for id in &running {
            ready.insert(*id, probe::ready(&self.ring.node(*id)?.http));
        }
        let status = match running.is_empty() {
            true => None,
            false => Some(probe::status(self.ring, &running)?),
        };
        let down = scene.down_since.iter();
        let sample = Sample {
            at: scene.began.elapsed(),
            status,
            ready,
            down: down.map(|(id, since)| (*id, now - *since)).collect(),
        };
        scene.watch.add(sample, self.ring.ids().len());
        Ok(())
    }

    fn judge_ends(&mut self, scene: &mut Scene) -> anyhow::Result<()> {
        for id in self.ring.ids() {
            let Some(status) = self.ring.ended(id)? else {
                continue;
            };
            let mark = scene.marks.get(&id).copied().unwrap_or(0);
            let log = self.ring.log_since(id, mark);
            scene.marks.insert(id, self.ring.log_position(id));
            match exits::judge(id, &status.to_string(), &log, scene.ends(id)) {
                Exit::Right(note) => scene.notes.push(note),
                Exit::Wrong(sort, text) => scene.found(sort, text),
            }
        }
        Ok(())
    }

    fn checker(&self) -> Checker<'_> {
        Checker {
            ring: self.ring,
            shared: self.shared,
            repos: self.repos,
        }
    }

    /// Waits until the ring has recovered: all nodes run and are ready, the status is ok, every
    /// repository accepts pushes, and every node serves every repository. Returns whether it has,
    /// after a restart of all nodes if necessary.
    fn settle(
        &mut self,
        scene: &mut Scene,
        fault: &mut dyn Fault,
        rng: &rand::rngs::StdRng,
    ) -> anyhow::Result<bool> {
        let began = clock::now();
        let mut healthy = self.wait_healthy(scene, fault, rng, SETTLE_LIMIT)?;
        let took = began.elapsed();
        if healthy {
            scene
                .notes
                .push(format!("healthy after {:.1}s", took.as_secs_f64()));
            healthy = self.check_everything(scene);
        } else {
            let text = self.describe();
            let lower = text.to_lowercase();
            let told = |words: &[&str]| words.iter().any(|word| lower.contains(word));
            // A node may also refuse to run one group, and report that in the status.
            match scene.ends(scene.step.node) {
                Some(Ends::MayRefuse(words)) if told(words) => {
                    scene.notes.push(format!("refused in the status: {text}"));
                }
                _ => scene.found(Sort::Stuck, text),
            }
        }
        let mut field = self.field(scene, rng);
        if let Some(note) = fault.undo(&mut field)? {
            scene
                .notes
                .push(format!("the damage was still there: {note}"));
        }
        if healthy {
            return Ok(true);
        }
        self.ring.kill_all();
        scene.starts.clear();
        let rescued = self.wait_healthy(scene, fault, rng, SETTLE_LIMIT)?;
        let running = self.ring.ids();
        let left = match rescued {
            true => self.checker().everything(&running, SERVE_LIMIT),
            false => BTreeMap::new(),
        };
        let whole = rescued && left.is_empty();
        scene.notes.push(match whole {
            true => "whole again after every node was killed and started".to_owned(),
            false => format!("a restart of every node did not help: {}", self.describe()),
        });
        for served in left.into_values().flatten() {
            match served {
                Served::Wrong(texts) => wrong(scene, texts),
                Served::Refused(text) => {
                    scene.found(Sort::Unserved, format!("after a restart: {text}"));
                }
                Served::Right => {}
            }
        }
        Ok(whole)
    }

    fn field<'b>(&'b mut self, scene: &Scene, rng: &rand::rngs::StdRng) -> Field<'b> {
        Field {
            ring: &mut *self.ring,
            shared: self.shared,
            rng: rng.clone(),
            node: scene.step.node,
        }
    }

    /// Starts ended nodes, after undoing the damage that they refused to start with, until the
    /// status is ok.
    fn wait_healthy(
        &mut self,
        scene: &mut Scene,
        fault: &mut dyn Fault,
        rng: &rand::rngs::StdRng,
        limit: Duration,
    ) -> anyhow::Result<bool> {
        let end = clock::now() + limit;
        loop {
            self.look(scene)?;
            let ids = self.ring.ids();
            for id in ids
                .iter()
                .copied()
                .filter(|id| !self.ring.runs(*id))
                .collect::<Vec<_>>()
            {
                let starts = scene.starts.entry(id).or_default();
                *starts += 1;
                let starts = *starts;
                if starts > STARTS_MAX {
                    return Ok(false);
                }
                let refused = matches!(scene.ends(id), Some(Ends::MayRefuse(_) | Ends::Must(_)));
                if refused || starts > 1 {
                    let mut field = self.field(scene, rng);
                    if let Some(note) = fault.undo(&mut field)? {
                        scene.notes.push(note);
                    }
                }
                self.ring.start(id)?;
            }
            let ready = ids.iter().all(|id| self.ring.is_ready(*id));
            if ready && probe::status(self.ring, &ids)?.is_ok() {
                return Ok(true);
            }
            if clock::now() >= end {
                return Ok(false);
            }
            clock::pause(LOOK_EVERY);
        }
    }

    fn describe(&self) -> String {
        let ids = self.ring.ids();
        let mut text = match probe::status(self.ring, &ids) {
            Ok(status) => format!("status {status}"),
            Err(error) => format!("no status: {error:#}"),
        };
        for (id, http) in self.ring.addresses() {
            let ready = probe::ready(&http)
                .err()
                .unwrap_or_else(|| "ready".to_owned());
            let runs = if self.ring.runs(id) { "runs" } else { "ended" };
            // Writing to a string never fails.
            write!(text, "; n{id} {runs}, {ready}").ok();
        }
        text
    }

    fn read_logs(&self, scene: &mut Scene, marks: &BTreeMap<u64, u64>) {
        for complaint in scene.watch.complaints() {
            scene.found(Sort::Status, complaint);
        }
        for (id, mark) in marks {
            let log = self.ring.log_since(*id, *mark);
            let line_with = |word: &str| log.lines().find(|line| line.contains(word));
            if let Some(line) = line_with("panicked at") {
                scene.found(Sort::Panic, format!("node {id}: {line}"));
            }
            // In every step, every pack is intact on at least two nodes.
            if let Some(line) = line_with("a pack is lost") {
                scene.found(Sort::Noise, format!("node {id}: {line}"));
            }
        }
    }
}

fn wrong(scene: &mut Scene, texts: Vec<String>) {
    for text in texts {
        let lost = text.contains("acknowledged") && !text.contains("is not whole");
        let sort = if lost { Sort::Lost } else { Sort::Wrong };
        scene.found(sort, text);
    }
}

/// A step in one line: fault, node, proof, result, status.
fn line(scene: &Scene, what: &str) -> String {
    let step = &scene.step;
    let nodes = match &scene.bite {
        Some(bite) => bite.affected.iter().map(u64::to_string).collect::<Vec<_>>(),
        None => vec![step.node.to_string()],
    };
    let seen = match scene.watch.first_problem() {
        Some(after) => format!(
            "status {} after {:.1}s",
            scene.watch.worst(),
            after.as_secs_f64()
        ),
        None => "status ok".to_owned(),
    };
    format!(
        "{:>4} {:<14} n{:<6} {what} | {seen} | {} | {:.1}s",
        step.number,
        step.kind.name(),
        nodes.join(",n"),
        scene.notes.join("; "),
        scene.began.elapsed().as_secs_f64()
    )
}

/// The random pause after a step.
pub fn rest(step: &Step) -> Duration {
    Duration::from_millis(step.rng().random_range(100..1_000))
}
