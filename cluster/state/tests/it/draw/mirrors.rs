//! Random commands of mirrors.

use henge_types::{
    BeginMirror, ChangeMirror, EditMirror, MirrorChange, MirrorId, MirrorKind, MirrorOutcome,
    MirrorRemoval, MirrorSecret, MirrorSettings, MirrorWord, RecordMirror, SecretEdit, SetMirror,
    ShardCommand,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::any_generation;
use super::shard::{any_index, any_repo};
use crate::fixtures::START_MS;

pub(super) fn any_mirror_command() -> BoxedStrategy<ShardCommand> {
    let commands = prop_oneof![
        4 => any_set().prop_map(ShardCommand::SetMirror),
        3 => any_edit().prop_map(ShardCommand::EditMirror),
        3 => any_change().prop_map(ShardCommand::ChangeMirror),
        5 => any_begin().prop_map(ShardCommand::BeginMirror),
        6 => any_record().prop_map(ShardCommand::RecordMirror),
    ];
    commands.boxed()
}

pub(super) fn any_mirror() -> impl Strategy<Value = MirrorId> {
    (1..3_u8).prop_map(|byte| MirrorId::from_bytes([byte; 16]))
}

/// Two addresses, and sometimes an empty one.
fn any_url() -> impl Strategy<Value = String> {
    let urls = vec!["https://example.org/a.git", "https://example.org/b.git"];
    prop_oneof![10 => select(urls), 1 => Just("")].prop_map(str::to_owned)
}

fn any_secret() -> impl Strategy<Value = MirrorSecret> {
    select(vec!["one", "two"]).prop_map(|password| MirrorSecret {
        user: "me".to_owned(),
        password: password.to_owned(),
    })
}

/// A minute, an hour, and sometimes too short an interval.
fn any_interval() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(60_000_u64), 6 => Just(3_600_000), 1 => Just(59_999)]
}

fn any_removal() -> impl Strategy<Value = Option<MirrorRemoval>> {
    option::of(select(vec![
        MirrorRemoval::Nothing,
        MirrorRemoval::Everything,
    ]))
}

/// The longest lease, a short one, and sometimes one that is too long.
fn any_lease() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(15_000_u64), 6 => Just(600_000), 1 => Just(600_001), 1 => Just(u64::MAX)]
}

fn any_set() -> impl Strategy<Value = SetMirror> {
    let kind = prop_oneof![3 => Just(MirrorKind::Push), 1 => Just(MirrorKind::Pull)];
    let secret = option::of(any_secret());
    let settings = (kind, any_url(), secret, any_interval(), any::<bool>());
    let settings = settings.prop_map(|(kind, url, secret, interval_ms, on_push)| MirrorSettings {
        kind,
        url,
        secret,
        interval_ms,
        on_push,
    });
    let parts = (
        any_repo(),
        any_generation(),
        any_mirror(),
        settings,
        any_removal(),
    );
    parts.prop_map(|(repo, generation, mirror, settings, removal)| SetMirror {
        repo,
        generation,
        mirror,
        settings,
        removal,
    })
}

fn any_edit() -> impl Strategy<Value = EditMirror> {
    let secret = prop_oneof![
        1 => Just(SecretEdit::Keep),
        1 => any_secret().prop_map(SecretEdit::Set),
        1 => Just(SecretEdit::Remove),
    ];
    let life = (any_repo(), any_generation(), any_mirror());
    let address = (option::of(any_url()), secret);
    let interval_ms = option::weighted(0.3, any_interval());
    let on_push = option::weighted(0.3, any::<bool>());
    let parts = (life, address, interval_ms, on_push, any_removal());
    parts.prop_map(|(life, (url, secret), interval_ms, on_push, removal)| {
        let (repo, generation, mirror) = life;
        EditMirror {
            repo,
            generation,
            mirror,
            url,
            secret,
            interval_ms,
            on_push,
            removal,
        }
    })
}

fn any_change() -> impl Strategy<Value = ChangeMirror> {
    let change = select(vec![
        MirrorChange::Remove,
        MirrorChange::Due,
        MirrorChange::DueWhateverItRemoves,
    ]);
    let parts = (any_repo(), any_generation(), any_mirror(), change);
    parts.prop_map(|(repo, generation, mirror, change)| ChangeMirror {
        repo,
        generation,
        mirror,
        change,
    })
}

fn any_begin() -> impl Strategy<Value = BeginMirror> {
    let parts = (any_repo(), any_mirror(), 0..3_u64, any_lease());
    parts.prop_map(|(repo, mirror, ahead_ms, lease_ms)| BeginMirror {
        repo,
        mirror,
        scheduled_at_ms: START_MS + ahead_ms,
        lease_ms,
    })
}

fn any_record() -> impl Strategy<Value = RecordMirror> {
    // The long reason has characters of two bytes and begins at an odd one.
    let reasons = vec!["no answer".to_owned(), format!("x{}", "é".repeat(300))];
    let word = prop_oneof![
        2 => any_lease().prop_map(|lease_ms| MirrorWord::Working { lease_ms }),
        2 => (0..3_u64, 0..300_u64).prop_map(|(changed, pack_bytes)| {
            MirrorWord::Ended(MirrorOutcome::Done { changed, pack_bytes })
        }),
        2 => select(reasons).prop_map(|why| MirrorWord::Ended(MirrorOutcome::Failed { why })),
        2 => any_index().prop_map(|since| MirrorWord::CameThrough { since }),
    ];
    let parts = (any_repo(), any_mirror(), any_index(), word);
    parts.prop_map(|(repo, mirror, fence, word)| RecordMirror {
        repo,
        mirror,
        fence,
        word,
    })
}
