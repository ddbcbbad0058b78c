//! Random commands of a shard.

use std::collections::BTreeSet;

use henge_types::{
    CertifiedRef, Command, ConfigureRepo, ForkRepo, FsckLevel, LogIndex, MarkFound, MirrorPusher,
    NetworkId, NonceSeed, NonceStatus, ObjectFormat, ObjectId, PackId, PackRef, PreviousValue,
    PrunePacks, PushCertificate, PushRules, RefName, RefPattern, RefUpdate, ReplacePacks, RepoId,
    RepoLimits, ShardCommand, SignatureKind, SignedUpdate, UpdateRefs,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::mirrors::{any_mirror, any_mirror_command};
use super::{Entry, NETWORKS, REFS, any_entries, any_generation, any_group_command};
use crate::fixtures::*;

/// A sequence of entries of a shard.
pub(crate) fn any_shard_entries() -> impl Strategy<Value = Vec<Entry>> {
    let first = select(vec![1_u32, 3, 4, 5]).prop_map(|version| {
        let first = push(1, vec![to_create("refs/heads/main", 1)]);
        let push = UpdateRefs {
            packs: vec![pack(1)],
            ..first
        };
        vec![Command::VersionBarrier { version }, create(1), refs(push)]
    });
    let command = prop_oneof![
        40 => any_shard_command().prop_map(Command::Shard),
        3 => any_group_command(),
        1 => Just(delete(1)),
    ];
    any_entries(first, command)
}

/// A command of a shard.
pub(crate) fn any_shard_command() -> BoxedStrategy<ShardCommand> {
    let seed = (1..4_u8).prop_map(|byte| NonceSeed::from_bytes([byte; 32]));
    let commands = prop_oneof![
        20 => any_push().prop_map(ShardCommand::UpdateRefs),
        4 => any_signed().prop_map(ShardCommand::UpdateSignedRefs),
        20 => any_repo_command(),
        16 => any_network_command(),
        20 => any_mirror_command(),
        1 => seed.prop_map(ShardCommand::SetNonceSeed),
    ];
    commands.boxed()
}

/// Commands that create, remove and configure repositories.
fn any_repo_command() -> BoxedStrategy<ShardCommand> {
    let life = || (any_repo(), any_generation());
    let commands = prop_oneof![
        3 => (life(), any_network(), any_branch(), any_format()).prop_map(
            |((repo, generation), network, head, object_format)| ShardCommand::CreateRepo {
                repo,
                network,
                generation,
                head,
                object_format,
            }
        ),
        1 => any_repo().prop_map(|repo| ShardCommand::DropRepo { repo }),
        2 => (life(), any_branch()).prop_map(
            |((repo, generation), head)| ShardCommand::SetHead { repo, generation, head }
        ),
        3 => any_fork().prop_map(ShardCommand::ForkRepo),
        2 => any_configuration().prop_map(ShardCommand::ConfigureRepo),
        3 => (life(), any_pattern()).prop_map(
            |((repo, generation), pattern)| ShardCommand::ProtectRefs { repo, generation, pattern }
        ),
        2 => (life(), any_pattern()).prop_map(|((repo, generation), pattern)| {
            ShardCommand::UnprotectRefs { repo, generation, pattern }
        }),
        3 => (life(), any_limits()).prop_map(
            |((repo, generation), limits)| ShardCommand::SetLimits { repo, generation, limits }
        ),
        1 => (life(), any_rules()).prop_map(
            |((repo, generation), rules)| ShardCommand::SetPushRules { repo, generation, rules }
        ),
    ];
    commands.boxed()
}

/// Commands that change the manifest of a network and its mark.
fn any_network_command() -> BoxedStrategy<ShardCommand> {
    let commands = prop_oneof![
        3 => (any_network(), any_old(), any_pack()).prop_map(|(network, old, new)| {
            ShardCommand::ReplacePacks(ReplacePacks { network, old, new })
        }),
        4 => (any_network(), any_index(), any_found()).prop_map(|(network, at, found)| {
            ShardCommand::MarkUnreachable { network, instead_of: Some(at), found }
        }),
        1 => any_network().prop_map(|network| ShardCommand::MarkUnreachable {
            network,
            instead_of: None,
            found: MarkFound::Unknown,
        }),
        4 => any_prune().prop_map(ShardCommand::PrunePacks),
    ];
    commands.boxed()
}

pub(super) fn any_repo() -> impl Strategy<Value = RepoId> {
    (1..6_u8).prop_map(repo_id)
}

fn any_network() -> impl Strategy<Value = NetworkId> {
    select(NETWORKS.to_vec()).prop_map(network)
}

/// An entry: one of the sequence, a future one, or 0.
pub(super) fn any_index() -> impl Strategy<Value = LogIndex> {
    prop_oneof![20 => 0..60_u64, 1 => Just(u64::MAX)].prop_map(LogIndex::new)
}

/// A branch; sometimes a tag, which is not one.
fn any_branch() -> impl Strategy<Value = RefName> {
    prop_oneof![12 => select(&REFS[..5]), 1 => Just("refs/tags/a")].prop_map(name)
}

fn any_format() -> impl Strategy<Value = ObjectFormat> {
    prop_oneof![4 => Just(ObjectFormat::Sha1), 1 => Just(ObjectFormat::Sha256)]
}

/// A value; sometimes the zero id, or one of the other hash.
fn any_value() -> impl Strategy<Value = ObjectId> {
    prop_oneof![
        80 => (1..5_u8).prop_map(oid),
        1 => Just(oid(0)),
        1 => Just(ObjectId::Sha256([9; 32])),
    ]
}

fn any_update() -> impl Strategy<Value = RefUpdate> {
    let expected = prop_oneof![
        2 => Just(PreviousValue::Any),
        1 => Just(PreviousValue::MustNotExist),
        1 => Just(PreviousValue::MustExist),
        2 => (1..5_u8).prop_map(|value| PreviousValue::MustExistAndMatch(oid(value))),
    ];
    let new = option::weighted(0.7, any_value());
    (select(REFS), expected, new).prop_map(|(at, expected, new)| RefUpdate {
        name: name(at),
        expected,
        new,
    })
}

/// Odd packs are inline in the entry; a quorum holds the even ones. A broken pack does not have the
/// length that the entry states.
fn any_pack() -> impl Strategy<Value = PackRef> {
    (1..7_u8, prop::bool::weighted(0.02)).prop_map(|(number, is_broken)| {
        let rides = number % 2 == 1;
        let inline = pack(number).inline.filter(|_| rides || is_broken);
        let pack_bytes = match rides && !is_broken {
            true => pack(number).pack_bytes,
            false => 100 * u64::from(number),
        };
        PackRef {
            pack_bytes,
            inline,
            ..pack(number)
        }
    })
}

/// Packs to remove; sometimes none, sometimes a duplicate.
fn any_old() -> impl Strategy<Value = Vec<PackId>> {
    vec((1..7_u8).prop_map(|number| pack(number).pack), 0..4)
}

fn any_push() -> BoxedStrategy<UpdateRefs> {
    let updates = (vec(any_update(), 1..6), any::<bool>());
    let packs = vec(any_pack(), 0..3);
    let checks = (any_index(), any_pusher(), prop::bool::weighted(0.03));
    let pushes = (any_repo(), any_generation(), updates, packs, checks);
    let pushes = pushes.prop_map(|(repo, generation, (updates, atomic), packs, checks)| {
        let (checked_at, pusher, is_ill_formed) = checks;
        let mut drawn = UpdateRefs {
            repo,
            generation,
            packs,
            atomic,
            pusher,
            checked_at,
            ..push(1, updates)
        };
        if !is_ill_formed {
            let (mut names, mut packs) = (BTreeSet::new(), BTreeSet::new());
            drawn
                .updates
                .retain(|update| names.insert(update.name.clone()));
            drawn.packs.retain(|pack| packs.insert(pack.pack));
        }
        drawn
    });
    pushes.boxed()
}

/// An account, or a run of a mirror.
fn any_pusher() -> impl Strategy<Value = String> {
    let run = (any_mirror(), any_index());
    let run = run.prop_map(|(mirror, fence)| MirrorPusher { mirror, fence }.to_string());
    prop_oneof![6 => Just("admin".to_owned()), 1 => run]
}

/// A signed push. Its certificate has one more ref, which the leader refused; a broken one has
/// none.
fn any_signed() -> impl Strategy<Value = SignedUpdate> {
    (any_push(), prop::bool::weighted(0.1)).prop_map(|(push, is_broken)| {
        let certified = |update: &RefUpdate| CertifiedRef {
            name: update.name.clone(),
            old: None,
            new: update.new,
        };
        let mut refs: Vec<_> = push.updates.iter().map(certified).collect();
        refs.push(CertifiedRef {
            name: name("refs/heads/early"),
            old: Some(oid(1)),
            new: None,
        });
        if is_broken {
            refs.clear();
        }
        let certificate = PushCertificate {
            text: "certificate version 0.1\n".into(),
            pusher: "A <a@example.org> 1767225600 +0000".to_owned(),
            pushee: None,
            nonce: NonceStatus::Ok,
            signature: Some(SignatureKind::Ssh),
            refs,
        };
        SignedUpdate { push, certificate }
    })
}

fn any_fork() -> impl Strategy<Value = ForkRepo> {
    let parts = (any_repo(), any_network(), any_generation(), any_repo());
    parts.prop_map(|(repo, network, generation, parent)| ForkRepo {
        repo,
        network,
        generation,
        parent,
    })
}

/// Includes late settings, and some of a later generation.
fn any_configuration() -> impl Strategy<Value = ConfigureRepo> {
    let head = option::weighted(0.3, any_branch());
    let archived = prop::bool::weighted(0.3);
    let parts = (any_repo(), any_generation(), any_index(), archived, head);
    parts.prop_map(
        |(repo, generation, revision, archived, head)| ConfigureRepo {
            repo,
            generation,
            revision,
            archived,
            head,
        },
    )
}

fn any_pattern() -> impl Strategy<Value = RefPattern> {
    select(vec!["main", "a/**", "refs/tags/*", "a*"]).prop_map(pattern)
}

/// No limits, or so low ones that pushes reach them.
fn any_limits() -> impl Strategy<Value = RepoLimits> {
    let bytes = option::of(select(vec![0_u64, 7, 300, 1_000]));
    let refs = option::of(0..4_u64);
    let few =
        (bytes, refs, option::of(1..9_u64)).prop_map(|(bytes, refs, push_bytes)| RepoLimits {
            network_bytes_max: bytes,
            push_bytes_max: push_bytes,
            refs_max: refs,
            ..RepoLimits::default()
        });
    prop_oneof![Just(RepoLimits::default()), few]
}

fn any_rules() -> impl Strategy<Value = PushRules> {
    select(vec![FsckLevel::Strict, FsckLevel::Lenient]).prop_map(|fsck| PushRules { fsck })
}

fn any_found() -> impl Strategy<Value = MarkFound> {
    prop_oneof![
        Just(MarkFound::Unknown),
        (0..3_u32).prop_map(|tips| MarkFound::LostTipsReached { tips }),
        Just(MarkFound::AllReached),
    ]
}

fn any_prune() -> impl Strategy<Value = PrunePacks> {
    let new = option::weighted(0.7, any_pack());
    let grace_ms = prop_oneof![10 => 0..2_000_u64, 1 => Just(u64::MAX)];
    let indexes = (any_index(), any_index());
    let parts = (any_network(), any_old(), new, indexes, grace_ms);
    parts.prop_map(
        |(network, old, new, (walked_at, marked_at), grace_ms)| PrunePacks {
            network,
            old,
            new,
            walked_at,
            marked_at,
            grace_ms,
        },
    )
}
