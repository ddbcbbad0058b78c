//! Compaction: the leader of a shard keeps the number of packs of each of its networks low.
//!
//! It writes one pack in the place of several, makes it durable like a large push, and proposes the
//! exchange ([`henge_types::ReplacePacks`]). Every replica has the same packs; only the leader
//! spends CPU on making them.
//!
//! - [`due`]: which networks are watched, and when one is due.
//! - [`compact`]: one compaction; [`prune`]: one that drops unreachable objects.
//! - [`schedule`]: when pruning runs by itself.
//! - [`ask`]: `gc` and `stats`, from any node.
//! - [`check`]: complete stores read and hashed, replica by replica; [`check_ask`]: the same from
//!   any node; `last_check`: the findings of the last one, kept over restarts. `findings`:
//!   failures, for the status.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use henge_cluster::{LeaderTask, LeaderTerm, Next, Step, TaskGroups, View, Wakes};
use henge_runtime::PriorityPermits;
use henge_state::ShardView;
use henge_types::status::{CompactionDepth as Depth, LastCompaction};
use henge_types::{GroupId, NetworkId};
use tokio::sync::watch;

use crate::metrics;
use crate::repos::{Inner, Repos};

pub(crate) mod ask;
pub(crate) mod check;
pub(crate) mod check_ask;
mod check_finding;
pub(crate) mod compact;
mod due;
mod findings;
mod last_check;
pub(crate) mod prune;
pub(crate) mod schedule;

use compact::{CompactError, Compacted, Led};
use due::{Due, Packs, Urgency, Watch};

/// Interval between two searches for networks that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Networks whose last compaction is remembered.
const REMEMBERED_MAX: usize = 1024;
/// Networks with a pending request.
const ASKED_MAX: usize = 1024;

/// The requested and the running compactions of this node.
#[derive(Debug)]
pub(crate) struct Maintenance {
    asked: Mutex<BTreeMap<NetworkId, (GroupId, Depth)>>,
    /// The number of requests so far.
    requests: watch::Sender<u64>,
    wakes: Wakes,
    /// One compaction at a time on a node, the most urgent one first.
    turn: PriorityPermits<Urgency>,
    /// The largest pack count of a network that may become due, for each group that is led here.
    packs_max: Mutex<BTreeMap<GroupId, usize>>,
    running: Mutex<Option<NetworkId>>,
    last: Mutex<BTreeMap<NetworkId, LastCompaction>>,
    /// Networks of groups led here whose last compactions failed, and the number of failures in a
    /// row. Bounded by the number of networks.
    failing: Mutex<BTreeMap<NetworkId, (GroupId, u32)>>,
    /// Compactions that ended.
    runs: AtomicU64,
    /// How long a network must be without a push before all its packs are merged into one.
    settle: OnceLock<Duration>,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            asked: Mutex::default(),
            requests: watch::Sender::default(),
            wakes: Wakes::default(),
            turn: PriorityPermits::new(1),
            packs_max: Mutex::default(),
            running: Mutex::default(),
            last: Mutex::default(),
            failing: Mutex::default(),
            runs: AtomicU64::default(),
            settle: OnceLock::default(),
        }
    }
}

impl Maintenance {
    /// Queues a compaction of the network. `false` when the queue is full.
    fn ask(&self, group: GroupId, network: NetworkId, depth: Depth) -> bool {
        let mut asked = lock(&self.asked);
        if asked.len() >= ASKED_MAX && !asked.contains_key(&network) {
            return false;
        }
        let (_, known) = asked.entry(network).or_insert((group, depth));
        *known = depth.max(*known);
        drop(asked);
        self.requests.send_modify(|requests| *requests += 1);
        self.wakes.wake(group);
        true
    }

    fn is_asked(&self, network: &NetworkId) -> bool {
        lock(&self.asked).contains_key(network)
    }

    fn is_running(&self, network: &NetworkId) -> bool {
        *lock(&self.running) == Some(*network)
    }

    /// Records the largest pack count of a network of the group that may become due; `None` when
    /// the group is no longer led here.
    fn note_packs_max(&self, group: GroupId, packs: Option<usize>) {
        let mut known = lock(&self.packs_max);
        match packs {
            Some(packs) => known.insert(group, packs),
            None => known.remove(&group),
        };
        metrics::packs_max(known.values().copied().max().unwrap_or(0));
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

/// A running compaction. One that is dropped before its end is recorded as failed.
struct Running<'a> {
    inner: &'a Inner,
    network: NetworkId,
    started: Instant,
    is_over: bool,
}

impl<'a> Running<'a> {
    fn begin(inner: &'a Inner, network: NetworkId) -> Self {
        *lock(&inner.maintenance.running) = Some(network);
        lock(&inner.maintenance.asked).remove(&network);
        Self {
            inner,
            network,
            started: inner.clock.instant(),
            is_over: false,
        }
    }

    /// Records the outcome; `Err` is the reason of a failure. The outcome is visible before the end
    /// is.
    fn end(&mut self, outcome: Result<Compacted, String>) -> Duration {
        self.is_over = true;
        let maintenance = &self.inner.maintenance;
        let took = self.inner.clock.instant().duration_since(self.started);
        let (done, failed) = match outcome {
            Ok(done) => (done, None),
            Err(why) => (Compacted::default(), Some(why)),
        };
        let last = LastCompaction {
            at_ms: self.inner.clock.unix_ms(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            replaced: done.replaced,
            bytes: done.bytes,
            failed,
            dropped: done.dropped,
            run: maintenance.runs.fetch_add(1, Ordering::Relaxed) + 1,
        };
        maintenance.remember(self.network, last);
        *lock(&maintenance.running) = None;
        took
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(Err(CompactError::NotLeader.to_string()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("invariant: nothing panics while a list is held")
}

/// Starts compaction in the shards that this node leads, and the requested checks.
pub(crate) fn start(inner: &Arc<Inner>) {
    let wakes = inner.maintenance.wakes.clone();
    let task = Compaction(Arc::clone(inner));
    inner.cluster.lead(task, wakes, &inner.scope);
    check::start(inner);
}

/// The leader task of compaction in a shard.
struct Compaction(Arc<Inner>);

impl LeaderTask for Compaction {
    const NAME: &'static str = "compaction";
    const GROUPS: TaskGroups = TaskGroups::Shards;
    type State = Watch;

    fn begin(&self, term: LeaderTerm, view: &View) -> Watch {
        let inner = &self.0;
        inner.effects.watch_grown(term.group);
        let mut watch = Watch::default();
        watch.grew_all(networks(view), inner.clock.instant());
        watch
    }

    async fn step(&self, step: Step<'_>, watch: &mut Watch) -> Next {
        let (inner, Step { term, view, .. }) = (&self.0, step);
        let maintenance = &inner.maintenance;
        let mut requests = maintenance.requests.subscribe();
        while let Some(due) = inner.look(term, view, watch) {
            let turn = step.queued(async {
                tokio::select! {
                    biased;
                    turn = maintenance.turn.acquire(due.urgency) => Some(turn),
                    // A request, or more packs, may have made the shard more urgent.
                    _ = requests.changed() => None,
                    () = tokio::time::sleep(LOOK_EVERY) => None,
                }
            });
            let Some(turn) = turn.await else { continue };
            // The wait for the permit may have been long.
            if let Some(due) = inner.look(term, view, watch) {
                inner.run(term, watch, due).await;
            }
            drop(turn);
        }
        let next = Next::applied(LOOK_EVERY);
        match watch.is_empty() {
            true => next,
            false => next.or_after(LOOK_EVERY),
        }
    }

    fn ended(&self, term: LeaderTerm) {
        let inner = &self.0;
        let maintenance = &inner.maintenance;
        inner.effects.forget_grown(term.group);
        // A later term of this node may have begun: its requests stay.
        if inner.cluster.leadership(term.group).is_none() {
            lock(&maintenance.asked).retain(|_, (group, _)| *group != term.group);
        }
        maintenance.note_packs_max(term.group, None);
        inner.forget_failures(term.group);
    }
}

/// All networks of a shard.
fn networks(view: &View) -> Vec<NetworkId> {
    view.with(|state, _| ShardView::new(state).networks())
}

impl Repos {
    /// Starts merging all packs of a network into one after so long without a push: a clone is then
    /// a copy of that pack. Larger networks wait longer, by four seconds for every MiB; those above
    /// 1 GiB are not merged. Only the first call counts.
    pub fn settle_networks(&self, after: Duration) {
        let maintenance = &self.inner.maintenance;
        // A second call has no effect.
        if maintenance.settle.set(after).is_ok() {
            maintenance.wakes.wake_all();
        }
    }
}

impl Inner {
    /// The most urgent network of the shard that is due.
    fn look(&self, term: LeaderTerm, view: &View, watch: &mut Watch) -> Option<Due> {
        let group = term.group;
        let now = self.clock.instant();
        let settle = self.maintenance.settle.get().copied();
        if watch.settle != settle {
            watch.settle = settle;
            watch.grew_all(networks(view), now);
        }
        for (network, at) in self.effects.take_grown(group) {
            watch.grew(network, at);
        }
        for (network, (of, depth)) in lock(&self.maintenance.asked).iter() {
            if *of == group {
                watch.asked(*network, *depth, now);
            }
        }
        let (due, packs_max) = watch.due(now, |network| {
            view.with(|state, _| {
                let packs = ShardView::new(state).packs(network);
                packs.fold(Packs::default(), |sum, pack| Packs {
                    count: sum.count + 1,
                    bytes: sum.bytes.saturating_add(pack.pack_bytes),
                })
            })
        });
        self.maintenance.note_packs_max(group, Some(packs_max));
        due
    }

    async fn run(self: &Arc<Self>, term: LeaderTerm, watch: &mut Watch, due: Due) {
        let Due { network, depth, .. } = due;
        let group = term.group;
        let mut running = Running::begin(self, network);
        let outcome = Box::pin(self.compact(Led::of(term, network), depth)).await;
        if let Err(error) = &outcome
            && error.is_defect()
        {
            self.suspect_store(group, network, error.to_string()).await;
        }
        match &outcome {
            // `NotLeader` is no failure here: another node leads, and records its own failures.
            Ok(_) | Err(CompactError::NotLeader) => self.compaction_works(&network),
            Err(error) => {
                self.compaction_failed(group, network, error.is_defect(), &error.to_string());
            }
        }
        watch.ended(
            due,
            self.clock.instant(),
            outcome.as_ref().map(Option::is_some),
        );
        let done = outcome.as_ref().map(|done| done.unwrap_or_default());
        let took = running.end(done.map_err(ToString::to_string));
        tell(group, network, &outcome, took);
    }
}

/// The log lines and counters of a compaction that ended.
fn tell(
    group: GroupId,
    network: NetworkId,
    outcome: &Result<Option<Compacted>, CompactError>,
    took: Duration,
) {
    match outcome {
        Ok(Some(done)) => {
            if let Some(dropped) = done.dropped {
                tracing::info!(%group, %network, dropped, "objects that no ref reaches were dropped");
                metrics::dropped(dropped);
            }
            tracing::info!(%group, %network, replaced = done.replaced, bytes = done.bytes, "packs compacted");
            metrics::compacted(done.bytes, took.as_secs_f64());
        }
        Ok(None) => {}
        Err(CompactError::NotLeader) => {
            tracing::info!(%group, %network, "compaction ended: another node leads the shard");
        }
        Err(error) if error.is_defect() => {
            tracing::error!(%group, %network, %error, "compaction failed: the packs stay as they are");
            metrics::compaction_failed();
        }
        Err(error) => {
            tracing::warn!(%group, %network, %error, "compaction failed: it is tried again later");
            metrics::compaction_failed();
        }
    }
}
