//! Random commands: against the naive model, through snapshots, on replicas side by side.

use std::collections::BTreeSet;

use henge_state::{Effect, State, pending_actions};
use henge_types::{
    Command, ConfigureRepo, EditRepo, ForkRepo, Generation, LogIndex, MetaCommand, ObjectFormat,
    PreviousValue, RefPattern, RefRefusal, RefUpdate, RefVerdict, ReplacePacks, Reply, RepoRecord,
    RepoState, RequestBinding, ShardCommand, TopicsEdit, UpdateRefs,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::fixtures::*;
use crate::model::Model;

const NAMES: &[&str] = &[
    "refs/heads/a",
    "refs/heads/a/b",
    "refs/heads/a/b/c",
    "refs/heads/a-b",
    "refs/heads/main",
    "refs/tags/a",
    "refs/tags/a/b",
];

/// How far the clock moves before a command: also back, and past what expires.
fn any_step() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..1_000_i64,
        1 => -5_000..0_i64,
        1 => 500_000..700_000_i64,
        1 => Just(25 * 3_600 * 1_000),
    ]
}

fn any_update() -> impl Strategy<Value = RefUpdate> {
    let expected = prop_oneof![
        2 => Just(PreviousValue::Any),
        1 => Just(PreviousValue::MustNotExist),
        1 => Just(PreviousValue::MustExist),
        1 => (1..5_u8).prop_map(|value| PreviousValue::MustExistAndMatch(oid(value))),
    ];
    let name = prop::sample::select(NAMES);
    let new = option::weighted(0.7, 1..5_u8);
    (name, expected, new).prop_map(|(name, expected, new)| update(name, expected, new))
}

fn any_generation() -> impl Strategy<Value = Generation> {
    prop_oneof![9 => Just(FIRST), 1 => Just(Generation::new(2))]
}

fn any_format() -> impl Strategy<Value = ObjectFormat> {
    prop_oneof![9 => Just(ObjectFormat::Sha1), 1 => Just(ObjectFormat::Sha256)]
}

fn any_push() -> impl Strategy<Value = UpdateRefs> {
    let parts = (
        1..4_u8,
        any_generation(),
        vec(any_update(), 1..6),
        any::<bool>(),
        0..60_u64,
    );
    (parts, vec(1..6_u8, 0..3)).prop_map(
        |((repo, generation, updates, atomic, checked_at), packs)| {
            let mut seen = BTreeSet::new();
            let updates = updates.into_iter();
            let updates = updates.filter(|update| seen.insert(update.name.clone()));
            let packs: BTreeSet<_> = packs.into_iter().collect();
            UpdateRefs {
                generation,
                atomic,
                checked_at: LogIndex::new(checked_at),
                packs: packs.into_iter().map(pack).collect(),
                ..push(repo, updates.collect())
            }
        },
    )
}

fn any_pattern() -> impl Strategy<Value = RefPattern> {
    prop::sample::select(&["main", "a/**", "refs/tags/*", "a*"][..]).prop_map(pattern)
}

/// Late ones among them, and some of a later life.
fn any_settings() -> impl Strategy<Value = ConfigureRepo> {
    let head = option::weighted(0.3, prop::sample::select(&NAMES[..5]));
    let parts = (1..4_u8, any_generation(), 0..60_u64, any::<bool>(), head);
    parts.prop_map(
        |(repo, generation, revision, archived, head)| ConfigureRepo {
            repo: repo_id(repo),
            generation,
            revision: LogIndex::new(revision),
            archived,
            head: head.map(name),
        },
    )
}

fn any_shard_command() -> impl Strategy<Value = ShardCommand> {
    let main = || name("refs/heads/main");
    prop_oneof![
        12 => any_push().prop_map(ShardCommand::UpdateRefs),
        3 => (1..4_u8, 1..3_u8, any_generation(), any_format()).prop_map(
            move |(repo, root, generation, object_format)| ShardCommand::CreateRepo {
                repo: repo_id(repo),
                network: network(root),
                generation,
                head: main(),
                object_format,
            }
        ),
        3 => (1..4_u8, prop::collection::btree_set(1..6_u8, 0..3), 1..6_u8).prop_map(
            |(of, old, new)| ShardCommand::ReplacePacks(ReplacePacks {
                network: network(of),
                old: old.into_iter().map(|old| pack(old).pack).collect(),
                new: pack(new),
            })
        ),
        2 => (1..4_u8, 1..3_u8, any_generation(), 1..4_u8).prop_map(
            |(repo, of, generation, parent)| ShardCommand::ForkRepo(ForkRepo {
                repo: repo_id(repo),
                network: network(of),
                generation,
                parent: repo_id(parent),
            })
        ),
        2 => any_settings().prop_map(ShardCommand::ConfigureRepo),
        2 => (1..4_u8, any_generation(), any_pattern(), any::<bool>()).prop_map(
            |(repo, generation, pattern, on)| {
                let repo = repo_id(repo);
                match on {
                    true => ShardCommand::ProtectRefs { repo, generation, pattern },
                    false => ShardCommand::UnprotectRefs { repo, generation, pattern },
                }
            }
        ),
        1 => (1..4_u8).prop_map(|repo| ShardCommand::DropRepo { repo: repo_id(repo) }),
        1 => (1..4_u8, any_generation(), prop::sample::select(&NAMES[..5])).prop_map(
            |(repo, generation, head)| ShardCommand::SetHead {
                repo: repo_id(repo),
                generation,
                head: name(head),
            }
        ),
    ]
}

const PATHS: &[&str] = &["a/x", "A/X", "a/y", "b/x"];

fn found_under(meta: &Group, at: &str) -> Option<RepoRecord> {
    let at = path(at);
    let catalogue = meta.catalogue();
    let found = catalogue
        .repo_by_path(&at)
        .or_else(|| catalogue.repo_by_former_path(&at));
    found.filter(|found| found.state == RepoState::Ready)
}

fn any_edit() -> impl Strategy<Value = EditRepo> {
    let topics = prop_oneof![
        Just(TopicsEdit::Keep),
        Just(TopicsEdit::Set(vec![topic("b"), topic("a"), topic("b")])),
        Just(TopicsEdit::Add(topic("c"))),
        Just(TopicsEdit::Remove(topic("a"))),
    ];
    let head = option::weighted(0.3, prop::sample::select(&NAMES[..5]));
    (
        1..9_u8,
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        head,
        topics,
    )
        .prop_map(|(id, private, archived, head, topics)| EditRepo {
            private,
            archived,
            default_branch: head.map(name),
            topics,
            ..EditRepo::nothing(repo_id(id))
        })
}

fn any_meta_command() -> impl Strategy<Value = Command> {
    let names = PATHS;
    prop_oneof![
        1 => Just(form_cluster()),
        1 => (1..6_u8).prop_map(|number| Command::Meta(MetaCommand::RegisterNode(node(number)))),
        6 => (1..9_u8, prop::sample::select(names)).prop_map(|(id, at)| reserve(id, at)),
        4 => (1..9_u8).prop_map(mark_ready),
        1 => (1..9_u8).prop_map(abandon),
        3 => (1..9_u8).prop_map(delete),
        2 => (1..9_u8).prop_map(mark_dropped),
        1 => Just(Command::VersionBarrier { version: 1 }),
        6 => (1..9_u8, prop::sample::select(names)).prop_map(|(id, at)| rename(id, at)),
        3 => any_edit().prop_map(edit),
        2 => (1..9_u8, 1..60_u64).prop_map(|(id, revision)| mark_told(id, revision)),
    ]
}

/// Requests of which some repeat, some clash and some are old.
fn any_request() -> impl Strategy<Value = Option<RequestBinding>> {
    let request =
        (0..90_000_u64, 0..4_u64, 0..2_u8).prop_map(|(age_s, counter, digest)| RequestBinding {
            digest: [digest; 32],
            ..binding(START_MS - age_s / 10_000 * 10_000_000, counter)
        });
    option::weighted(0.5, request)
}

/// A shard of this release's level, or of the first.
fn shard_that(keeps_time: bool) -> Group {
    match keeps_time {
        true => Group::shard().keeping_time(),
        false => Group::shard(),
    }
}

fn advance(group: &mut Group, step: i64) {
    group.now_ms = group.now_ms.saturating_add_signed(step);
}

/// Several refs may be in the way: any of them may be named, so the model's choice stands for all.
fn compare_replies(real: Reply, model: Reply) {
    let (real, model) = match (real, model) {
        (Reply::RefsUpdated { verdicts: real }, Reply::RefsUpdated { verdicts: model }) => {
            (real, model)
        }
        (real, model) => return assert_eq!(real, model),
    };
    assert_eq!(real.len(), model.len());
    for (real, model) in real.into_iter().zip(model) {
        let conflict =
            |verdict: &RefVerdict| matches!(verdict.result, Err(RefRefusal::NameConflict { .. }));
        if conflict(&real) && conflict(&model) {
            assert_eq!((real.name, real.old), (model.name, model.old));
        } else {
            assert_eq!(real, model);
        }
    }
}

/// Everything that readers see is as the model has it.
fn compare_states(shard: &Group, model: &Model, now_ms: u64) {
    let view = shard.view();
    let live: BTreeSet<_> = model
        .repos
        .values()
        .flatten()
        .map(|repo| repo.network)
        .collect();
    assert_eq!(view.networks(), live.iter().copied().collect::<Vec<_>>());
    for number in 1..4_u8 {
        let id = repo_id(number);
        let expected = model.repos.get(&id).cloned().flatten();
        let generation = expected.as_ref().map_or(FIRST, |repo| repo.generation);
        let repo = view.live_repo(&id, generation).ok();
        assert_eq!(view.repo(&id).is_some(), model.repos.contains_key(&id));
        let seen = repo.map(|repo| (repo.network, repo.generation, repo.head, repo.object_format));
        let wanted = expected.as_ref().map(|repo| {
            let head = repo.head.clone();
            (repo.network, repo.generation, head, repo.object_format)
        });
        let shown = view.repo(&id).map(|repo| (repo.revision, repo.archived));
        if let Some(repo) = &expected {
            assert_eq!(shown, Some((repo.revision, repo.archived)));
        }
        let rules = view.protections(&id).rules.into_iter();
        let rules: BTreeSet<_> = rules.map(|rule| rule.pattern).collect();
        let protected = expected.as_ref().map(|repo| repo.protected.clone());
        assert_eq!(rules, protected.unwrap_or_default());
        assert_eq!(seen, wanted);
        let refs: Vec<_> = view.refs(&id, "").collect();
        let wanted: Vec<_> = expected.into_iter().flat_map(|repo| repo.refs).collect();
        assert_eq!(refs, wanted);
        for tip in 1..5 {
            let recently = view.was_tip_recently(&id, &oid(tip), now_ms);
            assert_eq!(recently, model.was_tip(&id, &oid(tip), now_ms), "tip {tip}");
        }
        let packs: Vec<_> = view.packs(&network(number)).map(|pack| pack.pack).collect();
        let wanted = model.packs.get(&network(number));
        assert_eq!(
            packs,
            wanted.into_iter().flatten().copied().collect::<Vec<_>>()
        );
    }
}

/// No name is a ref and a folder at once.
fn no_ref_lies_below_another(shard: &Group) {
    for number in 1..4 {
        let refs: Vec<_> = shard.view().refs(&repo_id(number), "").collect();
        for (one, _) in &refs {
            let folder = format!("{one}/");
            assert!(
                !refs
                    .iter()
                    .any(|(other, _)| other.as_str().starts_with(&folder))
            );
        }
    }
}

/// The same cases in every run; `PROPTEST_CASES` asks for more of them.
fn config() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0x4e65),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_shard_does_what_the_naive_model_does(
        keeps_time in any::<bool>(),
        commands in vec((any_step(), any_shard_command()), 1..60)
    ) {
        let mut shard = shard_that(keeps_time);
        let mut model = Model::default();
        for (step, command) in commands {
            advance(&mut shard, step);
            let now_ms = shard.entry_ms();
            let outcome = shard.run(Command::Shard(command.clone()));
            let before = model.clone();
            let reply = model.run(&command, now_ms);
            let accepted = matches!(
                &reply,
                Reply::RefsUpdated { verdicts } if verdicts.iter().any(|one| one.result.is_ok())
            );
            compare_replies(outcome.reply, reply.clone());
            compare_states(&shard, &model, now_ms);
            no_ref_lies_below_another(&shard);
            match command {
                ShardCommand::UpdateRefs(push) if accepted => {
                    let installed = outcome.effects.into_iter().map(|effect| match effect {
                        Effect::InstallPack { pack, .. } => pack,
                        other @ (Effect::ReplacePacks { .. } | Effect::PrunePacks { .. } | Effect::DropRepo { .. }) => panic!("a push did {other:?}"),
                    });
                    prop_assert_eq!(installed.collect::<Vec<_>>(), push.packs);
                }
                ShardCommand::DropRepo { repo } => {
                    let was_live = before.repos.get(&repo).is_some_and(Option::is_some);
                    prop_assert_eq!(outcome.effects.len(), usize::from(was_live));
                }
                ShardCommand::ReplacePacks(replace) if reply == Reply::Done => {
                    let ReplacePacks { network, old, new } = replace;
                    prop_assert_eq!(outcome.effects, [Effect::ReplacePacks { network, old, new }]);
                }
                ShardCommand::UpdateRefs(_)
                | ShardCommand::ReplacePacks(_)
                | ShardCommand::CreateRepo { .. }
                | ShardCommand::MarkUnreachable { .. }
                | ShardCommand::PrunePacks(_)
                | ShardCommand::ForkRepo(_)
                | ShardCommand::SetLimits { .. }
                | ShardCommand::SetPushRules { .. }
                | ShardCommand::ConfigureRepo(_)
                | ShardCommand::ProtectRefs { .. }
                | ShardCommand::UnprotectRefs { .. }
                | ShardCommand::SetHead { .. }
                | ShardCommand::SetMirror(_)
                | ShardCommand::ChangeMirror(_)
                | ShardCommand::BeginMirror(_)
                | ShardCommand::RecordMirror(_)
                | ShardCommand::UpdateSignedRefs(_)
                | ShardCommand::SetNonceSeed(_)
                | ShardCommand::EditMirror(_) => prop_assert_eq!(outcome.effects, []),
            }
        }
    }

    /// A replica that starts from a snapshot in the middle ends where one ends that applied everything.
    #[test]
    fn a_snapshot_in_the_middle_changes_nothing(
        keeps_time in any::<bool>(),
        commands in vec((any_step(), any_request(), any_shard_command()), 1..60),
        middle in 0..60_usize,
    ) {
        let mut whole = shard_that(keeps_time);
        let mut restored = shard_that(keeps_time);
        for (number, (step, request, command)) in commands.into_iter().enumerate() {
            if number == middle {
                let pairs = whole.state.iter();
                let pairs = pairs.map(|(key, value)| (key.clone(), value.clone()));
                let state = State::from_pairs(pairs.collect::<Vec<_>>());
                prop_assert_eq!(state.hash(), whole.state.hash());
                prop_assert_eq!(state.len(), whole.state.len());
                restored = Group { state, ..whole.clone() };
            }
            advance(&mut whole, step);
            let command = Command::Shard(command);
            let outcome = whole.run_for(request.clone(), command.clone());
            if number >= middle {
                advance(&mut restored, step);
                prop_assert_eq!(restored.run_for(request, command), outcome);
                prop_assert_eq!(restored.state.hash(), whole.state.hash());
            }
        }
    }

    /// Whatever happened: a repeated request changes nothing.
    #[test]
    fn a_request_is_executed_at_most_once(
        commands in vec((any_step(), any_request(), any_shard_command()), 1..40)
    ) {
        let mut shard = Group::shard();
        for (step, request, command) in commands {
            advance(&mut shard, step);
            let command = Command::Shard(command);
            shard.run_for(request.clone(), command.clone());
            if request.is_some() {
                let before = shard.state.hash();
                let outcome = shard.run_for(request, command);
                prop_assert_eq!(outcome.writes, []);
                prop_assert_eq!(outcome.effects, []);
                prop_assert_eq!(shard.state.hash(), before);
            }
        }
    }

    #[test]
    fn the_catalogue_stays_consistent(
        commands in vec((any_request(), any_meta_command()), 1..60)
    ) {
        let mut meta = Group::meta();
        let mut highest = [0; 9];
        for (request, command) in commands {
            let found_before: Vec<_> = PATHS
                .iter()
                .filter_map(|at| Some((*at, found_under(&meta, at)?)))
                .collect();
            let outcome = meta.run_for(request, command);
            let pending = pending_actions(&meta.state);
            for action in outcome.actions {
                prop_assert!(pending.contains(&action));
            }
            let repos = (1..9).filter_map(|number| meta.catalogue().repo(&repo_id(number)));
            let repos: Vec<_> = repos.collect();
            let unfinished = repos.iter().filter(|repo| {
                matches!(repo.state, RepoState::Reserved | RepoState::Deleting)
            });
            let unfinished: Vec<_> = unfinished.cloned().collect();
            prop_assert_eq!(meta.catalogue().unfinished().collect::<Vec<_>>(), unfinished);
            // Exactly the reserved and ready ones have their names, each name once.
            let mut named: Vec<_> = repos
                .iter()
                .filter(|repo| matches!(repo.state, RepoState::Reserved | RepoState::Ready))
                .cloned()
                .collect();
            named.sort_by_key(|repo| repo.path.key());
            prop_assert_eq!(meta.catalogue().repos(None, None, 100), named);
            for repo in &repos {
                let holder = meta.catalogue().repo_by_path(&repo.path);
                let holds = matches!(repo.state, RepoState::Reserved | RepoState::Ready);
                prop_assert_eq!(holder.is_some_and(|holder| holder.repo == repo.repo), holds);
            }
            // Former names lead to those who had them, unless somebody has them now.
            for repo in &repos {
                for former in &repo.former_paths {
                    prop_assert!(repo.state == RepoState::Ready);
                    let found = meta.catalogue().repo_by_former_path(former);
                    prop_assert_eq!(found.map(|found| found.repo), Some(repo.repo));
                    prop_assert_eq!(meta.catalogue().repo_by_path(former), None);
                }
                prop_assert!(repo.topics.is_sorted_by(|one, other| one < other));
            }
            let formers: usize = repos.iter().map(|repo| repo.former_paths.len()).sum();
            let keys = meta.state.iter().filter(|(key, _)| key[0] == 0x17);
            prop_assert_eq!(keys.count(), formers);
            // Whoever found a repository under a name that leads elsewhere now is refused by its shard.
            for (at, repo) in found_before {
                let now = found_under(&meta, at);
                if let Some(still) = meta.catalogue().repo(&repo.repo)
                    && still.state == RepoState::Ready
                    && now.is_none_or(|now| now.repo != repo.repo)
                {
                    prop_assert!(still.generation > repo.generation);
                    let told = meta.catalogue().untold_of(&repo.repo);
                    prop_assert_eq!(told.map(|mark| mark.revision.get()), Some(meta.index));
                }
            }
            // Generations only grow.
            for repo in &repos {
                let number = usize::from(repo.repo.as_bytes()[0]);
                prop_assert!(highest[number] <= repo.generation.get());
                highest[number] = repo.generation.get();
            }
        }
    }

    #[test]
    fn every_proposal_survives_its_encoding(
        request in any_request(),
        command in prop_oneof![
            any_meta_command(),
            any_shard_command().prop_map(Command::Shard)
        ],
        seed in any::<u64>(),
    ) {
        let proposal = henge_types::Proposal {
            request,
            proposed_at_ms: START_MS,
            seed,
            command,
        };
        let decoded = henge_types::Proposal::decode(&proposal.encode());
        prop_assert_eq!(decoded, Ok(proposal));
    }
}
