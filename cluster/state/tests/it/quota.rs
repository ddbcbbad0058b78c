//! The quota of a repository: refs and bytes of packs, counted when the entry is applied.

use henge_types::{
    Command, PackRef, RefRefusal, RefUpdate, Reply, RepoLimits, ShardCommand, UpdateRefs,
};

use crate::fixtures::*;

const MAIN: &str = "refs/heads/main";

fn limit(number: u8, limits: RepoLimits) -> Command {
    Command::Shard(ShardCommand::SetLimits {
        repo: repo_id(number),
        generation: FIRST,
        limits,
    })
}

fn at_most_refs(max: u64) -> Command {
    let refs_max = Some(max);
    let limits = RepoLimits::default();
    limit(1, RepoLimits { refs_max, ..limits })
}

fn at_most_bytes(max: u64) -> Command {
    let limits = RepoLimits {
        network_bytes_max: Some(max),
        ..RepoLimits::default()
    };
    limit(1, limits)
}

/// A pack by reference: `bytes` of both files together.
fn large(number: u8, bytes: u64) -> PackRef {
    PackRef {
        pack_bytes: bytes - 3,
        idx_bytes: 3,
        inline: None,
        ..pack(number)
    }
}

fn bring(number: u8, packs: Vec<PackRef>, updates: Vec<RefUpdate>) -> UpdateRefs {
    UpdateRefs {
        packs,
        ..push(number, updates)
    }
}

fn shard() -> Group {
    let mut shard = Group::shard();
    shard.run(Command::VersionBarrier { version: 3 });
    shard.run(create(1));
    let first = bring(1, vec![large(1, 100)], vec![to_create(MAIN, 1)]);
    shard.run(refs(first));
    shard
}

fn full(used: u64, max: u64, bytes: u64) -> Result<(), RefRefusal> {
    Err(RefRefusal::PacksFull { used, max, bytes })
}

#[test]
fn refs_beyond_the_limit_are_refused_in_the_order_of_the_push() {
    let mut shard = shard();
    shard.run(at_most_refs(2));
    let too_many = || Err(RefRefusal::TooManyRefs { max: 2 });
    let updates = vec![
        to_move(MAIN, 1, 2),
        to_create("refs/heads/a", 1),
        to_delete("refs/heads/none", 1),
        to_create("refs/heads/b", 1),
        to_create("refs/heads/c", 1),
    ];
    let stale = Err(RefRefusal::Stale { current: None });
    let expected = vec![
        verdict(MAIN, Some(1), Ok(())),
        verdict("refs/heads/a", None, Ok(())),
        verdict("refs/heads/none", None, stale),
        verdict("refs/heads/b", None, too_many()),
        verdict("refs/heads/c", None, too_many()),
    ];
    assert_eq!(shard.reply(refs(push(1, updates))), verdicts(expected));
    // A deletion frees no quota in the same push, only for the next one.
    let swap = || vec![to_delete("refs/heads/a", 1), to_create("refs/heads/b", 1)];
    let aborted = Err(RefRefusal::AtomicAborted);
    let expected = vec![
        verdict("refs/heads/a", Some(1), aborted),
        verdict("refs/heads/b", None, too_many()),
    ];
    shard.nothing_but(atomic(1, swap()), verdicts(expected));
    shard.run(refs(push(1, vec![to_delete("refs/heads/a", 1)])));
    let created = verdict("refs/heads/b", None, Ok(()));
    let updates = vec![to_create("refs/heads/b", 1)];
    assert_eq!(shard.reply(refs(push(1, updates))), verdicts(vec![created]));
    // A limit below the present number removes nothing, and admits nothing new.
    shard.run(at_most_refs(0));
    let updates = vec![to_move(MAIN, 2, 3), to_create("refs/heads/x", 1)];
    let expected = vec![
        verdict(MAIN, Some(2), Ok(())),
        verdict(
            "refs/heads/x",
            None,
            Err(RefRefusal::TooManyRefs { max: 0 }),
        ),
    ];
    assert_eq!(shard.reply(refs(push(1, updates))), verdicts(expected));
}

/// At the check of each push there was enough space for it.
#[test]
fn of_two_pushes_for_the_same_room_the_second_is_refused() {
    let mut shard = shard();
    shard.run(at_most_bytes(250));
    let one = bring(1, vec![large(2, 100)], vec![to_move(MAIN, 1, 2)]);
    let two = bring(1, vec![large(3, 100)], vec![to_create("refs/heads/x", 3)]);
    let taken = verdict(MAIN, Some(1), Ok(()));
    assert_eq!(shard.reply(refs(one)), verdicts(vec![taken]));
    let refused = verdict("refs/heads/x", None, full(200, 250, 100));
    shard.nothing_but(refs(two.clone()), verdicts(vec![refused]));
    assert_eq!(shard.view().packs(&network(1)).count(), 2);
    // After the limit is raised, the same push is accepted.
    shard.run(at_most_bytes(300));
    let taken = verdict("refs/heads/x", None, Ok(()));
    assert_eq!(shard.reply(refs(two)), verdicts(vec![taken]));
}

#[test]
fn what_a_refused_pack_is_not_needed_for_is_taken_without_it() {
    let mut shard = shard();
    shard.run(refs(push(1, vec![to_create("refs/heads/old", 1)])));
    shard.run(at_most_bytes(110));
    let updates = || vec![to_delete("refs/heads/old", 1), to_move(MAIN, 1, 2)];
    let more = bring(1, vec![large(2, 100)], updates());
    let expected = vec![
        verdict("refs/heads/old", Some(1), Ok(())),
        verdict(MAIN, Some(1), full(107, 110, 100)),
    ];
    let outcome = shard.run(refs(more));
    assert_eq!(outcome.reply, verdicts(expected));
    assert_eq!(outcome.effects, []);
    let packs = |shard: &Group| shard.view().packs(&network(1)).count();
    assert_eq!(packs(&shard), 2);
    // A pack that is already in the manifest takes no more space, and a push without packs is not
    // checked.
    let known = bring(1, vec![large(1, 100)], vec![to_move(MAIN, 1, 2)]);
    let taken = verdict(MAIN, Some(1), Ok(()));
    assert_eq!(shard.reply(refs(known)), verdicts(vec![taken]));
    let without = bring(1, Vec::new(), vec![to_move(MAIN, 2, 1)]);
    let taken = verdict(MAIN, Some(2), Ok(()));
    assert_eq!(shard.reply(refs(without)), verdicts(vec![taken]));
    assert_eq!(packs(&shard), 2);
}

/// The bytes are those of the network: a fork's packs count for its parent, and each has its own
/// limit.
#[test]
fn forks_share_the_bytes_and_not_the_refs() {
    let mut shard = shard();
    shard.run(at_most_bytes(150));
    shard.run(create_in(2, 1));
    let pack = vec![large(2, 100)];
    let taken = verdict(MAIN, None, Ok(()));
    let of_fork = bring(2, pack, vec![to_create(MAIN, 2)]);
    assert_eq!(shard.reply(refs(of_fork)), verdicts(vec![taken]));
    let refused = verdict(MAIN, Some(1), full(200, 150, 1));
    let mut small = large(3, 4);
    (small.pack_bytes, small.idx_bytes) = (1, 0);
    let of_parent = bring(1, vec![small], vec![to_move(MAIN, 1, 2)]);
    shard.nothing_but(refs(of_parent), verdicts(vec![refused]));
    shard.run(at_most_refs(1));
    let two = vec![to_create("refs/heads/a", 2), to_create("refs/heads/b", 2)];
    let reply = shard.reply(refs(bring(2, Vec::new(), two)));
    let Reply::RefsUpdated { verdicts } = reply else {
        panic!("{reply:?}");
    };
    assert!(verdicts.iter().all(|verdict| verdict.result.is_ok()));
}
