//! A power cut of one disk, or of all: unflushed data is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;

use super::{Bite, Fault, Field, Injected};
use crate::ring::Ending;

/// The nodes without power.
#[derive(Debug, Default)]
pub(super) struct PowerCut {
    nodes: BTreeSet<u64>,
}

impl Fault for PowerCut {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        self.nodes = field.draw_nodes(false);
        for node in &self.nodes {
            if field.ring.node(*node)?.disk.is_none() {
                return Ok(Injected::NotPossible(
                    "no file system of its own".to_owned(),
                ));
            }
        }
        // Data of a clean shutdown that is only in the page cache is lost too.
        let after_stop = field.rng.random_range(0..2) == 0;
        if after_stop {
            field.ring.end_together(&self.nodes, Ending::Stop)?;
        }
        let mut refused = 0_u32;
        for node in &self.nodes {
            let node = field.ring.node(*node)?;
            if let Some(disk) = &node.disk {
                disk.cut()?;
            }
            refused += u32::from(std::fs::write(node.data.join("proof"), "").is_err());
        }
        for node in &self.nodes {
            field.ring.end(*node, Ending::Kill)?;
        }
        let when = if after_stop {
            "after a clean stop"
        } else {
            "while running"
        };
        let proof = format!(
            "{refused} of {} disks refuse every access, cut {when}",
            self.nodes.len()
        );
        if usize::try_from(refused).is_ok_and(|refused| refused < self.nodes.len()) {
            anyhow::bail!("a disk without power still works: {proof}");
        }
        let mut bite = Bite::new(proof, self.nodes.iter().copied());
        bite.hold = Duration::from_millis(field.rng.random_range(100..2_000));
        Ok(Injected::Bit(bite))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        for node in &self.nodes {
            let node = field.ring.node_mut(*node)?;
            if let Some(disk) = &mut node.disk {
                disk.boot()?;
            }
        }
        for node in &self.nodes {
            field.ring.start(*node)?;
        }
        Ok(())
    }
}
