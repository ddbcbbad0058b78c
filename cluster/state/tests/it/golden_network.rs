//! The bytes of commands and records of whole networks; `golden` has the earlier ones.

use henge_state::RequestRecord;
use henge_types::command::VERSION_REPOS;
use henge_types::stored::{self, number};
use henge_types::{
    Command, ForkRepo, LogIndex, MarkFound, PruneMark, PrunePacks, RefRefusal, RepoLimits,
    ShardCommand,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes};

const GOLDEN: &str = include_str!("../golden/network_3.hex");

fn limits() -> RepoLimits {
    RepoLimits {
        network_bytes_max: Some(1 << 40),
        push_bytes_max: Some(1 << 30),
        object_bytes_max: None,
        push_objects_max: Some(70_000),
        refs_max: Some(0),
    }
}

fn commands() -> Vec<Command> {
    let mark = |instead_of, found| ShardCommand::MarkUnreachable {
        network: network(1),
        instead_of,
        found,
    };
    let prune = PrunePacks {
        network: network(1),
        old: vec![pack(0x70).pack, pack(0x71).pack],
        new: Some(pack(0x72)),
        walked_at: LogIndex::new(300),
        marked_at: LogIndex::new(7),
        grace_ms: 1_209_600_000,
    };
    let all = [
        mark(None, MarkFound::Unknown),
        mark(
            Some(LogIndex::new(7)),
            MarkFound::LostTipsReached { tips: 300 },
        ),
        mark(Some(LogIndex::new(7)), MarkFound::AllReached),
        ShardCommand::PrunePacks(prune.clone()),
        ShardCommand::PrunePacks(PrunePacks { new: None, ..prune }),
        ShardCommand::ForkRepo(ForkRepo {
            repo: repo_id(2),
            network: network(1),
            generation: FIRST,
            parent: repo_id(1),
        }),
        ShardCommand::SetLimits {
            repo: repo_id(1),
            generation: FIRST,
            limits: limits(),
        },
    ];
    all.into_iter().map(Command::Shard).collect()
}

fn mark() -> PruneMark {
    PruneMark {
        at: LogIndex::new(300),
        at_ms: START_MS,
        lost_tips: 3,
        is_full: true,
        may_hold_unreached: true,
    }
}

pub(crate) fn lines() -> Lines {
    let line = |command: &Command| (command.name().to_owned(), command.encode());
    let mut lines: Lines = commands().iter().map(line).collect();
    let mark = stored::encode(number::PRUNE_MARK, 1, &mark());
    lines.push(("prune_mark".to_owned(), mark));
    let limits = stored::encode(number::REPO_LIMITS, 1, &limits());
    lines.push(("repo_limits".to_owned(), limits));
    let full = stored::encode(number::REQUEST_RECORD, 1, &full());
    lines.push(("request_full".to_owned(), full));
    lines
}

/// The reply to a push above the limits.
fn full() -> RequestRecord {
    let refusals = [
        RefRefusal::TooManyRefs { max: 70_000 },
        RefRefusal::PacksFull {
            used: 1 << 40,
            max: 1 << 41,
            bytes: 300,
        },
    ];
    let refusals = refusals.map(|refusal| verdict("refs/heads/main", None, Err(refusal)));
    let request = binding(START_MS, 1);
    RequestRecord {
        principal: request.principal,
        repo: request.repo,
        digest: request.digest,
        reply: verdicts(refusals.to_vec()),
    }
}

#[test]
fn they_keep_their_bytes() {
    compare(&lines(), GOLDEN);
    let mut golden = golden_bytes(GOLDEN);
    for command in commands() {
        let bytes = golden.next().expect("a line");
        assert_eq!(command.level(), VERSION_REPOS, "{command:?}");
        assert_eq!(Command::decode(&bytes), Ok(command));
    }
    let mut next = || golden.next().expect("a line");
    assert_eq!(stored::decode_v1(number::PRUNE_MARK, &next()), Ok(mark()));
    assert_eq!(
        stored::decode_v1(number::REPO_LIMITS, &next()),
        Ok(limits())
    );
    let request = stored::decode_v1(number::REQUEST_RECORD, &next());
    assert_eq!(request, Ok(full()));
}

#[test]
fn command_numbers_are_fixed() {
    let numbers: Vec<_> = commands().iter().map(Command::number).collect();
    assert_eq!(numbers, [84, 84, 84, 85, 85, 86, 87]);
}
