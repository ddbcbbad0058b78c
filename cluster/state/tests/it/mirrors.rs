//! Mirrors: one firing goes to one run, and a run that was fenced off says and pushes nothing any more.

use henge_types::command::VERSION_REPOS;
use henge_types::stored::{self, number};
use henge_types::{
    BeginMirror, ChangeMirror, Command, LogIndex, Mirror, MirrorChange, MirrorId, MirrorKind,
    MirrorLast, MirrorOutcome, MirrorPusher, MirrorRun, MirrorSecret, MirrorSettings, MirrorWord,
    RecordMirror, Refusal, Reply, SetMirror, ShardCommand, UpdateRefs,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes};

const GOLDEN: &str = include_str!("../golden/mirrors.hex");
const HOUR_MS: u64 = 3_600_000;
const LEASE_MS: u64 = 15_000;

fn id(byte: u8) -> MirrorId {
    MirrorId::from_bytes([byte; 16])
}

fn settings(kind: MirrorKind) -> MirrorSettings {
    MirrorSettings {
        kind,
        url: "https://example.org/a.git".to_owned(),
        secret: Some(MirrorSecret {
            user: "me".to_owned(),
            password: "secret".to_owned(),
        }),
        interval_ms: HOUR_MS,
    }
}

fn set(mirror: u8, kind: MirrorKind) -> Command {
    Command::Shard(ShardCommand::SetMirror(SetMirror {
        repo: repo_id(1),
        generation: FIRST,
        mirror: id(mirror),
        settings: settings(kind),
    }))
}

fn change(mirror: u8, change: MirrorChange) -> Command {
    Command::Shard(ShardCommand::ChangeMirror(ChangeMirror {
        repo: repo_id(1),
        generation: FIRST,
        mirror: id(mirror),
        change,
    }))
}

fn begin(mirror: u8, scheduled_at_ms: u64) -> Command {
    Command::Shard(ShardCommand::BeginMirror(BeginMirror {
        repo: repo_id(1),
        mirror: id(mirror),
        scheduled_at_ms,
        lease_ms: LEASE_MS,
    }))
}

fn word(mirror: u8, fence: LogIndex, word: MirrorWord) -> Command {
    Command::Shard(ShardCommand::RecordMirror(RecordMirror {
        repo: repo_id(1),
        mirror: id(mirror),
        fence,
        word,
    }))
}

fn done() -> MirrorWord {
    MirrorWord::Ended(MirrorOutcome::Done {
        changed: 3,
        pack_bytes: 300,
    })
}

fn failed() -> MirrorWord {
    MirrorWord::Ended(MirrorOutcome::Failed {
        why: "nobody answers".to_owned(),
    })
}

fn wrong() -> Reply {
    Reply::Refused(Refusal::WrongState { repo: repo_id(1) })
}

fn shard(kind: MirrorKind) -> Group {
    let mut shard = Group::shard();
    shard.run(create(1));
    assert_eq!(shard.reply(set(1, kind)), Reply::Done);
    shard
}

fn mirror(shard: &Group) -> Mirror {
    let found = shard.view().mirror(&repo_id(1), &id(1));
    found.expect("the mirror is there")
}

/// Begins the firing that is due; the fence.
#[track_caller]
fn begun(shard: &mut Group) -> LogIndex {
    let due = mirror(shard).next_due_ms;
    assert_eq!(shard.reply(begin(1, due)), Reply::Done);
    LogIndex::new(shard.index)
}

#[test]
fn a_firing_is_given_to_the_first_that_asks_and_to_nobody_else() {
    let mut shard = shard(MirrorKind::Pull);
    assert!(mirror(&shard).is_due(START_MS), "a new one is due at once");
    shard.nothing_but(begin(1, START_MS + 1), wrong());
    shard.nothing_but(begin(2, START_MS), wrong());
    let fence = begun(&mut shard);
    shard.nothing_but(begin(1, START_MS), wrong());
    shard.now_ms += 10_000;
    let still = MirrorWord::Working { lease_ms: LEASE_MS };
    assert_eq!(shard.reply(word(1, fence, still)), Reply::Done);
    shard.now_ms += 10_000;
    shard.nothing_but(begin(1, START_MS), wrong());
    assert_eq!(shard.reply(word(1, fence, done())), Reply::Done);
    shard.nothing_but(begin(1, START_MS), wrong());
    shard.nothing_but(word(1, fence, done()), wrong());
    let next = mirror(&shard).next_due_ms;
    assert_eq!(
        next,
        START_MS + HOUR_MS,
        "from firing to firing, not from end to firing"
    );
    shard.nothing_but(begin(1, next), wrong());
    shard.now_ms = next;
    begun(&mut shard);
}

#[test]
fn a_run_that_is_not_heard_of_is_fenced_off_by_the_next() {
    let mut shard = shard(MirrorKind::Pull);
    let first = begun(&mut shard);
    shard.now_ms += LEASE_MS;
    let second = begun(&mut shard);
    assert!(second > first);
    for fence in [first, LogIndex::new(second.get() + 1)] {
        shard.nothing_but(word(1, fence, done()), wrong());
        shard.nothing_but(word(1, fence, MirrorWord::Working { lease_ms: 1 }), wrong());
    }
    assert_eq!(shard.reply(word(1, second, done())), Reply::Done);
}

#[test]
fn firings_that_were_missed_are_not_made_up_for() {
    let mut shard = shard(MirrorKind::Push);
    shard.now_ms += 5 * HOUR_MS + 7;
    let fence = begun(&mut shard);
    shard.run(word(1, fence, done()));
    assert_eq!(mirror(&shard).next_due_ms, START_MS + 6 * HOUR_MS);
}

#[test]
fn failures_are_tried_again_later_and_later_and_shown() {
    let mut shard = shard(MirrorKind::Push);
    let mut last = 0;
    for failures in 1..12 {
        let fence = begun(&mut shard);
        shard.run(word(1, fence, failed()));
        let mirror = mirror(&shard);
        let pause = mirror.next_due_ms - shard.now_ms;
        let most = (60_000 << (failures - 1)).min(HOUR_MS);
        assert!(pause > most / 2 - 1 && pause <= most, "{failures}: {pause}");
        assert!(pause >= last || pause > HOUR_MS / 2);
        assert_eq!(mirror.failures, failures);
        let shown = mirror.last.expect("it ran").outcome;
        assert!(matches!(shown, MirrorOutcome::Failed { why } if why == "nobody answers"));
        last = pause;
        shard.now_ms = mirror.next_due_ms;
    }
    let fence = begun(&mut shard);
    shard.run(word(1, fence, done()));
    assert_eq!(mirror(&shard).failures, 0);
}

fn pushed_by(pusher: &str, value: u8) -> Command {
    refs(UpdateRefs {
        pusher: pusher.to_owned(),
        ..push(1, vec![to_create(&format!("refs/heads/b{value}"), value)])
    })
}

#[test]
fn a_repository_that_follows_another_takes_pushes_of_its_run_only() {
    let mut shard = shard(MirrorKind::Pull);
    shard.nothing_but(pushed_by("admin", 1), wrong());
    let run = |fence| {
        let mirror = id(1);
        MirrorPusher { mirror, fence }.to_string()
    };
    let made = LogIndex::new(shard.index - 1);
    shard.nothing_but(pushed_by(&run(made), 1), wrong());
    let first = begun(&mut shard);
    let taken = |reply: Reply| matches!(reply, Reply::RefsUpdated { .. });
    assert!(taken(shard.reply(pushed_by(&run(first), 1))));
    shard.now_ms += LEASE_MS;
    let second = begun(&mut shard);
    shard.nothing_but(pushed_by(&run(first), 2), wrong());
    assert!(taken(shard.reply(pushed_by(&run(second), 2))));
    shard.run(word(1, second, done()));
    shard.nothing_but(pushed_by(&run(second), 3), wrong());
    assert_eq!(shard.reply(change(1, MirrorChange::Remove)), Reply::Done);
    assert!(taken(shard.reply(pushed_by("admin", 3))));
}

#[test]
fn mirrors_are_changed_made_due_and_removed() {
    let mut shard = shard(MirrorKind::Pull);
    shard.nothing_but(set(2, MirrorKind::Pull), wrong());
    assert_eq!(shard.reply(set(2, MirrorKind::Push)), Reply::Done);
    assert_eq!(shard.view().mirrors().count(), 2);
    let fence = begun(&mut shard);
    shard.run(word(1, fence, done()));
    shard.now_ms += 1;
    assert_eq!(shard.reply(change(1, MirrorChange::Due)), Reply::Done);
    assert!(mirror(&shard).is_due(shard.now_ms));
    let running = begun(&mut shard);
    shard.nothing_but(change(1, MirrorChange::Due), Reply::Done);
    assert_eq!(shard.reply(change(1, MirrorChange::Remove)), Reply::Done);
    shard.nothing_but(word(1, running, done()), wrong());
    shard.nothing_but(change(1, MirrorChange::Due), wrong());
    for number in 3..18 {
        assert_eq!(shard.reply(set(number, MirrorKind::Push)), Reply::Done);
    }
    shard.nothing_but(set(18, MirrorKind::Push), wrong());
    shard.run(drop_repo(1));
    assert_eq!(shard.view().mirrors().count(), 0);
    let gone = Reply::Refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    shard.nothing_but(set(1, MirrorKind::Push), gone);
}

#[test]
fn settings_beyond_their_limits_are_refused() {
    let mut shard = Group::shard();
    shard.run(create(1));
    let good = settings(MirrorKind::Push);
    let bad = [
        MirrorSettings {
            interval_ms: 59_999,
            ..good.clone()
        },
        MirrorSettings {
            interval_ms: u64::MAX,
            ..good.clone()
        },
        MirrorSettings {
            url: String::new(),
            ..good.clone()
        },
        MirrorSettings {
            url: "x".repeat(2049),
            ..good.clone()
        },
        MirrorSettings {
            secret: Some(MirrorSecret {
                user: "x".repeat(4096),
                password: "y".to_owned(),
            }),
            ..good
        },
    ];
    for settings in bad {
        let set = ShardCommand::SetMirror(SetMirror {
            repo: repo_id(1),
            generation: FIRST,
            mirror: id(1),
            settings,
        });
        let refused = Reply::Refused(Refusal::Invalid);
        shard.nothing_but(Command::Shard(set), refused);
    }
}

fn commands() -> Vec<Command> {
    vec![
        set(1, MirrorKind::Pull),
        change(1, MirrorChange::Remove),
        change(1, MirrorChange::Due),
        begin(1, START_MS),
        word(
            1,
            LogIndex::new(300),
            MirrorWord::Working { lease_ms: LEASE_MS },
        ),
        word(1, LogIndex::new(300), done()),
        word(1, LogIndex::new(300), failed()),
    ]
}

fn records() -> [Mirror; 2] {
    let new = Mirror {
        id: id(1),
        repo: repo_id(1),
        settings: MirrorSettings {
            secret: None,
            ..settings(MirrorKind::Push)
        },
        next_due_ms: START_MS,
        fence: LogIndex::new(300),
        run: None,
        failures: 0,
        last: None,
    };
    let MirrorWord::Ended(outcome) = failed() else {
        panic!("it ended");
    };
    let running = Mirror {
        settings: settings(MirrorKind::Pull),
        run: Some(MirrorRun {
            began_ms: START_MS,
            until_ms: START_MS + LEASE_MS,
        }),
        failures: 2,
        last: Some(MirrorLast {
            scheduled_at_ms: START_MS - 2,
            ended_ms: START_MS - 1,
            outcome,
        }),
        ..new
    };
    [new, running]
}

fn lines() -> Lines {
    let commands = commands().into_iter();
    let mut lines: Lines = commands
        .map(|command| (command.name().to_owned(), command.encode()))
        .collect();
    for record in records() {
        lines.push((
            "mirror".to_owned(),
            stored::encode(number::MIRROR, 1, &record),
        ));
    }
    lines
}

#[test]
fn commands_and_records_keep_their_bytes() {
    compare(&lines(), GOLDEN);
    let mut golden = golden_bytes(GOLDEN);
    for command in commands() {
        let bytes = golden.next().expect("a line");
        assert_eq!(Command::decode(&bytes).as_ref(), Ok(&command));
        assert_eq!(command.level(), VERSION_REPOS);
        assert!((76..=79).contains(&command.number()));
    }
    for record in records() {
        let bytes = golden.next().expect("a line");
        assert_eq!(
            stored::decode_v1::<Mirror>(number::MIRROR, &bytes),
            Ok(record)
        );
    }
}
