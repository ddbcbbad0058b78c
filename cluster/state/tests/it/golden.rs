//! Bytes in logs and snapshots of running clusters. A file here never changes: a new shape needs a
//! new version of the command or record, with new lines beside the old ones.

use std::fmt::Write;

use bytes::Bytes;
use henge_state::{RequestRecord, View};
use henge_types::stored::{self, number};
use henge_types::{
    ClusterId, ClusterRecord, Command, Generation, LogIndex, MetaCommand, ObjectFormat, ObjectId,
    PackRecord, PackRef, PreviousValue, Proposal, RefRefusal, RefUpdate, Refusal, Reply,
    RepoRecord, RepoState, ShardCommand, ShardRepo, ShardRepoState, StoredRecord, UpdateRefs,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fixtures::*;

/// Name and bytes, one line each: `name hex`, or `name -` for an empty value.
pub(crate) type Lines = Vec<(String, Vec<u8>)>;

const COMMANDS: &str = include_str!("../golden/commands.hex");
const PROPOSALS: &str = include_str!("../golden/proposals.hex");
const RECORDS: &str = include_str!("../golden/records.hex");
const REPLIES: &str = include_str!("../golden/replies.hex");
const META_STATE: &str = include_str!("../golden/meta_state.hex");
const SHARD_STATE: &str = include_str!("../golden/shard_state.hex");
const SHARD_STATE_2: &str = include_str!("../golden/shard_state_2.hex");

fn text(lines: &Lines) -> String {
    let mut text = String::new();
    for (name, bytes) in lines {
        let bytes = match bytes.is_empty() {
            true => "-".to_owned(),
            false => hex::encode(bytes),
        };
        writeln!(text, "{name} {bytes}").expect("strings take everything");
    }
    text
}

pub(crate) fn compare(lines: &Lines, golden: &str) {
    let lines = text(lines);
    for (line, golden) in lines.lines().zip(golden.lines()) {
        assert_eq!(line, golden, "stored bytes changed");
    }
    assert_eq!(
        lines.lines().count(),
        golden.lines().count(),
        "number of lines in:\n{lines}"
    );
}

pub(crate) fn golden_bytes(golden: &str) -> impl Iterator<Item = Vec<u8>> {
    golden.lines().map(|line| {
        let (_, bytes) = line.split_once(' ').expect("name and bytes");
        hex::decode(bytes).expect("hex digits")
    })
}

/// Every command, with every shape of its fields. A missing command is a compile error: see `next`.
fn commands() -> Vec<Command> {
    let mut commands = vec![Command::VersionBarrier { version: 1 }];
    while let Some(command) = next(commands.last().expect("never empty")) {
        commands.push(command);
    }
    commands
}

/// The command after this one, in the order of their numbers.
fn next(command: &Command) -> Option<Command> {
    let command = match command {
        Command::VersionBarrier { .. } => form_cluster(),
        // A command of release level 4: in `golden_4`.
        Command::MoveTime { .. } => return None,
        Command::Meta(command) => match command {
            MetaCommand::FormCluster { .. } => Command::Meta(MetaCommand::RegisterNode(node(2))),
            MetaCommand::RegisterNode(_) => reserve(1, "Admin/Demo"),
            MetaCommand::ReserveRepo(_) => mark_ready(1),
            MetaCommand::MarkRepoReady { .. } => abandon(1),
            MetaCommand::AbandonRepo { .. } => delete(1),
            MetaCommand::DeleteRepo { .. } => mark_dropped(1),
            MetaCommand::MarkRepoDropped { .. } => create_in(1, 2),
            // Commands of release level 3: in `golden_3`.
            MetaCommand::EditRepo(_) | MetaCommand::MarkRepoTold { .. } => return None,
            // The command of starts is in `starts`.
            MetaCommand::RegisterStart(_) => return None,
        },
        Command::Shard(command) => match command {
            ShardCommand::CreateRepo { .. } => drop_repo(1),
            ShardCommand::DropRepo { .. } => refs(every_shape_of_push()),
            ShardCommand::UpdateRefs(_) => set_head(1, "refs/heads/trunk"),
            ShardCommand::SetHead { .. } => replace(1, &[0x70, 0x71], 0x72),
            // Later commands are in `golden_3`.
            ShardCommand::ReplacePacks(_)
            | ShardCommand::MarkUnreachable { .. }
            | ShardCommand::PrunePacks(_)
            | ShardCommand::ForkRepo(_)
            | ShardCommand::SetLimits { .. }
            | ShardCommand::SetPushRules { .. }
            | ShardCommand::ConfigureRepo(_)
            | ShardCommand::ProtectRefs { .. }
            | ShardCommand::UnprotectRefs { .. }
            // The bytes of mirror commands are beside their tests.
            | ShardCommand::SetMirror(_)
            | ShardCommand::ChangeMirror(_)
            | ShardCommand::BeginMirror(_)
            | ShardCommand::RecordMirror(_)
            // These are in `certificates`.
            | ShardCommand::UpdateSignedRefs(_)
            | ShardCommand::SetNonceSeed(_)
            | ShardCommand::EditMirror(_) => return None,
        },
    };
    Some(command)
}

fn every_shape_of_push() -> UpdateRefs {
    let long = RefUpdate {
        new: Some(ObjectId::Sha256([5; 32])),
        ..to_create("refs/tags/v1", 5)
    };
    let staged = PackRef {
        pack_bytes: 1 << 30,
        idx_bytes: 1 << 20,
        objects: 100_000,
        inline: None,
        ..pack(0x71)
    };
    UpdateRefs {
        packs: vec![pack(0x70), staged],
        atomic: true,
        ..push(
            1,
            vec![
                update("refs/heads/any", PreviousValue::Any, Some(1)),
                update("refs/heads/there", PreviousValue::MustExist, Some(2)),
                to_create("refs/heads/new", 3),
                to_move("refs/heads/main", 1, 4),
                to_delete("refs/heads/old", 1),
                long,
            ],
        )
    }
}

fn command_lines() -> Lines {
    let line = |command: &Command| (command.name().to_owned(), command.encode());
    commands().iter().map(line).collect()
}

#[test]
fn commands_keep_their_bytes() {
    compare(&command_lines(), COMMANDS);
    for (bytes, command) in golden_bytes(COMMANDS).zip(commands()) {
        assert_eq!(Command::decode(&bytes), Ok(command));
    }
}

#[test]
fn command_numbers_are_fixed() {
    let numbers: Vec<_> = commands().iter().map(Command::number).collect();
    assert_eq!(numbers, [1, 16, 17, 18, 19, 20, 21, 22, 64, 65, 66, 67, 68]);
}

fn proposals() -> [Proposal; 2] {
    let by_leader = Proposal {
        request: None,
        proposed_at_ms: START_MS,
        seed: 0x0123_4567_89ab_cdef,
        command: drop_repo(1),
    };
    let by_client = Proposal {
        request: Some(binding(START_MS, 7)),
        ..by_leader.clone()
    };
    [by_leader, by_client]
}

fn proposal_lines() -> Lines {
    let names = ["by_leader", "by_client"];
    let lines = names.iter().zip(proposals());
    lines
        .map(|(name, proposal)| ((*name).to_owned(), proposal.encode()))
        .collect()
}

#[test]
fn proposals_keep_their_bytes() {
    compare(&proposal_lines(), PROPOSALS);
    for (bytes, proposal) in golden_bytes(PROPOSALS).zip(proposals()) {
        assert_eq!(Proposal::decode(&bytes), Ok(proposal));
    }
}

fn cluster() -> ClusterRecord {
    ClusterRecord {
        cluster: ClusterId::from_bytes([0xc1; 16]),
        shards: 64,
        replication: 3,
        formed_at_ms: START_MS,
        version: 1,
    }
}

fn repo_record(state: RepoState) -> RepoRecord {
    RepoRecord {
        repo: repo_id(1),
        network: network(2),
        path: path("Admin/Demo"),
        generation: Generation::new(3),
        state,
        private: true,
        description: "a line".to_owned(),
        default_branch: name("refs/heads/main"),
        created_at_ms: START_MS,
        updated_at_ms: START_MS,
        topics: Vec::new(),
        archived: false,
        object_format: ObjectFormat::Sha1,
        forked_from: None,
        former_paths: Vec::new(),
    }
}

fn shard_repo(state: ShardRepoState) -> ShardRepo {
    ShardRepo {
        repo: repo_id(1),
        network: network(2),
        generation: Generation::new(3),
        state,
        head: name("refs/heads/main"),
        updated_at: LogIndex::new(300),
        updated_at_ms: START_MS,
        revision: LogIndex::new(0),
        archived: false,
        object_format: ObjectFormat::Sha1,
    }
}

fn pack_record() -> PackRecord {
    PackRecord {
        pack: pack(0x70).pack,
        pack_bytes: 1 << 30,
        idx_bytes: 1 << 20,
        objects: 100_000,
        named_at: LogIndex::new(300),
    }
}

fn request_record() -> RequestRecord {
    let request = binding(START_MS, 1);
    RequestRecord {
        principal: request.principal,
        repo: request.repo,
        digest: request.digest,
        reply: Reply::Done,
    }
}

const REPO_STATES: [RepoState; 4] = [
    RepoState::Reserved,
    RepoState::Ready,
    RepoState::Deleting,
    RepoState::Deleted,
];
const SHARD_REPO_STATES: [ShardRepoState; 2] = [ShardRepoState::Live, ShardRepoState::Deleted];

fn record_lines() -> Lines {
    fn line<T: Serialize>(name: &str, number: u16, record: &T) -> (String, Vec<u8>) {
        (name.to_owned(), stored::encode(number, 1, record))
    }
    let mut lines = vec![
        line("cluster", number::CLUSTER_RECORD, &cluster()),
        line("node", number::NODE_RECORD, &node(2)),
        line(
            "placement",
            number::SHARD_PLACEMENT,
            &placement(2, &[2, 3, 1]),
        ),
        line("pack", number::PACK_RECORD, &pack_record()),
        line("request", number::REQUEST_RECORD, &request_record()),
    ];
    for state in REPO_STATES {
        let name = format!("repo_{state:?}").to_lowercase();
        lines.push((name, repo_record(state).encode()));
    }
    for state in SHARD_REPO_STATES {
        let name = format!("shard_repo_{state:?}").to_lowercase();
        lines.push((name, shard_repo(state).encode()));
    }
    lines
}

#[test]
fn records_keep_their_bytes() {
    fn read<T: DeserializeOwned>(golden: &mut impl Iterator<Item = Vec<u8>>, number: u16) -> T {
        let bytes = golden.next().expect("a line");
        stored::decode_v1(number, &bytes).expect("a record")
    }
    compare(&record_lines(), RECORDS);
    let golden = &mut golden_bytes(RECORDS);
    assert_eq!(
        read::<ClusterRecord>(golden, number::CLUSTER_RECORD),
        cluster()
    );
    assert_eq!(
        read::<henge_types::NodeRecord>(golden, number::NODE_RECORD),
        node(2)
    );
    let place: henge_types::ShardPlacement = read(golden, number::SHARD_PLACEMENT);
    assert_eq!(place, placement(2, &[2, 3, 1]));
    assert_eq!(
        read::<PackRecord>(golden, number::PACK_RECORD),
        pack_record()
    );
    assert_eq!(
        read::<RequestRecord>(golden, number::REQUEST_RECORD),
        request_record()
    );
    for state in REPO_STATES {
        let bytes = golden.next().expect("a line");
        assert_eq!(RepoRecord::decode(&bytes), Ok(repo_record(state)));
    }
    for state in SHARD_REPO_STATES {
        let bytes = golden.next().expect("a line");
        assert_eq!(ShardRepo::decode(&bytes), Ok(shard_repo(state)));
    }
}

/// Every reply and every refusal: they are stored in request records. A missing one is a compile
/// error: see `next_refusal` and `next_reply`.
fn replies() -> Vec<Reply> {
    let mut replies = vec![Reply::Done];
    while let Some(reply) = next_reply(replies.last().expect("never empty")) {
        replies.push(reply);
    }
    replies
}

fn next_reply(reply: &Reply) -> Option<Reply> {
    let path = || path("Admin/Demo");
    let refusal = match reply {
        Reply::Done => return Some(Reply::Repo(repo_record(RepoState::Ready))),
        Reply::Repo(_) => return Some(verdicts(every_verdict())),
        Reply::RefsUpdated { .. } => return Some(Reply::UnknownOutcome),
        Reply::UnknownOutcome => return Some(Reply::Recheck),
        Reply::Recheck => Refusal::NameTaken {
            path: path(),
            by: repo_id(2),
        },
        Reply::Refused(refusal) => match refusal {
            Refusal::NameTaken { .. } => Refusal::IdTaken { repo: repo_id(1) },
            Refusal::IdTaken { .. } => Refusal::NoSuchRepo { repo: repo_id(1) },
            Refusal::NoSuchRepo { .. } => Refusal::WrongGeneration {
                named: Generation::new(1),
                current: Generation::new(2),
            },
            Refusal::WrongGeneration { .. } => Refusal::WrongState { repo: repo_id(1) },
            Refusal::WrongState { .. } => Refusal::RequestMismatch,
            Refusal::RequestMismatch => Refusal::AlreadyFormed,
            Refusal::AlreadyFormed => Refusal::UnknownNode,
            Refusal::UnknownNode => Refusal::Invalid,
            Refusal::Invalid => Refusal::NoSuchNetwork {
                network: network(2),
            },
            Refusal::NoSuchNetwork { .. } => Refusal::NoSuchPack {
                pack: pack(0x70).pack,
            },
            Refusal::NoSuchPack { .. }
            | Refusal::ProtectionExists
            | Refusal::NoSuchProtection
            | Refusal::TooMany
            | Refusal::LaterStart { .. } => return None,
        },
    };
    Some(Reply::Refused(refusal))
}

fn every_verdict() -> Vec<henge_types::RefVerdict> {
    let mut results = vec![Ok(())];
    while let Some(result) = next_result(results.last().expect("never empty")) {
        results.push(Err(result));
    }
    let results = results.into_iter();
    results
        .map(|result| verdict("refs/heads/main", Some(1), result))
        .collect()
}

fn next_result(result: &Result<(), RefRefusal>) -> Option<RefRefusal> {
    match result {
        Ok(()) => Some(RefRefusal::Stale {
            current: Some(oid(1)),
        }),
        Err(RefRefusal::Stale { .. }) => Some(RefRefusal::Exists { current: oid(1) }),
        Err(RefRefusal::Exists { .. }) => Some(RefRefusal::Missing),
        Err(RefRefusal::Missing) => Some(RefRefusal::NameConflict {
            with: name("refs/heads/a"),
        }),
        Err(RefRefusal::NameConflict { .. }) => Some(RefRefusal::AtomicAborted),
        Err(
            RefRefusal::AtomicAborted
            | RefRefusal::Archived
            | RefRefusal::ProtectedFromDeletion { .. }
            | RefRefusal::ProtectedFromForce { .. }
            | RefRefusal::TooManyRefs { .. }
            | RefRefusal::PacksFull { .. },
        ) => None,
    }
}

fn reply_lines() -> Lines {
    let record = |reply: Reply| RequestRecord {
        reply,
        ..request_record()
    };
    let records = replies().into_iter().map(record).enumerate();
    records
        .map(|(at, record)| {
            let bytes = stored::encode(number::REQUEST_RECORD, 1, &record);
            (format!("reply_{at}"), bytes)
        })
        .collect()
}

#[test]
fn replies_keep_their_bytes_in_request_records() {
    compare(&reply_lines(), REPLIES);
    for (bytes, reply) in golden_bytes(REPLIES).zip(replies()) {
        let record: RequestRecord =
            stored::decode_v1(number::REQUEST_RECORD, &bytes).expect("a record");
        assert_eq!(record.reply, reply);
    }
}

/// The lines of the pairs, then of the hash.
pub(crate) fn state_lines(group: &Group) -> Lines {
    let pairs = group.state.iter();
    let mut lines: Lines = pairs
        .map(|(key, value)| (hex::encode(key), value.to_vec()))
        .collect();
    lines.push(("hash".to_owned(), group.state.hash().to_vec()));
    lines
}

/// Touches every kind of pair of the meta group.
fn meta_group() -> Group {
    let mut meta = Group::meta();
    meta.run(form_cluster());
    meta.run(Command::VersionBarrier { version: 1 });
    meta.run_for(Some(binding(START_MS, 1)), reserve(1, "Admin/Demo"));
    meta.run(mark_ready(1));
    meta.run(reserve(2, "Admin/Gone"));
    meta.run(delete(2));
    meta.run(mark_dropped(2));
    meta.run(reserve(3, "admin/gone"));
    meta.run(reserve(4, "b/deleting"));
    meta.run(delete(4));
    meta.now_ms += 25 * 3_600 * 1_000;
    meta.run_for(Some(binding(meta.now_ms, 2)), reserve(5, "admin/DEMO"));
    meta
}

/// Touches every kind of pair of a shard.
fn shard_group() -> Group {
    let mut shard = Group::shard();
    shard.run(Command::VersionBarrier { version: 1 });
    shard.run_for(Some(binding(START_MS, 1)), create(1));
    shard.run(create_in(2, 1));
    shard.run(create(3));
    shard.run(drop_repo(4));
    let updates = vec![
        to_create("refs/heads/trunk", 1),
        to_create("refs/heads/old", 2),
        to_create("refs/tags/v1", 1),
    ];
    shard.run(refs(push(1, updates)));
    shard.run(refs(push(2, vec![to_create("refs/heads/main", 1)])));
    shard.run(refs(push(3, vec![to_create("refs/heads/main", 3)])));
    shard.now_ms += 24 * 3_600 * 1_000 + 1;
    let updates = vec![
        to_move("refs/heads/trunk", 1, 2),
        to_delete("refs/heads/old", 2),
    ];
    let request = binding(shard.now_ms, 2);
    shard.run_for(Some(request), atomic(1, updates));
    shard.run(set_head(2, "refs/heads/dev"));
    shard.run(drop_repo(3));
    shard
}

#[test]
fn a_fixed_sequence_gives_the_same_state_for_ever() {
    compare(&state_lines(&meta_group()), META_STATE);
    compare(&state_lines(&shard_group()), SHARD_STATE);
}

/// The sequences prove little if they leave a kind of pair out. The version key is written only
/// above level 1: see `shard_group_2`.
#[test]
fn the_fixed_sequences_touch_every_kind_of_pair() {
    let tags = |group: &Group| -> Vec<u8> {
        let mut tags: Vec<_> = group.state.iter().map(|(key, _)| key[0]).collect();
        tags.dedup();
        tags
    };
    let meta = tags(&meta_group());
    assert_eq!(meta, [0x02, 0x03, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16]);
    let shard = tags(&shard_group());
    assert_eq!(shard, [0x02, 0x03, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25]);
    let trunk = [&[0x22_u8][..], &[1; 16], b"refs/heads/trunk"].concat();
    let value = shard_group().state.get(&trunk);
    assert_eq!(value, Some(Bytes::copy_from_slice(&[2; 20])));
}

/// The state of release level 2.
fn shard_group_2() -> Group {
    let mut shard = Group::shard();
    shard.run(Command::VersionBarrier { version: 2 });
    shard.run(create(1));
    for (number, value) in [(0x70, 1), (0x71, 2), (0x72, 3)] {
        let push = UpdateRefs {
            packs: vec![pack(number)],
            ..push(
                1,
                vec![update("refs/heads/main", PreviousValue::Any, Some(value))],
            )
        };
        shard.run(refs(push));
    }
    shard.run(replace(1, &[0x70, 0x72], 0x73));
    shard
}

#[test]
fn a_fixed_sequence_of_level_2_gives_the_same_state_for_ever() {
    compare(&state_lines(&shard_group_2()), SHARD_STATE_2);
}

/// Only for a new file, or new lines of a new command, record or reply: never to make a failing
/// test pass.
#[test]
#[ignore = "writes the golden files: run by hand, with `-- --ignored`, when a new kind gets its first lines"]
#[expect(
    clippy::disallowed_methods,
    reason = "the pure crate's tests write files here only, when asked by hand"
)]
fn write_golden_files() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let files = [
        ("commands", command_lines()),
        ("proposals", proposal_lines()),
        ("records", record_lines()),
        ("replies", reply_lines()),
        ("meta_state", state_lines(&meta_group())),
        ("shard_state", state_lines(&shard_group())),
        ("shard_state_2", state_lines(&shard_group_2())),
        ("commands_3", crate::golden_3::command_lines()),
        ("records_3", crate::golden_3::record_lines()),
        ("network_3", crate::golden_network::lines()),
        ("certificates_3", crate::certificates::lines()),
        (
            "certificates_state_3",
            state_lines(&crate::certificates::shard_group()),
        ),
        ("mirrors", crate::mirrors::lines()),
        ("mirror_removals_5", crate::mirror_removals::lines()),
        ("meta_state_3", state_lines(&crate::golden_3::meta_group())),
        (
            "shard_state_3",
            state_lines(&crate::golden_3::shard_group()),
        ),
    ];
    for (name, lines) in files {
        std::fs::write(format!("{folder}/{name}.hex"), text(&lines)).expect("a writable folder");
    }
}
