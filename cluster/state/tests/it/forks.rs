//! Forks: the refs of the parent at one entry, and one manifest for both. And the quota of a
//! repository.

use henge_types::{
    Command, ForkRepo, Generation, Refusal, Reply, RepoLimits, ShardCommand, ShardRepoState,
};

use crate::fixtures::*;

fn fork(number: u8, parent: u8) -> Command {
    Command::Shard(ShardCommand::ForkRepo(ForkRepo {
        repo: repo_id(number),
        network: network(1),
        generation: FIRST,
        parent: repo_id(parent),
    }))
}

fn limit(number: u8, refs_max: Option<u64>) -> Command {
    Command::Shard(ShardCommand::SetLimits {
        repo: repo_id(number),
        generation: FIRST,
        limits: RepoLimits {
            refs_max,
            ..RepoLimits::default()
        },
    })
}

fn parent() -> Group {
    let mut shard = Group::shard();
    shard.run(create(1));
    let updates = vec![
        to_create("refs/heads/main", 1),
        to_create("refs/tags/v1", 2),
    ];
    shard.run(refs(push(1, updates)));
    shard.run(set_head(1, "refs/heads/trunk"));
    shard
}

#[test]
fn a_fork_has_what_its_parent_had_and_goes_its_own_way() {
    let mut shard = parent();
    shard.run(limit(1, Some(5)));
    assert!(!shard.view().is_shared(&network(1)));
    assert_eq!(shard.reply(fork(2, 1)), Reply::Done);
    assert!(shard.view().is_shared(&network(1)));
    let all = |shard: &Group, number| shard.view().refs(&repo_id(number), "").collect::<Vec<_>>();
    assert_eq!(all(&shard, 2), all(&shard, 1));
    let made = shard.view().repo(&repo_id(2)).expect("it is made");
    assert_eq!(made.head, name("refs/heads/trunk"));
    assert_eq!(
        (made.network, made.state),
        (network(1), ShardRepoState::Live)
    );
    assert_eq!(shard.view().limits(&repo_id(2)).refs_max, Some(5));
    let before = all(&shard, 2);
    shard.run(refs(push(1, vec![to_move("refs/heads/main", 1, 3)])));
    assert_eq!(all(&shard, 2), before);
    assert_ne!(all(&shard, 1), before);
    // A repetition has no effect, also after pushes to either.
    assert_eq!(shard.reply(fork(2, 1)), Reply::Done);
    assert_eq!(all(&shard, 2), before);
    assert!(
        !shard
            .view()
            .was_tip_recently(&repo_id(2), &oid(1), shard.now_ms),
        "the parent lost it, not the fork"
    );
}

#[test]
fn the_network_outlives_its_root() {
    let mut shard = parent();
    shard.run(fork(2, 1));
    assert_eq!(shard.reply(drop_repo(1)), Reply::Done);
    assert!(shard.view().network_is_live(&network(1)));
    assert_eq!(shard.view().packs(&network(1)).count(), 1);
    let gone = Reply::Refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    assert_eq!(shard.reply(fork(3, 1)), gone);
    assert_eq!(shard.reply(fork(3, 2)), Reply::Done);
    shard.run(drop_repo(2));
    shard.run(drop_repo(3));
    assert!(!shard.view().network_is_live(&network(1)));
    assert_eq!(shard.view().packs(&network(1)).count(), 0);
    assert!(!shard.view().is_shared(&network(1)));
}

#[test]
fn a_fork_is_made_of_its_own_network_and_never_twice() {
    let mut shard = parent();
    let elsewhere = Command::Shard(ShardCommand::ForkRepo(ForkRepo {
        repo: repo_id(2),
        network: network(2),
        generation: FIRST,
        parent: repo_id(1),
    }));
    let refused = Reply::Refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    assert_eq!(shard.reply(elsewhere), refused);
    shard.run(fork(2, 1));
    shard.run(drop_repo(2));
    let dropped = Reply::Refused(Refusal::WrongState { repo: repo_id(2) });
    assert_eq!(shard.reply(fork(2, 1)), dropped);
    let itself = Reply::Refused(Refusal::WrongState { repo: repo_id(1) });
    let other_life = Command::Shard(ShardCommand::ForkRepo(ForkRepo {
        repo: repo_id(1),
        network: network(1),
        generation: Generation::new(9),
        parent: repo_id(1),
    }));
    assert_eq!(shard.reply(other_life), itself);
}

#[test]
fn limits_are_kept_until_they_are_lifted_or_the_repository_goes() {
    let mut shard = parent();
    assert_eq!(shard.view().limits(&repo_id(1)), RepoLimits::default());
    assert_eq!(shard.reply(limit(1, Some(3))), Reply::Done);
    assert_eq!(shard.view().limits(&repo_id(1)).refs_max, Some(3));
    let before = shard.state.hash();
    shard.run(limit(1, None));
    assert_eq!(shard.view().limits(&repo_id(1)), RepoLimits::default());
    shard.run(limit(1, Some(3)));
    assert_eq!(shard.state.hash(), before);
    let nobody = Reply::Refused(Refusal::NoSuchRepo { repo: repo_id(7) });
    assert_eq!(shard.reply(limit(7, Some(1))), nobody);
    shard.run(drop_repo(1));
    assert_eq!(shard.view().limits(&repo_id(1)), RepoLimits::default());
}
