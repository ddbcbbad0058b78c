//! Compaction: the leader of a shard keeps the packs of each of its networks few.
//!
//! It writes one pack in the place of several, makes it durable as a large push does, and proposes the exchange
//! ([`henge_types::ReplacePacks`]): every replica has the same packs, and only the leader spends time on making them.
//!
//! - [`watch`]: which networks to look at, and when one is due.
//! - [`compact`]: one compaction; [`prune`]: one that drops what no ref reaches.
//! - [`schedule`]: when the latter is done by itself.
//! - [`ask`]: `gc` and `stats`, from any node.
//! - [`check`]: whole stores read and hashed, replica by replica; [`check_ask`]: the same from any node;
//!   `last_check`: what one found, kept over restarts. `findings`: what fails, for the status.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_types::status::{CompactionDepth as Depth, LastCompaction};
use henge_types::{GroupId, NetworkId};
use tokio::sync::Notify;

use crate::metrics;
use crate::repos::{Inner, Repos};

pub(crate) mod ask;
pub(crate) mod check;
pub(crate) mod check_ask;
mod check_finding;
pub(crate) mod compact;
mod findings;
mod last_check;
pub(crate) mod prune;
pub(crate) mod schedule;
mod watch;

use compact::CompactError;
use watch::{Due, Packs, Watch};

/// How often a leader looks for networks that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Networks whose last compaction is remembered.
const REMEMBERED_MAX: usize = 1024;
/// Networks that wait because somebody asked for it.
const ASKED_MAX: usize = 1024;

/// What this node's compaction is asked for and does.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    asked: Mutex<BTreeMap<NetworkId, (GroupId, Depth)>>,
    told: Notify,
    running: Mutex<Option<NetworkId>>,
    last: Mutex<BTreeMap<NetworkId, LastCompaction>>,
    /// Networks of groups led here whose last compactions failed, and how many in a row: at most as many as there are.
    failing: Mutex<BTreeMap<NetworkId, (GroupId, u32)>>,
    /// Those that ended.
    runs: AtomicU64,
    /// How long nobody must have pushed before all packs become one.
    settle: OnceLock<Duration>,
}

impl Maintenance {
    /// Compacts the network as soon as it is its turn. `false` when too many wait already.
    fn ask(&self, group: GroupId, network: NetworkId, depth: Depth) -> bool {
        let mut asked = lock(&self.asked);
        if asked.len() >= ASKED_MAX && !asked.contains_key(&network) {
            return false;
        }
        let (_, known) = asked.entry(network).or_insert((group, depth));
        *known = depth.max(*known);
        drop(asked);
        self.told.notify_one();
        true
    }

    fn is_asked(&self, network: &NetworkId) -> bool {
        lock(&self.asked).contains_key(network)
    }

    fn is_running(&self, network: &NetworkId) -> bool {
        *lock(&self.running) == Some(*network)
    }

    fn last(&self, network: &NetworkId) -> Option<LastCompaction> {
        lock(&self.last).get(network).cloned()
    }

    fn remember(&self, network: NetworkId, last: LastCompaction) {
        let mut known = lock(&self.last);
        known.insert(network, last);
        if known.len() > REMEMBERED_MAX {
            let oldest = known.iter().min_by_key(|(_, last)| last.at_ms);
            if let Some(oldest) = oldest.map(|(network, _)| *network) {
                known.remove(&oldest);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("invariant: nothing panics while a list is held")
}

/// Starts the loop.
pub(crate) fn start(inner: &Arc<Inner>) {
    let maintaining = Arc::clone(inner);
    inner
        .scope
        .spawn("compaction", OnPanic::EndProcess, async move {
            maintaining.maintain().await;
        });
    check::start(inner);
}

impl Repos {
    /// From now on all packs of a network become one once nobody pushed to it for so long: a clone is then the pack as it
    /// lies there. Larger networks wait longer, by four seconds for every MiB; those above 1 GiB stay as they are.
    /// Counts once.
    pub fn settle_networks(&self, after: Duration) {
        // Whoever calls it twice says the same again.
        let _known = self.inner.maintenance.settle.set(after);
    }
}

impl Inner {
    /// One compaction after the other: a node never works on two.
    async fn maintain(self: Arc<Self>) {
        let mut watch = Watch::default();
        loop {
            let told = self.maintenance.told.notified();
            drop(tokio::time::timeout(LOOK_EVERY, told).await);
            self.forget_failures_elsewhere();
            while let Some(due) = self.look(&mut watch) {
                self.forgetting_while(self.run(&mut watch, due)).await;
            }
        }
    }

    /// Works, and drops findings of groups that another node leads by now: a compaction may take minutes.
    async fn forgetting_while(&self, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = work.as_mut() => return,
                () = tokio::time::sleep(LOOK_EVERY) => self.forget_failures_elsewhere(),
            }
        }
    }

    /// The network that needs it most, if any is due.
    fn look(&self, watch: &mut Watch) -> Option<Due> {
        let now = self.clock.instant();
        watch.settle = self.maintenance.settle.get().copied();
        let grown = self.effects.take_grown();
        let groups = self.cluster.local_groups().into_iter();
        let led = groups
            .filter(|group| !group.is_meta())
            .filter_map(|group| Some((group, self.cluster.leadership(group)?.term)))
            .collect();
        for group in watch.lead(led) {
            let view = self.cluster.view(group);
            let networks = view.map(|view| view.with(|state, _| ShardView::new(state).networks()));
            for network in networks.unwrap_or_default() {
                watch.grew(group, network, now);
            }
        }
        for ((group, network), at) in grown {
            watch.grew(group, network, at);
        }
        let mut asked = lock(&self.maintenance.asked);
        asked.retain(|network, (group, depth)| watch.asked(*group, *network, *depth, now));
        drop(asked);
        let (due, packs_max) = watch.due(now, |group, network| {
            let view = self.cluster.view(group)?;
            Some(view.with(|state, _| {
                let packs = ShardView::new(state).packs(network);
                packs.fold(Packs::default(), |sum, pack| Packs {
                    count: sum.count + 1,
                    bytes: sum.bytes.saturating_add(pack.pack_bytes),
                })
            }))
        });
        metrics::packs_max(packs_max);
        due
    }

    async fn run(self: &Arc<Self>, watch: &mut Watch, due: Due) {
        let Due {
            group,
            network,
            depth,
        } = due;
        let started = self.clock.instant();
        *lock(&self.maintenance.running) = Some(network);
        lock(&self.maintenance.asked).remove(&network);
        let outcome = Box::pin(self.compact(group, network, depth)).await;
        let now = self.clock.instant();
        let took = now.duration_since(started);
        match &outcome {
            Ok(Some(done)) => {
                if let Some(dropped) = done.dropped {
                    tracing::info!(%group, %network, dropped, "objects that no ref reaches were dropped");
                    metrics::dropped(dropped);
                }
                tracing::info!(%group, %network, replaced = done.replaced, bytes = done.bytes, "packs compacted");
                metrics::compacted(done.bytes, took.as_secs_f64());
            }
            Ok(None) => {}
            Err(error) if error.is_defect() => {
                tracing::error!(%group, %network, %error, "compaction failed: the packs stay as they are");
                metrics::compaction_failed();
                self.suspect_store(group, network, error.to_string()).await;
            }
            Err(CompactError::NotLeader) => {
                tracing::info!(%group, %network, "compaction ended: another node leads the shard");
            }
            Err(error) => {
                tracing::warn!(%group, %network, %error, "compaction failed: it is tried again later");
                metrics::compaction_failed();
            }
        }
        match &outcome {
            // What fails elsewhere is another node's finding.
            Ok(_) | Err(CompactError::NotLeader) => self.compaction_works(&network),
            Err(error) => {
                self.compaction_failed(group, network, error.is_defect(), &error.to_string());
            }
        }
        watch.ended(due, now, outcome.as_ref().map(Option::is_some));
        let (done, failed) = match outcome {
            Ok(done) => (done.unwrap_or_default(), None),
            Err(error) => (compact::Compacted::default(), Some(error.to_string())),
        };
        let last = LastCompaction {
            at_ms: self.clock.unix_ms(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            replaced: done.replaced,
            bytes: done.bytes,
            failed,
            dropped: done.dropped,
            run: self.maintenance.runs.fetch_add(1, Ordering::Relaxed) + 1,
        };
        self.maintenance.remember(network, last);
        // After that: who sees that it is over sees what came of it.
        *lock(&self.maintenance.running) = None;
    }
}
