//! The bytes that came with release level 3, as `golden` has those before it.

use henge_state::RequestRecord;
use henge_types::command::VERSION_REPOS;
use henge_types::stored::{self, number};
use henge_types::{
    Command, CreateRepo, Generation, LogIndex, MetaCommand, ObjectFormat, Reply, RepoRecord,
    RepoState, ShardCommand, ShardRepo, ShardRepoState, Topic,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes};

const COMMANDS: &str = include_str!("../golden/commands_3.hex");
const RECORDS: &str = include_str!("../golden/records_3.hex");

fn commands() -> Vec<Command> {
    vec![
        Command::Meta(MetaCommand::ReserveRepo(CreateRepo {
            object_format: ObjectFormat::Sha256,
            forked_from: Some(repo_id(2)),
            ..new_repo(1, "Admin/Demo")
        })),
        Command::Shard(ShardCommand::CreateRepo {
            repo: repo_id(1),
            network: network(2),
            generation: FIRST,
            head: name("refs/heads/main"),
            object_format: ObjectFormat::Sha256,
        }),
    ]
}

pub(crate) fn command_lines() -> Lines {
    let line = |command: &Command| (command.name().to_owned(), command.encode());
    commands().iter().map(line).collect()
}

#[test]
fn commands_keep_their_bytes() {
    compare(&command_lines(), COMMANDS);
    for (bytes, command) in golden_bytes(COMMANDS).zip(commands()) {
        assert_eq!(Command::decode(&bytes).as_ref(), Ok(&command));
        assert_eq!(command.level(), VERSION_REPOS, "{command:?}");
    }
}

#[test]
fn command_numbers_are_fixed() {
    let numbers: Vec<_> = commands().iter().map(Command::number).collect();
    assert_eq!(numbers, [23, 69]);
}

/// What the first release could say is said in its words: it must go on understanding it.
#[test]
fn what_the_first_release_could_say_needs_no_level() {
    for command in [form_cluster(), reserve(1, "Admin/Demo"), mark_ready(1)] {
        assert_eq!(command.level(), 1, "{command:?}");
    }
    for command in [create(1), drop_repo(1), set_head(1, "refs/heads/x")] {
        assert_eq!(command.level(), 1, "{command:?}");
    }
    assert_eq!(replace(1, &[1], 2).level(), 2);
    assert_eq!(refs(push(1, vec![to_create("refs/heads/x", 1)])).level(), 1);
}

fn topic(text: &str) -> Topic {
    text.parse().expect("a valid topic")
}

pub(crate) fn repo_record() -> RepoRecord {
    RepoRecord {
        repo: repo_id(1),
        network: network(2),
        path: path("Admin/Demo"),
        generation: Generation::new(3),
        state: RepoState::Ready,
        private: true,
        description: "a line".to_owned(),
        default_branch: name("refs/heads/main"),
        created_at_ms: START_MS,
        updated_at_ms: START_MS + 1,
        topics: vec![topic("c-3"), topic("git")],
        archived: true,
        object_format: ObjectFormat::Sha256,
        forked_from: Some(repo_id(2)),
        former_paths: vec![path("Admin/Before")],
    }
}

fn shard_repo() -> ShardRepo {
    ShardRepo {
        repo: repo_id(1),
        network: network(2),
        generation: Generation::new(3),
        state: ShardRepoState::Live,
        head: name("refs/heads/main"),
        updated_at: LogIndex::new(300),
        updated_at_ms: START_MS,
        archived: true,
        object_format: ObjectFormat::Sha256,
    }
}

fn request_record() -> RequestRecord {
    let request = binding(START_MS, 1);
    RequestRecord {
        principal: request.principal,
        repo: request.repo,
        digest: request.digest,
        reply: Reply::Repo(repo_record()),
    }
}

pub(crate) fn record_lines() -> Lines {
    let request = stored::encode(number::REQUEST_RECORD, 1, &request_record());
    vec![
        ("repo".to_owned(), repo_record().encode()),
        ("shard_repo".to_owned(), shard_repo().encode()),
        ("request_repo".to_owned(), request),
    ]
}

#[test]
fn records_keep_their_bytes() {
    compare(&record_lines(), RECORDS);
    let mut golden = golden_bytes(RECORDS);
    let mut next = || golden.next().expect("a line");
    assert_eq!(RepoRecord::decode(&next()), Ok(repo_record()));
    assert_eq!(ShardRepo::decode(&next()), Ok(shard_repo()));
    let request = stored::decode_v1::<RequestRecord>(number::REQUEST_RECORD, &next());
    assert_eq!(request, Ok(request_record()));
}

/// One field is enough to need the second version, whichever it is.
#[test]
fn a_record_that_says_more_than_the_first_version_can_is_of_the_second() {
    let second = repo_record();
    let plain = RepoRecord {
        updated_at_ms: second.created_at_ms,
        topics: Vec::new(),
        archived: false,
        object_format: ObjectFormat::Sha1,
        forked_from: None,
        former_paths: Vec::new(),
        ..second.clone()
    };
    assert_eq!(version_of(&plain), 1);
    let (one, other) = (|| plain.clone(), || second.clone());
    #[rustfmt::skip]
    let more = [
        RepoRecord { updated_at_ms: other().updated_at_ms, ..one() },
        RepoRecord { topics: other().topics, ..one() },
        RepoRecord { archived: true, ..one() },
        RepoRecord { object_format: ObjectFormat::Sha256, ..one() },
        RepoRecord { forked_from: other().forked_from, ..one() },
        RepoRecord { former_paths: other().former_paths, ..one() },
    ];
    for record in more {
        assert_eq!(version_of(&record), 2, "{record:?}");
        assert_eq!(RepoRecord::decode(&record.encode()), Ok(record));
    }
}

fn version_of(record: &RepoRecord) -> u16 {
    let bytes = record.encode();
    let (_, version, _) = stored::open(&bytes).expect("an envelope");
    version
}
