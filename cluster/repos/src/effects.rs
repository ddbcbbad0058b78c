//! Effects of applied entries on a replica's disk: packs move into stores, stores are removed.
//!
//! No failure here stops applying. A missing pack parks its network; a background task fetches it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use henge_cluster::{AppliedEntry, Conditions, Effects, LoggedEntries, StartedFrom};
use henge_git::{Deadline, Stop};
use henge_runtime::Clock;
use henge_state::{Effect, ShardView, State};
use henge_storage::objects::{ObjectStore, Space};
use henge_types::conditions::ConditionKind;
use henge_types::{GroupId, LogIndex, NetworkId, PackId, PackRef, RequestId};
use tokio::sync::Notify;

use crate::metrics;
use crate::parking::{Cause, Missing, Parking};
use crate::readers::Readers;
use crate::replaying::Replaying;
use crate::retiring::{Retired, Retiring};
use crate::staging::{KeepError, Staging, end_after_failed_sync};

/// The subject of the low-space condition.
const LOW_SPACE_SUBJECT: &str = "data directory";
/// How long a reading of the file system's free space is cached.
const SPACE_BELIEVED: Duration = Duration::from_secs(1);

/// The packs of this node. Created before the cluster, because the cluster replays entries through
/// it.
#[derive(Debug)]
pub struct PackEffects {
    objects: ObjectStore,
    staging: Staging,
    parking: Parking,
    readers: Readers,
    retiring: Retiring,
    replaying: Replaying,
    log: OnceLock<LoggedEntries>,
    /// The last entry of each group whose effects were started.
    reached: Mutex<BTreeMap<GroupId, LogIndex>>,
    /// Networks that got a pack, and when, of the watched groups.
    grown: Mutex<BTreeMap<GroupId, BTreeMap<NetworkId, Instant>>>,
    /// Networks that lost a repository, and the entry that dropped the last one.
    bereaved: Mutex<BTreeMap<(GroupId, NetworkId), LogIndex>>,
    /// Notified when something is to be removed.
    less: Notify,
    space: Mutex<Option<(Instant, Option<Space>)>>,
    clock: Arc<dyn Clock>,
    conditions: Conditions,
}

impl PackEffects {
    /// Effects on this store. `claims_dir` is a directory of its own: its files record the claims
    /// on staged packs. Blocking.
    ///
    /// # Errors
    /// When the staged packs and their claims cannot be read.
    pub fn new(
        objects: ObjectStore,
        claims_dir: PathBuf,
        clock: Arc<dyn Clock>,
        conditions: Conditions,
    ) -> io::Result<Arc<Self>> {
        let staging = Staging::open(objects.clone(), claims_dir).map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            staging,
            objects,
            parking: Parking::default(),
            readers: Readers::default(),
            retiring: Retiring::default(),
            replaying: Replaying::default(),
            log: OnceLock::new(),
            reached: Mutex::default(),
            grown: Mutex::default(),
            bereaved: Mutex::default(),
            less: Notify::new(),
            space: Mutex::new(None),
            clock,
            conditions,
        }))
    }

    /// The conditions of this node.
    pub const fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    pub(crate) const fn objects(&self) -> &ObjectStore {
        &self.objects
    }

    pub(crate) const fn staging(&self) -> &Staging {
        &self.staging
    }

    pub(crate) const fn parking(&self) -> &Parking {
        &self.parking
    }

    pub(crate) const fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// A stop signal that fires after `within`.
    pub(crate) fn stop_after(&self, within: Duration) -> Stop {
        Stop::at(Deadline::after(Arc::clone(&self.clock), within))
    }

    pub(crate) const fn retiring(&self) -> &Retiring {
        &self.retiring
    }

    /// The last entry whose effects were started here since the start of the process.
    pub(crate) fn reached(&self, group: GroupId) -> LogIndex {
        let reached = self
            .reached
            .lock()
            .expect("invariant: counting does not panic");
        reached.get(&group).copied().unwrap_or(LogIndex::new(0))
    }

    fn note_reached(&self, group: GroupId, index: LogIndex) {
        self.reached
            .lock()
            .expect("invariant: counting does not panic")
            .entry(group)
            .and_modify(|reached| *reached = index.max(*reached))
            .or_insert(index);
    }

    /// Starts recording the networks of the group that get a pack.
    pub(crate) fn watch_grown(&self, group: GroupId) {
        self.lock_grown().insert(group, BTreeMap::new());
    }

    /// Stops recording them.
    pub(crate) fn forget_grown(&self, group: GroupId) {
        self.lock_grown().remove(&group);
    }

    /// The networks of a watched group that got a pack since the last call, and when.
    pub(crate) fn take_grown(&self, group: GroupId) -> BTreeMap<NetworkId, Instant> {
        let mut watched = self.lock_grown();
        let grown = watched.get_mut(&group).map(std::mem::take);
        grown.unwrap_or_default()
    }

    fn lock_grown(&self) -> MutexGuard<'_, BTreeMap<GroupId, BTreeMap<NetworkId, Instant>>> {
        self.grown.lock().expect("invariant: noting does not panic")
    }

    /// The log of this node; `None` before the first group starts.
    pub(crate) fn log(&self) -> Option<&LoggedEntries> {
        self.log.get()
    }

    /// Whether the group's log is being replayed at its start.
    pub(crate) fn is_replaying(&self, group: GroupId) -> bool {
        self.replaying.has(group)
    }

    /// A missing pack is staged here now: moves it into the store. `request` is the request that it
    /// was named for, if known.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn promote_missing(
        &self,
        missing: &Missing,
        request: Option<RequestId>,
    ) -> Result<(), KeepError> {
        let (network, pack) = (&missing.network, &missing.pack);
        if self.staging.promote(network, pack, request)? {
            self.is_here(missing);
        }
        Ok(())
    }

    /// Replaces damaged files by the staged pack of the same name.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn promote_over(&self, missing: &Missing) -> Result<(), KeepError> {
        let (network, pack) = (&missing.network, &missing.pack);
        if self.staging.promote(network, pack, None)? {
            self.parking.arrived(missing);
        }
        Ok(())
    }

    fn install(&self, entry: &AppliedEntry, network: NetworkId, pack: &PackRef) {
        let (group, index) = (entry.group, entry.index);
        let missing = Missing {
            group,
            network,
            pack: pack.pack,
        };
        self.retiring.named(&network, &pack.pack);
        let now = self.clock.instant();
        if let Some(grown) = self.lock_grown().get_mut(&group) {
            grown.insert(network, now);
        }
        if self.replaying.named(missing, index) {
            return;
        }
        let (installed, cause) = match &pack.inline {
            // An existing file of that name is overwritten: after a crash it may be torn.
            Some(inline) => {
                let written =
                    self.objects
                        .install_pack(&network, &pack.pack, &inline.pack, &inline.idx);
                (
                    written
                        .map(|()| true)
                        .map_err(|error| end_after_failed_sync(error).into()),
                    Cause::NotWritten { named_at: index },
                )
            }
            // The files here are known to be damaged, and no other copy has arrived.
            None if self.parking.is_damaged(&missing)
                && !self.staging.holds(&network, &pack.pack) =>
            {
                (Ok(false), Cause::Damaged { in_log: None })
            }
            None => (
                self.staging.promote(&network, &pack.pack, entry.request),
                Cause::Elsewhere,
            ),
        };
        match installed {
            Ok(true) => {
                self.parking.arrived(&missing);
            }
            Ok(false) => {
                tracing::info!(%group, %network, pack = %pack.pack, "a pack named by an entry is not here: parked");
                self.parking.park(missing, cause);
            }
            Err(error) => {
                tracing::error!(%group, %network, pack = %pack.pack, %error, "cannot install a pack: parked");
                self.parking.park(missing, cause);
            }
        }
    }

    /// The packs that `new` replaces are removed in the background, once `new` is known to be
    /// intact: applying does not read packs.
    fn replace(
        &self,
        entry: &AppliedEntry,
        network: NetworkId,
        old: &[PackId],
        new: Option<&PackRef>,
    ) {
        let (group, index) = (entry.group, entry.index);
        // First: a network that lacks an old pack must not look complete before the new one is
        // here.
        if let Some(new) = new {
            self.install(entry, network, new);
        }
        for pack in old {
            let missing = Missing {
                group,
                network,
                pack: *pack,
            };
            self.replaying.replaced(&missing);
            self.parking.replaced(&missing);
            let retired = Retired {
                group,
                by: new.map(|new| new.pack),
                after: index,
            };
            self.retiring.note(network, *pack, retired);
        }
        self.less.notify_one();
    }

    /// Records that entry `at` drops a repository of the network: its store may have to be removed.
    pub(crate) fn bereave(&self, group: GroupId, network: NetworkId, at: LogIndex) {
        let mut bereaved = self
            .bereaved
            .lock()
            .expect("invariant: noting does not panic");
        let known = bereaved.entry((group, network)).or_insert(at);
        *known = at.max(*known);
        drop(bereaved);
        self.less.notify_one();
    }

    /// The networks that lost a repository, with the entry that dropped the last one.
    pub(crate) fn bereaved(&self) -> Vec<(GroupId, NetworkId, LogIndex)> {
        let bereaved = self
            .bereaved
            .lock()
            .expect("invariant: noting does not panic");
        bereaved
            .iter()
            .map(|((group, network), at)| (*group, *network, *at))
            .collect()
    }

    /// Waits until a network loses a repository or packs.
    pub(crate) async fn wait_for_less(&self) {
        self.less.notified().await;
    }

    /// The network was processed: clears its record, unless it lost another repository meanwhile.
    pub(crate) fn consoled(&self, group: GroupId, network: NetworkId, at: LogIndex) {
        let mut bereaved = self
            .bereaved
            .lock()
            .expect("invariant: noting does not panic");
        if bereaved.get(&(group, network)) == Some(&at) {
            bereaved.remove(&(group, network));
        }
    }

    /// Removes the store of a network that has no live repository and no reader.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn remove_network(&self, network: &NetworkId) -> Result<(), KeepError> {
        self.parking.forget(network);
        self.retiring.forget(network);
        let removed = self.objects.remove_network(network);
        Ok(removed.map_err(end_after_failed_sync)?)
    }

    /// Removes packs whose files are gone and that other replicas hold from the list of unflushed
    /// packs, in one group or in all: their replacements are flushed instead. A missing pack that
    /// is not known to be missing fails the sync.
    pub(crate) fn forget_gone(&self, of: Option<GroupId>) {
        for missing in self.parking.not_in_log_only() {
            if of.is_none_or(|group| group == missing.group) {
                let (network, pack) = (&missing.network, &missing.pack);
                self.objects.forget_dirty_if_gone(network, pack);
            }
        }
    }
}

impl Effects for PackEffects {
    fn replay_begins(&self, group: GroupId, log: LoggedEntries) {
        self.log.get_or_init(|| log);
        self.replaying.begin(group);
    }

    fn started(&self, group: GroupId, state: &State, from: StartedFrom) {
        self.note_reached(group, from.applied);
        self.install_replayed(&self.replaying.take(group));
        self.scan(group, state, from);
        self.replaying.end(group);
        self.parking.look_again();
    }

    fn apply(&self, entry: &AppliedEntry, effects: &[Effect]) {
        let (group, index) = (entry.group, entry.index);
        self.note_reached(group, index);
        for effect in effects {
            match effect {
                Effect::InstallPack { network, pack } => self.install(entry, *network, pack),
                Effect::ReplacePacks { network, old, new } => {
                    self.replace(entry, *network, old, Some(new));
                }
                Effect::PrunePacks { network, old, new } => {
                    self.replace(entry, *network, old, new.as_ref());
                }
                // The state decides whether the network is still in use, once this entry is in it.
                Effect::DropRepo { network, .. } => self.bereave(group, *network, index),
            }
        }
    }

    fn in_log_only(&self, group: GroupId) -> usize {
        self.parking.not_written(group)
    }

    fn before_snapshot(&self, group: GroupId, state: &State) -> io::Result<()> {
        // openraft takes a snapshot within the replay if the log was purged and its snapshot is
        // gone.
        self.install_replayed(&self.replaying.take(group));
        let not_written = self.parking.not_written(group);
        if not_written > 0 {
            return Err(io::Error::other(format!(
                "{not_written} packs of group {group} are in its log only: make their folders writable or free disk space"
            )));
        }
        self.forget_gone(Some(group));
        let networks = ShardView::new(state).networks();
        let synced = self.objects.sync_dirty(&networks);
        synced.map_err(|error| io::Error::other(end_after_failed_sync(error)))
    }

    fn before_install(&self, group: GroupId, applied: LogIndex, state: &State) -> io::Result<()> {
        // At a start the replica installs its own newest snapshot: all of it was durable before the
        // snapshot was named, and the scan after the replay searches for missing packs.
        if self.replaying.has(group) {
            return Ok(());
        }
        // First: until this state is installed, packs that are parked for it must not be taken for
        // unnamed ones.
        let view = ShardView::new(state);
        let mut newest = applied;
        for network in view.networks() {
            for record in view.packs(&network) {
                newest = newest.max(record.named_at);
            }
        }
        self.note_reached(group, newest);
        self.settle(group, applied, state)?;
        self.parking.retain_named(group, |missing| {
            view.pack(&missing.network, &missing.pack).is_some()
        });
        let from = StartedFrom {
            applied,
            snapshot: LogIndex::new(u64::MAX),
        };
        self.scan(group, state, from);
        Ok(())
    }

    fn before_clean_stop(&self) -> io::Result<()> {
        let not_written = self.parking.all_not_written();
        if not_written > 0 {
            return Err(io::Error::other(format!(
                "{not_written} packs are in the log only: make their folders writable or free disk space"
            )));
        }
        self.forget_gone(None);
        let synced = self.objects.sync_all_dirty();
        synced.map_err(|error| io::Error::other(end_after_failed_sync(error)))
    }

    fn parked(&self, group: GroupId) -> u32 {
        u32::try_from(self.parking.networks(group).len()).unwrap_or(u32::MAX)
    }

    fn low_space(&self) -> bool {
        self.space().is_none_or(|space| space.low)
    }
}

impl PackEffects {
    /// Free space, at most [`SPACE_BELIEVED`] old; `None` where the file system does not report it.
    pub(crate) fn space(&self) -> Option<Space> {
        let now = self.clock.instant();
        let mut space = self
            .space
            .lock()
            .expect("invariant: looking at free space does not panic");
        if let Some((at, known)) = *space
            && now.duration_since(at) < SPACE_BELIEVED
        {
            return known;
        }
        let found = match self.objects.space() {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::error!(%error, "cannot tell how much disk space is free");
                None
            }
        };
        metrics::disk_space(
            found.map_or(0, |found| found.free),
            found.is_none_or(|found| found.low),
        );
        *space = Some((now, found));
        drop(space);
        self.tell_space(found);
        found
    }

    fn tell_space(&self, found: Option<Space>) {
        let low = match found {
            Some(found) if !found.low => {
                self.conditions
                    .clear(ConditionKind::LowSpace, LOW_SPACE_SUBJECT);
                return;
            }
            Some(found) => format!("{} of {} bytes are free", found.free, found.total),
            None => "the file system does not say how much is free".to_owned(),
        };
        self.conditions
            .raise(ConditionKind::LowSpace, LOW_SPACE_SUBJECT, low);
    }

    /// Whether a file of this size may be written.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        self.space().is_some_and(|space| bytes <= space.room)
    }
}
