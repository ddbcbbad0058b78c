//! Damaged packs: how a running node detects them, and the consequences.
//!
//! A damaged pack parks its network at once: reads are passed to another replica and the fetcher
//! requests the pack. Files that were opened before are not used again. The scan at start checks
//! all packs. After it, a slow round over them finds files that were removed, truncated or replaced
//! under the node, and reads report data that they could not read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use henge_git::{DamagedPack, StoreError};
use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_storage::objects::{ObjectError, ObjectStore, PackLengths, Presence};
use henge_types::{ConditionKind, GroupId, LogIndex, NetworkId, PackId, PackRecord, limits};

use crate::parking::{Cause, Missing};
use crate::repos::Inner;

/// Pause after each [`limits::PACKS_LOOKED_AT_PER_STEP`] packs, and at the end of a round.
const STEP_PAUSE: Duration = Duration::from_secs(1);

/// The lengths that a manifest names.
pub(crate) const fn lengths_of(record: &PackRecord) -> PackLengths {
    PackLengths {
        pack: record.pack_bytes,
        idx: record.idx_bytes,
    }
}

/// Starts the round over all packs.
pub(crate) fn start(inner: &Arc<Inner>) {
    let looking = Arc::clone(inner);
    inner
        .scope
        .spawn("pack rounds", OnPanic::EndProcess, async move {
            loop {
                looking.round().await;
                tokio::time::sleep(STEP_PAUSE).await;
            }
        });
}

impl Inner {
    /// Checks every pack of every manifest once, [`limits::PACKS_LOOKED_AT_PER_STEP`] at a time.
    async fn round(&self) {
        let mut looked = 0;
        for group in self.cluster.local_groups() {
            // A replay writes no packs: missing packs are searched for after its end.
            if group.is_meta() || self.effects.is_replaying(group) {
                continue;
            }
            let Some(at) = self.cluster.state(group) else {
                continue;
            };
            for network in ShardView::new(&at.state).networks() {
                let packs: Vec<_> = ShardView::new(&at.state).packs(&network).collect();
                for step in packs.chunks(limits::PACKS_LOOKED_AT_PER_STEP) {
                    looked += step.len();
                    if looked > limits::PACKS_LOOKED_AT_PER_STEP {
                        tokio::time::sleep(STEP_PAUSE).await;
                        looked = step.len();
                    }
                    self.look_at(group, network, step.to_vec()).await;
                }
            }
        }
    }

    /// Parks the packs that differ from the manifest.
    async fn look_at(&self, group: GroupId, network: NetworkId, packs: Vec<PackRecord>) {
        let effects = Arc::clone(&self.effects);
        let looked = self.work_of_replica.blocking("look at packs", move || {
            let not_whole = |record: &PackRecord| {
                let missing = Missing {
                    group,
                    network,
                    pack: record.pack,
                };
                let known = effects.parking().contains(&missing);
                (!known).then(|| fault_of(effects.objects(), &network, record))?
            };
            let faults = packs.iter().filter_map(|record| {
                let why = not_whole(record)?;
                Some((record.pack, why))
            });
            let faults: Vec<_> = faults.collect();
            let without_sums = packs.iter().filter(|record| {
                effects
                    .objects()
                    .lacks_sums(&network, &record.pack, lengths_of(record))
            });
            let without_sums: Vec<_> = without_sums.map(|record| record.pack).collect();
            (faults, without_sums)
        });
        match looked.await {
            Ok((faults, without_sums)) => {
                for pack in without_sums {
                    self.sum(Missing {
                        group,
                        network,
                        pack,
                    })
                    .await;
                }
                for (pack, why) in faults {
                    let missing = Missing {
                        group,
                        network,
                        pack,
                    };
                    self.found_damaged(missing, &why);
                }
            }
            Err(error) => tracing::warn!(%group, %network, %error, "cannot look at packs"),
        }
    }

    /// Reads a pack without checksums and stores checksums of its blocks. Such packs are of an
    /// earlier release, or lost their checksums.
    async fn sum(&self, of: Missing) {
        if self.effects.parking().contains(&of) {
            return;
        }
        let objects = self.objects().clone();
        let summed = self
            .work_of_replica
            .blocking("sum pack", move || objects.make_sums(&of.network, &of.pack));
        match summed.await {
            Ok(Ok(())) => self.close(&of.network),
            Ok(Err(error @ (ObjectError::BrokenPack { .. } | ObjectError::MissingPack(_)))) => {
                self.found_damaged(of, &error.to_string());
            }
            Ok(Err(error)) => {
                tracing::warn!(pack = %of.pack, %error, "no checksums of a pack's blocks");
            }
            Err(error) => {
                tracing::warn!(pack = %of.pack, %error, "no checksums of a pack's blocks");
            }
        }
    }

    /// A pack of the manifest cannot be read: its network is parked until another replica's copy is
    /// here.
    pub(crate) fn found_damaged(&self, missing: Missing, why: &str) {
        let Missing {
            group,
            network,
            pack,
        } = missing;
        // Looked up after the check of the files: a replaced pack is removed only once its entry is
        // in the state.
        let Some(record) = self.record(&missing) else {
            return;
        };
        if self.effects.is_replaying(group) {
            return;
        }
        // Until the log was searched it may be the last holder of the pack: no snapshot may release
        // the entry.
        let cause = Cause::Damaged {
            in_log: Some(record.named_at),
        };
        if self.effects.parking().park(missing, cause) {
            tracing::error!(%group, %network, %pack, why, "a pack is damaged: reads are passed on and it is fetched again");
        }
        self.drop_opened(&network);
    }

    /// [`Inner::found_damaged`] for the findings of a check.
    pub(crate) fn check_found(
        &self,
        group: GroupId,
        network: NetworkId,
        damaged: &BTreeSet<PackId>,
    ) {
        for pack in damaged {
            let missing = Missing {
                group,
                network,
                pack: *pack,
            };
            self.found_damaged(missing, "a check found it damaged");
        }
    }

    /// Drops the open files and the bundles of a network.
    pub(crate) fn drop_opened(&self, network: &NetworkId) {
        self.close(network);
        self.forget_bundles(network);
    }
}

/// The fault that is visible in the presence and lengths of a pack's files; `None` without one.
pub(crate) fn fault_of(
    objects: &ObjectStore,
    network: &NetworkId,
    record: &PackRecord,
) -> Option<String> {
    match objects.presence(network, &record.pack, Some(lengths_of(record))) {
        Presence::Whole => None,
        Presence::Missing => Some("it is not there".to_owned()),
        Presence::Damaged(fault) => Some(fault.to_string()),
    }
}

/// Networks whose stores were read completely after a failed read and found intact, and when.
#[derive(Debug, Default)]
pub(crate) struct FoundSound(Mutex<BTreeMap<NetworkId, Instant>>);

impl FoundSound {
    fn note(&self, network: NetworkId, now: Instant) {
        let mut all = self.lock();
        let sound = Duration::from_millis(limits::STORE_SOUND_MS);
        all.retain(|_, at| now.saturating_duration_since(*at) < sound);
        all.insert(network, now);
    }

    fn is_sound(&self, network: &NetworkId, now: Instant) -> bool {
        let sound = Duration::from_millis(limits::STORE_SOUND_MS);
        let all = self.lock();
        let found = all.get(network);
        found.is_some_and(|at| now.saturating_duration_since(*at) < sound)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Instant>> {
        self.0.lock().expect("invariant: noting does not panic")
    }
}

fn subject_of(missing: &Missing) -> String {
    format!("pack {} of network {}", missing.pack, missing.network)
}

/// The pack that a file belongs to.
fn pack_of(path: &Path) -> Option<PackId> {
    let name = path.file_stem()?.to_str()?;
    name.strip_prefix("pack-")?.parse().ok()
}

impl Inner {
    /// A read of the network's store failed, perhaps because of the pack at `damaged`. Parks the
    /// network if a pack is damaged, or until the cause is known where that is possible. Returns
    /// whether the network is parked: another replica then answers. Blocking.
    pub(crate) fn store_failed(
        self: &Arc<Self>,
        (group, network): (GroupId, NetworkId),
        damaged: Option<&Path>,
        why: &str,
    ) -> bool {
        if let Some(pack) = damaged.and_then(pack_of) {
            let missing = Missing {
                group,
                network,
                pack,
            };
            self.found_damaged(missing, why);
            self.set_aside_unnamed(missing);
        }
        if self.park_faults(group, network) {
            return true;
        }
        let parking = self.effects.parking();
        let now = self.clock.instant();
        if damaged.and_then(pack_of).is_some() || self.found_sound.is_sound(&network, now) {
            return false;
        }
        if parking.suspect(group, network) {
            tracing::warn!(%group, %network, why, "a store cannot be read: reads are passed on while its packs are read through");
            let reading = Arc::clone(self);
            self.scope
                .spawn("suspected store", OnPanic::EndProcess, async move {
                    reading.read_through(group, network).await;
                });
        }
        true
    }

    /// [`Inner::store_failed`] for an error of reading an object. A missing object is not damage by
    /// itself: indexes are compared when they are opened, so only missing files explain it.
    /// Blocking.
    pub(crate) fn object_failed(
        self: &Arc<Self>,
        (group, network): (GroupId, NetworkId),
        error: &StoreError,
    ) -> bool {
        match error {
            StoreError::Missing { .. } => self.park_faults(group, network),
            StoreError::Open { .. }
            | StoreError::Pack { .. }
            | StoreError::Damaged(_)
            | StoreError::Object { .. }
            | StoreError::Malformed { .. } => {
                let damaged = error.damaged_pack();
                self.store_failed((group, network), damaged, &error.to_string())
            }
        }
    }

    /// Parks the network when writing a response broke off because a pack is damaged. Blocking.
    pub(crate) fn note_damage(
        self: &Arc<Self>,
        store: (GroupId, NetworkId),
        written: &io::Result<()>,
    ) {
        let Err(error) = written else {
            return;
        };
        let inner = error.get_ref();
        let damaged = inner.and_then(|inner| inner.downcast_ref::<DamagedPack>());
        if let Some(damaged) = damaged {
            self.store_failed(store, Some(&damaged.path), &damaged.what);
        }
    }

    /// Parks the network when the files of a pack of its manifest are missing or damaged. Returns
    /// whether it is parked. Blocking.
    pub(crate) fn park_faults(&self, group: GroupId, network: NetworkId) -> bool {
        for record in self.manifest(group, network) {
            if let Some(why) = fault_of(self.objects(), &network, &record) {
                let missing = Missing {
                    group,
                    network,
                    pack: record.pack,
                };
                self.found_damaged(missing, &why);
            }
        }
        self.effects.parking().is_parked(&network)
    }

    /// [`Inner::store_failed`] for callers that must not block.
    pub(crate) async fn suspect_store(
        self: &Arc<Self>,
        group: GroupId,
        network: NetworkId,
        why: String,
    ) {
        let inner = Arc::clone(self);
        let asked = self.work_of_replica.blocking("suspect store", move || {
            inner.store_failed((group, network), None, &why)
        });
        if let Err(error) = asked.await {
            tracing::warn!(%group, %network, %error, "cannot look at a store");
        }
    }

    fn manifest(&self, group: GroupId, network: NetworkId) -> Vec<PackRecord> {
        let view = self.cluster.view(group);
        view.map(|view| view.with(|state, _| ShardView::new(state).packs(&network).collect()))
            .unwrap_or_default()
    }

    /// Reads every pack of a network completely; reopens the gate if none is damaged.
    async fn read_through(self: Arc<Self>, group: GroupId, network: NetworkId) {
        let mut is_sound = self.set_unnamed_aside(group, network).await == 0;
        for record in self.manifest(group, network) {
            let (objects, pack) = (self.objects().clone(), record.pack);
            let verified = self
                .work_of_replica
                .blocking("read pack", move || objects.verify_pack(&network, &pack));
            let why = match verified.await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(error) => {
                    tracing::warn!(%group, %network, %error, "a suspected store was not read through");
                    is_sound = false;
                    break;
                }
            };
            is_sound = false;
            let missing = Missing {
                group,
                network,
                pack,
            };
            self.found_damaged(missing, &why);
        }
        if is_sound {
            self.found_sound.note(network, self.clock.instant());
            tracing::warn!(%group, %network, "every pack of a store that could not be read is sound: look at the error before");
        }
        self.effects.parking().cleared(group, network);
    }

    /// Reads the packs of a network that its manifest does not name, and sets the damaged ones
    /// aside; returns their number.
    async fn set_unnamed_aside(self: &Arc<Self>, group: GroupId, network: NetworkId) -> usize {
        let inner = Arc::clone(self);
        let setting = self.work_of_replica.blocking("read pack", move || {
            let of = |pack| Missing {
                group,
                network,
                pack,
            };
            let is_damaged = |missing: &Missing| {
                let verify = || inner.objects().verify_pack(&network, &missing.pack);
                inner.not_named_at(missing).is_some()
                    && matches!(verify(), Err(ObjectError::BrokenPack { .. }))
            };
            let here = inner.objects().packs(&network)?;
            let damaged: Vec<_> = here.into_iter().map(of).filter(is_damaged).collect();
            for missing in &damaged {
                inner.set_aside_unnamed(*missing);
            }
            Ok::<_, ObjectError>(damaged.len())
        });
        match setting.await.and_then(|set| set.map_err(io::Error::other)) {
            Ok(set) => set,
            Err(error) => {
                tracing::warn!(%group, %network, %error, "cannot look for damaged packs that no manifest names");
                0
            }
        }
    }

    /// A damaged pack that the manifest does not name blocks all others: it is moved where git does
    /// not search. A pack that may be named stays: effects run before their entry is in the state,
    /// and a stopping replica has no state.
    fn set_aside_unnamed(&self, missing: Missing) {
        let Missing {
            group,
            network,
            pack,
        } = missing;
        let Some(applied) = self.not_named_at(&missing) else {
            return;
        };
        let aside = || self.objects().set_aside(&network, &pack);
        let retiring = self.effects.retiring();
        let set = retiring.set_aside(&network, &pack, applied, aside);
        let Some(set) = set else {
            return;
        };
        match set {
            Ok(()) => {
                tracing::warn!(%group, %network, %pack, "a damaged pack that no manifest names is set aside");
                self.effects.note_unnamed(group, network, pack);
            }
            Err(error) => {
                tracing::warn!(%group, %network, %pack, %error, "cannot set a damaged pack aside");
            }
        }
        self.drop_opened(&network);
    }

    /// Reports damaged packs in the node's conditions.
    pub(crate) fn show_damaged(&self) {
        let damaged = self.effects.parking().damaged();
        let found = damaged.iter().map(subject_of);
        let found = found.map(|of| (of, "its files are damaged or gone".to_owned()));
        let conditions = self.effects.conditions();
        conditions.replace(ConditionKind::PacksDamaged, &found.collect());
    }

    /// Reports packs that no replica has in the node's conditions.
    pub(crate) fn show_lost(&self, lost: &[Missing]) {
        let found = lost.iter().map(subject_of);
        let found = found.map(|of| (of, "every replica answered that it lacks it".to_owned()));
        let conditions = self.effects.conditions();
        conditions.replace(ConditionKind::PackLost, &found.collect());
    }

    /// The manifest's record of the pack, if the network is in use.
    fn record(&self, missing: &Missing) -> Option<PackRecord> {
        let view = self.cluster.view(missing.group)?;
        view.with(|state, _| {
            let shard = ShardView::new(state);
            let record = shard.pack(&missing.network, &missing.pack);
            record.filter(|_| shard.network_is_live(&missing.network))
        })
    }

    /// The applied index of a state that does not name the pack. `None` if the state names it, or
    /// if the replica stops and has no state.
    fn not_named_at(&self, missing: &Missing) -> Option<LogIndex> {
        let view = self.cluster.view(missing.group)?;
        view.with(|state, applied| {
            let shard = ShardView::new(state);
            let is_named = shard.pack(&missing.network, &missing.pack).is_some();
            (!is_named || !shard.network_is_live(&missing.network)).then_some(applied)
        })
    }
}
