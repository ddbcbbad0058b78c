//! The replica's own log as a holder of packs: small packs ride in their entries.
//!
//! A pack that could not be written when its entry was applied is written from there, before any other replica is asked
//! for it. The log keeps the entry until then: no snapshot is taken or received while such a pack is missing.

use std::collections::BTreeSet;
use std::io;

use henge_cluster::StartedFrom;
use henge_state::{ShardView, State};
use henge_storage::objects::{ObjectError, PackLengths, Presence};
use henge_types::{GroupId, InlinePack, LogIndex, NetworkId, PackId, RequestId, ShardRepoState};

use crate::damage::lengths_of;
use crate::effects::PackEffects;
use crate::parking::{Cause, Missing};
use crate::retiring::Retired;
use crate::staging::{KeepError, end_after_failed_sync};

/// A pack as an entry of the log names it.
#[derive(Debug)]
pub(crate) struct LoggedPack {
    /// Its bytes, where they ride in the entry.
    pub inline: Option<InlinePack>,
    /// The lengths that the entry names.
    pub lengths: PackLengths,
    /// The request that the entry answers.
    pub request: Option<RequestId>,
}

/// Why a pack is missing whose bytes the log does not hold, by what is left of its files. Files that have the lengths of
/// their entry are not damaged as far as is known: a pack that came by reference is looked for here while its log is
/// replayed. Without the entry it is not known which lengths they should have.
const fn cause_without_bytes(left: &Presence, lengths: Option<PackLengths>) -> Cause {
    match (left, lengths) {
        (Presence::Missing, _) | (Presence::Whole, Some(_)) => Cause::Elsewhere,
        (Presence::Whole, None) | (Presence::Damaged(_), _) => Cause::Damaged { in_log: None },
    }
}

/// What the log had of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromLog {
    /// The pack is in its network's store now.
    Installed,
    /// The log does not hold its bytes.
    NotThere,
}

impl PackEffects {
    /// The pack as the entry `named_at` of the group names it, with its bytes where they ride in the entry, and the
    /// request that the entry answers; `None` when this node's log does not have the entry.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn logged_pack(
        &self,
        group: GroupId,
        named_at: LogIndex,
        pack: &PackId,
    ) -> io::Result<Option<LoggedPack>> {
        let Some(log) = self.log() else {
            return Ok(None);
        };
        let proposal = log.proposal(group, named_at)?;
        let named = proposal.and_then(|proposal| {
            let mut packs = proposal.command.packs().iter();
            let named = packs.find(|named| named.pack == *pack)?;
            Some(LoggedPack {
                inline: named.inline.clone(),
                lengths: PackLengths {
                    pack: named.pack_bytes,
                    idx: named.idx_bytes,
                },
                request: proposal.request.as_ref().map(|request| request.id),
            })
        });
        // The trailer of a pack is its name.
        Ok(named.filter(|named| {
            let inline = named.inline.as_ref();
            inline.is_none_or(|inline| inline.pack.ends_with(pack.checksum().as_bytes()))
        }))
    }

    /// Puts a missing pack in place from the entry `named_at` of this node's log.
    ///
    /// # Errors
    /// When the log cannot be read or the pack cannot be written: it is missing still.
    pub(crate) fn install_from_log(
        &self,
        missing: &Missing,
        named_at: LogIndex,
    ) -> Result<FromLog, KeepError> {
        let logged = self.logged_pack(missing.group, named_at, &missing.pack)?;
        let lengths = logged.as_ref().map(|named| named.lengths);
        let Some(inline) = logged.and_then(|named| named.inline) else {
            let (network, pack) = (&missing.network, &missing.pack);
            let left = self.objects().presence(network, pack, lengths);
            let cause = cause_without_bytes(&left, lengths);
            self.parking().is_not_logged(missing, cause);
            return Ok(FromLog::NotThere);
        };
        let (network, pack) = (&missing.network, &missing.pack);
        let installed = self
            .objects()
            .install_pack(network, pack, &inline.pack, &inline.idx);
        installed.map_err(end_after_failed_sync)?;
        self.is_here(missing);
        Ok(FromLog::Installed)
    }

    /// A missing pack was put in place.
    pub(crate) fn is_here(&self, missing: &Missing) {
        if !self.parking().arrived(missing) {
            // Replaced while it was on its way.
            let retired = Retired {
                group: missing.group,
                by: None,
                after: self.reached(missing.group),
            };
            self.retiring().note(missing.network, missing.pack, retired);
        }
    }

    /// Puts in place what replayed entries named and did not replace: from the entries, from the staged packs, or
    /// where it lies already. Each is parked until then.
    pub(crate) fn install_replayed(&self, packs: &[(Missing, LogIndex)]) {
        let mut failed = None;
        for (missing, named_at) in packs {
            let named_at = *named_at;
            self.parking()
                .park(*missing, Cause::NotWritten { named_at });
        }
        for (missing, named_at) in packs {
            match self.install_one_replayed(missing, *named_at) {
                Ok(FromLog::Installed) => {}
                Ok(FromLog::NotThere) => {
                    tracing::info!(group = %missing.group, network = %missing.network, pack = %missing.pack, "a pack named by an entry is not here: parked");
                }
                Err(error) => failed = Some((missing, error)),
            }
        }
        if let Some((missing, error)) = failed {
            tracing::error!(group = %missing.group, network = %missing.network, pack = %missing.pack, %error, "cannot install packs of the log: parked until they can be written");
        }
    }

    fn install_one_replayed(
        &self,
        missing: &Missing,
        named_at: LogIndex,
    ) -> Result<FromLog, KeepError> {
        if self.install_from_log(missing, named_at)? == FromLog::NotThere {
            // Named by reference: it was durable before it was proposed.
            let (network, pack) = (&missing.network, &missing.pack);
            let logged = self.logged_pack(missing.group, named_at, pack)?;
            let request = logged.and_then(|named| named.request);
            if !self.staging().promote(network, pack, request)? {
                return Ok(FromLog::NotThere);
            }
            self.is_here(missing);
        }
        Ok(FromLog::Installed)
    }

    /// Finds in the state of a replica that starts what is to be done on this disk: parks every network that lacks a
    /// pack of its manifest, and notes the networks of dropped repositories. The state and the log say so; nothing
    /// about missing packs is kept on disk.
    pub(crate) fn scan(&self, group: GroupId, state: &State, from: StartedFrom) {
        let view = ShardView::new(state);
        let dropped = |repo: &henge_types::ShardRepo| repo.state == ShardRepoState::Deleted;
        for repo in view.repos().filter(dropped) {
            self.bereave(group, repo.network, repo.updated_at);
        }
        for network in view.networks() {
            let mut manifest = BTreeSet::new();
            for record in view.packs(&network) {
                let (pack, named_at) = (record.pack, record.named_at);
                manifest.insert(pack);
                let missing = Missing {
                    group,
                    network,
                    pack,
                };
                let lengths = Some(lengths_of(&record));
                let found = self.objects().presence(&network, &pack, lengths);
                let cause = match found {
                    // An earlier process may have stopped before it was durable.
                    Presence::Whole if named_at > from.snapshot => {
                        self.objects().presume_dirty(&network, &pack);
                        continue;
                    }
                    Presence::Whole => continue,
                    Presence::Missing | Presence::Damaged(_)
                        if self.parking().cause(&missing).is_some() =>
                    {
                        continue;
                    }
                    // The log may hold the only copy. Below the snapshot, some replica held the pack durably when the
                    // snapshot was taken.
                    Presence::Missing | Presence::Damaged(_) if named_at > from.snapshot => {
                        Cause::NotWritten { named_at }
                    }
                    Presence::Missing => Cause::Elsewhere,
                    Presence::Damaged(_) => Cause::Damaged { in_log: None },
                };
                match found {
                    Presence::Damaged(fault) => {
                        tracing::error!(%group, %network, %pack, %fault, "a pack is damaged and will be written or fetched again");
                    }
                    Presence::Whole | Presence::Missing => {
                        tracing::warn!(%group, %network, %pack, "a pack is missing here and will be fetched");
                    }
                }
                self.parking().park(missing, cause);
            }
            self.note_leftovers(group, network, &manifest);
        }
    }

    /// Makes what is here of a received snapshot's packs durable, and parks the rest. A file under the name of a pack
    /// that this process did not install is what a crash left: it is read through first. A pack that cannot be read is
    /// parked: one bad block must not end the group. A failed sync ends the process.
    pub(crate) fn settle(&self, group: GroupId, applied: LogIndex, state: &State) {
        let view = ShardView::new(state);
        for network in view.networks() {
            for record in view
                .packs(&network)
                .filter(|record| record.named_at > applied)
            {
                self.settle_left(group, network, record.pack);
            }
            let synced = self.objects().sync_dirty([&network]);
            if let Err(error) = synced.map_err(end_after_failed_sync) {
                tracing::warn!(%group, %network, %error, "packs cannot be made durable together: one by one");
                self.settle_each(group, network);
            }
        }
    }

    fn settle_left(&self, group: GroupId, network: NetworkId, pack: PackId) {
        if !self.objects().has_pack(&network, &pack) {
            return;
        }
        let missing = Missing {
            group,
            network,
            pack,
        };
        match self.objects().verify_pack(&network, &pack) {
            Ok(()) => self.objects().presume_dirty(&network, &pack),
            Err(error @ (ObjectError::BrokenPack { .. } | ObjectError::MissingPack(_))) => {
                tracing::warn!(%group, %network, %pack, %error, "a pack that a crash left is fetched again");
                self.parking().park(missing, Cause::Elsewhere);
            }
            Err(error) => self.park_unreadable(missing, &error),
        }
    }

    /// Makes the packs of a network durable, and parks those that cannot be opened.
    fn settle_each(&self, group: GroupId, network: NetworkId) {
        for pack in self.objects().dirty_packs(&network) {
            let synced = self.objects().sync_packs(&network, &[pack]);
            if let Err(error) = synced.map_err(end_after_failed_sync) {
                let missing = Missing {
                    group,
                    network,
                    pack,
                };
                self.park_unreadable(missing, &error);
                // Every later sync of the network would fail. What takes its place is durable when it comes.
                self.objects().forget_dirty(&network, &pack);
            }
        }
    }

    fn park_unreadable(&self, missing: Missing, error: &ObjectError) {
        let Missing {
            group,
            network,
            pack,
        } = missing;
        tracing::error!(%group, %network, %pack, %error, "a pack that a received snapshot names cannot be read: reads are passed on and it is fetched again");
        self.parking()
            .park(missing, Cause::Damaged { in_log: None });
    }
}

#[cfg(test)]
mod tests {
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

    const GROUP: GroupId = GroupId::new(1);
    const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);
    /// The entry that names the pack.
    const NAMED_AT: u64 = 2;

    fn at(index: u64) -> AppliedEntry {
        AppliedEntry {
            group: GROUP,
            index: LogIndex::new(index),
            request: None,
        }
    }

    /// A sound pack that holds nothing.
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

    /// A repository with one push, which named the pack; the effects of the push.
    fn pushed() -> (State, Vec<Effect>) {
        let repo = RepoId::from_bytes([7; 16]);
        let main = "refs/heads/main";
        let create = ShardCommand::CreateRepo {
            repo,
            network: NETWORK,
            generation: Generation::new(1),
            head: main.parse().unwrap(),
            object_format: ObjectFormat::Sha1,
        };
        let update = RefUpdate {
            name: main.parse().unwrap(),
            expected: PreviousValue::MustNotExist,
            new: Some(ObjectId::Sha1([1; 20])),
        };
        let push = ShardCommand::UpdateRefs(UpdateRefs {
            repo,
            generation: Generation::new(1),
            packs: vec![empty_pack()],
            updates: vec![update],
            atomic: false,
            pusher: "admin".to_owned(),
            options: Vec::new(),
            checked_at: LogIndex::new(1),
        });
        let mut state = State::empty();
        let mut effects = Vec::new();
        for (index, command) in (1..).zip([create, push]) {
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
        let view = ShardView::new(&state);
        let record = view.pack(&NETWORK, &empty_pack().pack).unwrap();
        assert_eq!(record.named_at, LogIndex::new(NAMED_AT));
        (state, effects)
    }

    fn open(dir: &TempDir) -> Arc<PackEffects> {
        let watermark = Watermark {
            bytes: 0,
            percent: 0,
        };
        let objects = ObjectStore::open_with(dir.path(), watermark).unwrap();
        let clock = SystemClock::shared();
        let conditions = Conditions::new(Arc::clone(&clock));
        PackEffects::new(objects, dir.path().join("claims"), clock, conditions).unwrap()
    }

    fn missing() -> Missing {
        Missing {
            group: GROUP,
            network: NETWORK,
            pack: empty_pack().pack,
        }
    }

    /// A node that lagged replayed its log and then got a leader's snapshot. The snapshot was named while the packs of
    /// the replay were in memory only: a power cut left up to 12 of 12 repositories with empty packs.
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

    /// The process before this one had applied an entry that this one got below a snapshot: a power cut may have left
    /// its pack empty, and its name says nothing.
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

    /// One block that could not be read, or one file that was gone, failed the installation of a leader's snapshot, and
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

    /// What is missing above the newest snapshot may be in the log only; what is missing below it is held elsewhere.
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
            // It comes after all.
            effects.apply(&at(NAMED_AT), &push);
            effects.before_snapshot(GROUP, &state).unwrap();
            effects.before_clean_stop().unwrap();
        }
    }

    /// Every start after a crash counted the packs that had come by reference as found damaged and repaired.
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

    /// A power cut left packs torn that had been compacted since. A replay writes none of them again, and git opens all
    /// packs of a folder or none: no replica could read the repository.
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

    /// A start lists packs with both their files: what an earlier process had set aside was never looked at again.
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

    /// An earlier process may have been stopped before its packs were flushed, also one of an older release.
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
}
