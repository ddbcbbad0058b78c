//! Protected refs.

use henge_types::limits::REF_PROTECTIONS_MAX;
use henge_types::{
    Command, LogIndex, PreviousValue, RefRefusal, RefUpdate, Refusal, Reply, UpdateRefs,
};

use crate::fixtures::*;

const MAIN: &str = "refs/heads/main";

fn refused(refusal: Refusal) -> Reply {
    Reply::Refused(refusal)
}

/// A repository with `main`, `release/1` and a tag at value 1.
fn shard() -> Group {
    let mut shard = Group::shard();
    shard.run(create(1));
    let refs_of = [MAIN, "refs/heads/release/1", "refs/tags/v1"];
    let updates = refs_of.map(|at| to_create(at, 1)).to_vec();
    shard.run(refs(push(1, updates)));
    shard
}

/// A push that the leader checked against the state after this entry.
fn checked_at(index: u64, updates: Vec<RefUpdate>) -> Command {
    refs(UpdateRefs {
        checked_at: LogIndex::new(index),
        ..push(1, updates)
    })
}

fn no_delete(text: &str) -> Result<(), RefRefusal> {
    Err(RefRefusal::ProtectedFromDeletion {
        pattern: pattern(text),
    })
}

#[test]
fn patterns_come_and_go() {
    let mut shard = Group::shard();
    let unknown = refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    shard.nothing_but(protect(1, "main"), unknown.clone());
    shard.nothing_but(unprotect(1, "main"), unknown);
    shard.run(create(1));
    shard.nothing_but(unprotect(1, "main"), refused(Refusal::NoSuchProtection));
    assert_eq!(shard.reply(protect(1, "release/*")), Reply::Done);
    assert_eq!(shard.reply(protect(1, "main")), Reply::Done);
    shard.nothing_but(
        protect(1, "refs/heads/main"),
        refused(Refusal::ProtectionExists),
    );
    let rules = shard.view().protections(&repo_id(1));
    assert_eq!(rules.changed_at, LogIndex::new(shard.index - 1));
    let patterns: Vec<_> = rules.rules.iter().map(|rule| &rule.pattern).collect();
    assert_eq!(patterns, [&pattern("main"), &pattern("release/*")]);
    let patterns = rules.patterns();
    let by = patterns.first_match(&name("refs/heads/release/3"));
    assert_eq!(by, Some(&pattern("release/*")));
    assert_eq!(patterns.first_match(&name("refs/tags/main")), None);
    assert_eq!(shard.reply(unprotect(1, "main")), Reply::Done);
    let left = shard.view().protections(&repo_id(1));
    assert_eq!((left.rules.len(), left.changed_at.get()), (1, shard.index));
    for number in 1..REF_PROTECTIONS_MAX {
        assert_eq!(shard.reply(protect(1, &format!("b{number}"))), Reply::Done);
    }
    shard.nothing_but(protect(1, "one-more"), refused(Refusal::TooMany));
    // The protections are removed with the repository.
    shard.run(drop_repo(1));
    assert_eq!(shard.view().protections(&repo_id(1)).rules, []);
}

#[test]
fn a_protected_ref_is_not_deleted() {
    let mut shard = shard();
    shard.run(protect(1, "main"));
    shard.run(protect(1, "refs/tags/**"));
    let updates = vec![
        to_delete(MAIN, 1),
        to_delete("refs/heads/release/1", 1),
        update("refs/tags/v1", PreviousValue::Any, None),
        to_create("refs/tags/v2", 1),
    ];
    let expected = vec![
        verdict(MAIN, Some(1), no_delete("main")),
        verdict("refs/heads/release/1", Some(1), Ok(())),
        verdict("refs/tags/v1", Some(1), no_delete("refs/tags/**")),
        verdict("refs/tags/v2", None, Ok(())),
    ];
    let index = shard.index;
    let taken = shard.reply(checked_at(index, updates));
    assert_eq!(taken, verdicts(expected));
    // An atomic push is refused as a whole.
    let updates = vec![to_delete(MAIN, 1), to_create("refs/heads/x", 1)];
    let expected = vec![
        verdict(MAIN, Some(1), no_delete("main")),
        verdict("refs/heads/x", None, Err(RefRefusal::AtomicAborted)),
    ];
    shard.nothing_but(atomic(1, updates), verdicts(expected));
    // A missing ref is not protected.
    let gone = to_delete("refs/tags/none", 1);
    let stale = verdict(
        "refs/tags/none",
        None,
        Err(RefRefusal::Stale { current: None }),
    );
    shard.nothing_but(refs(push(1, vec![gone])), verdicts(vec![stale]));
}

/// The leader checks whether a move keeps the history; apply checks that the leader used the
/// present patterns.
#[test]
fn a_move_that_was_looked_at_before_the_pattern_came_is_looked_at_again() {
    let mut shard = shard();
    shard.run(protect(1, "main"));
    let protected_at = shard.index;
    let moves = || vec![to_move(MAIN, 1, 2), to_move("refs/heads/release/1", 1, 2)];
    shard.nothing_but(checked_at(protected_at - 1, moves()), Reply::Recheck);
    // An update without an expected value cannot have been checked from that value.
    for expected in [PreviousValue::Any, PreviousValue::MustExist] {
        let blind = vec![update(MAIN, expected, Some(2))];
        shard.nothing_but(checked_at(protected_at, blind), Reply::Recheck);
    }
    // Such a push leaves no request record either.
    let request = binding(shard.now_ms, 1);
    let outcome = shard.run_for(Some(request), checked_at(protected_at - 1, moves()));
    assert_eq!((outcome.reply, outcome.writes.len()), (Reply::Recheck, 0));
    let moved = [MAIN, "refs/heads/release/1"].map(|at| verdict(at, Some(1), Ok(())));
    let taken = shard.reply(checked_at(protected_at, moves()));
    assert_eq!(taken, verdicts(moved.to_vec()));
    // Moves of other refs, and updates without a change, need no second check.
    let other = vec![
        to_move("refs/heads/release/1", 2, 3),
        to_move(MAIN, 2, 2),
        to_create("refs/heads/new", 1),
    ];
    let reply = shard.reply(checked_at(0, other));
    assert!(matches!(reply, Reply::RefsUpdated { .. }), "{reply:?}");
    // Neither do stale updates.
    let stale = verdict(
        MAIN,
        Some(2),
        Err(RefRefusal::Stale {
            current: Some(oid(2)),
        }),
    );
    shard.nothing_but(
        checked_at(0, vec![to_move(MAIN, 1, 3)]),
        verdicts(vec![stale]),
    );
}
