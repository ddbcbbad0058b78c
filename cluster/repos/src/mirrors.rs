//! Mirrors: repositories that follow others, or are copied to others, on a schedule.
//!
//! The leader of a shard starts the runs that are due. A run is claimed by proposing
//! [`BeginMirror`](henge_types::BeginMirror): the shard grants it to one run. Every later
//! heartbeat, completion report and push of the run names its fence. After the loss of its leader
//! another leader claims the run when its lease is over.
//!
//! - [`run`]: one run. `destination`: the shard as the destination of a pull mirror.
//! - [`set`]: an operator's requests about mirrors, on any node. `look`: the refs that a new mirror
//!   would delete or overwrite.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use henge_cluster::{LeaderTask, LeaderTerm, Next, Step, TaskGroups, View, Wakes};
use henge_git_client::{AddressPolicy, Network, Timeouts, Trust};
use henge_runtime::tasks::OnPanic;
use henge_runtime::{PriorityPermit, PriorityPermits, Scope};
use henge_state::{ShardView, State};
use henge_types::{GroupId, Mirror, MirrorId, MirrorKind, limits};
use tokio::runtime::Handle;

use crate::metrics;
use crate::repos::{Inner, Repos};

mod destination;
mod look;
mod run;
mod set;

pub(crate) use look::Looks;
pub use set::{MirrorAddress, MirrorEdit};

/// The shortest pause between two looks for mirrors that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest pause while there are mirrors: the group's time may have been set meanwhile.
const LOOK_AT_LEAST: Duration = Duration::from_secs(5);

/// Configuration of a node's mirrors.
#[derive(Debug, Clone)]
pub struct MirrorsConfig {
    /// The allowed addresses of the other side.
    pub addresses: AddressPolicy,
    /// The trusted certificates.
    pub trust: Trust,
    /// Maximum number of concurrent runs, at most [`limits::MIRRORS_AT_ONCE_MAX`].
    pub at_once: usize,
}

impl Default for MirrorsConfig {
    /// Public internet addresses only, the system's certificates, two runs at once.
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::Public,
            trust: Trust::system(),
            at_once: 2,
        }
    }
}

/// The runs of a node.
#[derive(Debug)]
struct Runner {
    inner: Arc<Inner>,
    network: Arc<Network>,
    /// The blocking work of runs.
    work: Scope,
    /// Permits for concurrent runs, the most overdue run first.
    permits: PriorityPermits<Reverse<u64>>,
    running: Mutex<BTreeSet<MirrorId>>,
    /// The number of mirrors that are due in each shard that is led here.
    due: Mutex<BTreeMap<GroupId, usize>>,
}

impl Repos {
    /// Starts running the mirrors of the shards that this node leads. Without it mirrors are only
    /// stored.
    pub fn start_mirrors(&self, config: MirrorsConfig) {
        let handle = Handle::current();
        let at_once = config.at_once.clamp(1, limits::MIRRORS_AT_ONCE_MAX);
        let network = Arc::new(Network {
            handle: handle.clone(),
            trust: config.trust,
            addresses: config.addresses,
            timeouts: Timeouts::default(),
        });
        let looks = Looks {
            network: Arc::clone(&network),
            work: Scope::root("mirror looks", handle.clone(), look::LOOKS_AT_ONCE),
        };
        if self.inner.mirror_looks.set(looks).is_err() {
            tracing::error!("mirrors are started twice: the first ones run");
            return;
        }
        let runner = Arc::new(Runner {
            inner: Arc::clone(&self.inner),
            network,
            work: Scope::root("mirrors", handle, at_once),
            permits: PriorityPermits::new(at_once),
            running: Mutex::default(),
            due: Mutex::default(),
        });
        let inner = &self.inner;
        inner
            .cluster
            .lead(Mirrors(runner), Wakes::default(), &inner.scope);
    }
}

/// The leader task that starts the runs of the mirrors of a shard.
struct Mirrors(Arc<Runner>);

impl LeaderTask for Mirrors {
    const NAME: &'static str = "mirrors";
    const GROUPS: TaskGroups = TaskGroups::Shards;
    type State = ();

    fn begin(&self, _term: LeaderTerm, _view: &View) {}

    async fn step(&self, step: Step<'_>, (): &mut ()) -> Next {
        let (runner, Step { term, view, .. }) = (&self.0, step);
        // A mirror starts at most once in a step: if its claim is refused it would at once be the
        // most overdue again.
        let mut begun = BTreeSet::new();
        loop {
            let Look { due, next_ms } = runner.look(term.group, view, &begun);
            let Some(overdue) = due else {
                let next = Next::applied(LOOK_EVERY);
                return match next_ms.map(Duration::from_millis) {
                    Some(time) => next.or_after(time.clamp(LOOK_EVERY, LOOK_AT_LEAST)),
                    None => next,
                };
            };
            let permit = runner.permits.acquire(Reverse(overdue.next_due_ms));
            let permit = step.queued(permit).await;
            // Another mirror may be more overdue after the wait.
            if let Some(mirror) = runner.look(term.group, view, &begun).due {
                begun.insert(mirror.id);
                runner.begin(term, mirror, permit);
            }
        }
    }

    fn ended(&self, term: LeaderTerm) {
        self.0.note_due(term.group, None);
    }
}

/// The mirrors of a shard that are due.
#[derive(Debug, Default)]
struct Look {
    /// The most overdue mirror that is due and does not run here.
    due: Option<Mirror>,
    /// Milliseconds until the next mirror is due; `None` without mirrors.
    next_ms: Option<u64>,
}

impl Runner {
    /// Searches the mirrors of a shard. Those started in this step do not count as due.
    fn look(&self, group: GroupId, view: &View, begun: &BTreeSet<MirrorId>) -> Look {
        let cluster = &self.inner.cluster;
        let now_ms = cluster.now_ms(group);
        let is_due = match cluster.keeps_time(group) {
            true => Mirror::is_due_in_group,
            false => Mirror::is_due,
        };
        let running = self.running().clone();
        let mut found = Look::default();
        let mut due = 0;
        view.with(|state, _| {
            let shard = ShardView::new(state);
            for mirror in shard.mirrors().filter(|mirror| !rests(shard, mirror)) {
                let is_due = is_due(&mirror, now_ms);
                due += usize::from(is_due);
                if !is_due || running.contains(&mirror.id) || begun.contains(&mirror.id) {
                    let leased_ms = mirror.run.map_or(0, |run| run.until_ms);
                    let due_ms = mirror.next_due_ms.max(leased_ms);
                    let in_ms = due_ms.saturating_sub(now_ms);
                    found.next_ms = Some(found.next_ms.map_or(in_ms, |ms| ms.min(in_ms)));
                } else {
                    let rank = |mirror: &Mirror| (mirror.next_due_ms, mirror.id);
                    if found
                        .due
                        .as_ref()
                        .is_none_or(|best| rank(&mirror) < rank(best))
                    {
                        found.due = Some(mirror);
                    }
                }
            }
        });
        self.note_due(group, Some(due));
        found
    }

    /// Records the number of mirrors that are due in a shard; `None` when the shard is no longer
    /// led here.
    fn note_due(&self, group: GroupId, count: Option<usize>) {
        let mut due = self
            .due
            .lock()
            .expect("invariant: noting a number does not panic");
        match count {
            Some(count) => due.insert(group, count),
            None => due.remove(&group),
        };
        metrics::mirrors_due(due.values().sum());
    }

    /// A run is fenced by its entry and not by the term: it goes on when the term ends.
    fn begin(
        self: &Arc<Self>,
        term: LeaderTerm,
        mirror: Mirror,
        permit: PriorityPermit<Reverse<u64>>,
    ) {
        self.running().insert(mirror.id);
        let running = Running(Arc::clone(self), mirror.id);
        let run = async move {
            Box::pin(running.0.run(term.group, term.term, &mirror)).await;
            drop((running, permit));
        };
        drop(self.inner.scope.spawn("mirror", OnPanic::Log, run));
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<MirrorId>> {
        self.running
            .lock()
            .expect("invariant: noting an id does not panic")
    }
}

/// Whether a run would only fail: an archived repository refuses the pushes of a pull mirror.
fn rests(shard: ShardView<'_, State>, mirror: &Mirror) -> bool {
    let repo = shard.repo(&mirror.repo);
    mirror.settings.kind == MirrorKind::Pull && repo.is_some_and(|repo| repo.archived)
}

/// A mirror that runs here, until this is dropped.
struct Running(Arc<Runner>, MirrorId);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running().remove(&self.1);
    }
}
