//! The removal of unreachable objects: its conditions, and the checks that must be repeated after
//! it.

use henge_state::Effect;
use henge_types::limits::FORMER_TIP_MS;
use henge_types::{
    Command, LogIndex, MarkFound, ObjectId, PackId, PruneMark, PrunePacks, Refusal, Reply,
    ShardCommand, UpdateRefs,
};

use crate::fixtures::*;

const GRACE_MS: u64 = 1000;

/// Main at 2 after 1, in two packs; the last entry is 3.
fn shard() -> Group {
    let mut shard = Group::shard();
    shard.run(create(1));
    let first = UpdateRefs {
        packs: vec![pack(1)],
        ..push(1, vec![to_create("refs/heads/main", 1)])
    };
    shard.run(refs(first));
    move_main(&mut shard, 1, 2);
    shard
}

fn move_main(shard: &mut Group, from: u8, to: u8) {
    let moved = UpdateRefs {
        packs: vec![pack(to)],
        ..push(1, vec![to_move("refs/heads/main", from, to)])
    };
    let reply = shard.reply(refs(moved));
    assert!(matches!(reply, Reply::RefsUpdated { .. }), "{reply:?}");
}

fn mark(instead_of: Option<u64>) -> Command {
    mark_found(instead_of, MarkFound::Unknown)
}

fn mark_found(instead_of: Option<u64>, found: MarkFound) -> Command {
    Command::Shard(ShardCommand::MarkUnreachable {
        network: network(1),
        instead_of: instead_of.map(LogIndex::new),
        found,
    })
}

/// A prune of both packs, walked at the last entry.
fn prune(shard: &Group) -> PrunePacks {
    let mark = marked(shard).expect("there is a mark");
    PrunePacks {
        network: network(1),
        old: vec![pack(1).pack, pack(2).pack],
        new: Some(pack(9)),
        walked_at: LogIndex::new(shard.index),
        marked_at: mark.at,
        grace_ms: GRACE_MS,
    }
}

fn command(prune: PrunePacks) -> Command {
    Command::Shard(ShardCommand::PrunePacks(prune))
}

fn marked(shard: &Group) -> Option<PruneMark> {
    shard.view().prune_mark(&network(1))
}

fn manifest(shard: &Group) -> Vec<PackId> {
    let packs = shard.view().packs(&network(1));
    packs.map(|record| record.pack).collect()
}

fn kept(shard: &Group) -> Vec<ObjectId> {
    shard.view().kept_tips(&network(1), 0)
}

#[test]
fn what_was_walked_takes_the_place_of_all_packs_after_the_grace() {
    let mut shard = shard();
    shard.run(mark(None));
    shard.now_ms += GRACE_MS - 1;
    let early = shard.reply(command(prune(&shard)));
    assert_eq!(early, Reply::Refused(Refusal::Invalid));
    shard.now_ms += 1;
    let outcome = shard.run(command(prune(&shard)));
    assert_eq!(outcome.reply, Reply::Done);
    let effect = Effect::PrunePacks {
        network: network(1),
        old: vec![pack(1).pack, pack(2).pack],
        new: Some(pack(9)),
    };
    assert_eq!(outcome.effects, [effect]);
    assert_eq!(manifest(&shard), [pack(9).pack]);
    let at = LogIndex::new(shard.index);
    assert_eq!(shard.view().pruned_at(&network(1)), Some(at));
    let next = marked(&shard).expect("the next one");
    assert_eq!((next.at, next.at_ms), (at, shard.now_ms));
    // No pack may be left at all.
    shard.run(refs(UpdateRefs {
        checked_at: at,
        ..push(1, vec![to_delete("refs/heads/main", 2)])
    }));
    shard.now_ms += GRACE_MS;
    let nothing = PrunePacks {
        old: vec![pack(9).pack],
        new: None,
        ..prune(&shard)
    };
    // The deletion added a pack, which stays.
    assert_eq!(shard.reply(command(nothing)), Reply::Done);
    assert_eq!(manifest(&shard), [pack(0x70).pack]);
}

#[test]
fn a_ref_that_moved_since_the_walk_refuses_it() {
    let mut shard = shard();
    shard.run(mark(None));
    shard.now_ms += GRACE_MS;
    let walked = prune(&shard);
    move_main(&mut shard, 2, 3);
    let moved = Reply::Refused(Refusal::WrongState { repo: repo_id(1) });
    assert_eq!(shard.reply(command(walked)), moved);
    let again = prune(&shard);
    assert_eq!(shard.reply(command(again)), Reply::Done);
    assert_eq!(
        manifest(&shard),
        [pack(3).pack, pack(9).pack],
        "what came stays"
    );
}

#[test]
fn a_fork_that_came_since_the_walk_refuses_it() {
    let mut shard = shard();
    shard.run(mark(None));
    shard.now_ms += GRACE_MS;
    let walked = prune(&shard);
    shard.run(Command::Shard(ShardCommand::ForkRepo(
        henge_types::ForkRepo {
            repo: repo_id(2),
            network: network(1),
            generation: FIRST,
            parent: repo_id(1),
        },
    )));
    let came = Reply::Refused(Refusal::WrongState { repo: repo_id(2) });
    assert_eq!(shard.reply(command(walked)), came);
}

#[test]
fn packs_that_are_not_there_and_marks_that_do_not_stand_refuse_it() {
    let mut shard = shard();
    shard.run(mark(None));
    shard.now_ms += GRACE_MS;
    let good = prune(&shard);
    let none = PrunePacks {
        old: vec![pack(1).pack, pack(7).pack],
        ..good.clone()
    };
    let missing = Reply::Refused(Refusal::NoSuchPack { pack: pack(7).pack });
    assert_eq!(shard.reply(command(none)), missing);
    let invalid = Reply::Refused(Refusal::Invalid);
    let bad = [
        PrunePacks {
            marked_at: LogIndex::new(1),
            ..good.clone()
        },
        PrunePacks {
            old: Vec::new(),
            ..good.clone()
        },
        PrunePacks {
            old: vec![pack(1).pack, pack(1).pack],
            ..good.clone()
        },
        PrunePacks {
            new: Some(pack(1)),
            ..good.clone()
        },
    ];
    for bad in bad {
        assert_eq!(shard.reply(command(bad)), invalid);
    }
    let elsewhere = PrunePacks {
        network: network(7),
        ..good
    };
    let nowhere = Refusal::NoSuchNetwork {
        network: network(7),
    };
    assert_eq!(shard.reply(command(elsewhere)), Reply::Refused(nowhere));
}

#[test]
fn a_push_that_was_checked_before_is_checked_again() {
    let mut shard = shard();
    shard.run(mark(None));
    shard.now_ms += GRACE_MS;
    let checked_at = LogIndex::new(shard.index);
    shard.run(command(prune(&shard)));
    let pushed = |checked_at| {
        let updates = vec![to_create("refs/heads/old", 1)];
        refs(UpdateRefs {
            checked_at,
            ..push(1, updates)
        })
    };
    let before = shard.state.hash();
    let request = binding(shard.now_ms, 1);
    let outcome = shard.run_for(Some(request.clone()), pushed(checked_at));
    assert_eq!(
        (outcome.reply, outcome.effects),
        (Reply::Recheck, Vec::new())
    );
    assert_eq!(shard.state.hash(), before);
    // The same request, checked again.
    let after = LogIndex::new(shard.index - 1);
    let outcome = shard.run_for(Some(request), pushed(after));
    assert!(matches!(outcome.reply, Reply::RefsUpdated { .. }));
}

#[test]
fn tips_that_are_lost_after_the_mark_are_kept() {
    let mut shard = shard();
    shard.now_ms += 2 * FORMER_TIP_MS;
    shard.run(mark(None));
    move_main(&mut shard, 2, 3);
    move_main(&mut shard, 3, 2);
    assert_eq!(marked(&shard).map(|mark| mark.lost_tips), Some(2));
    // After the time in which clients may still use former tips.
    shard.now_ms += 2 * FORMER_TIP_MS;
    move_main(&mut shard, 2, 4);
    let tips = [2, 3, 4].map(oid);
    assert_eq!(kept(&shard), tips);
    let now_ms = shard.now_ms;
    shard.run(refs(push(1, vec![to_create("refs/heads/x", 6)])));
    shard.now_ms += 1;
    shard.run(refs(push(1, vec![to_delete("refs/heads/x", 6)])));
    let since = |since_ms| shard.view().kept_tips(&network(1), since_ms);
    assert_eq!(since(now_ms + 1), [2, 3, 4, 6].map(oid));
    let tips = [2, 3, 4, 6].map(oid);
    // Another mark than the present one changes nothing.
    shard.run(mark(None));
    shard.run(mark(Some(1)));
    assert_eq!(kept(&shard), tips);
    let stands = marked(&shard).expect("there is one");
    let lost_ms = shard.now_ms;
    shard.now_ms += 2 * FORMER_TIP_MS;
    shard.run(mark(Some(stands.at.get())));
    assert_eq!(marked(&shard).map(|mark| mark.lost_tips), Some(0));
    let since = |since_ms| shard.view().kept_tips(&network(1), since_ms);
    assert_eq!(since(lost_ms), [4, 6].map(oid), "told of until then");
    assert_eq!(since(lost_ms + 1), [oid(4)]);
    // A push removes expired former tips.
    move_main(&mut shard, 4, 5);
    assert_eq!(kept(&shard), [4, 5].map(oid));
}

#[test]
fn the_last_repository_takes_all_of_it_away() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.run(drop_repo(1));
    let empty = shard.state.hash();
    let mut shard = self::shard();
    shard.run(mark(None));
    move_main(&mut shard, 2, 3);
    shard.run(drop_repo(1));
    assert_eq!(marked(&shard), None);
    assert_eq!(kept(&shard), []);
    assert_ne!(shard.state.hash(), empty, "the tombstone says when");
    let gone = Refusal::NoSuchNetwork {
        network: network(1),
    };
    assert_eq!(shard.reply(mark(None)), Reply::Refused(gone));
}

/// The state alone shows whether there may be objects to remove, so any leader knows.
#[test]
fn a_mark_says_whether_anything_may_have_been_out_of_reach_before_it() {
    let mut shard = shard();
    let suspected = |shard: &Group| marked(shard).map(|mark| mark.may_hold_unreached);
    let renew = |shard: &mut Group, found| {
        let at = marked(shard).map(|mark| mark.at.get());
        shard.run(mark_found(at, found));
    };
    shard.run(mark(None));
    assert_eq!(suspected(&shard), Some(true), "nobody has looked");
    renew(&mut shard, MarkFound::Unknown);
    assert_eq!(suspected(&shard), Some(true));
    renew(&mut shard, MarkFound::AllReached);
    assert_eq!(suspected(&shard), Some(false));
    // Tips lost since are kept until the next mark, and may be removed after it.
    move_main(&mut shard, 2, 3);
    assert_eq!(suspected(&shard), Some(false));
    let mut other = shard.clone();
    renew(&mut other, MarkFound::LostTipsReached { tips: 1 });
    assert_eq!(suspected(&other), Some(false));
    move_main(&mut other, 3, 4);
    move_main(&mut other, 4, 5);
    renew(&mut other, MarkFound::LostTipsReached { tips: 1 });
    assert_eq!(suspected(&other), Some(true), "one came after the look");
    renew(&mut shard, MarkFound::AllReached);
    assert_eq!(suspected(&shard), Some(true), "found before it was lost");
    // The removal covers all objects from before the mark.
    shard.now_ms += GRACE_MS;
    let pruned = PrunePacks {
        old: vec![pack(1).pack],
        ..prune(&shard)
    };
    assert_eq!(shard.reply(command(pruned)), Reply::Done);
    assert_eq!(suspected(&shard), Some(false));
    // A push that is accepted in part leaves the objects of the rest behind.
    let at = LogIndex::new(shard.index);
    let updates = vec![
        to_create("refs/heads/x", 7),
        to_create("refs/heads/main", 8),
    ];
    shard.run(refs(UpdateRefs {
        checked_at: at,
        ..push(1, updates)
    }));
    assert_eq!(suspected(&shard), Some(true));
    renew(&mut shard, MarkFound::AllReached);
    // So does a deleted fork.
    shard.run(create_in(2, 1));
    shard.run(drop_repo(2));
    assert_eq!(suspected(&shard), Some(true));
}
