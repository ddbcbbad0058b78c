//! The bytes of release level 3; `golden` has the earlier ones.

use henge_state::RequestRecord;
use henge_types::command::VERSION_REPOS;
use henge_types::stored::{self, number};
use henge_types::{
    Command, CreateRepo, EditRepo, Generation, LogIndex, MetaCommand, ObjectFormat, RefProtection,
    RefProtections, RefRefusal, Refusal, Reply, RepoRecord, RepoState, ShardCommand, ShardRepo,
    ShardRepoState, StoredRecord, TopicsEdit, UntoldRecord,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes, state_lines};

const COMMANDS: &str = include_str!("../golden/commands_3.hex");
const RECORDS: &str = include_str!("../golden/records_3.hex");
const META_STATE: &str = include_str!("../golden/meta_state_3.hex");
const SHARD_STATE: &str = include_str!("../golden/shard_state_3.hex");

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
        edit(EditRepo {
            path: Some(path("Other/Name")),
            description: Some("another line".to_owned()),
            private: Some(true),
            archived: Some(false),
            default_branch: Some(name("refs/heads/trunk")),
            topics: TopicsEdit::Set(vec![topic("git")]),
            ..EditRepo::nothing(repo_id(1))
        }),
        edit(EditRepo::nothing(repo_id(1))),
        edit(EditRepo {
            topics: TopicsEdit::Add(topic("git")),
            ..EditRepo::nothing(repo_id(1))
        }),
        edit(EditRepo {
            topics: TopicsEdit::Remove(topic("git")),
            ..EditRepo::nothing(repo_id(1))
        }),
        mark_told(1, 300),
        configure(1, 300, |settings| {
            settings.archived = true;
            settings.head = Some(name("refs/heads/trunk"));
        }),
        configure(1, 300, |_| {}),
        protect(1, "release/*"),
        unprotect(1, "release/*"),
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
    assert_eq!(numbers, [23, 69, 24, 24, 24, 24, 25, 70, 70, 71, 72]);
}

/// Commands of the first release keep their first encoding: the first release must still understand
/// them.
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
        revision: LogIndex::new(299),
        archived: true,
        object_format: ObjectFormat::Sha256,
    }
}

fn request_record(reply: Reply) -> RequestRecord {
    let request = binding(START_MS, 1);
    RequestRecord {
        principal: request.principal,
        repo: request.repo,
        digest: request.digest,
        reply,
    }
}

/// The replies and refusals of the level.
fn replies() -> Vec<Reply> {
    let pattern = pattern("release/*");
    let refusals = [
        RefRefusal::Archived,
        RefRefusal::ProtectedFromDeletion {
            pattern: pattern.clone(),
        },
        RefRefusal::ProtectedFromForce { pattern },
    ];
    let refusals = refusals.map(|refusal| verdict("refs/heads/main", Some(1), Err(refusal)));
    vec![
        Reply::Repo(repo_record()),
        verdicts(refusals.to_vec()),
        Reply::Refused(Refusal::ProtectionExists),
        Reply::Refused(Refusal::NoSuchProtection),
        Reply::Refused(Refusal::TooMany),
    ]
}

fn untold() -> UntoldRecord {
    UntoldRecord {
        revision: LogIndex::new(300),
        head: true,
    }
}

fn protections() -> RefProtections {
    let rule = |text: &str| RefProtection {
        pattern: pattern(text),
        created_at_ms: START_MS,
    };
    RefProtections {
        changed_at: LogIndex::new(300),
        rules: vec![rule("main"), rule("release/*")],
    }
}

pub(crate) fn record_lines() -> Lines {
    let untold = stored::encode(number::UNTOLD_RECORD, 1, &untold());
    let protections = stored::encode(number::REF_PROTECTIONS, 1, &protections());
    let mut lines = vec![
        ("repo".to_owned(), repo_record().encode()),
        ("shard_repo".to_owned(), shard_repo().encode()),
        ("untold".to_owned(), untold),
        ("protections".to_owned(), protections),
    ];
    for (at, reply) in replies().into_iter().enumerate() {
        let record = stored::encode(number::REQUEST_RECORD, 1, &request_record(reply));
        lines.push((format!("request_{at}"), record));
    }
    lines
}

#[test]
fn records_keep_their_bytes() {
    compare(&record_lines(), RECORDS);
    let mut golden = golden_bytes(RECORDS);
    let mut next = || golden.next().expect("a line");
    assert_eq!(RepoRecord::decode(&next()), Ok(repo_record()));
    assert_eq!(ShardRepo::decode(&next()), Ok(shard_repo()));
    assert_eq!(
        stored::decode_v1(number::UNTOLD_RECORD, &next()),
        Ok(untold())
    );
    let rules = stored::decode_v1(number::REF_PROTECTIONS, &next());
    assert_eq!(rules, Ok(protections()));
    for reply in replies() {
        let request = stored::decode_v1(number::REQUEST_RECORD, &next());
        assert_eq!(request, Ok(request_record(reply)));
    }
}

/// Touches every kind of pair of the level.
pub(crate) fn meta_group() -> Group {
    let mut meta = Group::meta();
    meta.run(form_cluster());
    meta.run(Command::VersionBarrier { version: 3 });
    for (number, at) in [(1, "a/one"), (2, "a/two")] {
        meta.run(reserve(number, at));
        meta.run(mark_ready(number));
    }
    meta.run(rename(1, "b/one"));
    meta.run(edit(EditRepo {
        archived: Some(true),
        topics: TopicsEdit::Set(vec![topic("git"), topic("c-3")]),
        ..EditRepo::nothing(repo_id(1))
    }));
    meta.run(rename(2, "b/two"));
    meta.run(reserve(3, "A/Two"));
    meta
}

pub(crate) fn shard_group() -> Group {
    let mut shard = Group::shard();
    shard.run(Command::VersionBarrier { version: 3 });
    shard.run(create(1));
    shard.run(create(2));
    shard.run(protect(1, "main"));
    shard.run(protect(1, "refs/tags/**"));
    shard.run(refs(push(1, vec![to_create("refs/heads/main", 1)])));
    shard.run(refs(push(1, vec![to_delete("refs/heads/main", 1)])));
    shard.run(configure(2, 7, |settings| settings.archived = true));
    shard.run(refs(push(2, vec![to_create("refs/heads/main", 1)])));
    shard
}

#[test]
fn a_fixed_sequence_of_level_3_gives_the_same_state_for_ever() {
    compare(&state_lines(&meta_group()), META_STATE);
    compare(&state_lines(&shard_group()), SHARD_STATE);
    for (group, new) in [(meta_group(), &[0x17, 0x18][..]), (shard_group(), &[0x26])] {
        for tag in new {
            let mut keys = group.state.iter().map(|(key, _)| key[0]);
            assert!(keys.any(|found| found == *tag), "no pair {tag:#x}");
        }
    }
}

/// Any one of the new fields requires the second version.
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
