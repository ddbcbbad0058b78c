//! Editing, archiving and renaming repositories.

use henge_state::{Action, pending_actions};
use henge_types::command::VERSION_FORKS_AS_PARENT;
use henge_types::limits::{FORMER_PATHS_MAX, TOPICS_MAX};
use henge_types::{
    Command, CreateRepo, EditRepo, Generation, LogIndex, MetaCommand, RefRefusal, Refusal, Reply,
    RepoRecord, TopicsEdit, UntoldRecord,
};

use crate::fixtures::*;

fn refused(refusal: Refusal) -> Reply {
    Reply::Refused(refusal)
}

fn record(group: &Group, number: u8) -> RepoRecord {
    let found = group.catalogue().repo(&repo_id(number));
    found.expect("a repository in the catalogue")
}

fn ready(repos: &[(u8, &str)]) -> Group {
    let mut meta = Group::meta();
    for (number, at) in repos {
        meta.run(reserve(*number, at));
        meta.run(mark_ready(*number));
    }
    meta
}

fn former(meta: &Group, at: &str) -> Option<u8> {
    let found = meta.catalogue().repo_by_former_path(&path(at));
    found.map(|found| found.repo.as_bytes()[0])
}

fn tell(number: u8, revision: u64) -> Action {
    Action::TellShard {
        repo: repo_id(number),
        revision: LogIndex::new(revision),
    }
}

fn topics(number: u8, topics: TopicsEdit) -> Command {
    edit(EditRepo {
        topics,
        ..EditRepo::nothing(repo_id(number))
    })
}

#[test]
fn an_edit_changes_what_it_names_and_says_when() {
    let mut meta = ready(&[(1, "a/x")]);
    let before = record(&meta, 1);
    meta.nothing_but(
        edit(EditRepo::nothing(repo_id(1))),
        Reply::Repo(before.clone()),
    );
    meta.now_ms += 5;
    let outcome = meta.run(edit(EditRepo {
        description: Some("another".to_owned()),
        private: Some(true),
        ..EditRepo::nothing(repo_id(1))
    }));
    let expected = RepoRecord {
        description: "another".to_owned(),
        private: true,
        updated_at_ms: START_MS + 5,
        ..before
    };
    assert_eq!(outcome.reply, Reply::Repo(expected.clone()));
    // The shard needs none of these settings.
    assert_eq!(pending_actions(&meta.state), []);
    assert_eq!(record(&meta, 1), expected);
    // The update time grows also with a clock that steps back.
    meta.now_ms = START_MS - 10;
    meta.run(edit(EditRepo {
        private: Some(false),
        ..EditRepo::nothing(repo_id(1))
    }));
    assert_eq!(record(&meta, 1).updated_at_ms, START_MS + 6);
}

#[test]
fn only_what_is_ready_is_edited() {
    let mut meta = Group::meta();
    let nothing = || edit(EditRepo::nothing(repo_id(1)));
    let gone = refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    meta.nothing_but(nothing(), gone.clone());
    meta.run(reserve(1, "a/x"));
    meta.nothing_but(nothing(), refused(Refusal::WrongState { repo: repo_id(1) }));
    meta.run(mark_ready(1));
    meta.run(delete(1));
    meta.nothing_but(nothing(), gone.clone());
    meta.run(mark_dropped(1));
    meta.nothing_but(nothing(), gone);
}

#[test]
fn a_default_branch_is_a_branch_and_a_description_is_bounded() {
    let mut meta = ready(&[(1, "a/x")]);
    let tag = EditRepo {
        default_branch: Some(name("refs/tags/v1")),
        ..EditRepo::nothing(repo_id(1))
    };
    meta.nothing_but(edit(tag), refused(Refusal::Invalid));
    let long = EditRepo {
        description: Some("x".repeat(2049)),
        ..EditRepo::nothing(repo_id(1))
    };
    meta.nothing_but(edit(long), refused(Refusal::Invalid));
}

#[test]
fn topics_are_kept_sorted_and_few() {
    let mut meta = ready(&[(1, "a/x")]);
    let set = vec![topic("git"), topic("c"), topic("git")];
    meta.run(topics(1, TopicsEdit::Set(set)));
    assert_eq!(record(&meta, 1).topics, [topic("c"), topic("git")]);
    meta.run(topics(1, TopicsEdit::Add(topic("d"))));
    meta.run(topics(1, TopicsEdit::Remove(topic("c"))));
    assert_eq!(record(&meta, 1).topics, [topic("d"), topic("git")]);
    let same = Reply::Repo(record(&meta, 1));
    meta.nothing_but(topics(1, TopicsEdit::Add(topic("d"))), same.clone());
    meta.nothing_but(topics(1, TopicsEdit::Remove(topic("nothing"))), same);
    let many: Vec<_> = (0..TOPICS_MAX).map(|n| topic(&format!("t{n}"))).collect();
    meta.run(topics(1, TopicsEdit::Set(many)));
    assert_eq!(record(&meta, 1).topics.len(), TOPICS_MAX);
    let one_more = topics(1, TopicsEdit::Add(topic("one-more")));
    meta.nothing_but(one_more, refused(Refusal::TooMany));
}

#[test]
fn the_shard_is_told_until_it_says_that_it_knows() {
    let mut meta = ready(&[(1, "a/x")]);
    let archive = |on| EditRepo {
        archived: Some(on),
        ..EditRepo::nothing(repo_id(1))
    };
    let head = EditRepo {
        default_branch: Some(name("refs/heads/trunk")),
        ..EditRepo::nothing(repo_id(1))
    };
    meta.run(edit(head));
    let first = meta.index;
    let untold = |meta: &Group| meta.catalogue().untold_of(&repo_id(1));
    let mark = |revision, head| {
        Some(UntoldRecord {
            revision: LogIndex::new(revision),
            head,
        })
    };
    assert_eq!(untold(&meta), mark(first, true));
    // The later mark still includes HEAD.
    meta.run(edit(archive(true)));
    let second = meta.index;
    assert_eq!(untold(&meta), mark(second, true));
    assert_eq!(pending_actions(&meta.state), [tell(1, second)]);
    meta.nothing_but(mark_told(1, first), Reply::Done);
    meta.run(mark_told(1, second));
    assert_eq!(untold(&meta), None);
    assert_eq!(pending_actions(&meta.state), []);
    meta.run(edit(archive(false)));
    assert_eq!(untold(&meta), mark(meta.index, false));
    // The shard drops a deleted repository as a whole.
    meta.run(delete(1));
    assert_eq!(untold(&meta), None);
}

#[test]
fn a_shard_takes_settings_in_their_order() {
    let mut shard = Group::shard();
    let unknown = Refusal::NoSuchRepo { repo: repo_id(1) };
    shard.nothing_but(configure(1, 5, |_| {}), refused(unknown));
    shard.run(create(1));
    shard.run(configure(1, 5, |settings| {
        settings.archived = true;
        settings.head = Some(name("refs/heads/trunk"));
        settings.generation = Generation::new(3);
    }));
    let repo = shard.view().repo(&repo_id(1)).expect("it is there");
    assert_eq!((repo.archived, repo.head), (true, name("refs/heads/trunk")));
    assert_eq!(repo.generation, Generation::new(3));
    // Late and repeated settings.
    for revision in [4, 5] {
        shard.nothing_but(configure(1, revision, |_| {}), Reply::Done);
    }
    shard.run(configure(1, 6, |_| {}));
    let repo = shard.view().repo(&repo_id(1)).expect("it is there");
    assert!(!repo.archived);
    // Earlier resolutions of the name are refused.
    let stale = refs(push(1, vec![to_create("refs/heads/main", 1)]));
    let wrong = Refusal::WrongGeneration {
        named: FIRST,
        current: Generation::new(3),
    };
    shard.nothing_but(stale, refused(wrong));
}

#[test]
fn an_archived_repository_takes_no_push() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.run(refs(push(1, vec![to_create("refs/heads/main", 1)])));
    shard.run(configure(1, 5, |settings| settings.archived = true));
    let archived = |at, old| verdict(at, old, Err(RefRefusal::Archived));
    let pushed = vec![
        to_move("refs/heads/main", 1, 2),
        to_create("refs/heads/x", 1),
    ];
    let expected = vec![
        archived("refs/heads/main", Some(1)),
        archived("refs/heads/x", None),
    ];
    shard.nothing_but(refs(push(1, pushed.clone())), verdicts(expected.clone()));
    shard.nothing_but(atomic(1, pushed.clone()), verdicts(expected));
    shard.run(configure(1, 6, |_| {}));
    let taken = shard.reply(refs(push(1, pushed)));
    let moved = verdict("refs/heads/main", Some(1), Ok(()));
    let made = verdict("refs/heads/x", None, Ok(()));
    assert_eq!(taken, verdicts(vec![moved, made]));
}

#[test]
fn a_former_name_leads_to_the_repository_until_somebody_takes_it() {
    let mut meta = ready(&[(1, "a/x"), (2, "a/y")]);
    meta.run(rename(1, "b/X2"));
    assert_eq!(pending_actions(&meta.state), []);
    let now = record(&meta, 1);
    assert_eq!((now.path, now.generation), (path("b/X2"), FIRST));
    assert_eq!(now.former_paths, [path("a/x")]);
    assert_eq!(meta.catalogue().repo_by_path(&path("a/x")), None);
    assert_eq!(former(&meta, "A/X"), Some(1));
    let taken = Refusal::NameTaken {
        path: path("a/y"),
        by: repo_id(2),
    };
    meta.nothing_but(rename(1, "A/y"), refused(taken));

    // A new repository takes the name: the shard of the former holder gets a new generation,
    // because other nodes may have resolved the name to it.
    meta.run(reserve(3, "A/x"));
    let finish = Action::FinishCreate { repo: repo_id(3) };
    let pending = pending_actions(&meta.state);
    assert_eq!(pending, [tell(1, meta.index), finish]);
    let fenced = record(&meta, 1);
    assert_eq!(fenced.generation, FIRST.next());
    assert_eq!(fenced.former_paths, []);
    assert_eq!(former(&meta, "a/x"), None);
    assert_eq!(record(&meta, 3).generation, FIRST.next());

    // A repository that moves to the name has the same effect.
    meta.run(rename(2, "c/y"));
    meta.run(mark_told(1, 100));
    meta.run(rename(1, "a/Y"));
    let pending = pending_actions(&meta.state);
    assert_eq!(pending, [tell(2, meta.index), finish]);
    assert_eq!(former(&meta, "b/x2"), Some(1));
    assert_eq!(record(&meta, 2).generation, FIRST.next());
}

#[test]
fn a_repository_may_go_back_and_change_the_spelling_of_its_name() {
    let mut meta = ready(&[(1, "a/x")]);
    meta.run(rename(1, "A/X"));
    assert_eq!(record(&meta, 1).path, path("A/X"));
    assert_eq!(record(&meta, 1).former_paths, []);
    meta.run(rename(1, "a/y"));
    meta.run(rename(1, "a/x"));
    assert_eq!(pending_actions(&meta.state), []);
    assert_eq!(record(&meta, 1).former_paths, [path("a/y")]);
    assert_eq!(former(&meta, "a/x"), None);
    let found = meta.catalogue().repo_by_path(&path("a/x"));
    assert_eq!(found.map(|found| found.repo), Some(repo_id(1)));
    // The former names are removed with the repository.
    meta.run(delete(1));
    assert_eq!(former(&meta, "a/y"), None);
}

#[test]
fn the_oldest_of_many_former_names_is_given_up() {
    let mut meta = ready(&[(1, "a/n0")]);
    for number in 1..=FORMER_PATHS_MAX {
        meta.run(rename(1, &format!("a/n{number}")));
    }
    assert_eq!(pending_actions(&meta.state), []);
    meta.run(rename(1, "a/last"));
    assert_eq!(pending_actions(&meta.state), [tell(1, meta.index)]);
    assert_eq!(record(&meta, 1).former_paths.len(), FORMER_PATHS_MAX);
    assert_eq!(record(&meta, 1).generation, FIRST.next());
    assert_eq!(
        (former(&meta, "a/n0"), former(&meta, "a/n1")),
        (None, Some(1))
    );
}

#[test]
fn forks_are_found_by_what_they_are_forks_of_while_they_serve() {
    let mut meta = Group::meta();
    meta.run(form_cluster());
    meta.run(reserve(1, "a/one"));
    meta.run(mark_ready(1));
    let fork = |number: u8, at: &str, parent: u8| {
        Command::Meta(MetaCommand::ReserveRepo(CreateRepo {
            network: network(1),
            forked_from: Some(repo_id(parent)),
            ..new_repo(number, at)
        }))
    };
    let forks = |meta: &Group, parent: u8| -> Vec<_> {
        let forks = meta.catalogue().forks_of(&repo_id(parent));
        forks.map(|fork| fork.path.to_string()).collect()
    };
    meta.run(fork(2, "b/two", 1));
    assert_eq!(forks(&meta, 1), [""; 0], "it does not serve yet");
    meta.run(mark_ready(2));
    meta.run(fork(3, "c/three", 2));
    meta.run(mark_ready(3));
    meta.run(fork(4, "d/four", 1));
    meta.run(mark_ready(4));
    assert_eq!(forks(&meta, 1), ["b/two", "d/four"]);
    assert_eq!(forks(&meta, 2), ["c/three"]);
    meta.run(rename(2, "b/renamed"));
    assert_eq!(forks(&meta, 1), ["b/renamed", "d/four"]);
    meta.run(delete(2));
    meta.run(mark_dropped(2));
    assert_eq!(forks(&meta, 1), ["d/four"]);
    // A fork whose parent is gone is still its fork.
    assert_eq!(forks(&meta, 2), ["c/three"]);
}

/// A repository was made private during a fork: the fork was readable for every user.
#[test]
fn a_fork_is_private_if_its_parent_is_by_then() {
    let fork = |number: u8, private: bool| {
        Command::Meta(MetaCommand::ReserveRepo(CreateRepo {
            network: network(1),
            forked_from: Some(repo_id(1)),
            private,
            ..new_repo(number, &format!("b/{number}"))
        }))
    };
    let show = |public: bool| {
        edit(EditRepo {
            private: Some(!public),
            ..EditRepo::nothing(repo_id(1))
        })
    };
    for level in [VERSION_FORKS_AS_PARENT - 1, VERSION_FORKS_AS_PARENT] {
        let mut meta = ready(&[(1, "a/one")]);
        meta.run(Command::VersionBarrier { version: level });
        meta.run(fork(2, false));
        assert!(!record(&meta, 2).private, "the parent is public");
        meta.run(show(false));
        meta.run(fork(3, false));
        let follows = level >= VERSION_FORKS_AS_PARENT;
        assert_eq!(record(&meta, 3).private, follows, "level {level}");
        meta.run(show(true));
        meta.run(fork(4, true));
        assert!(record(&meta, 4).private, "it was asked for");
    }
}
