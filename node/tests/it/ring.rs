//! Real rings: `henge dev` and its node processes, stock git, and failures.
//!
//! Ports: every test has its own base port, so that rings never meet.

mod bitmaps;
mod bounded;
mod bundles;
mod carry;
mod checks;
mod compaction;
mod compatibility;
mod crash;
mod disk;
mod export;
mod failover;
mod floods;
pub(crate) mod harness;
mod health;
mod losses;
mod mirrors;
mod power;
mod private;
mod pruning;
mod push_rules;
mod refusals;
mod repositories;
mod settings;
mod signed;
mod starts;
