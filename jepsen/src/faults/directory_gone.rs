//! Renames the data directory of a running node.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{Bite, Ends, Fault, Field, Injected, Shows};
use crate::ring::Ending;

/// A node that ends because of it logs one of these words.
const WORDS: &[&str] = &["data directory", "removed", "gone", "moved", "No such file"];

/// The old and new path of the data directory.
#[derive(Debug, Default)]
pub(super) struct DirectoryGone {
    moved: Option<(PathBuf, PathBuf)>,
}

impl Fault for DirectoryGone {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        let data = field.ring.node(field.node)?.data.clone();
        let away = data.with_file_name("gone");
        fs::rename(&data, &away)?;
        self.moved = Some((data.clone(), away));
        let proof = format!("{} is not there", data.display());
        let mut bite = Bite::new(proof, [field.node]);
        bite.hold = Duration::from_secs(15);
        bite.shows = Shows::Problem;
        bite.ends = Ends::Must(WORDS);
        Ok(Injected::Bit(bite))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        field.ring.end(field.node, Ending::Kill)?;
        if let Some((data, away)) = self.moved.take() {
            if data.is_dir() {
                // Created by the node meanwhile.
                fs::remove_dir_all(&data)?;
            }
            fs::rename(away, data)?;
        }
        field.ring.start(field.node)
    }
}
