//! The meta group's commands, one by one.

use henge_state::{Action, pending_actions};
use henge_types::{
    ClusterId, ClusterRecord, Command, CreateRepo, Generation, GroupId, Incarnation, MetaCommand,
    NodeId, NodeRecord, ObjectFormat, Refusal, Reply, RepoRecord, RepoState, ShardPlacement,
};

use crate::fixtures::*;

fn record(group: &Group, number: u8) -> RepoRecord {
    let found = group.catalogue().repo(&repo_id(number));
    found.expect("a repository in the catalogue")
}

fn refused(refusal: Refusal) -> Reply {
    Reply::Refused(refusal)
}

#[test]
fn a_cluster_is_formed_once() {
    let mut meta = Group::meta();
    assert_eq!(meta.catalogue().cluster(), None);
    assert_eq!(meta.reply(form_cluster()), Reply::Done);
    let expected = ClusterRecord {
        cluster: ClusterId::from_bytes([0xc1; 16]),
        shards: 2,
        replication: 3,
        formed_at_ms: START_MS,
        version: 1,
    };
    assert_eq!(meta.catalogue().cluster(), Some(expected));
    let nodes: Vec<_> = meta.catalogue().nodes().collect();
    assert_eq!(nodes, [node(1), node(2), node(3)]);
    assert_eq!(meta.catalogue().node(NodeId::new(2)), Some(node(2)));
    assert_eq!(meta.catalogue().node(NodeId::new(4)), None);
    let places: Vec<_> = meta.catalogue().placements().collect();
    assert_eq!(places, [placement(1, &[1, 2, 3]), placement(2, &[2, 3, 1])]);
    let second = meta.catalogue().placement(GroupId::new(2));
    assert_eq!(second, Some(placement(2, &[2, 3, 1])));
    assert_eq!(meta.catalogue().placement(GroupId::new(3)), None);
    meta.nothing_but(form_cluster(), refused(Refusal::AlreadyFormed));
}

#[test]
fn a_cluster_that_does_not_fit_together_is_refused() {
    let form = |nodes: Vec<NodeRecord>, placements: Vec<ShardPlacement>, replication| {
        Command::Meta(MetaCommand::FormCluster {
            cluster: ClusterId::from_bytes([1; 16]),
            replication,
            nodes,
            placements,
        })
    };
    let three = || vec![node(1), node(2), node(3)];
    let cases = [
        ("no nodes", form(vec![], vec![placement(1, &[1])], 1)),
        ("no shards", form(three(), vec![], 3)),
        ("no replication", form(three(), vec![placement(1, &[1])], 0)),
        (
            "a node twice",
            form(vec![node(1), node(1)], vec![placement(1, &[1])], 1),
        ),
        (
            "a life twice",
            form(
                vec![
                    node(1),
                    NodeRecord {
                        node: NodeId::new(2),
                        ..node(1)
                    },
                ],
                vec![placement(1, &[1])],
                1,
            ),
        ),
        ("group 0", form(three(), vec![placement(0, &[1])], 3)),
        (
            "a gap",
            form(three(), vec![placement(1, &[1]), placement(3, &[1])], 3),
        ),
        ("a stranger", form(three(), vec![placement(1, &[1, 4])], 3)),
        (
            "a replica twice",
            form(three(), vec![placement(1, &[1, 1])], 3),
        ),
        ("nowhere", form(three(), vec![placement(1, &[])], 3)),
        (
            "257 shards",
            form(
                three(),
                (1..=257).map(|group| placement(group, &[1])).collect(),
                3,
            ),
        ),
    ];
    for (what, command) in cases {
        let mut meta = Group::meta();
        assert_eq!(meta.reply(command), refused(Refusal::Invalid), "{what}");
        assert!(meta.state.is_empty(), "{what}");
    }
}

#[test]
fn a_member_registers_its_addresses_under_its_own_incarnation_only() {
    let mut meta = Group::meta();
    meta.run(form_cluster());
    let moved = NodeRecord {
        rpc: "10.0.0.2:7441".to_owned(),
        ..node(2)
    };
    let register = |node: &NodeRecord| Command::Meta(MetaCommand::RegisterNode(node.clone()));
    assert_eq!(meta.reply(register(&moved)), Reply::Done);
    assert_eq!(meta.catalogue().node(NodeId::new(2)), Some(moved.clone()));
    meta.nothing_but(register(&moved), Reply::Done);
    let wiped = NodeRecord {
        incarnation: Incarnation::from_bytes([0xff; 16]),
        ..moved
    };
    meta.nothing_but(register(&wiped), refused(Refusal::UnknownNode));
    meta.nothing_but(register(&node(4)), refused(Refusal::UnknownNode));
}

#[test]
fn a_repository_lives_from_reserved_to_deleted() {
    let mut meta = Group::meta();
    let reserved = meta.run(reserve(1, "Admin/Demo"));
    let create = Action::FinishCreate { repo: repo_id(1) };
    assert_eq!(pending_actions(&meta.state), [create]);
    let expected = RepoRecord {
        repo: repo_id(1),
        network: network(1),
        path: path("Admin/Demo"),
        generation: Generation::new(1),
        state: RepoState::Reserved,
        private: false,
        description: "a line".to_owned(),
        default_branch: name("refs/heads/main"),
        created_at_ms: START_MS,
        updated_at_ms: START_MS,
        topics: Vec::new(),
        archived: false,
        object_format: ObjectFormat::Sha1,
        forked_from: None,
        former_paths: Vec::new(),
    };
    assert_eq!(reserved.reply, Reply::Repo(expected.clone()));
    let by_path = meta.catalogue().repo_by_path(&path("aDMIN/dEMO"));
    assert_eq!(by_path, Some(expected.clone()));
    assert_eq!(
        meta.catalogue().unfinished().collect::<Vec<_>>(),
        [expected]
    );

    assert_eq!(meta.reply(mark_ready(1)), Reply::Done);
    assert_eq!(record(&meta, 1).state, RepoState::Ready);
    assert_eq!(pending_actions(&meta.state), []);
    meta.nothing_but(mark_ready(1), Reply::Done);
    // A fork has the object format of its source.
    let fork = CreateRepo {
        forked_from: Some(repo_id(1)),
        object_format: ObjectFormat::Sha256,
        ..new_repo(2, "Admin/Fork")
    };
    let fork = Command::Meta(MetaCommand::ReserveRepo(fork));
    meta.nothing_but(fork, Reply::Refused(Refusal::Invalid));
    let wrong = refused(Refusal::WrongState { repo: repo_id(1) });
    meta.nothing_but(abandon(1), wrong.clone());
    meta.nothing_but(mark_dropped(1), wrong.clone());

    let deleted = meta.run(delete(1));
    let drop = Action::FinishDelete { repo: repo_id(1) };
    assert_eq!(deleted.reply, Reply::Done);
    assert_eq!(record(&meta, 1).state, RepoState::Deleting);
    assert_eq!(meta.catalogue().repo_by_path(&path("admin/demo")), None);
    assert_eq!(pending_actions(&meta.state), [drop]);
    meta.nothing_but(delete(1), Reply::Done);
    meta.nothing_but(mark_ready(1), wrong.clone());
    meta.nothing_but(abandon(1), wrong.clone());

    assert_eq!(meta.reply(mark_dropped(1)), Reply::Done);
    assert_eq!(record(&meta, 1).state, RepoState::Deleted);
    assert_eq!(pending_actions(&meta.state), []);
    meta.nothing_but(mark_dropped(1), Reply::Done);
    meta.nothing_but(delete(1), Reply::Done);
    meta.nothing_but(abandon(1), Reply::Done);
    meta.nothing_but(mark_ready(1), wrong);
}

#[test]
fn commands_for_an_unknown_repository_are_refused() {
    let mut meta = Group::meta();
    for command in [mark_ready(1), abandon(1), delete(1), mark_dropped(1)] {
        let unknown = Refusal::NoSuchRepo { repo: repo_id(1) };
        meta.nothing_but(command, refused(unknown));
    }
}

#[test]
fn a_name_belongs_to_one_repository_whatever_its_case() {
    let mut meta = Group::meta();
    meta.run(reserve(1, "Admin/Demo"));
    let taken = Refusal::NameTaken {
        path: path("Admin/Demo"),
        by: repo_id(1),
    };
    meta.nothing_but(reserve(2, "admin/DEMO"), refused(taken));
    assert_eq!(meta.catalogue().repo(&repo_id(2)), None);
    // A repeated reservation of the same repository, as in a leader's retry, returns the present
    // record.
    meta.run(mark_ready(1));
    let ready = Reply::Repo(record(&meta, 1));
    meta.nothing_but(reserve(1, "Admin/Demo"), ready);
}

#[test]
fn an_id_is_never_used_twice() {
    let mut meta = Group::meta();
    let taken = refused(Refusal::IdTaken { repo: repo_id(1) });
    meta.run(reserve(1, "a/one"));
    meta.nothing_but(reserve(1, "a/two"), taken.clone());
    meta.run(delete(1));
    meta.nothing_but(reserve(1, "a/one"), taken.clone());
    meta.run(mark_dropped(1));
    meta.nothing_but(reserve(1, "a/one"), taken);
}

#[test]
fn every_life_of_a_name_has_a_higher_generation() {
    let mut meta = Group::meta();
    meta.run(reserve(1, "a/x"));
    assert_eq!(meta.reply(abandon(1)), Reply::Done);
    assert_eq!(record(&meta, 1).state, RepoState::Deleted);
    assert_eq!(pending_actions(&meta.state), []);
    meta.run(reserve(2, "A/X"));
    assert_eq!(record(&meta, 2).generation, Generation::new(2));
    meta.run(delete(2));
    meta.run(reserve(3, "a/X"));
    assert_eq!(record(&meta, 3).generation, Generation::new(3));
    // The deleted repositories do not affect the living one.
    meta.run(mark_dropped(2));
    let found = meta.catalogue().repo_by_path(&path("a/x"));
    assert_eq!(found.map(|found| found.repo), Some(repo_id(3)));
    meta.run(reserve(4, "a/y"));
    assert_eq!(record(&meta, 4).generation, Generation::new(1));
}

#[test]
fn a_default_branch_is_a_branch() {
    let mut meta = Group::meta();
    let tag = CreateRepo {
        default_branch: name("refs/tags/v1"),
        ..new_repo(1, "a/x")
    };
    let command = Command::Meta(MetaCommand::ReserveRepo(tag));
    meta.nothing_but(command, refused(Refusal::Invalid));
}

#[test]
fn lists_page_through_the_names_in_order() {
    let mut meta = Group::meta();
    let all = [
        (1, "b/one"),
        (2, "B/Two"),
        (3, "a/z"),
        (4, "b-c/x"),
        (5, "b/one-more"),
        (6, "bb/q"),
    ];
    for (number, at) in all {
        meta.run(reserve(number, at));
    }
    meta.run(reserve(7, "b/gone"));
    meta.run(delete(7));
    let keys = |owner: Option<&str>, after: Option<&str>, limit| -> Vec<String> {
        let owner = owner.map(|owner| owner.parse().expect("a valid owner"));
        let page = meta.catalogue().repos(owner.as_ref(), after, limit);
        page.iter().map(|record| record.path.key()).collect()
    };
    assert_eq!(
        keys(None, None, 100),
        ["a/z", "b-c/x", "b/one", "b/one-more", "b/two", "bb/q"]
    );
    assert_eq!(keys(Some("B"), None, 100), ["b/one", "b/one-more", "b/two"]);
    assert_eq!(keys(Some("b"), None, 1), ["b/one"]);
    assert_eq!(keys(Some("b"), Some("b/one"), 1), ["b/one-more"]);
    assert_eq!(keys(Some("b"), Some("b/two"), 9), [""; 0]);
    assert_eq!(keys(None, Some("B/ONE-MORE"), 9), ["b/two", "bb/q"]);
    assert_eq!(keys(None, Some("a/z"), 2), ["b-c/x", "b/one"]);
    assert_eq!(keys(Some("nobody"), None, 9), [""; 0]);
    // A key before this owner's keys starts the page at its beginning.
    assert_eq!(keys(Some("b"), Some("a/z"), 1), ["b/one"]);
}

#[test]
fn a_shards_command_is_refused_by_meta() {
    let mut meta = Group::meta();
    meta.nothing_but(create(1), refused(Refusal::Invalid));
}
