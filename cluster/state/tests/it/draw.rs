//! Random entries: each command of a group, with so few values that commands collide.
//!
//! - `shard`, `mirrors`, `meta`: strategies of commands.
//! - `aim_shard`, `aim_meta`: commands of a proposer that has read the state.

mod aim_meta;
mod aim_shard;
mod meta;
mod mirrors;
mod shard;

use henge_types::command::VERSION_KNOWN;
use henge_types::{Command, Generation, LogIndex, NodeId, RequestBinding, VoterClock};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::fixtures::*;

pub(crate) use meta::{any_meta_command, any_meta_entries};
pub(crate) use shard::{any_shard_command, any_shard_entries};

/// The repositories that commands name.
pub(crate) const REPOS: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// The networks that commands name.
pub(crate) const NETWORKS: [u8; 3] = [1, 2, 3];
/// The names that repositories take from each other.
pub(crate) const PATHS: &[&str] = &["a/x", "A/X", "a/y", "b/x"];
/// Refs below each other, the branches first.
const REFS: &[&str] = &[
    "refs/heads/a",
    "refs/heads/a/b",
    "refs/heads/a/b/c",
    "refs/heads/a-b",
    "refs/heads/main",
    "refs/tags/a",
    "refs/tags/a/b",
];
/// Entries of a sequence, at most.
pub(crate) const ENTRIES_MAX: usize = 64;

const HOUR_MS: u64 = 3_600_000;

/// The source of a command's values: the state that its proposer read, or a draw.
#[derive(Debug, Clone, Copy)]
enum Aim {
    State,
    Drawn,
}

/// An entry to propose.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The step of the proposer's clock before it.
    step_ms: i64,
    aim: Aim,
    command: Command,
}

impl Entry {
    const fn as_drawn(command: Command) -> Self {
        Self {
            step_ms: 1,
            aim: Aim::Drawn,
            command,
        }
    }

    /// The command of the next entry of a group, whose clock it moves.
    pub(crate) fn propose(self, group: &mut Group) -> Command {
        group.advance(self.step_ms);
        let mut command = self.command;
        match self.aim {
            Aim::State => aim(&mut command, group),
            Aim::Drawn => {}
        }
        command
    }
}

fn aim(command: &mut Command, group: &Group) {
    let is_meta = group.group.is_meta();
    match command {
        Command::VersionBarrier { .. } => {}
        Command::MoveTime { clocks } => {
            for clock in clocks {
                let shown_ms = clock.unix_ms.saturating_add(group.now_ms);
                clock.unix_ms = shown_ms.saturating_sub(START_MS);
            }
        }
        Command::Meta(command) if is_meta => aim_meta::aim(command, group.catalogue()),
        Command::Shard(command) if !is_meta => {
            aim_shard::aim(command, group.view(), LogIndex::new(group.index));
        }
        // Proposed to the wrong kind of group.
        Command::Meta(_) | Command::Shard(_) => {}
    }
}

/// Some first entries, or none, and random ones after them.
fn any_entries(
    first: impl Strategy<Value = Vec<Command>>,
    command: impl Strategy<Value = Command>,
) -> impl Strategy<Value = Vec<Entry>> {
    let first = prop_oneof![1 => Just(Vec::<Command>::new()), 3 => first];
    let aim = prop_oneof![3 => Just(Aim::State), 1 => Just(Aim::Drawn)];
    let entry = (any_step(), aim, command);
    let entry = entry.prop_map(|(step_ms, aim, command)| Entry {
        step_ms,
        aim,
        command,
    });
    (first, vec(entry, 1..60)).prop_map(|(first, rest)| {
        let first = first.into_iter().map(Entry::as_drawn);
        let entries: Vec<_> = first.chain(rest).collect();
        assert!(entries.len() <= ENTRIES_MAX);
        entries
    })
}

/// The step of the clock before a command: also back, and past expiries.
fn any_step() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..1_000_i64,
        1 => -5_000..0_i64,
        1 => 500_000..700_000_i64,
        1 => Just(25 * 3_600 * 1_000),
    ]
}

/// Commands of either kind of group.
fn any_group_command() -> impl Strategy<Value = Command> {
    let ahead_ms = vec![0, 900, 5_000, 700_000, 3 * HOUR_MS, 72 * HOUR_MS];
    let clock_ms = prop_oneof![
        16 => select(ahead_ms).prop_map(|ahead_ms| START_MS + ahead_ms),
        1 => Just(0),
        1 => Just(u64::MAX),
    ];
    let clock = (1..4_u64, clock_ms).prop_map(|(node, unix_ms)| VoterClock {
        node: NodeId::new(node),
        unix_ms,
    });
    prop_oneof![
        1 => (0..=VERSION_KNOWN).prop_map(|version| Command::VersionBarrier { version }),
        1 => vec(clock, 0..4).prop_map(|clocks| Command::MoveTime { clocks }),
    ]
}

/// Requests: some repeat, some clash, some are old and some name a future generation.
fn any_binding() -> impl Strategy<Value = RequestBinding> {
    let of_time = (0..9_u64, 0..4_u64);
    let of_time = of_time.prop_map(|(age, counter)| binding(START_MS - age * 10_000_000, counter));
    let of_generation = (0..3_u64, 0..4_u64);
    let of_generation =
        of_generation.prop_map(|(generation, counter)| binding_in(generation, counter));
    let request = prop_oneof![of_time, of_generation];
    (request, 0..2_u8).prop_map(|(request, digest)| RequestBinding {
        digest: [digest; 32],
        ..request
    })
}

/// A request for each entry, or none.
pub(crate) fn any_requests() -> impl Strategy<Value = Vec<Option<RequestBinding>>> {
    vec(option::weighted(0.5, any_binding()), ENTRIES_MAX)
}

fn any_generation() -> impl Strategy<Value = Generation> {
    prop_oneof![9 => Just(FIRST), 1 => Just(Generation::new(2))]
}
