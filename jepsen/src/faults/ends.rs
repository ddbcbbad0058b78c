//! SIGKILL and SIGTERM to one node, a majority or all.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;

use super::{Bite, Fault, Field, Injected, Shows};
use crate::ring::Ending;

/// Ends nodes.
#[derive(Debug)]
pub(super) struct Ends {
    ending: Ending,
    nodes: BTreeSet<u64>,
}

impl Ends {
    pub(super) const fn kill() -> Self {
        Self {
            ending: Ending::Kill,
            nodes: BTreeSet::new(),
        }
    }

    pub(super) const fn stop() -> Self {
        Self {
            ending: Ending::Stop,
            nodes: BTreeSet::new(),
        }
    }
}

impl Fault for Ends {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        self.nodes = field.draw_nodes(true);
        let marks: Vec<(u64, u64)> = self
            .nodes
            .iter()
            .map(|node| (*node, field.ring.log_position(*node)))
            .collect();
        let ended = field.ring.end_together(&self.nodes, self.ending)?;
        let mut proof = Vec::new();
        let mut complaints = Vec::new();
        for ((node, how), (_, mark)) in ended.into_iter().zip(marks) {
            if self.ending == Ending::Stop {
                if !how.contains("exit status: 0") {
                    complaints.push(format!("node {node} {how} after SIGTERM"));
                }
                let log = field.ring.log_since(node, mark);
                let error = log.lines().find(|line| line.contains(" ERROR "));
                complaints.extend(error.map(|line| {
                    format!("an ordinary stop of node {node} logged an error: {line}")
                }));
            }
            proof.push(format!("n{node} {how}"));
        }
        let mut bite = Bite::new(proof.join(", "), self.nodes.iter().copied());
        bite.hold = Duration::from_millis(field.rng.random_range(200..5_000));
        bite.complaints = complaints;
        let one_is_left = self.nodes.len() < field.ring.ids().len();
        if one_is_left && bite.hold > Duration::from_millis(2_500) {
            bite.shows = Shows::Problem;
        }
        Ok(Injected::Bit(bite))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        for node in &self.nodes {
            if !field.ring.runs(*node) {
                field.ring.start(*node)?;
            }
        }
        Ok(())
    }
}
