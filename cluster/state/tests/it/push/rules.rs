//! Pushes with updates or packs that break the rules are refused as a whole.

use bytes::Bytes;
use henge_types::command::VERSION_REPOS;
use henge_types::limits::{INLINE_PACK_BYTES_MAX, PACK_OBJECTS_MAX, REF_UPDATES_MAX};
use henge_types::{
    Command, InlinePack, ObjectFormat, ObjectId, PackId, PackRef, PreviousValue, RefUpdate,
    Refusal, Reply, ShardCommand, UpdateRefs,
};

use super::{MAIN, expect_refs, listed, shard_with};
use crate::fixtures::*;

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

/// The same push, with ids of the other hash.
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
    // In a SHA-256 repository: new values and packs alike.
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
    // In a SHA-1 repository, once every replica checks the hash.
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
