//! Real rings: `henge dev` and its node processes, stock git, and what can go wrong.
//!
//! Ports: every test takes a base of its own, so that rings never meet.

mod bitmaps;
mod checks;
mod carry;
mod compaction;
mod compatibility;
mod crash;
mod disk;
mod failover;
pub(crate) mod harness;
mod power;
mod pruning;
mod refusals;
mod repositories;
