//! The bytes of release level 4; `golden` has the earlier ones.

use henge_types::command::VERSION_STARTS_AND_TIME;
use henge_types::{Command, NodeId, Reply, VoterClock};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes, state_lines};

const COMMANDS: &str = include_str!("../golden/time_4.hex");
const STATE: &str = include_str!("../golden/time_state_4.hex");

fn commands() -> Vec<Command> {
    let clock = |node, unix_ms| VoterClock {
        node: NodeId::new(node),
        unix_ms,
    };
    let clocks = vec![clock(1, START_MS), clock(300, START_MS + 7)];
    vec![Command::MoveTime { clocks }]
}

fn command_lines() -> Lines {
    let line = |command: &Command| (command.name().to_owned(), command.encode());
    commands().iter().map(line).collect()
}

#[test]
fn commands_keep_their_bytes() {
    compare(&command_lines(), COMMANDS);
    for (bytes, command) in golden_bytes(COMMANDS).zip(commands()) {
        assert_eq!(Command::decode(&bytes).as_ref(), Ok(&command));
        assert_eq!(command.level(), VERSION_STARTS_AND_TIME);
        assert_eq!(command.number(), 3);
    }
}

/// The time, the generation of request records, and one record of each kind of reply.
#[test]
fn the_state_keeps_its_bytes() {
    let mut shard = Group::shard().keeping_time();
    shard.run_for(Some(binding_in(1, 1)), create(1));
    let push = refs(push(1, vec![to_create("refs/heads/main", 1)]));
    let reply = shard.run_for(Some(binding_in(1, 2)), push.clone()).reply;
    let moved = shard.run_for(Some(binding_in(1, 3)), push).reply;
    assert!(matches!(reply, Reply::RefsUpdated { .. }) && moved != reply);
    let lines = state_lines(&shard).into_iter();
    let of_level_4 = lines
        .filter(|(key, _)| key.starts_with("0d") || key.starts_with("0e") || key.starts_with("0f"));
    compare(&of_level_4.collect(), STATE);
}
