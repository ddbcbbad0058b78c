//! Faults: their injection into a ring, the proof of their effect, and their removal.
//!
//! To add one: a kind in `plan`, a file here with a type that implements [`Fault`], and a line in
//! [`make`].

mod bit_flip;
mod clock_jump;
mod damage;
mod directory_gone;
mod ends;
mod files;
mod full_disk;
mod log_cap;
mod old_copy;
mod old_image;
mod power_cut;
mod removed;
mod torn;
mod unwritable;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::clock;
use crate::plan::{Kind, Step};
use crate::process::Program;
use crate::pushers::Shared;
use crate::ring::Ring;

/// Time limit for a node to be ready again during a fault.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// The environment of a fault.
#[derive(Debug)]
pub struct Field<'a> {
    /// The ring of nodes.
    pub ring: &'a mut Ring,
    /// The writers.
    pub shared: &'a Shared,
    /// The random numbers of this step.
    pub rng: StdRng,
    /// The node named by the schedule.
    pub node: u64,
}

/// Whether `henge cluster status --check` must report a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Optional: damaged data may not have been read yet.
    Maybe,
    /// Required.
    Problem,
}

/// The allowed behaviour of the process on an affected node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It must keep running.
    Never,
    /// It may end, and must run again after a restart.
    MayRestart,
    /// It may refuse to run, with one of these words in its log, until the damage is undone.
    MayRefuse(&'static [&'static str]),
    /// It must end, with one of these words in its log: running on is wrong.
    Must(&'static [&'static str]),
}

/// A fault with a proven effect.
#[derive(Debug, Clone)]
pub struct Bite {
    /// The observed effect, from outside the product.
    pub proof: String,
    /// The affected nodes.
    pub affected: BTreeSet<u64>,
    /// Its duration.
    pub hold: Duration,
    /// The required status during the fault.
    pub shows: Shows,
    /// The allowed behaviour of the affected processes.
    pub ends: Ends,
    /// Observations that must not occur.
    pub complaints: Vec<String>,
}

impl Bite {
    /// A fault of three seconds that no process may end for.
    pub fn new(proof: String, affected: impl IntoIterator<Item = u64>) -> Self {
        Self {
            proof,
            affected: affected.into_iter().collect(),
            hold: Duration::from_secs(3),
            shows: Shows::Maybe,
            ends: Ends::Never,
            complaints: Vec::new(),
        }
    }
}

/// The result of an injection.
#[derive(Debug)]
pub enum Injected {
    /// The fault was injected and had an effect.
    Bit(Bite),
    /// Not possible on this machine or at this moment: counted as not checked.
    NotPossible(String),
}

/// One fault.
pub trait Fault {
    /// Injects the fault.
    ///
    /// # Errors
    /// When the harness itself fails.
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected>;

    /// Ends the fault. Nodes that it stopped are started.
    ///
    /// # Errors
    /// When the harness itself fails.
    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()>;

    /// Restores the data without which a node refuses to start. The node is not running.
    ///
    /// # Errors
    /// When the harness itself fails.
    fn undo(&mut self, field: &mut Field<'_>) -> anyhow::Result<Option<String>> {
        let _ = field;
        Ok(None)
    }
}

/// The fault of a step.
pub fn make(step: &Step) -> Box<dyn Fault> {
    match step.kind {
        Kind::Kill => Box::new(ends::Ends::kill()),
        Kind::Stop => Box::new(ends::Ends::stop()),
        Kind::Unwritable => Box::new(unwritable::Unwritable::default()),
        Kind::FullDisk => Box::new(full_disk::FullDisk::default()),
        Kind::BitFlip => Box::new(damage::Damage::new(step.kind, bit_flip::wound)),
        Kind::Torn => Box::new(damage::Damage::new(step.kind, torn::wound)),
        Kind::Removed => Box::new(damage::Damage::new(step.kind, removed::wound)),
        Kind::DirectoryGone => Box::new(directory_gone::DirectoryGone::default()),
        Kind::Clock => Box::new(clock_jump::ClockJump::default()),
        Kind::OldCopy => Box::new(old_copy::OldCopy::default()),
        Kind::OldImage => Box::new(old_image::OldImage::default()),
        Kind::LogCap => Box::new(log_cap::LogCap::default()),
        Kind::PowerCut => Box::new(power_cut::PowerCut::default()),
    }
}

impl Field<'_> {
    /// The step's node alone, a majority that includes it, or all nodes: mostly the first.
    fn draw_nodes(&mut self, may_be_majority: bool) -> BTreeSet<u64> {
        let mut ids = self.ring.ids();
        ids.rotate_left(usize::try_from(self.node.saturating_sub(1)).unwrap_or(0));
        let count = match self.rng.random_range(0..10) {
            0..6 => 1,
            6..8 if may_be_majority => ids.len() / 2 + 1,
            _ => ids.len(),
        };
        ids.into_iter().take(count).collect()
    }

    /// Waits until `count` more pushes have been acknowledged.
    fn wait_for_pushes(&self, count: u64, limit: Duration) -> bool {
        let from = self.shared.book().counts().acknowledged;
        let more = || self.shared.book().counts().acknowledged >= from + count;
        clock::wait_for(limit, || more().then_some(())).is_some()
    }

    /// Starts a node and waits until it is ready.
    fn start_and_wait(&mut self, node: u64) -> anyhow::Result<()> {
        self.ring.start(node)?;
        let ready = self.ring.wait_ready(&[node], READY_LIMIT);
        ready
            .then_some(())
            .with_context(|| format!("node {node} is not ready, before anything was damaged"))
    }
}

/// Sets or clears the immutable flag of folders: nothing can be created in them or removed, not
/// even by root.
fn set_immutable(folders: &[std::path::PathBuf], flag: &str) -> anyhow::Result<()> {
    if folders.is_empty() {
        return Ok(());
    }
    Program::new("chattr")
        .arg(flag)
        .args(folders)
        .output()
        .map(drop)
}
