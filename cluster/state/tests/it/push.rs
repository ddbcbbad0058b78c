//! Pushes: what is accepted, what is refused and why, what else they change.

use bytes::Bytes;
use henge_state::Effect;
use henge_types::command::VERSION_REPOS;
use henge_types::limits::{
    FORMER_TIP_MS, FORMER_TIPS_EXPIRED_PER_APPLY, INLINE_PACK_BYTES_MAX, PACK_OBJECTS_MAX,
    REF_UPDATES_MAX,
};
use henge_types::{
    Command, Generation, InlinePack, LogIndex, ObjectFormat, ObjectId, PackId, PackRecord, PackRef,
    PreviousValue, RefRefusal, RefUpdate, Refusal, Reply, RepoId, ShardCommand, ShardRepo,
    UpdateRefs,
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
    assert_eq!(outcome.actions, []);
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
    // A later one is what the shard has still to be told.
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

fn expect_invalid(what: &str, broken: UpdateRefs) {
    let mut shard = shard_with(&[]);
    let before = shard.state.hash();
    let reply = shard.reply(refs(broken));
    assert_eq!(reply, Reply::Refused(Refusal::Invalid), "{what}");
    assert_eq!(shard.state.hash(), before, "{what}");
}

#[test]
fn updates_that_break_the_rules_are_refused_whole() {
    let x = || to_create("refs/heads/x", 1);
    let zero = RefUpdate {
        new: Some(ObjectId::Sha1([0; 20])),
        ..x()
    };
    let many = |count: usize| -> Vec<RefUpdate> {
        let names = (0..count).map(|number| format!("refs/heads/n{number}"));
        names.map(|name| to_create(&name, 1)).collect()
    };
    expect_invalid("no update", push(1, vec![]));
    expect_invalid("a ref twice", push(1, vec![x(), x()]));
    expect_invalid("no object", push(1, vec![zero]));
    expect_invalid("too many", push(1, many(REF_UPDATES_MAX + 1)));
    let mut shard = shard_with(&[]);
    shard.run(refs(push(1, many(REF_UPDATES_MAX))));
    assert_eq!(listed(&shard).len(), REF_UPDATES_MAX);
}

fn create_sha256() -> Command {
    Command::Shard(ShardCommand::CreateRepo {
        repo: repo_id(1),
        network: network(1),
        generation: FIRST,
        head: name(MAIN),
        object_format: ObjectFormat::Sha256,
    })
}

/// The same push, its objects named by the other hash.
fn by_sha256(push: UpdateRefs) -> UpdateRefs {
    let longer = |id: ObjectId| {
        let mut bytes = [0; 32];
        bytes[..20].copy_from_slice(id.as_bytes());
        ObjectId::Sha256(bytes)
    };
    let expected = |expected| match expected {
        PreviousValue::MustExistAndMatch(id) => PreviousValue::MustExistAndMatch(longer(id)),
        PreviousValue::Any | PreviousValue::MustExist | PreviousValue::MustNotExist => expected,
    };
    UpdateRefs {
        updates: push
            .updates
            .into_iter()
            .map(|update| RefUpdate {
                expected: expected(update.expected),
                new: update.new.map(longer),
                ..update
            })
            .collect(),
        packs: push
            .packs
            .into_iter()
            .map(|pack| PackRef {
                pack: PackId::new(longer(*pack.pack.checksum())),
                ..pack
            })
            .collect(),
        ..push
    }
}

#[test]
fn a_repository_takes_ids_of_its_own_hash_only() {
    let sha1 = || push(1, vec![to_create(MAIN, 1)]);
    let barrier = || Command::VersionBarrier {
        version: VERSION_REPOS,
    };
    let refused = || Reply::Refused(Refusal::Invalid);
    // Of a SHA-256 repository: new values and packs alike.
    let mut shard = Group::shard();
    shard.run(create_sha256());
    shard.nothing_but(refs(sha1()), refused());
    let value_only = UpdateRefs {
        updates: sha1().updates,
        ..by_sha256(sha1())
    };
    shard.nothing_but(refs(value_only), refused());
    let pack_only = UpdateRefs {
        packs: sha1().packs,
        ..by_sha256(sha1())
    };
    shard.nothing_but(refs(pack_only), refused());
    shard.run(refs(by_sha256(sha1())));
    shard.run(refs(by_sha256(push(1, vec![to_move(MAIN, 1, 2)]))));
    let value = shard.view().ref_value(&repo_id(1), &name(MAIN));
    assert_eq!(value.map(|id| id.format()), Some(ObjectFormat::Sha256));
    // Of a SHA-1 repository, once every replica looks at it.
    let mut shard = shard_with(&[]);
    shard.run(barrier());
    shard.nothing_but(refs(by_sha256(sha1())), refused());
    shard.run(refs(sha1()));
    expect_refs(&shard, &[(MAIN, 1)]);
    let mut older = shard_with(&[]);
    let reply = older.reply(refs(by_sha256(sha1())));
    assert!(matches!(reply, Reply::RefsUpdated { .. }), "{reply:?}");
}

#[test]
fn a_network_has_one_object_format() {
    let mut shard = Group::shard();
    shard.run(create_sha256());
    shard.nothing_but(create_in(2, 1), Reply::Refused(Refusal::Invalid));
    assert_eq!(shard.reply(create(2)), Reply::Done);
    let mut shard = shard_with(&[]);
    let Command::Shard(ShardCommand::CreateRepo {
        network,
        generation,
        head,
        object_format,
        ..
    }) = create_sha256()
    else {
        unreachable!("it makes a repository");
    };
    let fork = Command::Shard(ShardCommand::CreateRepo {
        repo: repo_id(2),
        network,
        generation,
        head,
        object_format,
    });
    shard.nothing_but(fork, Reply::Refused(Refusal::Invalid));
    assert_eq!(shard.reply(create_in(2, 1)), Reply::Done);
}

#[test]
fn packs_that_break_the_rules_are_refused_whole() {
    let with_packs = |packs: Vec<PackRef>| UpdateRefs {
        packs,
        ..push(1, vec![to_create("refs/heads/x", 1)])
    };
    let inline = |pack_bytes: usize| PackRef {
        pack_bytes: u64::try_from(pack_bytes).expect("small"),
        inline: Some(InlinePack {
            pack: Bytes::from(vec![0; pack_bytes]),
            idx: Bytes::from_static(b"idx"),
        }),
        ..pack(1)
    };
    let mut longer_pack = pack(1);
    longer_pack.pack_bytes += 1;
    let mut longer_idx = pack(1);
    longer_idx.idx_bytes += 1;
    let mut objects = pack(1);
    objects.objects = PACK_OBJECTS_MAX + 1;
    expect_invalid("a pack twice", with_packs(vec![pack(1), pack(1)]));
    expect_invalid("another pack length", with_packs(vec![longer_pack]));
    expect_invalid("another idx length", with_packs(vec![longer_idx]));
    expect_invalid("too many objects", with_packs(vec![objects]));
    let too_big = inline(INLINE_PACK_BYTES_MAX - 2);
    expect_invalid("too big to ride along", with_packs(vec![too_big]));
    let mut shard = shard_with(&[]);
    let biggest = inline(INLINE_PACK_BYTES_MAX - 3);
    shard.run(refs(with_packs(vec![biggest])));
    expect_refs(&shard, &[("refs/heads/x", 1)]);
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

fn was_tip(shard: &Group, tip: u8, now_ms: u64) -> bool {
    shard
        .view()
        .was_tip_recently(&repo_id(1), &oid(tip), now_ms)
}

#[test]
fn values_that_refs_lose_are_former_tips_for_a_while() {
    let mut shard = shard_with(&[(MAIN, 1), ("refs/heads/b", 2)]);
    let updates = vec![to_move(MAIN, 1, 3), to_delete("refs/heads/b", 2)];
    shard.run(refs(push(1, updates)));
    for lost in [1, 2] {
        assert!(was_tip(&shard, lost, START_MS));
        assert!(was_tip(&shard, lost, START_MS + FORMER_TIP_MS));
        assert!(!was_tip(&shard, lost, START_MS + FORMER_TIP_MS + 1));
        // A reader's clock may be behind the proposer's.
        assert!(was_tip(&shard, lost, START_MS - 1));
    }
    assert!(!was_tip(&shard, 3, START_MS));
    let elsewhere = RepoId::from_bytes([9; 16]);
    assert!(!shard.view().was_tip_recently(&elsewhere, &oid(1), START_MS));
}

#[test]
fn a_tip_lost_again_counts_from_the_later_time() {
    let mut shard = shard_with(&[(MAIN, 1)]);
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    let pairs = shard.state.len();
    shard.now_ms += 1_000;
    shard.run(refs(push(1, vec![to_move(MAIN, 2, 1)])));
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    assert!(was_tip(&shard, 1, START_MS + 1_000 + FORMER_TIP_MS));
    // Two more pairs for the other tip, none left over for the first.
    assert_eq!(shard.state.len(), pairs + 2);
    // A clock that steps back does not make it older.
    shard.now_ms -= 500;
    shard.run(refs(push(1, vec![to_move(MAIN, 2, 1)])));
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    assert!(was_tip(&shard, 1, START_MS + 1_000 + FORMER_TIP_MS));
    assert_eq!(shard.state.len(), pairs + 2);
}

#[test]
fn old_former_tips_leave_a_few_at_a_time() {
    let count = FORMER_TIPS_EXPIRED_PER_APPLY + 10;
    let tip = |number: usize| {
        let mut bytes = [1; 20];
        bytes[0] = u8::try_from(number).expect("few");
        ObjectId::Sha1(bytes)
    };
    let updates = |expected: fn(ObjectId) -> PreviousValue,
                   new: fn(ObjectId) -> Option<ObjectId>| {
        (0..count)
            .map(|number| RefUpdate {
                name: name(&format!("refs/heads/n{number}")),
                expected: expected(tip(number)),
                new: new(tip(number)),
            })
            .collect()
    };
    let mut shard = shard_with(&[(MAIN, 1)]);
    let empty = shard.state.len();
    shard.run(refs(push(
        1,
        updates(|_| PreviousValue::MustNotExist, Some),
    )));
    shard.run(refs(push(
        1,
        updates(PreviousValue::MustExistAndMatch, |_| None),
    )));
    assert_eq!(shard.state.len(), empty + 2 * count);
    shard.now_ms += FORMER_TIP_MS;
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 1)])));
    assert_eq!(shard.state.len(), empty + 2 * count, "still wanted");
    shard.now_ms += 1;
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 1)])));
    assert_eq!(shard.state.len(), empty + 2 * 10);
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 1)])));
    assert_eq!(shard.state.len(), empty);
}

#[test]
fn a_tip_that_expires_and_is_lost_in_one_push_is_kept() {
    let mut shard = shard_with(&[(MAIN, 1)]);
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    shard.run(refs(push(1, vec![to_move(MAIN, 2, 1)])));
    shard.now_ms += FORMER_TIP_MS + 1;
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    assert!(was_tip(&shard, 1, shard.now_ms));
    assert!(!was_tip(&shard, 2, shard.now_ms));
}
