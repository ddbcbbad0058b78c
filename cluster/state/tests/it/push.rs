//! Pushes: accepted and refused updates, and other changes.

mod former_tips;
mod rules;

use henge_state::Effect;
use henge_types::{
    Generation, LogIndex, ObjectId, PackRecord, PreviousValue, RefRefusal, RefUpdate, Refusal,
    Reply, ShardRepo, UpdateRefs,
};

use crate::fixtures::*;

const MAIN: &str = "refs/heads/main";

fn shard_with(names: &[(&str, u8)]) -> Group {
    let mut shard = Group::shard();
    shard.run(create(1));
    if !names.is_empty() {
        let updates = names.iter().map(|(name, value)| to_create(name, *value));
        shard.run(refs(push(1, updates.collect())));
    }
    shard
}

fn listed(shard: &Group) -> Vec<(String, ObjectId)> {
    let refs = shard.view().refs(&repo_id(1), "");
    refs.map(|(name, value)| (name.to_string(), value))
        .collect()
}

fn expect_refs(shard: &Group, expected: &[(&str, u8)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), oid(*value)))
        .collect();
    assert_eq!(listed(shard), expected);
}

fn repo(shard: &Group) -> ShardRepo {
    shard.view().repo(&repo_id(1)).expect("it is there")
}

fn install(number: u8) -> Effect {
    Effect::InstallPack {
        network: network(1),
        pack: pack(number),
    }
}

#[test]
fn a_push_changes_refs_manifest_and_repository() {
    let mut shard = shard_with(&[]);
    shard.now_ms += 7;
    let outcome = shard.run(refs(push(1, vec![to_create(MAIN, 1)])));
    assert_eq!(outcome.reply, verdicts(vec![verdict(MAIN, None, Ok(()))]));
    assert_eq!(outcome.effects, [install(0x70)]);
    expect_refs(&shard, &[(MAIN, 1)]);
    let named = PackRecord {
        pack: pack(0x70).pack,
        pack_bytes: 4,
        idx_bytes: 3,
        objects: 2,
        named_at: LogIndex::new(2),
    };
    assert_eq!(
        shard.view().packs(&network(1)).collect::<Vec<_>>(),
        std::slice::from_ref(&named)
    );
    assert_eq!(shard.view().pack(&network(1), &named.pack), Some(named));
    assert_eq!(repo(&shard).updated_at, LogIndex::new(2));
    assert_eq!(repo(&shard).updated_at_ms, START_MS + 7);
}

#[test]
fn a_pack_named_again_is_installed_again_and_keeps_its_record() {
    let mut shard = shard_with(&[(MAIN, 1)]);
    let outcome = shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    assert_eq!(outcome.effects, [install(0x70)]);
    let named = shard.view().pack(&network(1), &pack(0x70).pack);
    assert_eq!(named.map(|named| named.named_at), Some(LogIndex::new(2)));
}

#[test]
fn expected_values_are_checked_again() {
    use PreviousValue::{Any, MustExist, MustExistAndMatch, MustNotExist};
    let exists = RefRefusal::Exists { current: oid(1) };
    let stale = RefRefusal::Stale {
        current: Some(oid(1)),
    };
    let nothing = RefRefusal::Stale { current: None };
    let cases = [
        (Any, Some(1), Ok(())),
        (Any, None, Ok(())),
        (MustNotExist, Some(1), Err(exists)),
        (MustNotExist, None, Ok(())),
        (MustExist, Some(1), Ok(())),
        (MustExist, None, Err(RefRefusal::Missing)),
        (MustExistAndMatch(oid(1)), Some(1), Ok(())),
        (MustExistAndMatch(oid(9)), Some(1), Err(stale)),
        (MustExistAndMatch(oid(9)), None, Err(nothing)),
    ];
    for (expected, current, result) in cases {
        for new in [Some(2), None] {
            let before: Vec<_> = current.iter().map(|value| (MAIN, *value)).collect();
            let mut shard = shard_with(&before);
            let outcome = shard.run(refs(push(1, vec![update(MAIN, expected, new)])));
            let verdict = verdict(MAIN, current, result.clone());
            assert_eq!(
                outcome.reply,
                verdicts(vec![verdict]),
                "{expected:?} {current:?}"
            );
            let after = if result.is_ok() { new } else { current };
            let after: Vec<_> = after.iter().map(|value| (MAIN, *value)).collect();
            expect_refs(&shard, &after);
            if result.is_err() {
                assert_eq!((outcome.writes, outcome.effects), (vec![], vec![]));
            }
        }
    }
}

#[test]
fn updates_stand_alone_unless_atomic() {
    let start = [("refs/heads/a", 1), ("refs/heads/b", 1)];
    let updates = || vec![to_move("refs/heads/a", 1, 2), to_move("refs/heads/b", 9, 2)];
    let stale = RefRefusal::Stale {
        current: Some(oid(1)),
    };
    let refused = verdict("refs/heads/b", Some(1), Err(stale));

    let mut shard = shard_with(&start);
    let outcome = shard.run(refs(push(1, updates())));
    let taken = verdict("refs/heads/a", Some(1), Ok(()));
    assert_eq!(outcome.reply, verdicts(vec![taken, refused.clone()]));
    expect_refs(&shard, &[("refs/heads/a", 2), ("refs/heads/b", 1)]);
    assert_eq!(outcome.effects, [install(0x70)]);

    let mut shard = shard_with(&start);
    let aborted = verdict("refs/heads/a", Some(1), Err(RefRefusal::AtomicAborted));
    shard.nothing_but(atomic(1, updates()), verdicts(vec![aborted, refused]));
    expect_refs(&shard, &start);
}

#[test]
fn an_atomic_push_that_fits_is_taken_whole() {
    let mut shard = shard_with(&[("refs/heads/a", 1)]);
    let updates = vec![to_delete("refs/heads/a", 1), to_create("refs/heads/a/b", 2)];
    shard.run(atomic(1, updates));
    expect_refs(&shard, &[("refs/heads/a/b", 2)]);
}

#[test]
fn a_ref_below_or_above_another_is_refused() {
    type Case<'a> = (&'a [(&'a str, u8)], &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[("refs/heads/a", 1)], "refs/heads/a/b", "refs/heads/a"),
        (&[("refs/heads/a", 1)], "refs/heads/a/b/c/d", "refs/heads/a"),
        (&[("refs/heads/a/b", 1)], "refs/heads/a", "refs/heads/a/b"),
        (
            &[("refs/heads/a-x", 1), ("refs/heads/a/b/c", 1)],
            "refs/heads/a",
            "refs/heads/a/b/c",
        ),
        (
            &[("refs/changes/01/1", 1)],
            "refs/changes/01",
            "refs/changes/01/1",
        ),
    ];
    for (before, new, with) in cases {
        let mut shard = shard_with(before);
        let conflict = RefRefusal::NameConflict { with: name(with) };
        let reply = verdicts(vec![verdict(new, None, Err(conflict))]);
        shard.nothing_but(refs(push(1, vec![to_create(new, 2)])), reply);
    }
}

#[test]
fn names_that_only_look_alike_do_not_conflict() {
    let mut shard = shard_with(&[
        ("refs/heads/a-b", 1),
        ("refs/heads/a.b", 1),
        ("refs/tags/a", 1),
    ]);
    let updates = vec![
        to_create("refs/heads/a", 2),
        to_create("refs/heads/ab/c", 2),
    ];
    let reply = shard.reply(refs(push(1, updates)));
    let taken = [
        verdict("refs/heads/a", None, Ok(())),
        verdict("refs/heads/ab/c", None, Ok(())),
    ];
    assert_eq!(reply, verdicts(taken.to_vec()));
}

#[test]
fn of_two_new_refs_in_each_others_way_the_first_is_taken() {
    for (first, second) in [
        ("refs/heads/a", "refs/heads/a/b"),
        ("refs/heads/a/b", "refs/heads/a"),
        ("refs/heads/a/b/c", "refs/heads/a"),
    ] {
        let mut shard = shard_with(&[]);
        let updates = vec![to_create(first, 1), to_create(second, 1)];
        let conflict = RefRefusal::NameConflict { with: name(first) };
        let expected = [
            verdict(first, None, Ok(())),
            verdict(second, None, Err(conflict)),
        ];
        assert_eq!(
            shard.reply(refs(push(1, updates))),
            verdicts(expected.to_vec())
        );
        expect_refs(&shard, &[(first, 1)]);
    }
}

#[test]
fn deletions_of_the_push_make_room_wherever_they_stand() {
    let mut shard = shard_with(&[("refs/heads/a", 1)]);
    let updates = vec![to_create("refs/heads/a/b", 2), to_delete("refs/heads/a", 1)];
    shard.run(refs(push(1, updates)));
    expect_refs(&shard, &[("refs/heads/a/b", 2)]);
    let updates = vec![to_create("refs/heads/a", 3), to_delete("refs/heads/a/b", 2)];
    shard.run(refs(push(1, updates)));
    expect_refs(&shard, &[("refs/heads/a", 3)]);
}

#[test]
fn a_refused_deletion_makes_no_room() {
    let mut shard = shard_with(&[("refs/heads/a", 1)]);
    let updates = vec![to_delete("refs/heads/a", 9), to_create("refs/heads/a/b", 2)];
    let stale = RefRefusal::Stale {
        current: Some(oid(1)),
    };
    let conflict = RefRefusal::NameConflict {
        with: name("refs/heads/a"),
    };
    let expected = [
        verdict("refs/heads/a", Some(1), Err(stale)),
        verdict("refs/heads/a/b", None, Err(conflict)),
    ];
    let reply = verdicts(expected.to_vec());
    shard.nothing_but(refs(push(1, updates)), reply);
}

#[test]
fn a_push_without_change_is_accepted_and_changes_nothing_but_the_manifest() {
    let mut shard = shard_with(&[(MAIN, 1)]);
    let before = repo(&shard);
    let mut again = push(1, vec![to_move(MAIN, 1, 1)]);
    again.packs = vec![pack(0x71)];
    let outcome = shard.run(refs(again));
    assert_eq!(
        outcome.reply,
        verdicts(vec![verdict(MAIN, Some(1), Ok(()))])
    );
    assert_eq!(outcome.effects, [install(0x71)]);
    assert_eq!(outcome.writes.len(), 1);
    assert_eq!(repo(&shard), before);
    assert!(
        !shard
            .view()
            .was_tip_recently(&repo_id(1), &oid(1), START_MS)
    );
}

#[test]
fn deleting_what_is_not_there_is_accepted_where_anything_was_expected() {
    let mut shard = shard_with(&[]);
    let mut nothing = push(1, vec![update(MAIN, PreviousValue::Any, None)]);
    nothing.packs.clear();
    shard.nothing_but(refs(nothing), verdicts(vec![verdict(MAIN, None, Ok(()))]));
}

#[test]
fn the_repository_and_its_life_are_checked_first() {
    let mut shard = shard_with(&[(MAIN, 1)]);
    let unknown = Refusal::NoSuchRepo { repo: repo_id(2) };
    let to_unknown = refs(push(2, vec![to_create(MAIN, 1)]));
    shard.nothing_but(to_unknown, Reply::Refused(unknown));
    // A later generation is accepted: the shard has yet to get it.
    let named = Generation::new(0);
    let stale = UpdateRefs {
        generation: named,
        ..push(1, vec![to_move(MAIN, 1, 2)])
    };
    let wrong = Refusal::WrongGeneration {
        named,
        current: FIRST,
    };
    shard.nothing_but(refs(stale), Reply::Refused(wrong));
}

#[test]
fn the_first_branches_move_a_head_that_points_nowhere() {
    let head_after = |before: &[(&str, u8)], updates: Vec<RefUpdate>| {
        let mut shard = shard_with(before);
        shard.run(refs(push(1, updates)));
        repo(&shard).head.to_string()
    };
    let trunk = || to_create("refs/heads/trunk", 1);
    let dev = || to_create("refs/heads/dev", 1);
    let tag = || to_create("refs/tags/v1", 1);
    assert_eq!(
        head_after(&[], vec![tag(), trunk(), dev()]),
        "refs/heads/trunk"
    );
    assert_eq!(head_after(&[], vec![dev(), trunk()]), "refs/heads/dev");
    // HEAD's own branch is among them.
    assert_eq!(head_after(&[], vec![dev(), to_create(MAIN, 1)]), MAIN);
    assert_eq!(head_after(&[], vec![tag()]), MAIN);
    // The first branch was refused: the first one that was created counts.
    assert_eq!(
        head_after(&[], vec![to_move("refs/heads/dev", 1, 2), trunk()]),
        "refs/heads/trunk"
    );
    assert_eq!(
        head_after(&[("refs/tags/v0", 1)], vec![trunk()]),
        "refs/heads/trunk"
    );
}

#[test]
fn later_branches_leave_head_alone() {
    let mut shard = shard_with(&[("refs/heads/dev", 1)]);
    shard.run(set_head(1, MAIN));
    shard.run(refs(push(1, vec![to_create("refs/heads/trunk", 1)])));
    assert_eq!(repo(&shard).head, name(MAIN));
    // Also when the push deletes HEAD's branch, or every other.
    shard.run(refs(push(
        1,
        vec![to_delete("refs/heads/dev", 1), to_create("refs/heads/x", 1)],
    )));
    assert_eq!(repo(&shard).head, name(MAIN));
    let mut shard = shard_with(&[(MAIN, 1)]);
    shard.run(refs(push(
        1,
        vec![to_delete(MAIN, 1), to_create("refs/heads/x", 1)],
    )));
    assert_eq!(repo(&shard).head, name(MAIN));
}
