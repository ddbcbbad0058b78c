//! Random commands: against the naive models, through snapshots, with repeated requests.

use std::collections::BTreeSet;

use henge_state::State;
use henge_types::command::{GROUP_COMMANDS, META_COMMANDS, SHARD_COMMANDS};
use henge_types::{
    Command, Proposal, RefRefusal, RefVerdict, Reply, RepoRecord, RepoState, RequestBinding,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::draw::{
    ENTRIES_MAX, Entry, PATHS, REPOS, any_meta_command, any_meta_entries, any_requests,
    any_shard_command, any_shard_entries,
};
use crate::fixtures::*;
use crate::model::{MetaModel, ShardModel, compare_meta, compare_shard};

/// Numbers of the commands that are never refused: version_barrier, mark_repo_told, drop_repo and
/// set_nonce_seed.
const NEVER_REFUSED: [u16; 4] = [1, 25, 65, 89];

/// The key of the group's time.
const TIME_KEY: &[u8] = b"\x0f";

/// Sequences that are compared with the models and must together draw every command.
const SEQUENCES: u32 = 256;

/// Several refs may be in conflict and any of them may be named, so the real reply's choice counts
/// as equal to the model's.
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

/// No name is a ref and a folder at once.
fn no_ref_lies_below_another(shard: &Group) {
    for repo in shard.view().repos() {
        let refs: Vec<_> = shard.view().refs(&repo.repo, "").collect();
        for (one, _) in &refs {
            let folder = format!("{one}/");
            let mut names = refs.iter().map(|(other, _)| other.as_str());
            assert!(!names.any(|other| other.starts_with(&folder)));
        }
    }
}

/// Whether a command had its effect, at least in part.
fn is_accepted(reply: &Reply) -> bool {
    match reply {
        Reply::Done | Reply::Repo(_) => true,
        Reply::RefsUpdated { verdicts } => verdicts.iter().any(|verdict| verdict.result.is_ok()),
        Reply::Refused(_) | Reply::UnknownOutcome | Reply::Recheck => false,
    }
}

/// Numbers of the drawn commands, by their result.
#[derive(Default)]
struct Drawn {
    accepted: BTreeSet<u16>,
    refused: BTreeSet<u16>,
}

impl Drawn {
    fn by(group: &Group, sequences: &impl Strategy<Value = Vec<Entry>>) -> Self {
        let mut drawn = Self::default();
        let mut runner = TestRunner::new(config());
        for _ in 0..SEQUENCES {
            let tree = sequences.new_tree(&mut runner);
            let entries = tree.expect("nothing is filtered").current();
            let mut group = group.clone();
            for entry in entries {
                let command = entry.propose(&mut group);
                let number = command.number();
                if is_accepted(&group.reply(command)) {
                    drawn.accepted.insert(number);
                } else {
                    drawn.refused.insert(number);
                }
            }
        }
        drawn
    }
}

/// A client requests the commands of a machine. A leader proposes the others by itself.
fn asked(request: Option<RequestBinding>, command: &Command) -> Option<RequestBinding> {
    request.filter(|_| matches!(command, Command::Meta(_) | Command::Shard(_)))
}

/// A replica that starts from a snapshot in the middle ends in the same state as one that applied
/// every entry.
fn restore_in_the_middle(
    mut whole: Group,
    entries: Vec<Entry>,
    requests: Vec<Option<RequestBinding>>,
    middle: usize,
) {
    let mut restored = None;
    for (number, (entry, request)) in entries.into_iter().zip(requests).enumerate() {
        let command = entry.propose(&mut whole);
        let request = asked(request, &command);
        if number == middle {
            let pairs = whole.state.iter();
            let pairs = pairs.map(|(key, value)| (key.clone(), value.clone()));
            let state = State::from_pairs(pairs.collect::<Vec<_>>());
            assert_eq!(state.hash(), whole.state.hash());
            assert_eq!(state.len(), whole.state.len());
            restored = Some(Group {
                state,
                ..whole.clone()
            });
        }
        let outcome = whole.run_for(request.clone(), command.clone());
        if let Some(restored) = &mut restored {
            restored.now_ms = whole.now_ms;
            assert_eq!(restored.run_for(request, command), outcome);
            assert_eq!(restored.state.hash(), whole.state.hash());
        }
    }
}

/// A repeated request changes nothing.
fn repeat_each_request(
    mut group: Group,
    entries: Vec<Entry>,
    requests: Vec<Option<RequestBinding>>,
) {
    for (entry, request) in entries.into_iter().zip(requests) {
        let command = entry.propose(&mut group);
        let request = asked(request, &command);
        let is_asked = request.is_some();
        group.run_for(request.clone(), command.clone());
        if is_asked {
            let mut outcome = group.run_for(request, command);
            // A proposer whose clock is hours ahead moves the group's time with each entry.
            outcome.writes.retain(|write| write.key != TIME_KEY);
            assert_eq!(outcome.writes, []);
            assert_eq!(outcome.effects, []);
        }
    }
}

fn found_under(meta: &Group, at: &str) -> Option<RepoRecord> {
    let at = path(at);
    let catalogue = meta.catalogue();
    let found = catalogue
        .repo_by_path(&at)
        .or_else(|| catalogue.repo_by_former_path(&at));
    found.filter(|found| found.state == RepoState::Ready)
}

/// Exactly the reserved and ready repositories hold their names, each name once.
fn each_name_has_one_holder(meta: &Group, repos: &[RepoRecord]) {
    let has_name = |repo: &RepoRecord| matches!(repo.state, RepoState::Reserved | RepoState::Ready);
    let mut named = repos.to_vec();
    named.retain(has_name);
    named.sort_by_key(|repo| repo.path.key());
    assert_eq!(meta.catalogue().repos(None, None, 100), named);
    for repo in repos {
        let holder = meta.catalogue().repo_by_path(&repo.path);
        let holds = holder.is_some_and(|holder| holder.repo == repo.repo);
        assert_eq!(holds, has_name(repo));
    }
}

/// Former names lead to the repositories that held them, unless another one holds them now.
fn each_former_name_leads_on(meta: &Group, repos: &[RepoRecord]) {
    for repo in repos {
        for former in &repo.former_paths {
            assert_eq!(repo.state, RepoState::Ready);
            let found = meta.catalogue().repo_by_former_path(former);
            assert_eq!(found.map(|found| found.repo), Some(repo.repo));
            assert_eq!(meta.catalogue().repo_by_path(former), None);
        }
        assert!(repo.topics.is_sorted_by(|one, other| one < other));
    }
    let formers: usize = repos.iter().map(|repo| repo.former_paths.len()).sum();
    let keys = meta.state.iter().filter(|(key, _)| key[0] == 0x17);
    assert_eq!(keys.count(), formers);
}

/// A repository that is no longer found under a name has a new generation, which is pending at its
/// shard.
fn each_lost_name_is_fenced(meta: &Group, found_before: &[(&str, RepoRecord)]) {
    for (at, repo) in found_before {
        let now = found_under(meta, at);
        if let Some(still) = meta.catalogue().repo(&repo.repo)
            && still.state == RepoState::Ready
            && now.is_none_or(|now| now.repo != repo.repo)
        {
            assert!(still.generation > repo.generation);
            let told = meta.catalogue().untold_of(&repo.repo);
            assert_eq!(told.map(|mark| mark.revision.get()), Some(meta.index));
        }
    }
}

/// The same cases in every run; `PROPTEST_CASES` sets a higher number.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 128,
        rng_seed: RngSeed::Fixed(0x4e65),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Fails for a row of the tables whose command is not drawn. A command without a rule in the models
/// does not compile.
#[test]
fn every_command_is_drawn_accepted_and_refused() {
    let shard = Drawn::by(&Group::shard(), &any_shard_entries());
    let meta = Drawn::by(&Group::meta(), &any_meta_entries());
    for (drawn, table) in [
        (&shard, GROUP_COMMANDS),
        (&shard, SHARD_COMMANDS),
        (&meta, GROUP_COMMANDS),
        (&meta, META_COMMANDS),
    ] {
        for row in table {
            let accepted = drawn.accepted.contains(&row.number);
            assert!(accepted, "never accepted: {row:?}");
            let refused = drawn.refused.contains(&row.number);
            let may_be_refused = !NEVER_REFUSED.contains(&row.number);
            assert_eq!(refused, may_be_refused, "refused: {row:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: SEQUENCES, ..config() })]

    #[test]
    fn a_shard_does_what_the_naive_model_does(entries in any_shard_entries()) {
        let mut shard = Group::shard();
        let mut model = ShardModel::new();
        for entry in entries {
            let command = entry.propose(&mut shard);
            let answer = model.run(&command, shard.now_ms);
            let outcome = shard.run(command);
            compare_replies(outcome.reply, answer.reply);
            prop_assert_eq!(outcome.effects, answer.effects);
            compare_shard(&shard, &model);
            no_ref_lies_below_another(&shard);
        }
    }

    #[test]
    fn meta_does_what_the_naive_model_does(entries in any_meta_entries()) {
        let mut meta = Group::meta();
        let mut model = MetaModel::new();
        for entry in entries {
            let command = entry.propose(&mut meta);
            let answer = model.run(&command, meta.now_ms);
            let outcome = meta.run(command);
            prop_assert_eq!(outcome.reply, answer.reply);
            prop_assert_eq!(outcome.effects, answer.effects);
            compare_meta(&meta, &model);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_snapshot_in_the_middle_changes_nothing(
        entries in any_shard_entries(),
        requests in any_requests(),
        middle in 0..ENTRIES_MAX / 2,
    ) {
        restore_in_the_middle(Group::shard(), entries, requests, middle);
    }

    #[test]
    fn a_snapshot_of_meta_changes_nothing(
        entries in any_meta_entries(),
        requests in any_requests(),
        middle in 0..ENTRIES_MAX / 2,
    ) {
        restore_in_the_middle(Group::meta(), entries, requests, middle);
    }

    #[test]
    fn a_request_is_executed_at_most_once(
        entries in any_shard_entries(),
        requests in any_requests(),
    ) {
        repeat_each_request(Group::shard(), entries, requests);
    }

    #[test]
    fn a_request_to_meta_is_executed_once(
        entries in any_meta_entries(),
        requests in any_requests(),
    ) {
        repeat_each_request(Group::meta(), entries, requests);
    }

    #[test]
    fn the_catalogue_stays_consistent(
        entries in any_meta_entries(),
        requests in any_requests(),
    ) {
        let mut meta = Group::meta();
        let mut highest = [0; REPOS.len() + 1];
        for (entry, request) in entries.into_iter().zip(requests) {
            let found = PATHS.iter().filter_map(|at| Some((*at, found_under(&meta, at)?)));
            let found_before: Vec<_> = found.collect();
            let command = entry.propose(&mut meta);
            meta.run_for(asked(request, &command), command);
            let repos = REPOS.iter().filter_map(|number| meta.catalogue().repo(&repo_id(*number)));
            let repos: Vec<_> = repos.collect();
            each_name_has_one_holder(&meta, &repos);
            each_former_name_leads_on(&meta, &repos);
            each_lost_name_is_fenced(&meta, &found_before);
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
        requests in any_requests(),
        command in prop_oneof![
            any_meta_command().prop_map(Command::Meta),
            any_shard_command().prop_map(Command::Shard),
        ],
        seed in any::<u64>(),
    ) {
        let proposal = Proposal {
            request: requests.into_iter().next().flatten(),
            proposed_at_ms: START_MS,
            seed,
            command,
        };
        let decoded = Proposal::decode(&proposal.encode());
        prop_assert_eq!(decoded, Ok(proposal));
    }
}
