//! The refs that runs of a mirror may remove: set with the mirror, and used up by one run that
//! knows of the permission. With their bytes, of release level 5.

use henge_types::command::VERSION_MIRROR_REMOVALS;
use henge_types::stored::{self, number};
use henge_types::{
    Command, LogIndex, MirrorChange, MirrorKind, MirrorRemoval, MirrorRemovalRecord, MirrorWord,
    Reply, SecretEdit,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes};
use crate::mirrors::{begun, change, done, edit, failed, id, set_with, shard_with, word, wrong};

const GOLDEN: &str = include_str!("../golden/mirror_removals_5.hex");

fn record(shard: &Group) -> Option<MirrorRemovalRecord> {
    shard.view().mirror_removal(&repo_id(1), &id(1))
}

fn removal(shard: &Group) -> Option<MirrorRemoval> {
    record(shard).map(|known| known.removal)
}

/// The report of a run that has used the permission it read at its begin.
fn came_through(known: Option<MirrorRemovalRecord>) -> MirrorWord {
    let since = known.map_or(LogIndex::new(0), |known| known.since);
    MirrorWord::CameThrough { since }
}

fn led_elsewhere(removal: MirrorRemoval) -> Command {
    edit(1, |edit| {
        edit.url = Some("https://example.org/b.git".to_owned());
        edit.secret = SecretEdit::Remove;
        edit.removal = Some(removal);
    })
}

/// A mirror onto a repository with refs of its own deleted them without consent.
#[test]
fn what_a_mirror_may_remove_holds_until_a_run_came_through() {
    for said in [MirrorRemoval::Nothing, MirrorRemoval::Everything] {
        let mut shard = shard_with(MirrorKind::Pull, Some(said));
        assert_eq!(removal(&shard), Some(said));
        // A failed run uses nothing up, with any cause of failure.
        let fence = begun(&mut shard);
        shard.run(word(1, fence, failed()));
        assert_eq!(removal(&shard), Some(said));
        shard.now_ms += 3_600_000;
        let fence = begun(&mut shard);
        let earlier = LogIndex::new(fence.get() - 1);
        let used = came_through(record(&shard));
        shard.nothing_but(word(1, earlier, used.clone()), wrong());
        assert_eq!(shard.reply(word(1, fence, used)), Reply::Done);
        assert_eq!(removal(&shard), None);
        // The run continues: its end is a separate report.
        assert_eq!(shard.reply(word(1, fence, done())), Reply::Done);
        assert_eq!(removal(&shard), None);
    }
    let shard = shard_with(MirrorKind::Pull, None);
    assert_eq!(removal(&shard), None);
}

/// A run with an earlier permission must not use up the one for the next run.
#[test]
fn what_is_said_during_a_run_is_for_the_next() {
    let mut shard = shard_with(MirrorKind::Pull, Some(MirrorRemoval::Everything));
    let fence = begun(&mut shard);
    let used = came_through(record(&shard));
    let led = led_elsewhere(MirrorRemoval::Nothing);
    assert_eq!(shard.reply(led), Reply::Done);
    assert_eq!(shard.reply(word(1, fence, used)), Reply::Done);
    assert_eq!(removal(&shard), Some(MirrorRemoval::Nothing));
    assert_eq!(shard.reply(word(1, fence, done())), Reply::Done);
    shard.now_ms += 3_600_000;
    let fence = begun(&mut shard);
    let used = came_through(record(&shard));
    assert_eq!(shard.reply(word(1, fence, used)), Reply::Done);
    assert_eq!(removal(&shard), None);
}

#[test]
fn a_loss_can_be_agreed_to_and_goes_with_the_mirror() {
    let mut shard = shard_with(MirrorKind::Pull, Some(MirrorRemoval::Nothing));
    let fence = begun(&mut shard);
    shard.run(word(1, fence, failed()));
    let whatever = change(1, MirrorChange::DueWhateverItRemoves);
    assert_eq!(shard.reply(whatever.clone()), Reply::Done);
    assert_eq!(removal(&shard), Some(MirrorRemoval::Everything));
    // The mirror is due at once.
    begun(&mut shard);
    // An edit without a statement leaves the permission unchanged.
    shard.run(edit(1, |edit| edit.interval_ms = Some(7_200_000)));
    assert_eq!(removal(&shard), Some(MirrorRemoval::Everything));
    assert_eq!(shard.reply(change(1, MirrorChange::Remove)), Reply::Done);
    assert_eq!(removal(&shard), None);
    shard.nothing_but(whatever, wrong());
    shard.run(set_with(
        1,
        MirrorKind::Pull,
        Some(MirrorRemoval::Everything),
    ));
    shard.run(drop_repo(1));
    assert_eq!(removal(&shard), None);
}

/// Two users moved a mirror to another address at once: consent for one address was applied to the
/// other.
#[test]
fn what_was_agreed_to_for_one_address_holds_for_no_other() {
    let mut shard = shard_with(MirrorKind::Pull, None);
    let version = VERSION_MIRROR_REMOVALS;
    shard.run(Command::VersionBarrier { version });
    assert_eq!(
        shard.reply(led_elsewhere(MirrorRemoval::Everything)),
        Reply::Done
    );
    // For the author of this edit, the mirror had that address already.
    let back = |url: &str| {
        let url = url.to_owned();
        edit(1, move |edit| {
            edit.url = Some(url);
            edit.secret = SecretEdit::Remove;
        })
    };
    shard.run(back("https://example.org/b.git"));
    assert_eq!(
        removal(&shard),
        Some(MirrorRemoval::Everything),
        "it is there"
    );
    shard.run(back("https://example.org/c.git"));
    assert_eq!(removal(&shard), Some(MirrorRemoval::Nothing));
}

fn commands() -> Vec<Command> {
    vec![
        set_with(1, MirrorKind::Pull, Some(MirrorRemoval::Nothing)),
        set_with(1, MirrorKind::Pull, Some(MirrorRemoval::Everything)),
        led_elsewhere(MirrorRemoval::Nothing),
        change(1, MirrorChange::DueWhateverItRemoves),
        word(1, LogIndex::new(300), came_through(Some(records()[0]))),
    ]
}

fn records() -> [MirrorRemovalRecord; 2] {
    [MirrorRemoval::Nothing, MirrorRemoval::Everything].map(|removal| MirrorRemovalRecord {
        removal,
        since: LogIndex::new(300),
    })
}

pub(crate) fn lines() -> Lines {
    let commands = commands().into_iter();
    let mut lines: Lines = commands
        .map(|command| (command.name().to_owned(), command.encode()))
        .collect();
    for record in records() {
        let bytes = stored::encode(number::MIRROR_REMOVAL, 1, &record);
        lines.push(("mirror_removal".to_owned(), bytes));
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
        assert_eq!(command.level(), VERSION_MIRROR_REMOVALS, "{command:?}");
    }
    let numbers: Vec<_> = commands().iter().map(Command::number).collect();
    assert_eq!(numbers, [96, 96, 97, 98, 99]);
    for record in records() {
        let bytes = golden.next().expect("a line");
        let read = stored::decode_v1(number::MIRROR_REMOVAL, &bytes);
        assert_eq!(read, Ok(record));
    }
}
