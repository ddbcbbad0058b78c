use super::*;
use henge_storage::disk::OsDisk;
use henge_types::{LogIndex, StartPlace};

const NODE: NodeId = NodeId::new(2);
const LIFE: Incarnation = Incarnation::from_bytes([1; 16]);

fn start(number: u8) -> StartId {
    StartId::from_bytes([number; 16])
}

fn starts(dir: &Path, number: u8) -> Starts {
    let place = (OsDisk::shared(), dir.to_owned());
    Starts::draw(NodeId::new(1), LIFE, place, start(number)).expect("drawn")
}

fn claim(number: u8, drawn: &[u8]) -> StartClaim {
    StartClaim {
        start: start(number),
        last: None,
        drawn: drawn.iter().map(|number| start(*number)).collect(),
    }
}

#[test]
fn a_copy_is_refused_once_a_later_start_was_heard() {
    let dir = tempfile::tempdir().expect("a folder");
    let starts = starts(dir.path(), 1);
    let hear = |claim: &StartClaim| starts.admit(NODE, LIFE, Some(claim), None);
    assert_eq!(hear(&claim(5, &[4])), Ok(()));
    assert_eq!(hear(&claim(6, &[4, 5])), Ok(()));
    let copy = hear(&claim(7, &[4]));
    assert!(
        matches!(copy, Err(StartRefusal::LaterStart { known, .. }) if known == start(6)),
        "{copy:?}"
    );
    assert_eq!(hear(&claim(6, &[4, 5])), Ok(()), "the newest one goes on");
    let other_life = Incarnation::from_bytes([2; 16]);
    let other = starts.admit(NODE, other_life, Some(&claim(8, &[])), None);
    assert_eq!(other, Ok(()), "another data directory has its own starts");
}

/// A peer that knows a later start of this node also sends that start in its own calls.
#[test]
fn a_process_ends_when_a_caller_knows_a_later_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let starts = starts(dir.path(), 1);
    let known = |number, place| KnownStart {
        start: start(number),
        place,
    };
    let hear = |known: KnownStart| starts.admit(NODE, LIFE, Some(&claim(5, &[])), Some(&known));
    let own = known(1, StartPlace::After(LogIndex::new(0)));
    assert_eq!(hear(own), Ok(()));
    let later = known(9, StartPlace::At(LogIndex::new(70)));
    assert_eq!(hear(later), Err(StartRefusal::SelfRefused));
    assert_eq!(hear(own), Err(StartRefusal::SelfRefused));
    let reason = starts.serving().expect_err("does not serve");
    assert!(reason.contains("old copy"), "{reason}");
}

#[test]
fn a_start_that_lost_its_log_is_refused_until_the_next_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let starts = starts(dir.path(), 1);
    let hear = |claim: &StartClaim| starts.admit(NODE, LIFE, Some(claim), None);
    hear(&claim(5, &[])).expect("heard");
    let refusal = StartRefusal::LogWentBack {
        node: NODE,
        group: GroupId::META,
        acknowledged: 12,
        shown: 7,
    };
    starts.went_back(NODE, &refusal);
    assert_eq!(starts.refused(NODE), Some(refusal.clone()));
    assert_eq!(hear(&claim(5, &[])), Err(refusal));
    assert_eq!(hear(&claim(6, &[5])), Ok(()));
    assert_eq!(starts.refused(NODE), None);
}

/// A follower of an older release, which names no start, was refused for ever, even after a restart
/// with all its acknowledged entries.
#[test]
fn a_peer_without_starts_is_refused_until_it_shows_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let starts = starts(dir.path(), 1);
    let group = GroupId::new(3);
    let refusal = StartRefusal::LogWentBack {
        node: NODE,
        group,
        acknowledged: 12,
        shown: 7,
    };
    starts.went_back(NODE, &refusal);
    assert_eq!(starts.refused(NODE), Some(refusal.clone()));
    assert_eq!(starts.refused_entries(NODE), None, "it is asked again");
    starts.shows_all(NODE, GroupId::META);
    assert_eq!(starts.refused(NODE), Some(refusal.clone()));
    starts.shows_all(NODE, group);
    assert_eq!(starts.refused(NODE), None);
    // A start that is named distinguishes a peer from its next start.
    let heard = starts.admit(NODE, LIFE, Some(&claim(5, &[])), None);
    heard.expect("heard");
    starts.went_back(NODE, &refusal);
    assert_eq!(starts.refused_entries(NODE), Some(refusal.clone()));
    starts.shows_all(NODE, group);
    assert_eq!(starts.refused(NODE), Some(refusal));
}

/// An old copy was started beside its original and ended. The status showed it for as long as the
/// original ran.
#[test]
fn an_old_copy_that_is_gone_is_shown_no_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let starts = starts(dir.path(), 1);
    let hear = |claim: &StartClaim| starts.admit(NODE, LIFE, Some(claim), None);
    let begun = henge_runtime::Clock::instant(&henge_runtime::SystemClock);
    let shown = |seconds| starts.refusals(begun + Duration::from_secs(seconds)).len();
    hear(&claim(6, &[4, 5])).expect("heard");
    hear(&claim(7, &[4])).expect_err("an old copy");
    assert_eq!((shown(0), shown(600)), (1, 1), "the newest is not heard");
    hear(&claim(6, &[4, 5])).expect("heard");
    hear(&claim(7, &[4])).expect_err("it is started again and again");
    hear(&claim(6, &[4, 5])).expect("heard");
    assert_eq!((shown(601), shown(660)), (1, 1));
    assert_eq!(shown(661), 0);
}

/// A ring was upgraded from a release without starts: the node served by notes, and refused pushes
/// for a moment when its start was proposed to the meta group.
#[test]
fn a_node_that_serves_goes_on_while_it_registers_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let starts = starts(dir.path(), 1);
    starts.set_standing(Standing::Waiting("for notes".to_owned()));
    assert_eq!(starts.serving(), Err("for notes".to_owned()));
    starts.set_standing(Standing::Registered);
    starts.set_standing(Standing::Waiting("for the meta group".to_owned()));
    assert_eq!(starts.serving(), Ok(()));
}

#[test]
fn a_moved_directory_takes_no_part_until_it_is_answered_for() {
    let dir = tempfile::tempdir().expect("a folder");
    adopt_moved(&OsDisk, dir.path()).expect("adopted");
    for number in 1..=2 {
        let starts = starts(dir.path(), number);
        assert_eq!(starts.may_take_part(), Err(StartRefusal::Moved));
    }
    let last = starts(dir.path(), 3);
    last.write_answered_for().expect("written");
    assert_eq!(last.may_take_part(), Ok(()));
    assert_eq!(starts(dir.path(), 4).may_take_part(), Ok(()));
}

/// Seeded random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).expect("small")
    }
}

/// A data directory of the model: its record, and the starts in its history.
#[derive(Clone)]
struct Directory {
    file: StartsFile,
    history: Vec<StartId>,
}

/// One node's directory is started, registered, copied and restored at random, before a registry
/// that applies in the order of the log. The rule: a start is registered if and only if every
/// earlier registered start is in the history of its directory.
#[test]
fn a_start_is_registered_if_its_directory_knows_all_before() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut directory = Directory {
            file: StartsFile::default(),
            history: Vec::new(),
        };
        let mut copies: Vec<Directory> = Vec::new();
        let mut registered: Option<RegisteredStart> = None;
        let mut ever: Vec<StartId> = Vec::new();
        for step in 1..=60_u8 {
            match dice.roll(6) {
                0 => copies.push(directory.clone()),
                1 if !copies.is_empty() => {
                    directory = copies[dice.roll(copies.len())].clone();
                }
                _ => {
                    let drawn = start(step);
                    let claim = directory.file.draw(drawn);
                    directory.history.push(claim.start);
                    // The process may die before its registration reaches the meta group.
                    if dice.roll(3) == 0 {
                        continue;
                    }
                    let whole = ever.iter().all(|start| directory.history.contains(start));
                    let follows = registered.is_none_or(|known| claim.follows(&known.into()));
                    assert_eq!(follows, whole, "seed {seed}, step {step}");
                    if !follows {
                        continue;
                    }
                    let entry = RegisteredStart {
                        start: claim.start,
                        index: LogIndex::new(u64::from(step) * 10),
                    };
                    registered = Some(entry);
                    ever.push(claim.start);
                    // It may also die before it has recorded that.
                    if dice.roll(3) > 0 {
                        directory.file.register(entry);
                    }
                }
            }
        }
    }
}
