//! A file system with little free space, or none.

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng as _;

use super::{Bite, Ends, Fault, Field, Injected, Shows};
use crate::process::Program;
use crate::ring::Ending;

/// Free bytes of a disk that is merely low: below the watermark that the ring is started with.
const LOW_BYTES: u64 = 64 * 1024 * 1024;
/// A node that cannot start logs one of these words.
const WORDS: &[&str] = &["space", "No space", "full"];

/// The file that uses up the space.
#[derive(Debug, Default)]
pub(super) struct FullDisk {
    filler: Option<PathBuf>,
    ending: Option<Ending>,
    node: u64,
}

impl Fault for FullDisk {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        self.node = field.node;
        let node = field.ring.node(field.node)?;
        let Some(disk) = &node.disk else {
            return Ok(Injected::NotPossible(
                "no file system of its own".to_owned(),
            ));
        };
        let (leave, what) = match field.rng.random_range(0..2) {
            0 => (LOW_BYTES, "low"),
            _ => (0, "full"),
        };
        let filler = disk.point().join("filler");
        let bytes = disk.free()?.saturating_sub(leave);
        self.filler = Some(filler.clone());
        let fill = |bytes: u64| {
            let filled = Program::new("fallocate").args(["-l", &bytes.to_string()]);
            filled.arg(&filler).run()
        };
        // The file system reserves some of the last part.
        fill(bytes.saturating_sub(4 * 1024 * 1024))?;
        if leave == 0 {
            fill(bytes)?;
        }
        let left = disk.free()?;
        if left > leave + 16 * 1024 * 1024 {
            anyhow::bail!("node {}'s disk still has {left} bytes", field.node);
        }
        // A restart needs new files; half of the faults try one.
        self.ending = match field.rng.random_range(0..4) {
            0 => Some(Ending::Stop),
            1 => Some(Ending::Kill),
            _ => None,
        };
        if let Some(ending) = self.ending {
            field.ring.end(field.node, ending)?;
            field.ring.start(field.node)?;
        }
        let restarted = self
            .ending
            .map_or_else(String::new, |e| format!(", after {e:?} and start"));
        let proof = format!("{what}: {} KiB left{restarted}", left / 1024);
        let mut bite = Bite::new(proof, [field.node]);
        bite.hold = Duration::from_secs(6);
        bite.shows = Shows::Problem;
        bite.ends = Ends::MayRefuse(WORDS);
        Ok(Injected::Bit(bite))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        if let Some(filler) = self.filler.take() {
            std::fs::remove_file(filler)?;
        }
        if !field.ring.runs(self.node) {
            field.ring.start(self.node)?;
        }
        Ok(())
    }
}
