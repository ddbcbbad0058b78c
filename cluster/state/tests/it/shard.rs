//! Creation and removal of repositories, and HEAD.

use henge_state::Effect;
use henge_types::{
    Command, Generation, LogIndex, ObjectFormat, RefRefusal, Refusal, Reply, ShardCommand,
    ShardRepo, ShardRepoState,
};

use crate::fixtures::*;

fn refused(refusal: Refusal) -> Reply {
    Reply::Refused(refusal)
}

fn wrong_state() -> Reply {
    refused(Refusal::WrongState { repo: repo_id(1) })
}

#[test]
fn a_repository_is_made_once() {
    let mut shard = Group::shard();
    assert_eq!(shard.view().repo(&repo_id(1)), None);
    assert_eq!(shard.reply(create(1)), Reply::Done);
    let expected = ShardRepo {
        repo: repo_id(1),
        network: network(1),
        generation: FIRST,
        state: ShardRepoState::Live,
        head: name("refs/heads/main"),
        updated_at: LogIndex::new(1),
        updated_at_ms: START_MS,
        revision: LogIndex::new(0),
        archived: false,
        object_format: ObjectFormat::Sha1,
    };
    assert_eq!(shard.view().repo(&repo_id(1)), Some(expected.clone()));
    assert_eq!(shard.view().repos().collect::<Vec<_>>(), [expected]);
    assert_eq!(shard.view().networks(), [network(1)]);
    shard.nothing_but(create(1), Reply::Done);
    shard.nothing_but(create_in(1, 2), wrong_state());
    let other_life = Command::Shard(ShardCommand::CreateRepo {
        repo: repo_id(1),
        network: network(1),
        generation: Generation::new(2),
        head: name("refs/heads/main"),
        object_format: ObjectFormat::Sha1,
    });
    shard.nothing_but(other_life, wrong_state());
    let other_hash = Command::Shard(ShardCommand::CreateRepo {
        repo: repo_id(1),
        network: network(1),
        generation: FIRST,
        head: name("refs/heads/main"),
        object_format: ObjectFormat::Sha256,
    });
    shard.nothing_but(other_hash, wrong_state());
}

#[test]
fn making_it_again_does_not_touch_what_pushes_did_to_it() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.run(refs(push(1, vec![to_create("refs/heads/trunk", 1)])));
    shard.nothing_but(create(1), Reply::Done);
    let repo = shard.view().repo(&repo_id(1)).expect("it is there");
    assert_eq!(repo.head, name("refs/heads/trunk"));
}

#[test]
fn a_dropped_repository_is_gone_and_never_made_again() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.run(refs(push(1, vec![to_create("refs/heads/main", 1)])));
    shard.run(refs(push(1, vec![to_move("refs/heads/main", 1, 2)])));
    assert!(
        shard
            .view()
            .was_tip_recently(&repo_id(1), &oid(1), START_MS)
    );
    let outcome = shard.run(drop_repo(1));
    assert_eq!(outcome.reply, Reply::Done);
    let gone = Effect::DropRepo {
        network: network(1),
        repo: repo_id(1),
    };
    assert_eq!(outcome.effects, [gone]);
    assert_eq!(shard.view().refs(&repo_id(1), "").count(), 0);
    assert_eq!(shard.view().packs(&network(1)).count(), 0);
    assert!(
        !shard
            .view()
            .was_tip_recently(&repo_id(1), &oid(1), START_MS)
    );
    assert_eq!(shard.view().networks(), []);
    assert!(!shard.view().network_is_live(&network(1)));
    let repo = shard.view().repo(&repo_id(1)).expect("the tombstone");
    assert_eq!(repo.state, ShardRepoState::Deleted);
    assert_eq!(repo.updated_at, LogIndex::new(4));
    // Only the tombstone remains.
    assert_eq!(shard.state.len(), 1);

    shard.nothing_but(drop_repo(1), Reply::Done);
    shard.nothing_but(create(1), wrong_state());
    let unknown = refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    shard.nothing_but(set_head(1, "refs/heads/x"), unknown.clone());
    let late = refs(push(1, vec![to_create("refs/heads/x", 1)]));
    shard.nothing_but(late, unknown);
}

#[test]
fn dropping_an_unknown_repository_stops_its_late_creation() {
    let mut shard = Group::shard();
    let outcome = shard.run(drop_repo(1));
    assert_eq!((outcome.reply, outcome.effects), (Reply::Done, vec![]));
    let repo = shard.view().repo(&repo_id(1)).expect("the tombstone");
    assert_eq!(repo.state, ShardRepoState::Deleted);
    assert_eq!(repo.generation, Generation::new(0));
    shard.nothing_but(drop_repo(1), Reply::Done);
    shard.nothing_but(create(1), wrong_state());
    assert_eq!(shard.view().networks(), []);
}

#[test]
fn the_manifest_stays_while_a_fork_lives() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.run(create_in(2, 1));
    shard.run(create(3));
    shard.run(refs(push(1, vec![to_create("refs/heads/main", 1)])));
    shard.run(refs(push(2, vec![to_create("refs/heads/main", 1)])));
    shard.run(refs(push(3, vec![to_create("refs/heads/main", 1)])));
    shard.run(drop_repo(1));
    assert_eq!(shard.view().packs(&network(1)).count(), 1);
    assert_eq!(shard.view().networks(), [network(1), network(3)]);
    assert_eq!(shard.view().refs(&repo_id(1), "").count(), 0);
    assert_eq!(shard.view().refs(&repo_id(2), "").count(), 1);
    shard.run(drop_repo(2));
    assert_eq!(shard.view().packs(&network(1)).count(), 0);
    assert_eq!(shard.view().packs(&network(3)).count(), 1);
    assert_eq!(shard.view().networks(), [network(3)]);
}

#[test]
fn head_points_where_it_is_told_to() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.now_ms += 5;
    assert_eq!(shard.reply(set_head(1, "refs/heads/none-yet")), Reply::Done);
    let repo = shard.view().repo(&repo_id(1)).expect("it is there");
    assert_eq!(repo.head, name("refs/heads/none-yet"));
    assert_eq!(repo.updated_at, LogIndex::new(2));
    assert_eq!(repo.updated_at_ms, START_MS + 5);
    shard.nothing_but(set_head(1, "refs/heads/none-yet"), Reply::Done);
    shard.nothing_but(set_head(1, "refs/tags/v1"), refused(Refusal::Invalid));
    let unknown = Refusal::NoSuchRepo { repo: repo_id(2) };
    shard.nothing_but(set_head(2, "refs/heads/main"), refused(unknown));
    let other_life = Command::Shard(ShardCommand::SetHead {
        repo: repo_id(1),
        generation: Generation::new(0),
        head: name("refs/heads/main"),
    });
    let wrong = Refusal::WrongGeneration {
        named: Generation::new(0),
        current: FIRST,
    };
    shard.nothing_but(other_life, refused(wrong));
}

#[test]
fn a_repository_starts_with_a_branch_as_head() {
    let mut shard = Group::shard();
    let tag = Command::Shard(ShardCommand::CreateRepo {
        repo: repo_id(1),
        network: network(1),
        generation: FIRST,
        head: name("refs/tags/v1"),
        object_format: ObjectFormat::Sha1,
    });
    shard.nothing_but(tag, refused(Refusal::Invalid));
}

#[test]
fn refs_are_read_by_prefix_and_in_order() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.run(create(2));
    let names = [
        "refs/tags/v1",
        "refs/heads/b",
        "refs/heads/a/x",
        "refs/heads/a-b",
    ];
    let updates = names.map(|name| to_create(name, 1)).to_vec();
    shard.run(refs(push(1, updates)));
    shard.run(refs(push(2, vec![to_create("refs/heads/other", 2)])));
    let listed = |prefix| -> Vec<String> {
        let refs = shard.view().refs(&repo_id(1), prefix);
        refs.map(|(name, _)| name.to_string()).collect()
    };
    let branches = ["refs/heads/a-b", "refs/heads/a/x", "refs/heads/b"];
    assert_eq!(listed("refs/heads/"), branches);
    assert_eq!(listed("refs/heads/a/"), ["refs/heads/a/x"]);
    assert_eq!(listed("refs/tags/v"), ["refs/tags/v1"]);
    assert_eq!(listed("").len(), 4);
    assert_eq!(listed("refs/notes/"), [""; 0]);
    let value = shard
        .view()
        .ref_value(&repo_id(2), &name("refs/heads/other"));
    assert_eq!(value, Some(oid(2)));
    let value = shard.view().ref_value(&repo_id(2), &name("refs/heads/b"));
    assert_eq!(value, None);
}

#[test]
fn metas_command_is_refused_by_a_shard() {
    let mut shard = Group::shard();
    shard.nothing_but(reserve(1, "a/x"), refused(Refusal::Invalid));
    shard.nothing_but(form_cluster(), refused(Refusal::Invalid));
}

#[test]
fn sha256_ids_are_kept_as_they_are() {
    let mut shard = Group::shard();
    shard.run(create(1));
    let long = henge_types::ObjectId::Sha256([9; 32]);
    let mut create = to_create("refs/heads/main", 1);
    create.new = Some(long);
    shard.run(refs(push(1, vec![create])));
    let main = name("refs/heads/main");
    assert_eq!(shard.view().ref_value(&repo_id(1), &main), Some(long));
    let reply = shard.reply(refs(push(1, vec![to_move("refs/heads/main", 9, 1)])));
    let stale = RefRefusal::Stale {
        current: Some(long),
    };
    let mut expected = verdict("refs/heads/main", None, Err(stale));
    expected.old = Some(long);
    assert_eq!(reply, verdicts(vec![expected]));
}
