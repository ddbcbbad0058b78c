//! The schedule of a run, drawn from its seed alone, so that a seed reproduces it.

use std::fmt;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// A kind of fault. Each has a file of its own below `faults`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// SIGKILL to one node, a majority or all.
    Kill,
    /// SIGTERM to one node or all.
    Stop,
    /// Folders of a data directory cannot be written to.
    Unwritable,
    /// A file system without room.
    FullDisk,
    /// One bit of a file is another one.
    BitFlip,
    /// A file ends too early, or is empty.
    Torn,
    /// A file or a folder is gone.
    Removed,
    /// The data directory is gone under a running node.
    DirectoryGone,
    /// A node's wall clock is 400 days ahead or behind.
    Clock,
    /// An older copy of the data directory, made file by file.
    OldCopy,
    /// An older image of the whole file system.
    OldImage,
    /// The log is as long as it may be.
    LogCap,
    /// Everything that was not flushed is lost, on one node or on all.
    PowerCut,
}

/// Every kind with its weight in a schedule: slow ones are rarer.
const WEIGHTS: &[(Kind, u32)] = &[
    (Kind::Kill, 12),
    (Kind::Stop, 10),
    (Kind::Unwritable, 12),
    (Kind::FullDisk, 8),
    (Kind::BitFlip, 24),
    (Kind::Torn, 12),
    (Kind::Removed, 12),
    (Kind::DirectoryGone, 5),
    (Kind::Clock, 8),
    (Kind::OldCopy, 5),
    (Kind::OldImage, 4),
    (Kind::LogCap, 1),
    (Kind::PowerCut, 8),
];

impl Kind {
    /// Whether data of one node may be destroyed. The other nodes are then left alone during the
    /// fault.
    pub const fn destroys(self) -> bool {
        matches!(
            self,
            Self::BitFlip
                | Self::Torn
                | Self::Removed
                | Self::DirectoryGone
                | Self::OldCopy
                | Self::OldImage
        )
    }

    /// Its name on the command line and in the ledger.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())
    }
}

/// An additional event during a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nothing.
    Alone,
    /// Another node is killed and started again.
    KillAnother,
    /// Another node is shut down gracefully and started again.
    StopAnother,
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub number: u32,
    /// The fault.
    pub kind: Kind,
    /// The node; faults of several nodes include it.
    pub node: u64,
    /// An additional event.
    pub company: Company,
    /// Seed of all other choices: the file, the bit, the variant.
    pub seed: u64,
}

impl Step {
    /// The random numbers of this step.
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

/// The steps of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed of the schedule.
    pub seed: u64,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Draws `length` steps on nodes 1 to `nodes`. An empty `only` means every kind.
    pub fn draw(seed: u64, nodes: u64, length: u32, only: &[Kind]) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let wanted = |kind: Kind| only.is_empty() || only.contains(&kind);
        let kinds: Vec<(Kind, u32)> = WEIGHTS
            .iter()
            .copied()
            .filter(|(kind, _)| wanted(*kind))
            .collect();
        let steps = (1..=length).filter_map(|number| {
            let kind = kinds.choose_weighted(&mut rng, |(_, weight)| *weight);
            let (kind, _) = kind.ok()?;
            let node = rng.random_range(1..=nodes);
            let company = match rng.random_range(0..10) {
                0 => Company::KillAnother,
                1 => Company::StopAnother,
                _ => Company::Alone,
            };
            Some(Step {
                number,
                kind: *kind,
                node,
                company,
                seed: rng.random(),
            })
        });
        Self {
            seed,
            steps: steps.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_one_schedule() {
        let plan = Plan::draw(7, 3, 300, &[]);
        assert_eq!(plan, Plan::draw(7, 3, 300, &[]));
        assert_ne!(plan.steps, Plan::draw(8, 3, 300, &[]).steps);
        // A longer run begins like the shorter one.
        assert_eq!(plan.steps, Plan::draw(7, 3, 400, &[]).steps[..300]);
    }

    #[test]
    fn every_kind_and_every_node_is_drawn() {
        let plan = Plan::draw(1, 3, 1_000, &[]);
        for (kind, _) in WEIGHTS {
            assert!(plan.steps.iter().any(|s| s.kind == *kind), "{kind}");
        }
        for node in 1..=3 {
            assert!(plan.steps.iter().any(|step| step.node == node));
        }
        assert_eq!(WEIGHTS.len(), Kind::value_variants().len());
    }

    #[test]
    fn only_draws_nothing_else() {
        let plan = Plan::draw(1, 3, 50, &[Kind::Clock]);
        assert_eq!(plan.steps.len(), 50);
        assert!(plan.steps.iter().all(|step| step.kind == Kind::Clock));
    }
}
