//! Replicated time: one clock moves a group's time by at most an hour per entry, a majority moves
//! it to any time.

use henge_state::time_ms;
use henge_types::command::VERSION_STARTS_AND_TIME;
use henge_types::limits::{FORMER_TIP_MS, TIME_KEPT_MS, TIME_STEP_MS_MAX};
use henge_types::{
    BeginMirror, Command, LogIndex, MarkFound, Mirror, MirrorId, MirrorKind, MirrorOutcome,
    MirrorSettings, MirrorWord, NodeId, PrunePacks, RecordMirror, Refusal, Reply, SetMirror,
    ShardCommand, VoterClock,
};

use crate::fixtures::*;

const MAIN: &str = "refs/heads/main";
const HOUR_MS: u64 = 3_600_000;
const DAYS_400_MS: u64 = 400 * 24 * HOUR_MS;
const LEASE_MS: u64 = 15_000;

fn shard() -> Group {
    Group::shard().keeping_time()
}

fn time(group: &Group) -> u64 {
    time_ms(&group.state).expect("it keeps its time")
}

fn move_time(clocks: &[u64]) -> Command {
    let clocks = clocks.iter().zip(1..).map(|(unix_ms, node)| VoterClock {
        node: NodeId::new(node),
        unix_ms: *unix_ms,
    });
    Command::MoveTime {
        clocks: clocks.collect(),
    }
}

fn updated_ms(shard: &Group) -> u64 {
    let repo = shard.view().repo(&repo_id(1)).expect("it is there");
    repo.updated_at_ms
}

#[test]
fn the_barrier_of_the_level_sets_the_time() {
    let mut group = Group::shard();
    group.run(create(1));
    assert_eq!(time_ms(&group.state), None);
    group.now_ms += 77;
    let mut group = group.keeping_time();
    assert_eq!(time(&group), START_MS + 77);
    // A second barrier, with another clock, does not set it again.
    group.now_ms -= HOUR_MS;
    let version = VERSION_STARTS_AND_TIME;
    group.nothing_but(Command::VersionBarrier { version }, Reply::Done);
}

#[test]
fn one_clock_moves_the_time_by_an_hour_an_entry_and_never_back() {
    let mut shard = shard();
    shard.now_ms += 5;
    shard.run(create(1));
    assert_eq!(updated_ms(&shard), START_MS + 5);
    shard.now_ms = START_MS + DAYS_400_MS;
    for hours in 1..4 {
        shard.run(set_head(1, &format!("refs/heads/{hours}")));
        let expected = START_MS + hours * TIME_STEP_MS_MAX;
        assert_eq!((time(&shard), updated_ms(&shard)), (expected, expected));
    }
    shard.now_ms = 0;
    shard.run(set_head(1, "refs/heads/back"));
    assert_eq!(updated_ms(&shard), START_MS + 3 * TIME_STEP_MS_MAX);
    assert_eq!(time(&shard), START_MS + 3 * TIME_STEP_MS_MAX);
}

#[test]
fn busy_groups_write_their_time_once_a_second() {
    let mut shard = shard();
    shard.run(create(1));
    let mut kept = 0;
    for step in 1..=100_u64 {
        shard.now_ms = START_MS + step * TIME_KEPT_MS / 20;
        let head = format!("refs/heads/{}", step % 2);
        let outcome = shard.run(set_head(1, &head));
        kept += outcome
            .writes
            .iter()
            .filter(|write| write.key[0] == 0x0f)
            .count();
        assert_eq!(updated_ms(&shard), shard.now_ms);
    }
    assert_eq!(kept, 5);
}

#[test]
fn a_larger_step_goes_to_the_smallest_clock_of_a_majority() {
    let mut shard = shard();
    let to = START_MS + DAYS_400_MS;
    assert_eq!(shard.reply(move_time(&[to + 9, to])), Reply::Done);
    assert_eq!(time(&shard), to);
    // Also back: the clocks were wrong together, and are right again.
    assert_eq!(
        shard.reply(move_time(&[START_MS + 9, START_MS + 5])),
        Reply::Done
    );
    assert_eq!(time(&shard), START_MS + 5);
    shard.nothing_but(move_time(&[]), Reply::Refused(Refusal::Invalid));
    let mut older = Group::shard();
    older.nothing_but(move_time(&[to]), Reply::Refused(Refusal::Invalid));
    let mut meta = Group::meta().keeping_time();
    assert_eq!(meta.reply(move_time(&[to])), Reply::Done);
    assert_eq!(time(&meta), to);
}

/// Two pushes through a leader whose clock was 400 days ahead made a shard unusable for 400 days.
#[test]
fn a_leader_with_a_wrong_clock_shuts_nothing() {
    for by in [DAYS_400_MS.cast_signed(), -DAYS_400_MS.cast_signed()] {
        let mut shard = shard();
        shard.run(create(1));
        shard.now_ms = START_MS.saturating_add_signed(by);
        for count in 0..2_u8 {
            let request = binding_in(1, u64::from(count));
            let push = refs(push(1, vec![to_create(&format!("refs/heads/{count}"), 1)]));
            shard.run_for(Some(request), push);
        }
        assert!(time(&shard) <= START_MS + 2 * TIME_STEP_MS_MAX);
        shard.now_ms = START_MS + 1000;
        let request = binding_in(1, 7);
        let push = refs(push(1, vec![to_create(MAIN, 1)]));
        let reply = shard.run_for(Some(request), push).reply;
        assert_eq!(reply, verdicts(vec![verdict(MAIN, None, Ok(()))]));
    }
}

/// The same with a state from before the level, and the floor of request ids 400 days ahead.
#[test]
fn a_group_from_before_the_level_with_a_floor_ahead_goes_on() {
    let mut shard = Group::shard();
    shard.run(create(1));
    shard.now_ms = START_MS + DAYS_400_MS;
    shard.run_for(Some(binding(shard.now_ms, 1)), create(1));
    shard.now_ms += DAYS_400_MS;
    shard.run_for(Some(binding(shard.now_ms, 2)), create(1));
    shard.now_ms = START_MS + 9;
    let refused = shard.run_for(Some(binding(shard.now_ms, 3)), create(1));
    assert_eq!(refused.reply, Reply::UnknownOutcome);
    let mut shard = shard.keeping_time();
    assert_eq!(time(&shard), START_MS + 9);
    let taken = shard.run_for(Some(binding_in(1, 4)), create(1));
    assert_eq!(taken.reply, Reply::Done);
    // Ids of an older node are judged as before.
    let refused = shard.run_for(Some(binding(shard.now_ms, 5)), create(1));
    assert_eq!(refused.reply, Reply::UnknownOutcome);
}

fn mirror_id() -> MirrorId {
    MirrorId::from_bytes([1; 16])
}

fn mirror(shard: &Group) -> Mirror {
    let found = shard.view().mirror(&repo_id(1), &mirror_id());
    found.expect("it is there")
}

fn set_mirror() -> Command {
    Command::Shard(ShardCommand::SetMirror(SetMirror {
        repo: repo_id(1),
        generation: FIRST,
        mirror: mirror_id(),
        settings: MirrorSettings {
            kind: MirrorKind::Push,
            url: "https://example.org/a.git".to_owned(),
            secret: None,
            interval_ms: HOUR_MS,
            on_push: false,
        },
        removal: None,
    }))
}

fn begin(scheduled_at_ms: u64) -> Command {
    Command::Shard(ShardCommand::BeginMirror(BeginMirror {
        repo: repo_id(1),
        mirror: mirror_id(),
        scheduled_at_ms,
        lease_ms: LEASE_MS,
    }))
}

fn end(fence: u64) -> Command {
    Command::Shard(ShardCommand::RecordMirror(RecordMirror {
        repo: repo_id(1),
        mirror: mirror_id(),
        fence: LogIndex::new(fence),
        word: MirrorWord::Ended(MirrorOutcome::Done {
            changed: 0,
            pack_bytes: 0,
        }),
    }))
}

/// A mirror that ran 400 days ahead runs again as soon as the time is right, and then at its
/// interval.
#[test]
fn firings_and_leases_from_another_time_hold_no_mirror_up() {
    let mut shard = shard();
    shard.run(create(1));
    shard.run(move_time(&[START_MS + DAYS_400_MS]));
    shard.now_ms = START_MS + DAYS_400_MS;
    shard.run(set_mirror());
    let first = mirror(&shard).next_due_ms;
    assert_eq!(shard.reply(begin(first)), Reply::Done);
    let lost = shard.clone();
    let fence = shard.index;
    assert_eq!(shard.reply(end(fence)), Reply::Done);
    let next = mirror(&shard).next_due_ms;
    assert_eq!(next, START_MS + DAYS_400_MS + HOUR_MS);
    assert_eq!(
        shard.reply(begin(next)),
        Reply::Refused(Refusal::WrongState { repo: repo_id(1) })
    );

    // And a mirror whose run was in progress when the clocks were set.
    for mut shard in [shard, lost] {
        let now_ms = START_MS + 7;
        shard.run(move_time(&[now_ms]));
        shard.now_ms = now_ms;
        let due = mirror(&shard).next_due_ms;
        assert!(mirror(&shard).is_due_in_group(now_ms));
        assert_eq!(shard.reply(begin(due)), Reply::Done);
        let fence = shard.index;
        assert!(
            !mirror(&shard).is_due_in_group(now_ms),
            "a run is under way"
        );
        shard.now_ms += 1000;
        assert_eq!(shard.reply(end(fence)), Reply::Done);
        assert_eq!(mirror(&shard).next_due_ms, shard.now_ms + HOUR_MS);
        assert!(!mirror(&shard).is_due_in_group(shard.now_ms));
    }
}

#[test]
fn firings_within_the_interval_are_waited_for() {
    let mut shard = shard();
    shard.run(create(1));
    shard.run(set_mirror());
    shard.run(begin(START_MS));
    let fence = shard.index;
    shard.run(end(fence));
    let mirror = mirror(&shard);
    assert_eq!(mirror.next_due_ms, START_MS + HOUR_MS);
    for now_ms in [START_MS, START_MS + HOUR_MS - 1] {
        assert!(!mirror.is_due_in_group(now_ms));
    }
    assert!(mirror.is_due_in_group(START_MS + HOUR_MS));
    assert!(
        mirror.is_due_in_group(START_MS - 1),
        "further ahead than its interval"
    );
}

/// The age of a mark does not follow a single clock that is ahead.
#[test]
fn one_clock_does_not_take_the_grace_of_a_mark_away() {
    let mut shard = shard();
    shard.run(create(1));
    let push = push(1, vec![to_create(MAIN, 1)]);
    let packs = push.packs.iter().map(|pack| pack.pack).collect();
    shard.run(refs(push));
    shard.run(Command::Shard(ShardCommand::MarkUnreachable {
        network: network(1),
        instead_of: None,
        found: MarkFound::Unknown,
    }));
    let mark = shard.view().prune_mark(&network(1)).expect("it stands");
    let prune = Command::Shard(ShardCommand::PrunePacks(PrunePacks {
        network: network(1),
        old: packs,
        new: Some(pack(9)),
        walked_at: LogIndex::new(shard.index),
        marked_at: mark.at,
        grace_ms: 14 * 24 * HOUR_MS,
    }));
    shard.now_ms += DAYS_400_MS;
    let refused = Reply::Refused(Refusal::Invalid);
    assert_eq!(shard.reply(prune.clone()), refused);
    shard.run(move_time(&[shard.now_ms]));
    assert_eq!(shard.reply(prune), Reply::Done);
}

#[test]
fn former_tips_of_another_time_expire_as_well() {
    let mut shard = shard();
    shard.run(create(1));
    shard.run(move_time(&[START_MS + DAYS_400_MS]));
    shard.now_ms = START_MS + DAYS_400_MS;
    shard.run(refs(push(1, vec![to_create(MAIN, 1)])));
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    shard.run(move_time(&[START_MS]));
    shard.now_ms = START_MS;
    shard.run(refs(push(1, vec![to_move(MAIN, 2, 3)])));
    let former: Vec<_> = shard.view().former_tips(&repo_id(1)).collect();
    assert_eq!(former, [(oid(1), START_MS), (oid(2), START_MS)]);
    shard.now_ms += FORMER_TIP_MS + 1;
    shard.run(refs(push(1, vec![to_move(MAIN, 3, 4)])));
    let former: Vec<_> = shard.view().former_tips(&repo_id(1)).collect();
    assert_eq!(former, [(oid(3), shard.now_ms)]);
}
