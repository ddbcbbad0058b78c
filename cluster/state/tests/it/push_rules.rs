//! The push rules of a repository, and their bytes, of release level 5.

use henge_types::command::VERSION_PUSH_RULES;
use henge_types::stored::{self, number};
use henge_types::{Command, ForkRepo, FsckLevel, PushRules, Refusal, Reply, ShardCommand};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes};

const GOLDEN: &str = include_str!("../golden/push_rules_5.hex");

const LENIENT: PushRules = PushRules {
    fsck: FsckLevel::Lenient,
};

fn set(number: u8, fsck: FsckLevel) -> Command {
    Command::Shard(ShardCommand::SetPushRules {
        repo: repo_id(number),
        generation: FIRST,
        rules: PushRules { fsck },
    })
}

fn commands() -> [Command; 2] {
    [set(1, FsckLevel::Lenient), set(1, FsckLevel::Strict)]
}

#[test]
fn they_keep_their_bytes() {
    let line = |command: &Command| (command.name().to_owned(), command.encode());
    let mut lines: Lines = commands().iter().map(line).collect();
    let rules = stored::encode(number::PUSH_RULES, 1, &LENIENT);
    lines.push(("push_rules".to_owned(), rules));
    compare(&lines, GOLDEN);
    let mut golden = golden_bytes(GOLDEN);
    for command in commands() {
        let bytes = golden.next().expect("a line");
        assert_eq!(command.level(), VERSION_PUSH_RULES);
        assert_eq!(command.number(), 93);
        assert_eq!(Command::decode(&bytes), Ok(command));
    }
    let bytes = golden.next().expect("a line");
    assert_eq!(stored::decode_v1(number::PUSH_RULES, &bytes), Ok(LENIENT));
}

#[test]
fn rules_are_kept_until_they_are_strict_or_the_repository_goes() {
    let mut shard = Group::shard();
    shard.run(create(1));
    let rules = |shard: &Group, number| shard.view().push_rules(&repo_id(number));
    assert_eq!(rules(&shard, 1), PushRules::default());
    let nobody = Reply::Refused(Refusal::NoSuchRepo { repo: repo_id(7) });
    assert_eq!(shard.reply(set(7, FsckLevel::Lenient)), nobody);
    assert_eq!(shard.reply(set(1, FsckLevel::Lenient)), Reply::Done);
    assert_eq!(rules(&shard, 1), LENIENT);
    let lenient = shard.state.hash();
    shard.run(set(1, FsckLevel::Strict));
    assert_eq!(rules(&shard, 1), PushRules::default());
    shard.run(set(1, FsckLevel::Lenient));
    assert_eq!(shard.state.hash(), lenient);
    let fork = ForkRepo {
        repo: repo_id(2),
        network: network(1),
        generation: FIRST,
        parent: repo_id(1),
    };
    shard.run(Command::Shard(ShardCommand::ForkRepo(fork)));
    shard.run(drop_repo(1));
    assert_eq!(rules(&shard, 1), PushRules::default());
    assert_eq!(rules(&shard, 2), LENIENT, "a fork is as its parent was");
}
