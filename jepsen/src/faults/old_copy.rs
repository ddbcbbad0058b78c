//! A copy of the data directory, made file by file at rest, is restored after the node ran on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng as _;

use super::{Bite, Ends, Fault, Field, Injected, READY_LIMIT, Shows};
use crate::process::Program;
use crate::ring::{Ending, Ring};

/// Pushes acknowledged between the copy and its return.
const PUSHES: u64 = 4;
/// Time limit for these pushes.
const PUSHES_LIMIT: Duration = Duration::from_secs(30);
/// Time for a node to notice, by its own check of its files or by another node's refusal.
pub(super) const HOLD: Duration = Duration::from_secs(20);
/// A node that ends because of it logs one of these words.
pub(super) const WORDS: &[&str] = &["copy", "copied", "old", "later start", "restored", "moved"];

/// The newest directory while the old one replaces it.
#[derive(Debug, Default)]
pub(super) struct OldCopy {
    newest: Option<(PathBuf, PathBuf)>,
}

/// Whether this release requires `--moved` for a copied directory.
fn knows_moved(ring: &Ring) -> bool {
    let help = ring.henge().args(["node", "run", "--help"]).output();
    help.is_ok_and(|help| help.contains("--moved"))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copy = Program::new("cp").args(["-a", "--sparse=always"]);
    copy.arg(from).arg(to).output().map(drop)
}

/// Runs the node after its copy was made, and ends it.
pub(super) fn go_on(field: &mut Field<'_>) -> anyhow::Result<u64> {
    field.start_and_wait(field.node)?;
    let from = field.shared.book().counts().acknowledged;
    field.wait_for_pushes(PUSHES, PUSHES_LIMIT);
    let ending = match field.rng.random_range(0..2) {
        0 => Ending::Stop,
        _ => Ending::Kill,
    };
    field.ring.end(field.node, ending)?;
    Ok(field.shared.book().counts().acknowledged - from)
}

/// The bite of a node that was started on an old directory.
pub(super) fn bite(node: u64, what: &str, missing: u64) -> Injected {
    let proof = format!("{what}, {missing} acknowledged pushes older");
    let mut bite = Bite::new(proof, [node]);
    bite.hold = HOLD;
    bite.shows = Shows::Maybe;
    bite.ends = Ends::Must(WORDS);
    Injected::Bit(bite)
}

impl Fault for OldCopy {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        let moved = field.rng.random_range(0..2) == 0 && knows_moved(field.ring);
        let data = field.ring.node(field.node)?.data.clone();
        let (old, aside) = (data.with_file_name("old"), data.with_file_name("newest"));
        if old.is_dir() {
            fs::remove_dir_all(&old)?;
        }
        field.ring.end(field.node, Ending::Stop)?;
        copy(&data, &old)?;
        let missing = go_on(field)?;
        fs::rename(&data, &aside)?;
        self.newest = Some((data.clone(), aside));
        fs::rename(&old, &data)?;
        let flags: &[&str] = if moved { &["--moved"] } else { &[] };
        field.ring.start_with(field.node, flags, &[])?;
        let what = if moved {
            "an old copy with --moved"
        } else {
            "an old copy"
        };
        Ok(bite(field.node, what, missing))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        field.ring.end(field.node, Ending::Kill)?;
        if let Some((data, aside)) = self.newest.take() {
            fs::remove_dir_all(&data)?;
            fs::rename(aside, data)?;
        }
        field.ring.start(field.node)?;
        field.ring.wait_ready(&[field.node], READY_LIMIT);
        Ok(())
    }
}
