//! Compaction: one pack in the manifest instead of several.

use henge_state::Effect;
use henge_types::limits::{INLINE_PACK_BYTES_MAX, PACK_OBJECTS_MAX, PACKS_REPLACED_MAX};
use henge_types::{
    Command, InlinePack, LogIndex, ObjectId, PackId, PackRef, PreviousValue, Refusal, ReplacePacks,
    Reply, ShardCommand, UpdateRefs,
};

use crate::fixtures::*;

/// A repository whose network's manifest names these packs.
fn shard_with(packs: &[u8]) -> Group {
    let mut shard = Group::shard();
    shard.run(create(1));
    for (value, number) in (1..).zip(packs) {
        let updates = vec![update("refs/heads/main", PreviousValue::Any, Some(value))];
        let push = UpdateRefs {
            packs: vec![pack(*number)],
            ..push(1, updates)
        };
        shard.run(refs(push));
    }
    shard
}

fn manifest(shard: &Group) -> Vec<PackId> {
    shard
        .view()
        .packs(&network(1))
        .map(|record| record.pack)
        .collect()
}

fn named(numbers: &[u8]) -> Vec<PackId> {
    numbers.iter().map(|number| pack(*number).pack).collect()
}

fn command(old: Vec<PackId>, new: PackRef) -> Command {
    Command::Shard(ShardCommand::ReplacePacks(ReplacePacks {
        network: network(1),
        old,
        new,
    }))
}

#[test]
fn one_pack_takes_the_place_of_several_and_nothing_else_changes() {
    let mut shard = shard_with(&[1, 2, 3]);
    let before = shard.view().repo(&repo_id(1));
    let outcome = shard.run(replace(1, &[3, 1], 4));
    assert_eq!(outcome.reply, Reply::Done);
    let effect = Effect::ReplacePacks {
        network: network(1),
        old: named(&[3, 1]),
        new: pack(4),
    };
    assert_eq!(outcome.effects, [effect]);
    assert_eq!(outcome.writes.len(), 3);
    assert_eq!(manifest(&shard), named(&[2, 4]));
    let record = shard
        .view()
        .pack(&network(1), &pack(4).pack)
        .expect("it is named");
    assert_eq!(record.named_at, LogIndex::new(5));
    assert_eq!(shard.view().repo(&repo_id(1)), before);
}

#[test]
fn a_pack_that_is_named_already_may_take_the_place() {
    let mut shard = shard_with(&[1, 2, 3]);
    assert_eq!(shard.reply(replace(1, &[1, 3], 2)), Reply::Done);
    assert_eq!(manifest(&shard), named(&[2]));
    let record = shard
        .view()
        .pack(&network(1), &pack(2).pack)
        .expect("it is named");
    assert_eq!(record.named_at, LogIndex::new(3), "it keeps its record");
}

#[test]
fn a_pack_that_was_replaced_may_be_pushed_again() {
    let mut shard = shard_with(&[1, 2]);
    shard.run(replace(1, &[1, 2], 3));
    let again = UpdateRefs {
        packs: vec![pack(1)],
        ..push(1, vec![to_create("refs/heads/again", 1)])
    };
    shard.run(refs(again));
    assert_eq!(manifest(&shard), named(&[1, 3]));
}

#[test]
fn what_the_manifest_does_not_name_is_not_replaced() {
    let mut shard = shard_with(&[1, 2]);
    let refused = |refusal| Reply::Refused(refusal);
    let unknown = Refusal::NoSuchPack { pack: pack(9).pack };
    shard.nothing_but(replace(1, &[1, 9], 4), refused(unknown));
    shard.run(replace(1, &[1, 2], 4));
    // The same again: this proposer or another one has done it already.
    let gone = Refusal::NoSuchPack { pack: pack(1).pack };
    shard.nothing_but(replace(1, &[1, 2], 4), refused(gone));
    let elsewhere = Refusal::NoSuchNetwork {
        network: network(7),
    };
    shard.nothing_but(replace(7, &[1], 4), refused(elsewhere));
    shard.run(drop_repo(1));
    let dropped = Refusal::NoSuchNetwork {
        network: network(1),
    };
    shard.nothing_but(replace(1, &[4], 5), refused(dropped));
}

#[test]
fn a_replacement_that_makes_no_sense_is_refused() {
    let mut shard = shard_with(&[1, 2]);
    let invalid = || Reply::Refused(Refusal::Invalid);
    shard.nothing_but(replace(1, &[], 4), invalid());
    shard.nothing_but(replace(1, &[1, 1], 4), invalid());
    shard.nothing_but(replace(1, &[1, 2], 2), invalid());
    let many = (0..=PACKS_REPLACED_MAX).map(|number| {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        PackId::new(ObjectId::Sha1(id))
    });
    shard.nothing_but(command(many.collect(), pack(4)), invalid());
    let too_large = PackRef {
        pack_bytes: INLINE_PACK_BYTES_MAX as u64,
        inline: Some(InlinePack {
            pack: vec![0; INLINE_PACK_BYTES_MAX].into(),
            idx: bytes::Bytes::from_static(b"idx"),
        }),
        ..pack(4)
    };
    shard.nothing_but(command(named(&[1, 2]), too_large), invalid());
    let of_many_pushes = PackRef {
        objects: PACK_OBJECTS_MAX + 1,
        ..pack(4)
    };
    assert_eq!(
        shard.reply(command(named(&[1, 2]), of_many_pushes)),
        Reply::Done
    );
}
