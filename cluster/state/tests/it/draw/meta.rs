//! Random commands of the meta group.

use henge_types::limits::{DESCRIPTION_BYTES_MAX, STARTS_DRAWN_MAX};
use henge_types::{
    ClusterId, Command, CreateRepo, EditRepo, Incarnation, LogIndex, MetaCommand, NodeId,
    NodeRecord, ObjectFormat, RefName, RegisterStart, RegisteredStart, RepoId, ShardPlacement,
    StartClaim, StartId, TopicsEdit,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Entry, PATHS, REFS, REPOS, any_entries, any_group_command};
use crate::fixtures::*;

/// A sequence of entries of the meta group.
pub(crate) fn any_meta_entries() -> impl Strategy<Value = Vec<Entry>> {
    let first = select(vec![1_u32, 3, 4, 5]).prop_map(|version| {
        let barrier = Command::VersionBarrier { version };
        vec![form_cluster(), barrier, reserve(1, "a/x"), mark_ready(1)]
    });
    let command = prop_oneof![
        40 => any_meta_command().prop_map(Command::Meta),
        3 => any_group_command(),
        1 => Just(drop_repo(1)),
    ];
    any_entries(first, command)
}

/// A command of the meta group.
pub(crate) fn any_meta_command() -> BoxedStrategy<MetaCommand> {
    let commands = prop_oneof![
        4 => any_member_command(),
        8 => any_creation().prop_map(MetaCommand::ReserveRepo),
        5 => any_repo().prop_map(|repo| MetaCommand::MarkRepoReady { repo }),
        2 => any_repo().prop_map(|repo| MetaCommand::AbandonRepo { repo }),
        3 => any_repo().prop_map(|repo| MetaCommand::DeleteRepo { repo }),
        2 => any_repo().prop_map(|repo| MetaCommand::MarkRepoDropped { repo }),
        10 => any_edit().prop_map(MetaCommand::EditRepo),
        2 => (any_repo(), 1..60_u64).prop_map(|(repo, revision)| MetaCommand::MarkRepoTold {
            repo,
            revision: LogIndex::new(revision),
        }),
    ];
    commands.boxed()
}

/// The formation of the cluster, and the commands of its members.
fn any_member_command() -> BoxedStrategy<MetaCommand> {
    let commands = prop_oneof![
        1 => any_cluster(),
        2 => any_node().prop_map(MetaCommand::RegisterNode),
        5 => any_start().prop_map(MetaCommand::RegisterStart),
    ];
    commands.boxed()
}

fn any_repo() -> impl Strategy<Value = RepoId> {
    select(REPOS.to_vec()).prop_map(repo_id)
}

/// A cluster of two nodes, and inconsistent ones.
fn any_cluster() -> impl Strategy<Value = MetaCommand> {
    let replication = prop_oneof![8 => Just(2_u32), 1 => Just(0)];
    let nodes = prop_oneof![
        8 => Just(vec![node(1), node(2)]),
        1 => Just(vec![node(1), node(1)]),
        1 => Just(vec![node(1), NodeRecord { node: NodeId::new(2), ..node(1) }]),
        1 => Just(Vec::<NodeRecord>::new()),
    ];
    let placements = prop_oneof![
        8 => Just(vec![placement(1, &[1, 2]), placement(2, &[2, 1])]),
        1 => Just(vec![placement(1, &[1, 2]), placement(3, &[2, 1])]),
        1 => Just(vec![placement(1, &[1, 1])]),
        1 => Just(vec![placement(1, &[1, 9])]),
        1 => Just(vec![placement(1, &[])]),
        1 => Just(Vec::<ShardPlacement>::new()),
    ];
    let parts = (replication, nodes, placements);
    parts.prop_map(
        |(replication, nodes, placements)| MetaCommand::FormCluster {
            cluster: ClusterId::from_bytes([0xc1; 16]),
            replication,
            nodes,
            placements,
        },
    )
}

/// A member at its address or at another one, and some nodes that are not members.
fn any_node() -> impl Strategy<Value = NodeRecord> {
    let parts = (1..5_u8, 1..4_u8, any_incarnation());
    parts.prop_map(|(number, host, incarnation)| NodeRecord {
        rpc: format!("127.0.0.{host}:7440"),
        incarnation: incarnation.unwrap_or_else(|| node(number).incarnation),
        ..node(number)
    })
}

/// The incarnation of the node, or sometimes another one.
fn any_incarnation() -> impl Strategy<Value = Option<Incarnation>> {
    option::weighted(0.1, Just(Incarnation::from_bytes([9; 16])))
}

fn any_start() -> impl Strategy<Value = RegisterStart> {
    let start = |byte: u8| StartId::from_bytes([byte; 16]);
    let last = option::of((1..6_u8, 0..60_u64)).prop_map(move |last| {
        last.map(|(byte, index)| RegisteredStart {
            start: start(byte),
            index: LogIndex::new(index),
        })
    });
    let drawn = prop_oneof![
        20 => vec(1..6_u8, 0..3),
        1 => Just(vec![7; STARTS_DRAWN_MAX + 1]),
    ];
    let parts = (1..5_u8, any_incarnation(), 1..6_u8, last, drawn);
    parts.prop_map(
        move |(number, incarnation, byte, last, drawn)| RegisterStart {
            node: NodeId::new(u64::from(number)),
            incarnation: incarnation.unwrap_or_else(|| node(number).incarnation),
            claim: StartClaim {
                start: start(byte),
                last,
                drawn: drawn.into_iter().map(start).collect(),
            },
        },
    )
}

/// A branch; sometimes a tag, which is not one.
fn any_branch() -> impl Strategy<Value = RefName> {
    prop_oneof![12 => select(&REFS[..5]), 1 => Just("refs/tags/a")].prop_map(name)
}

/// A repository of its own network, or a fork.
fn any_creation() -> impl Strategy<Value = CreateRepo> {
    let sha256 = prop::bool::weighted(0.2);
    let forked_from = option::weighted(0.4, any_repo());
    let parts = (
        select(REPOS.to_vec()),
        select(PATHS),
        any_branch(),
        any::<bool>(),
    );
    (parts, sha256, forked_from).prop_map(|((number, at, branch, private), sha256, forked_from)| {
        let plain = new_repo(number, at);
        CreateRepo {
            network: forked_from.map_or(plain.network, RepoId::root_network),
            default_branch: branch,
            private,
            object_format: match sha256 {
                true => ObjectFormat::Sha256,
                false => ObjectFormat::Sha1,
            },
            forked_from,
            ..plain
        }
    })
}

fn any_edit() -> impl Strategy<Value = EditRepo> {
    let topics = prop_oneof![
        3 => Just(TopicsEdit::Keep),
        1 => Just(TopicsEdit::Set(vec![topic("b"), topic("a"), topic("b")])),
        1 => Just(TopicsEdit::Add(topic("c"))),
        1 => Just(TopicsEdit::Remove(topic("a"))),
    ];
    let to = option::weighted(0.6, select(PATHS));
    let description = prop_oneof![
        16 => Just(None),
        3 => Just(Some("another line".to_owned())),
        1 => Just(Some("x".repeat(DESCRIPTION_BYTES_MAX + 1))),
    ];
    let flag = || option::weighted(0.3, any::<bool>());
    let branch = option::weighted(0.3, any_branch());
    let parts = (
        any_repo(),
        to,
        description,
        (flag(), flag()),
        branch,
        topics,
    );
    parts.prop_map(
        |(repo, to, description, (private, archived), branch, topics)| EditRepo {
            repo,
            path: to.map(path),
            description,
            private,
            archived,
            default_branch: branch,
            topics,
        },
    )
}
