//! Mirrors: repositories that follow others, or are copied to others, on a schedule.
//!
//! The leader of a shard runs what is due. A firing is had by proposing [`BeginMirror`](henge_types::BeginMirror): the
//! shard gives it to one run, whose fence every later word and push of it names. A run whose leader is lost is taken
//! over when its lease is over.
//!
//! - [`run`]: one run. `destination`: the shard as what a pull mirror pushes to.
//! - [`set`]: what an operator says of mirrors, at any node. `look`: what a new one would take from the side that it writes to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use henge_git_client::{AddressPolicy, Network, Timeouts, Trust};
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
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

/// How often a leader looks for mirrors that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
    at_once: usize,
    running: Mutex<BTreeSet<MirrorId>>,
}

impl Repos {
    /// Runs the mirrors of the shards that this node leads, from now on. Without it there are mirrors, and nobody runs
    /// them here.
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
            at_once,
            running: Mutex::default(),
        });
        let scope = self.inner.scope.clone();
        // The handle is not needed: the loop ends with its scope.
        drop(scope.spawn("mirrors", OnPanic::EndProcess, runner.watch()));
    }
}

impl Runner {
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for (group, term, mirror) in self.due() {
                if !self.admit(mirror.id) {
                    continue;
                }
                let runner = Arc::clone(&self);
                let run = async move {
                    let admitted = Admitted(&runner, mirror.id);
                    Box::pin(runner.run(group, term, &mirror)).await;
                    drop(admitted);
                };
                drop(self.inner.scope.spawn("mirror", OnPanic::Log, run));
            }
        }
    }

    /// The mirrors that are due in the shards that this node leads, the most overdue first.
    fn due(&self) -> Vec<(GroupId, u64, Mirror)> {
        let cluster = &self.inner.cluster;
        let mut due = Vec::new();
        for group in cluster.local_groups() {
            let Some(leadership) = cluster.leadership(group).filter(|_| !group.is_meta()) else {
                continue;
            };
            let Some(view) = cluster.view(group) else {
                continue;
            };
            let now_ms = cluster.now_ms(group);
            let is_due = match cluster.keeps_time(group) {
                true => Mirror::is_due_in_group,
                false => Mirror::is_due,
            };
            view.with(|state, _| {
                let shard = ShardView::new(state);
                let mirrors = shard.mirrors();
                let mirrors =
                    mirrors.filter(|mirror| is_due(mirror, now_ms) && !rests(shard, mirror));
                due.extend(mirrors.map(|mirror| (group, leadership.term, mirror)));
            });
        }
        due.sort_by_key(|(_, _, mirror)| (mirror.next_due_ms, mirror.id));
        metrics::mirrors_due(due.len());
        due
    }

    /// Whether a run may begin here now.
    fn admit(&self, mirror: MirrorId) -> bool {
        let mut running = self
            .running
            .lock()
            .expect("invariant: noting an id does not panic");
        running.len() < self.at_once && running.insert(mirror)
    }
}

/// Whether a mirror could only fail: what it brings is refused for as long as its repository is archived.
fn rests(shard: ShardView<'_, State>, mirror: &Mirror) -> bool {
    let repo = shard.repo(&mirror.repo);
    mirror.settings.kind == MirrorKind::Pull && repo.is_some_and(|repo| repo.archived)
}

/// A place among the runs of a node.
struct Admitted<'a>(&'a Runner, MirrorId);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let running = self.0.running.lock();
        running
            .expect("invariant: noting an id does not panic")
            .remove(&self.1);
    }
}
