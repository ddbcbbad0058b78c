//! A log of the release before replicated time: its replay gives the same state at every index for
//! ever.
//!
//! A replica of this release may start from an old log, or run beside a node of the release that
//! wrote it. It must reach the same state at every entry: a difference of one byte is a fork of the
//! group.
//!
//! The files were written once, by the machines of commit ccc61c8 (release levels 1 to 3). They
//! hold random commands of every kind. Some request ids repeat. The clocks step back, stand still
//! and jump by minutes, a day and 400 days in either direction. Each line has the term, the
//! proposal, the first eight bytes of SHA-256 of the reply, and the first eight bytes of the state
//! hash.

use henge_state::{Header, State, apply, version};
use henge_types::stored;
use henge_types::{GroupId, LogIndex, Proposal, Reply};
use sha2::{Digest, Sha256};

const META: &str = include_str!("../golden/log_meta_1_to_3.hex");
const SHARD: &str = include_str!("../golden/log_shard_1_to_3.hex");
/// Any number: replies are compared in their recorded form.
const REPLY: u16 = 1;

pub(crate) fn short(bytes: &[u8]) -> String {
    hex::encode(&bytes[..8])
}

pub(crate) fn reply_digest(reply: &Reply) -> String {
    short(&Sha256::digest(stored::encode(REPLY, 1, reply)))
}

/// Replays the lines. Returns the group's level after each.
fn replay(group: GroupId, log: &str) -> Vec<u32> {
    let mut state = State::empty();
    let mut levels = Vec::new();
    for (number, line) in log.lines().enumerate() {
        let parts: Vec<_> = line.split(' ').collect();
        let [term, proposal, reply, hash] = parts[..] else {
            panic!("line {number} has other parts: {line}");
        };
        let bytes = hex::decode(proposal).expect("hex digits");
        let proposal = Proposal::decode(&bytes).expect("it was readable once");
        assert_eq!(proposal.encode(), bytes, "entry {number}");
        let index = LogIndex::new(u64::try_from(number).expect("few") + 1);
        let term = term.parse().expect("a number");
        let header = Header::new(group, index, term, &proposal);
        let outcome = apply(&state, &header, &proposal.command);
        state.commit(&outcome.writes);
        let name = proposal.command.name();
        assert_eq!(
            reply_digest(&outcome.reply),
            reply,
            "reply at {index} ({name}): {:?}",
            outcome.reply
        );
        assert_eq!(short(&state.hash()), hash, "state at {index} ({name})");
        levels.push(version(&state));
    }
    levels
}

#[test]
fn a_log_of_an_older_release_leads_to_its_states() {
    for (group, log) in [(GroupId::META, META), (GroupId::new(1), SHARD)] {
        let levels = replay(group, log);
        for level in 1..=3 {
            let entries = levels.iter().filter(|at| **at == level).count();
            assert!(entries >= 100, "{entries} entries at level {level}");
        }
        assert_eq!(levels.iter().max(), Some(&3));
    }
}
