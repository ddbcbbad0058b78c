//! A log at its size limit: one node cannot write snapshots, so it purges nothing.

use std::path::PathBuf;
use std::time::Duration;

use super::{Bite, Fault, Field, Injected, set_immutable, unwritable};
use crate::clock;

/// Pushes in the log that exceed the ring's `wal_max`.
const PUSHES: u64 = 640;
/// Time limit for these pushes on a loaded machine. Back-pressure of the node may delay them.
const LIMIT: Duration = Duration::from_secs(120);
/// Words that the node logs when its log gets full.
const WORDS: &[&str] = &["nearly full", "log is full", "write-ahead log", "no room"];

/// The folders without write permission for snapshots.
#[derive(Debug, Default)]
pub(super) struct LogCap {
    folders: Vec<PathBuf>,
}

impl Fault for LogCap {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        let data = field.ring.node(field.node)?.data.clone();
        let mark = field.ring.log_position(field.node);
        self.folders = unwritable::folders(&data.join("snapshots"));
        if let Err(error) = set_immutable(&self.folders, "+i") {
            set_immutable(&self.folders, "-i").ok();
            return Ok(Injected::NotPossible(format!("{error:#}")));
        }
        let from = field.shared.book().counts().acknowledged;
        field.shared.set_burst(true);
        let done = || field.shared.book().counts().acknowledged - from;
        clock::wait_for(LIMIT, || (done() >= PUSHES).then_some(()));
        field.shared.set_burst(false);
        let log = field.ring.log_since(field.node, mark);
        let line = log
            .lines()
            .find(|line| WORDS.iter().any(|word| line.contains(word)));
        let pushes = done();
        if pushes < PUSHES && line.is_none() {
            set_immutable(&self.folders, "-i")?;
            let why = format!("only {pushes} large pushes in {}s", LIMIT.as_secs());
            return Ok(Injected::NotPossible(why));
        }
        let said = line.map_or("nothing", |line| line.trim());
        let proof = format!("{pushes} pushes of 110 KiB, no snapshot possible; it said: {said}");
        Ok(Injected::Bit(Bite::new(proof, [field.node])))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        field.shared.set_burst(false);
        set_immutable(&self.folders, "-i")
    }
}
