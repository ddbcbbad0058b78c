//! Records of requests in a group that keeps its own time: executed at most once, in a bounded
//! number of bytes.
//!
//! Records were kept whole for a day: a kilobyte of memory per write on every replica, 40 MB of a
//! 40 MB snapshot.

use std::collections::BTreeMap;

use henge_state::{apply, request_generation, wants_tending};
use henge_types::limits::{
    REQUEST_GENERATION_BYTES_MAX, REQUEST_GENERATION_MS, REQUEST_RECORD_MS_MIN,
    REQUEST_RECORDS_DRAINED_PER_STEP,
};
use henge_types::{Command, NodeId, Refusal, Reply, RequestBinding, VoterClock};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::fixtures::*;

const MAIN: &str = "refs/heads/main";

fn shard() -> Group {
    Group::shard().keeping_time()
}

fn generation(group: &Group) -> u64 {
    request_generation(&group.state).expect("it keeps its time")
}

fn of_tag(group: &Group, tag: u8) -> (usize, usize) {
    let pairs = group.state.iter().filter(|(key, _)| key[0] == tag);
    pairs.fold((0, 0), |(count, bytes), (key, value)| {
        (count + 1, bytes + key.len() + value.len())
    })
}

/// Moves the time so far that a generation of request records is over.
fn rest(group: &mut Group) {
    group.now_ms += REQUEST_GENERATION_MS;
}

fn again(shard: &mut Group, request: RequestBinding, reply: &Reply) {
    let before = shard.state.hash();
    let outcome = shard.run_for(Some(request), drop_repo(1));
    assert_eq!(outcome.reply, *reply);
    assert_eq!((outcome.writes, outcome.effects), (vec![], vec![]));
    assert_eq!(shard.state.hash(), before);
}

#[test]
fn a_repeated_request_gets_its_verdicts_for_a_whole_generation() {
    let mut shard = shard();
    shard.run(create(1));
    let request = binding_in(1, 1);
    let push = refs(push(1, vec![to_create(MAIN, 1)]));
    let first = shard.run_for(Some(request.clone()), push);
    assert_eq!(first.effects.len(), 1);
    let record = shard.view().request(&request.id).expect("it is recorded");
    assert!(record.binds(&request));
    again(&mut shard, request.clone(), &first.reply);
    rest(&mut shard);
    shard.run_for(Some(binding_in(1, 2)), set_head(1, MAIN));
    assert_eq!(generation(&shard), 2);
    again(&mut shard, request.clone(), &first.reply);
    // Also under a later generation, with which a leader renews an id that was not proposed.
    let renewed = RequestBinding {
        id: request.id.in_generation(2),
        ..request.clone()
    };
    again(&mut shard, renewed, &first.reply);
    rest(&mut shard);
    shard.run_for(Some(binding_in(2, 3)), set_head(1, MAIN));
    assert_eq!(generation(&shard), 3);
    again(&mut shard, request, &Reply::UnknownOutcome);
}

#[test]
fn the_same_id_with_other_content_is_refused() {
    let mut shard = shard();
    let request = binding_in(1, 1);
    shard.run_for(Some(request.clone()), create(1));
    let mut other_digest = request.clone();
    other_digest.digest = [0; 32];
    let mut other_principal = request.clone();
    other_principal.principal = "eve".to_owned();
    let mut other_repo = request.clone();
    other_repo.repo = None;
    let mismatch = Reply::Refused(Refusal::RequestMismatch);
    for other in [other_digest, other_principal, other_repo] {
        again(&mut shard, other, &mismatch);
    }
    again(&mut shard, request, &Reply::Done);
}

/// Ids made from the state before a group was idle: all ids in flight at that time are accepted.
#[test]
fn ids_that_were_made_before_a_group_rested_are_taken() {
    let mut shard = shard();
    shard.run_for(Some(binding_in(1, 0)), create(1));
    shard.now_ms += 3 * 24 * 3_600_000;
    let clocks = vec![VoterClock {
        node: NodeId::new(1),
        unix_ms: shard.now_ms,
    }];
    shard.run(Command::MoveTime { clocks });
    for counter in 1..9 {
        let reply = shard.run_for(Some(binding_in(1, counter)), create(1)).reply;
        assert_eq!(reply, Reply::Done);
    }
    assert_eq!(generation(&shard), 2);
}

#[test]
fn an_id_of_a_generation_that_is_to_come_is_not_executed() {
    let mut shard = shard();
    again(&mut shard, binding_in(2, 1), &Reply::UnknownOutcome);
    let reply = shard.run_for(Some(binding_in(1, 1)), create(1)).reply;
    assert_eq!(reply, Reply::Done);
}

/// A push of this many refs, all of them refused: its reply is large and it changes nothing.
fn refused(refs_count: usize) -> Command {
    let updates = (0..refs_count).map(|count| to_move(&format!("refs/heads/{count}"), 1, 2));
    refs(push(1, updates.collect()))
}

/// One more request, without the checks of the fixture, because there are many.
fn write(shard: &mut Group, command: &Command) {
    let counter = shard.index;
    let request = binding_in(generation(shard), counter);
    let header = shard.header(Some(request));
    let outcome = apply(&shard.state, &header, command);
    assert!(matches!(outcome.reply, Reply::RefsUpdated { .. }));
    shard.state.commit(&outcome.writes);
}

#[test]
fn a_full_generation_ends_early() {
    let mut shard = shard();
    shard.run(create(1));
    let command = refused(1000);
    let mut most = 0;
    while generation(&shard) < 6 {
        write(&mut shard, &command);
        most = most.max(of_tag(&shard, 0x0d).1);
    }
    let max = usize::try_from(REQUEST_GENERATION_BYTES_MAX).expect("small");
    assert!(most > max, "two generations are kept: {most}");
    assert!(most <= 3 * max, "{most}");
}

/// Records of an older release are found for as long as a retry is possible, and then removed.
#[test]
fn records_of_an_older_release_are_found_and_then_given_back() {
    let mut shard = Group::shard();
    shard.run(create(1));
    for counter in 0..600 {
        shard.run_for(Some(binding(START_MS + counter, counter)), create(1));
    }
    let known = binding(START_MS + 599, 599);
    let mut shard = shard.keeping_time();
    again(&mut shard, known.clone(), &Reply::Done);
    // In flight when the level was raised.
    let late = binding(START_MS + 700, 700);
    let reply = shard.run_for(Some(late.clone()), create(1)).reply;
    assert_eq!(reply, Reply::Done);
    assert!(!wants_tending(&shard.state, shard.now_ms));
    for generation in 1..3 {
        again(&mut shard, known.clone(), &Reply::Done);
        again(&mut shard, late.clone(), &Reply::Done);
        rest(&mut shard);
        assert!(wants_tending(&shard.state, shard.now_ms));
        assert_eq!(of_tag(&shard, 0x02).0, 600);
        shard.run_for(Some(binding_in(generation, 1000 + generation)), create(1));
    }
    again(&mut shard, late, &Reply::UnknownOutcome);
    let unknown = binding(START_MS + 800, 800);
    again(&mut shard, unknown, &Reply::UnknownOutcome);
    // A few with every request, and many with every step of an idle group.
    assert_eq!(of_tag(&shard, 0x02).0, 596);
    let clocks = vec![VoterClock {
        node: NodeId::new(1),
        unix_ms: shard.now_ms,
    }];
    let step = Command::MoveTime { clocks };
    while wants_tending(&shard.state, shard.now_ms) {
        let before = of_tag(&shard, 0x02).0;
        shard.run(step.clone());
        let given_back = before - of_tag(&shard, 0x02).0;
        assert_eq!(given_back, before.min(REQUEST_RECORDS_DRAINED_PER_STEP));
    }
    assert_eq!(of_tag(&shard, 0x02).0, 0);
    shard.now_ms += REQUEST_RECORD_MS_MIN;
    again(&mut shard, known, &Reply::UnknownOutcome);
}

/// One step of a random schedule.
#[derive(Debug, Clone)]
enum Step {
    /// The proposer's clock moves.
    Clock(i64),
    /// The clocks of a majority move the time.
    Move(i64),
    /// A request that was made this many generations before the present one.
    New { behind: u64 },
    /// A repetition of one of the last requests.
    Again { back: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    const DAY_MS: i64 = 24 * 3_600_000;
    let jump = prop_oneof![
        4 => 0..1_000_i64,
        2 => 500_000..1_000_000_i64,
        1 => -5_000..0_i64,
        1 => Just(400 * DAY_MS),
        1 => Just(-400 * DAY_MS),
    ];
    prop_oneof![
        3 => jump.clone().prop_map(Step::Clock),
        1 => jump.prop_map(Step::Move),
        6 => (0..4_u64).prop_map(|behind| Step::New { behind }),
        4 => (0..40_usize).prop_map(|back| Step::Again { back }),
    ]
}

fn config() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0x7e91),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// With any clocks: no request is executed twice, a repeated one gets its first reply or
    /// *unknown outcome*, an id of the current generation is always accepted, and generations only
    /// grow.
    #[test]
    fn a_request_is_executed_at_most_once(steps in vec(any_step(), 1..120)) {
        let mut meta = Group::meta().keeping_time();
        meta.run(form_cluster());
        let mut executed: BTreeMap<u64, Reply> = BTreeMap::new();
        let mut requests: Vec<(RequestBinding, Command)> = Vec::new();
        let mut highest = 0;
        for (counter, step) in (0_u64..).zip(steps) {
            let (request, command) = match step {
                Step::Clock(by) => {
                    meta.now_ms = meta.now_ms.saturating_add_signed(by);
                    continue;
                }
                Step::Move(by) => {
                    let unix_ms = meta.now_ms.saturating_add_signed(by);
                    let node = NodeId::new(1);
                    meta.run(Command::MoveTime { clocks: vec![VoterClock { node, unix_ms }] });
                    continue;
                }
                Step::New { behind } => {
                    let named = generation(&meta).saturating_sub(behind).max(1);
                    let number = u8::try_from(counter % 200).expect("small");
                    let command = reserve(number, &format!("a/x{counter}"));
                    (binding_in(named, counter), command)
                }
                Step::Again { back } => {
                    let Some(at) = requests.len().checked_sub(back + 1) else { continue };
                    requests[at].clone()
                }
            };
            let key = request.id.counter;
            let named = request.id.generation().expect("it names one");
            let current = generation(&meta);
            let outcome = meta.run_for(Some(request.clone()), command.clone());
            let was_executed = !outcome.writes.is_empty();
            match executed.get(&key) {
                Some(reply) => {
                    prop_assert!(!was_executed, "executed twice");
                    let unknown = outcome.reply == Reply::UnknownOutcome;
                    prop_assert!(unknown || outcome.reply == *reply);
                    prop_assert!(!unknown || named + 1 < current);
                }
                None if was_executed => {
                    prop_assert!(named + 1 >= current);
                    executed.insert(key, outcome.reply);
                }
                None => {
                    prop_assert_eq!(outcome.reply, Reply::UnknownOutcome);
                    prop_assert!(named + 1 < current);
                }
            }
            requests.push((request, command));
            prop_assert!(generation(&meta) >= highest);
            highest = generation(&meta);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..config() })]

    /// Bursts and idle times of any length: the records take at most the bytes of three
    /// generations.
    #[test]
    fn the_records_take_a_bounded_number_of_bytes(
        bursts in vec((1..600_usize, any::<bool>(), any::<bool>()), 3..6)
    ) {
        let mut shard = shard();
        shard.run(create(1));
        let (small, large) = (refused(30), refused(900));
        let max = usize::try_from(REQUEST_GENERATION_BYTES_MAX).expect("small");
        for (writes, is_large, rests) in bursts {
            for _ in 0..writes {
                write(&mut shard, if is_large { &large } else { &small });
            }
            if rests {
                rest(&mut shard);
            }
            prop_assert!(of_tag(&shard, 0x0d).1 <= 3 * max);
        }
    }
}
