//! Mirrors: repositories that follow others, or are copied to others, on a schedule.
//!
//! The leader of a shard runs what is due. A firing is had by proposing [`BeginMirror`](henge_types::BeginMirror): the
//! shard gives it to one run, whose fence every later word and push of it names. A run whose leader is lost is taken
//! over when its lease is over.
//!
//! - [`run`]: one run. `destination`: the shard as what a pull mirror pushes to.
//! - [`set`]: what an operator says of mirrors, at any node. `look`: what a new one would take from the side that it writes to.

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

/// How a node runs mirrors.
#[derive(Debug, Clone)]
pub struct MirrorsConfig {
    /// Which addresses the other side may have.
    pub addresses: AddressPolicy,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Runs at once, at most [`limits::MIRRORS_AT_ONCE_MAX`].
    pub at_once: usize,
}

impl Default for MirrorsConfig {
    /// Only the public internet, the system's certificates, two at once.
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
    /// Blocking work of runs.
    work: Scope,
    /// Runs at once, the most overdue firing first.
    permits: PriorityPermits<Reverse<u64>>,
    running: Mutex<BTreeSet<MirrorId>>,
    /// Mirrors that are due in each shard that is led here.
    due: Mutex<BTreeMap<GroupId, usize>>,
}

impl Repos {
    /// Runs the mirrors of the shards that this node leads, from now on. Without it mirrors are only kept.
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

/// Begins the runs of the mirrors of a shard.
struct Mirrors(Arc<Runner>);

impl LeaderTask for Mirrors {
    const NAME: &'static str = "mirrors";
    const GROUPS: TaskGroups = TaskGroups::Shards;
    type State = ();

    fn begin(&self, _term: LeaderTerm, _view: &View) {}

    async fn step(&self, step: Step<'_>, (): &mut ()) -> Next {
        let (runner, Step { term, view, .. }) = (&self.0, step);
        // A mirror begins at most once in a step: one that cannot begin now would be the most overdue again at once.
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
            // Another one may be more overdue after the wait.
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

/// What is found of the mirrors of a shard.
#[derive(Debug, Default)]
struct Look {
    /// The most overdue one of those that are due and do not run here.
    due: Option<Mirror>,
    /// In how many milliseconds the next one is due; none without mirrors.
    next_ms: Option<u64>,
}

impl Runner {
    /// What is found of the mirrors of a shard. Those that were begun in this step do not count as due.
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

    /// Mirrors that are due in a shard; none when it is not led here any more.
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

/// Whether a mirror could only fail: what it brings is refused for as long as its repository is archived.
fn rests(shard: ShardView<'_, State>, mirror: &Mirror) -> bool {
    let repo = shard.repo(&mirror.repo);
    mirror.settings.kind == MirrorKind::Pull && repo.is_some_and(|repo| repo.archived)
}

/// A mirror runs here, until this is dropped.
struct Running(Arc<Runner>, MirrorId);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running().remove(&self.1);
    }
}
