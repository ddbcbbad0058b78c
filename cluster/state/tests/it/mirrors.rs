//! Mirrors: one run per due time, and a run that was fenced off neither reports nor pushes any
//! more.

use henge_types::command::VERSION_REPOS;
use henge_types::stored::{self, number};
use henge_types::{
    BeginMirror, ChangeMirror, Command, EditMirror, LogIndex, Mirror, MirrorChange, MirrorId,
    MirrorKind, MirrorLast, MirrorOutcome, MirrorPusher, MirrorRemoval, MirrorRun, MirrorSecret,
    MirrorSettings, MirrorWord, RecordMirror, Refusal, Reply, SecretEdit, SetMirror, ShardCommand,
    UpdateRefs,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes};

const GOLDEN: &str = include_str!("../golden/mirrors.hex");
const HOUR_MS: u64 = 3_600_000;
const LEASE_MS: u64 = 15_000;

pub(crate) fn id(byte: u8) -> MirrorId {
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
        on_push: false,
    }
}

fn set(mirror: u8, kind: MirrorKind) -> Command {
    set_with(mirror, kind, None)
}

pub(crate) fn set_with(mirror: u8, kind: MirrorKind, removal: Option<MirrorRemoval>) -> Command {
    Command::Shard(ShardCommand::SetMirror(SetMirror {
        repo: repo_id(1),
        generation: FIRST,
        mirror: id(mirror),
        settings: settings(kind),
        removal,
    }))
}

pub(crate) fn change(mirror: u8, change: MirrorChange) -> Command {
    Command::Shard(ShardCommand::ChangeMirror(ChangeMirror {
        repo: repo_id(1),
        generation: FIRST,
        mirror: id(mirror),
        change,
    }))
}

pub(crate) fn edit(mirror: u8, change: impl FnOnce(&mut EditMirror)) -> Command {
    let mut edit = EditMirror {
        repo: repo_id(1),
        generation: FIRST,
        mirror: id(mirror),
        url: None,
        secret: SecretEdit::Keep,
        interval_ms: None,
        on_push: None,
        removal: None,
    };
    change(&mut edit);
    Command::Shard(ShardCommand::EditMirror(edit))
}

fn begin(mirror: u8, scheduled_at_ms: u64) -> Command {
    Command::Shard(ShardCommand::BeginMirror(BeginMirror {
        repo: repo_id(1),
        mirror: id(mirror),
        scheduled_at_ms,
        lease_ms: LEASE_MS,
    }))
}

pub(crate) fn word(mirror: u8, fence: LogIndex, word: MirrorWord) -> Command {
    Command::Shard(ShardCommand::RecordMirror(RecordMirror {
        repo: repo_id(1),
        mirror: id(mirror),
        fence,
        word,
    }))
}

pub(crate) fn done() -> MirrorWord {
    MirrorWord::Ended(MirrorOutcome::Done {
        changed: 3,
        pack_bytes: 300,
    })
}

pub(crate) fn failed() -> MirrorWord {
    MirrorWord::Ended(MirrorOutcome::Failed {
        why: "nobody answers".to_owned(),
    })
}

pub(crate) fn wrong() -> Reply {
    Reply::Refused(Refusal::WrongState { repo: repo_id(1) })
}

fn shard(kind: MirrorKind) -> Group {
    shard_with(kind, None)
}

pub(crate) fn shard_with(kind: MirrorKind, removal: Option<MirrorRemoval>) -> Group {
    let mut shard = Group::shard();
    shard.run(create(1));
    assert_eq!(shard.reply(set_with(1, kind, removal)), Reply::Done);
    shard
}

fn mirror(shard: &Group) -> Mirror {
    let found = shard.view().mirror(&repo_id(1), &id(1));
    found.expect("the mirror is there")
}

/// Begins the due run. Returns its fence.
#[track_caller]
pub(crate) fn begun(shard: &mut Group) -> LogIndex {
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
            ..good.clone()
        },
        MirrorSettings {
            kind: MirrorKind::Pull,
            on_push: true,
            ..good
        },
    ];
    for settings in bad {
        let set = ShardCommand::SetMirror(SetMirror {
            repo: repo_id(1),
            generation: FIRST,
            mirror: id(1),
            settings,
            removal: None,
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
        edit(1, |_| {}),
        edit(1, |edit| {
            edit.url = Some("https://example.org/b.git".to_owned());
            edit.secret = SecretEdit::Remove;
            edit.interval_ms = Some(HOUR_MS);
            edit.on_push = Some(true);
        }),
        edit(1, |edit| edit.secret = SecretEdit::Set(secret("new"))),
    ]
}

fn secret(password: &str) -> MirrorSecret {
    MirrorSecret {
        user: "me".to_owned(),
        password: password.to_owned(),
    }
}

fn records() -> [Mirror; 2] {
    let new = Mirror {
        id: id(1),
        repo: repo_id(1),
        settings: MirrorSettings {
            secret: None,
            ..settings(MirrorKind::Push)
        },
        made_ms: START_MS - 3,
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

pub(crate) fn lines() -> Lines {
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
        assert!([76, 77, 78, 79, 92].contains(&command.number()));
    }
    for record in records() {
        let bytes = golden.next().expect("a line");
        assert_eq!(
            stored::decode_v1::<Mirror>(number::MIRROR, &bytes),
            Ok(record)
        );
    }
}

#[test]
fn what_a_mirror_is_told_can_be_changed_and_makes_it_due() {
    let mut shard = shard(MirrorKind::Push);
    let fence = begun(&mut shard);
    shard.run(word(1, fence, failed()));
    assert!(!mirror(&shard).is_due(shard.now_ms));
    let known = mirror(&shard).settings;
    let interval = edit(1, |edit| edit.interval_ms = Some(2 * HOUR_MS));
    assert_eq!(shard.reply(interval), Reply::Done);
    let changed = mirror(&shard);
    let expected = MirrorSettings {
        interval_ms: 2 * HOUR_MS,
        ..known
    };
    assert_eq!((changed.settings, changed.failures), (expected, 0));
    assert!(changed.next_due_ms <= shard.now_ms, "it is due");
    // Credentials are never sent to another address.
    let elsewhere = |edit: &mut EditMirror| edit.url = Some("https://example.com/".to_owned());
    let invalid = Reply::Refused(Refusal::Invalid);
    shard.nothing_but(edit(1, elsewhere), invalid.clone());
    let without = edit(1, |edit| {
        elsewhere(edit);
        edit.secret = SecretEdit::Remove;
    });
    assert_eq!(shard.reply(without), Reply::Done);
    assert_eq!(mirror(&shard).settings.url, "https://example.com/");
    assert_eq!(mirror(&shard).settings.secret, None);
    let with = edit(1, |edit| edit.secret = SecretEdit::Set(secret("new")));
    assert_eq!(shard.reply(with), Reply::Done);
    assert_eq!(mirror(&shard).settings.secret, Some(secret("new")));
    let short = edit(1, |edit| edit.interval_ms = Some(1));
    shard.nothing_but(short, invalid);
    shard.nothing_but(edit(2, |_| {}), wrong());
    // A run in progress ends with its old settings.
    let fence = begun(&mut shard);
    let due = mirror(&shard).next_due_ms;
    shard.run(edit(1, |edit| edit.on_push = Some(true)));
    assert_eq!(
        (mirror(&shard).next_due_ms, mirror(&shard).fence),
        (due, fence)
    );
    assert_eq!(shard.reply(word(1, fence, done())), Reply::Done);
    shard.run(drop_repo(1));
    let gone = Reply::Refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    shard.nothing_but(edit(1, |_| {}), gone);
}

#[test]
fn a_mirror_that_follows_every_push_is_due_after_each() {
    let mut shard = shard(MirrorKind::Push);
    shard.run(edit(1, |edit| edit.on_push = Some(true)));
    let due = |shard: &Group| mirror(shard).is_due(shard.now_ms);
    let create = |shard: &mut Group, at: &str| {
        shard.run(refs(push(1, vec![to_create(at, 1)])));
    };
    let fence = begun(&mut shard);
    shard.run(word(1, fence, done()));
    assert!(!due(&shard));
    create(&mut shard, "refs/heads/a");
    assert!(due(&shard));
    // A push during a run is not lost: the run may have read the refs before it.
    let fence = begun(&mut shard);
    create(&mut shard, "refs/heads/b");
    shard.run(word(1, fence, done()));
    assert!(due(&shard));
    let fence = begun(&mut shard);
    shard.run(word(1, fence, done()));
    assert!(!due(&shard));
    // A push without changes does not count.
    shard.run(refs(push(1, vec![to_create("refs/heads/b", 2)])));
    assert!(!due(&shard));
    // A failing mirror is not retried more often after a push.
    create(&mut shard, "refs/heads/c");
    let fence = begun(&mut shard);
    shard.run(word(1, fence, failed()));
    create(&mut shard, "refs/heads/d");
    assert!(!due(&shard));
}
