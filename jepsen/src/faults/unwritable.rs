//! Makes folders of a data directory read-only: nothing can be created in them or removed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng as _;

use super::{Bite, Fault, Field, Injected, set_immutable};
use crate::ring::Ending;

/// The read-only folders, and how their nodes are ended.
#[derive(Debug, Default)]
pub(super) struct Unwritable {
    nodes: BTreeSet<u64>,
    folders: Vec<PathBuf>,
    ending: Option<Ending>,
}

/// A folder and all folders below it. Folders that disappear meanwhile are left out.
pub(super) fn folders(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(folders(&entry.path()));
        }
    }
    found
}

impl Fault for Unwritable {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        let name = match field.rng.random_range(0..10) {
            0..5 => "networks",
            5 | 6 => "snapshots",
            7 | 8 => "staged",
            _ => "quarantine",
        };
        self.ending = match field.rng.random_range(0..5) {
            0 | 1 => None,
            2 | 3 => Some(Ending::Stop),
            _ => Some(Ending::Kill),
        };
        self.nodes = field.draw_nodes(false);
        for node in &self.nodes {
            let top = field.ring.node(*node)?.data.join(name);
            if top.is_dir() {
                self.folders.extend(folders(&top));
            }
        }
        if self.folders.is_empty() {
            return Ok(Injected::NotPossible(format!("no folder {name}/")));
        }
        if let Err(error) = set_immutable(&self.folders, "+i") {
            set_immutable(&self.folders, "-i").ok();
            return Ok(Injected::NotPossible(format!("{error:#}")));
        }
        for folder in &self.folders {
            if File::create(folder.join("proof")).is_ok() {
                anyhow::bail!("{} takes files still", folder.display());
            }
        }
        let ending = match self.ending {
            None => "lifted under way",
            Some(Ending::Stop) => "lifted after SIGTERM",
            Some(Ending::Kill) => "lifted after SIGKILL",
        };
        let proof = format!(
            "{} folders of {name}/ refuse files, {ending}",
            self.folders.len()
        );
        let mut bite = Bite::new(proof, self.nodes.iter().copied());
        bite.hold = Duration::from_millis(field.rng.random_range(3_000..6_000));
        Ok(Injected::Bit(bite))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        if let Some(ending) = self.ending {
            field.ring.end_together(&self.nodes, ending)?;
        }
        set_immutable(&self.folders, "-i")?;
        for node in &self.nodes {
            if !field.ring.runs(*node) {
                field.ring.start(*node)?;
            }
        }
        Ok(())
    }
}
