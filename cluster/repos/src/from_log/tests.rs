use super::*;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use henge_cluster::{AppliedEntry, Conditions, Effects};
use henge_runtime::SystemClock;
use henge_state::{Effect, Header, apply};
use henge_storage::objects::{ObjectStore, PackFault, Watermark};
use henge_types::{
    Command, Generation, ObjectFormat, ObjectId, PackRef, PreviousValue, RefUpdate, RepoId,
    ShardCommand, UpdateRefs,
};
use sha1::{Digest, Sha1};
use tempfile::TempDir;

pub(crate) const GROUP: GroupId = GroupId::new(1);
pub(crate) const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);
/// The entry that names the pack.
const NAMED_AT: u64 = 2;

pub(crate) fn at(index: u64) -> AppliedEntry {
    AppliedEntry {
        group: GROUP,
        index: LogIndex::new(index),
        request: None,
    }
}

/// An intact pack without objects.
fn empty_pack() -> PackRef {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
    let sum: [u8; 20] = Sha1::digest(&pack).into();
    pack.extend_from_slice(&sum);
    let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
    idx.resize(8 + 256 * 4, 0);
    idx.extend_from_slice(&sum);
    let idx_sum: [u8; 20] = Sha1::digest(&idx).into();
    idx.extend_from_slice(&idx_sum);
    PackRef {
        pack: PackId::new(ObjectId::Sha1(sum)),
        pack_bytes: pack.len() as u64,
        idx_bytes: idx.len() as u64,
        objects: 0,
        inline: Some(InlinePack {
            pack: Bytes::from(pack),
            idx: Bytes::from(idx),
        }),
    }
}

const REPO: RepoId = RepoId::from_bytes([7; 16]);
const MAIN: &str = "refs/heads/main";

fn create() -> ShardCommand {
    ShardCommand::CreateRepo {
        repo: REPO,
        network: NETWORK,
        generation: Generation::new(1),
        head: MAIN.parse().unwrap(),
        object_format: ObjectFormat::Sha1,
    }
}

/// The state after these commands, and the effects of the last one.
fn applied(commands: impl IntoIterator<Item = ShardCommand>) -> (State, Vec<Effect>) {
    let mut state = State::empty();
    let mut effects = Vec::new();
    for (index, command) in (1..).zip(commands) {
        let header = Header {
            group: GROUP,
            index: LogIndex::new(index),
            term: 1,
            proposed_at_ms: 1_767_225_600_000,
            seed: 1,
            request: None,
        };
        let outcome = apply(&state, &header, &Command::Shard(command));
        state.commit(&outcome.writes);
        effects = outcome.effects;
    }
    (state, effects)
}

/// A repository without a push.
pub(crate) fn created() -> State {
    applied([create()]).0
}

/// A repository with one push that named the pack; the effects of the push.
pub(crate) fn pushed() -> (State, Vec<Effect>) {
    let update = RefUpdate {
        name: MAIN.parse().unwrap(),
        expected: PreviousValue::MustNotExist,
        new: Some(ObjectId::Sha1([1; 20])),
    };
    let push = ShardCommand::UpdateRefs(UpdateRefs {
        repo: REPO,
        generation: Generation::new(1),
        packs: vec![empty_pack()],
        updates: vec![update],
        atomic: false,
        pusher: "admin".to_owned(),
        options: Vec::new(),
        checked_at: LogIndex::new(1),
    });
    let (state, effects) = applied([create(), push]);
    let view = ShardView::new(&state);
    let record = view.pack(&NETWORK, &empty_pack().pack).unwrap();
    assert_eq!(record.named_at, LogIndex::new(NAMED_AT));
    (state, effects)
}

pub(crate) fn open(dir: &TempDir) -> Arc<PackEffects> {
    let watermark = Watermark {
        bytes: 0,
        percent: 0,
    };
    let objects = ObjectStore::open_with(dir.path(), watermark).unwrap();
    let clock = SystemClock::shared();
    let conditions = Conditions::new(Arc::clone(&clock));
    PackEffects::new(objects, dir.path().join("claims"), clock, conditions).unwrap()
}

pub(crate) fn missing() -> Missing {
    Missing {
        group: GROUP,
        network: NETWORK,
        pack: empty_pack().pack,
    }
}

/// A node that lagged replayed its log and then received a leader's snapshot. The snapshot was
/// named while the packs of the replay were in memory only: after a power cut up to 12 of 12
/// repositories had empty packs.
#[test]
fn a_received_snapshot_flushes_what_a_replay_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let effects = open(&dir);
    let (state, push) = pushed();
    effects.apply(&at(NAMED_AT), &push);
    assert_eq!(effects.objects().dirty_packs(&NETWORK).len(), 1);
    let applied = LogIndex::new(NAMED_AT);
    effects.before_install(GROUP, applied, &state).unwrap();
    assert_eq!(effects.objects().dirty_packs(&NETWORK), []);
    assert_eq!(effects.parked(GROUP), 0);
}

/// The previous process had applied an entry that this one received below a snapshot. A power cut
/// may have left its pack empty: a file name proves nothing.
#[test]
fn a_torn_pack_below_a_received_snapshot_is_fetched() {
    let (state, push) = pushed();
    for torn in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        open(&dir).apply(&at(NAMED_AT), &push);
        let effects = open(&dir);
        if torn {
            let pack = effects
                .objects()
                .side_file(&NETWORK, &missing().pack, "pack");
            fs::write(pack, b"").unwrap();
        }
        let applied = LogIndex::new(0);
        effects.before_install(GROUP, applied, &state).unwrap();
        assert_eq!(effects.objects().dirty_packs(&NETWORK), []);
        assert_eq!(effects.parking().contains(&missing()), torn);
    }
}

/// One unreadable block, or one missing file, failed the installation of a leader's snapshot, and
/// that ended the whole group.
#[test]
fn an_unreadable_pack_ends_no_installation() {
    let (state, push) = pushed();
    for extension in ["pack", "idx"] {
        let dir = tempfile::tempdir().unwrap();
        let effects = open(&dir);
        effects.apply(&at(NAMED_AT), &push);
        let pack = missing().pack;
        let file = effects.objects().side_file(&NETWORK, &pack, extension);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let applied = LogIndex::new(NAMED_AT);
        effects.before_install(GROUP, applied, &state).unwrap();
        assert!(effects.parking().is_damaged(&missing()));
        assert_eq!(effects.objects().dirty_packs(&NETWORK), []);
        effects.before_snapshot(GROUP, &state).unwrap();
    }
}

/// Too many files were open while a leader's snapshot was installed. The error was taken for
/// damage: packs that were never flushed were removed from the list of unflushed packs, and a power
/// cut after the next clean stop left them torn. The test uses a symbolic link to itself: it cannot
/// be opened while it exists.
#[test]
fn a_failure_that_may_pass_is_no_damage() {
    let (state, push) = pushed();
    for (extension, applied) in [("pack", NAMED_AT), ("idx", NAMED_AT), ("pack", 0)] {
        let dir = tempfile::tempdir().unwrap();
        let effects = open(&dir);
        effects.apply(&at(NAMED_AT), &push);
        let pack = missing().pack;
        let file = effects.objects().side_file(&NETWORK, &pack, extension);
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        // A pack above the applied index is verified first, and fetched as well.
        let parked = u32::from(applied == 0);
        let applied = LogIndex::new(applied);
        let installed = effects.before_install(GROUP, applied, &state);
        assert!(installed.is_err(), "tried again");
        assert_eq!(effects.parked(GROUP), parked);
        assert_eq!(effects.objects().dirty_packs(&NETWORK), [pack]);
        assert!(effects.before_clean_stop().is_err());
        // The failure ends.
        fs::rename(&elsewhere, &file).unwrap();
        effects.before_install(GROUP, applied, &state).unwrap();
        assert_eq!(effects.objects().dirty_packs(&NETWORK), []);
        assert_eq!(effects.parked(GROUP), parked);
    }
}

/// A file under the name of a pack cannot be opened for as long as it exists. A group that
/// installed a leader's snapshot ended on it, was started again, and ended again.
#[test]
fn a_file_that_may_not_be_opened_ends_no_installation() {
    let (state, push) = pushed();
    let dir = tempfile::tempdir().unwrap();
    let effects = open(&dir);
    effects.apply(&at(NAMED_AT), &push);
    let applied = LogIndex::new(NAMED_AT);
    effects.before_install(GROUP, applied, &state).unwrap();
    let file = effects
        .objects()
        .side_file(&NETWORK, &missing().pack, "pack");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();
    effects
        .before_install(GROUP, LogIndex::new(0), &state)
        .unwrap();
    assert_eq!(effects.parked(GROUP), 1);
}

/// The file of an unflushed pack disappeared. The pack is not in the log, so it is fetched and does
/// not hold the log. Nevertheless every snapshot failed, and no stop was a clean one.
#[test]
fn a_gone_pack_that_is_fetched_fails_no_snapshot() {
    let (state, push) = pushed();
    for extension in ["pack", "idx"] {
        let dir = tempfile::tempdir().unwrap();
        let effects = open(&dir);
        effects.apply(&at(NAMED_AT), &push);
        let pack = missing().pack;
        let file = effects.objects().side_file(&NETWORK, &pack, extension);
        fs::remove_file(&file).unwrap();
        assert!(effects.before_snapshot(GROUP, &state).is_err(), "not known");
        assert!(effects.before_clean_stop().is_err(), "not known");
        let in_log = Some(LogIndex::new(NAMED_AT));
        effects.parking().park(missing(), Cause::Damaged { in_log });
        assert!(
            effects.before_snapshot(GROUP, &state).is_err(),
            "in the log"
        );
        effects
            .parking()
            .is_not_logged(&missing(), Cause::Elsewhere);
        effects.before_snapshot(GROUP, &state).unwrap();
        effects.before_clean_stop().unwrap();
        assert_eq!(effects.objects().dirty_packs(&NETWORK), []);
        // The replacement is flushed.
        effects.apply(&at(NAMED_AT), &push);
        assert_eq!(effects.objects().dirty_packs(&NETWORK), [pack]);
    }
}

/// A pack that is fetched again after damage is flushed for as long as its files exist.
#[test]
fn a_damaged_pack_that_is_there_stays_to_be_flushed() {
    let (_, push) = pushed();
    let dir = tempfile::tempdir().unwrap();
    let effects = open(&dir);
    effects.apply(&at(NAMED_AT), &push);
    effects
        .parking()
        .park(missing(), Cause::Damaged { in_log: None });
    effects.forget_gone(None);
    assert_eq!(effects.objects().dirty_packs(&NETWORK), [missing().pack]);
}

/// A missing pack above the newest snapshot may be in the log only; one below it exists on another
/// replica.
#[test]
fn a_start_tells_what_only_the_log_holds() {
    let (state, push) = pushed();
    for (snapshot, in_log_only) in [(0, 1), (NAMED_AT, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let effects = open(&dir);
        let from = StartedFrom {
            applied: LogIndex::new(NAMED_AT),
            snapshot: LogIndex::new(snapshot),
        };
        effects.started(GROUP, &state, from);
        assert_eq!(effects.parked(GROUP), 1);
        assert_eq!(effects.in_log_only(GROUP), in_log_only);
        assert_eq!(
            effects.before_snapshot(GROUP, &state).is_err(),
            in_log_only > 0
        );
        assert_eq!(effects.before_clean_stop().is_err(), in_log_only > 0);
        // The pack arrives after all.
        effects.apply(&at(NAMED_AT), &push);
        effects.before_snapshot(GROUP, &state).unwrap();
        effects.before_clean_stop().unwrap();
    }
}

/// Every start after a crash counted the packs by reference as found damaged and repaired.
#[test]
fn whole_files_are_no_damage() {
    let lengths = Some(PackLengths { pack: 1, idx: 1 });
    let damaged = Cause::Damaged { in_log: None };
    let torn = Presence::Damaged(PackFault::NoIndex);
    for (left, lengths, cause) in [
        (&Presence::Whole, lengths, Cause::Elsewhere),
        (&Presence::Whole, None, damaged),
        (&Presence::Missing, None, Cause::Elsewhere),
        (&torn, lengths, damaged),
    ] {
        assert_eq!(cause_without_bytes(left, lengths), cause);
    }
}

/// A power cut left packs torn that had been compacted since. A replay writes none of them again,
/// and git opens all packs of a folder or none: no replica could read the repository.
#[test]
fn a_torn_pack_that_is_not_named_is_set_aside() {
    let (state, push) = pushed();
    let dir = tempfile::tempdir().unwrap();
    open(&dir).apply(&at(NAMED_AT), &push);
    let effects = open(&dir);
    let torn = PackId::new(ObjectId::Sha1([9; 20]));
    let file = |extension| effects.objects().side_file(&NETWORK, &torn, extension);
    fs::write(file("pack"), b"").unwrap();
    fs::write(file("idx"), b"").unwrap();
    let from = StartedFrom {
        applied: LogIndex::new(NAMED_AT),
        snapshot: LogIndex::new(0),
    };
    effects.started(GROUP, &state, from);
    assert!(!file("idx").is_file());
    assert!(file("idx-aside").is_file());
    effects.before_snapshot(GROUP, &state).unwrap();
    assert!(effects.objects().has_pack(&NETWORK, &missing().pack));
    assert_eq!(effects.parked(GROUP), 0);
}

/// A start lists packs with both their files: packs that an earlier process had set aside were
/// never checked again.
#[test]
fn what_was_set_aside_is_still_to_go_after_a_start() {
    let (state, push) = pushed();
    let dir = tempfile::tempdir().unwrap();
    open(&dir).apply(&at(NAMED_AT), &push);
    let effects = open(&dir);
    let torn = PackId::new(ObjectId::Sha1([9; 20]));
    let named = missing().pack;
    let file = |pack, extension| effects.objects().side_file(&NETWORK, pack, extension);
    fs::write(file(&torn, "pack"), b"").unwrap();
    fs::write(file(&torn, "idx-aside"), b"").unwrap();
    fs::write(file(&named, "idx-aside"), b"").unwrap();
    let from = StartedFrom {
        applied: LogIndex::new(NAMED_AT),
        snapshot: LogIndex::new(0),
    };
    effects.started(GROUP, &state, from);
    let noted: Vec<_> = effects.retiring().of(&NETWORK);
    assert_eq!(
        noted.iter().map(|(pack, _)| *pack).collect::<Vec<_>>(),
        [torn]
    );
    assert!(!file(&named, "idx-aside").is_file());
    effects.objects().remove_pack(&NETWORK, &torn).unwrap();
    assert!(!file(&torn, "pack").is_file() && !file(&torn, "idx-aside").is_file());
}

/// An earlier process, also one of an older release, may have stopped before its packs were
/// flushed.
#[test]
fn a_start_flushes_what_it_finds_above_its_snapshot() {
    let (state, push) = pushed();
    let dir = tempfile::tempdir().unwrap();
    open(&dir).apply(&at(NAMED_AT), &push);
    let effects = open(&dir);
    let from = StartedFrom {
        applied: LogIndex::new(NAMED_AT),
        snapshot: LogIndex::new(0),
    };
    effects.started(GROUP, &state, from);
    assert_eq!(effects.objects().dirty_packs(&NETWORK), [missing().pack]);
    effects.before_clean_stop().unwrap();
    assert_eq!(effects.objects().dirty_packs(&NETWORK), []);
}
