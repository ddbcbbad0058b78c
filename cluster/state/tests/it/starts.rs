//! The sequence of the members' starts. Three nodes ran. One of them was stopped, its directory
//! copied, started again and pushed to; then the copy replaced the directory. Nothing distinguished
//! the copy from the directory.

use henge_types::command::VERSION_STARTS_AND_TIME;
use henge_types::limits::STARTS_DRAWN_MAX;
use henge_types::stored::{self, number};
use henge_types::{
    Command, Incarnation, LogIndex, MetaCommand, NodeId, Refusal, RegisterStart, RegisteredStart,
    Reply, StartClaim, StartId, StartRecord,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes};

const GOLDEN: &str = include_str!("../golden/starts_4.hex");

fn start(number: u8) -> StartId {
    StartId::from_bytes([number; 16])
}

fn registered(number: u8, index: u64) -> RegisteredStart {
    RegisteredStart {
        start: start(number),
        index: LogIndex::new(index),
    }
}

fn claim(number: u8, last: Option<RegisteredStart>, drawn: &[u8]) -> StartClaim {
    StartClaim {
        start: start(number),
        last,
        drawn: drawn.iter().map(|number| start(*number)).collect(),
    }
}

fn register(claim: StartClaim) -> Command {
    Command::Meta(MetaCommand::RegisterStart(RegisterStart {
        node: NodeId::new(2),
        incarnation: node(2).incarnation,
        claim,
    }))
}

fn formed() -> Group {
    let mut meta = Group::meta();
    meta.run(form_cluster());
    meta
}

fn current(meta: &Group) -> Option<RegisteredStart> {
    let record = meta.catalogue().start(NodeId::new(2));
    record.map(|record| record.registered)
}

#[test]
fn starts_are_registered_one_after_the_other() {
    let mut meta = formed();
    assert_eq!(current(&meta), None);
    assert_eq!(meta.reply(register(claim(1, None, &[]))), Reply::Done);
    let first = registered(1, meta.index);
    assert_eq!(current(&meta), Some(first));
    // The reply was lost: a repeated registration of the same start changes nothing.
    meta.nothing_but(register(claim(1, None, &[])), Reply::Done);
    // Two starts that ended before their registration are in between.
    let later = register(claim(4, Some(first), &[2, 3]));
    assert_eq!(meta.reply(later), Reply::Done);
    let all: Vec<_> = meta.catalogue().starts().collect();
    assert_eq!(all.len(), 1);
    assert_eq!(current(&meta), Some(registered(4, meta.index)));
}

#[test]
fn a_copy_from_before_a_start_is_refused() {
    let mut meta = formed();
    meta.run(register(claim(1, None, &[])));
    let first = registered(1, meta.index);
    meta.run(register(claim(2, Some(first), &[])));
    let second = registered(2, meta.index);
    let refused = Reply::Refused(Refusal::LaterStart { registered: second });
    // Copied before the second start was drawn, and from a release without starts.
    meta.nothing_but(register(claim(3, Some(first), &[])), refused.clone());
    meta.nothing_but(register(claim(4, None, &[])), refused);
    // The registration was applied but not recorded in the directory: the directory still knows the
    // start that it drew.
    let own = register(claim(5, Some(first), &[2]));
    assert_eq!(meta.reply(own), Reply::Done);
}

#[test]
fn only_a_member_in_its_incarnation_registers() {
    let mut meta = formed();
    let foreign = |node, life: u8| {
        Command::Meta(MetaCommand::RegisterStart(RegisterStart {
            node: NodeId::new(node),
            incarnation: Incarnation::from_bytes([life; 16]),
            claim: claim(1, None, &[]),
        }))
    };
    let unknown = Reply::Refused(Refusal::UnknownNode);
    meta.nothing_but(foreign(9, 9), unknown.clone());
    meta.nothing_but(foreign(2, 9), unknown);
    let drawn = vec![7; STARTS_DRAWN_MAX + 1];
    meta.nothing_but(
        register(claim(1, None, &drawn)),
        Reply::Refused(Refusal::Invalid),
    );
}

fn commands() -> [Command; 2] {
    let full = claim(9, Some(registered(5, 300)), &[6, 7]);
    [register(full), register(claim(1, None, &[]))]
}

fn record() -> StartRecord {
    StartRecord {
        incarnation: node(2).incarnation,
        registered: registered(9, 300),
    }
}

#[test]
fn they_keep_their_bytes() {
    let mut lines: Lines = commands()
        .iter()
        .map(|command| (command.name().to_owned(), command.encode()))
        .collect();
    let bytes = stored::encode(number::START_RECORD, 1, &record());
    lines.push(("start_record".to_owned(), bytes));
    compare(&lines, GOLDEN);
    let mut golden = golden_bytes(GOLDEN);
    for command in commands() {
        let bytes = golden.next().expect("a line");
        assert_eq!(command.number(), 38);
        assert_eq!(command.level(), VERSION_STARTS_AND_TIME);
        assert_eq!(Command::decode(&bytes), Ok(command));
    }
    let bytes = golden.next().expect("a line");
    assert_eq!(
        stored::decode_v1(number::START_RECORD, &bytes),
        Ok(record())
    );
}
