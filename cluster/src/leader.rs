//! Leader tasks: work that the leader of a group does on its own initiative.
//!
//! One watcher for each group turns openraft's metrics into terms of leadership.
//! For every term in which this node leads a group, each [`LeaderTask`] runs as a task of its own
//! ([`Cluster::lead`]): it begins with the term, and when the term ends it is dropped at its next
//! await. So a task neither checks whether its node leads nor keeps anything of an earlier term:
//! the state holds the work to do.
//!
//! A task is a sequence of steps. Between two steps it waits for an event that the first one
//! returned ([`Next`]): an applied entry, a time, or a notification ([`Wakes`]).

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock, Scope};
use henge_types::GroupId;
use henge_types::tasks::{LeaderTaskReport, LeaderTaskState};
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::machine::View;
use crate::metrics;

/// A term in which this node leads a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderTerm {
    /// The group.
    pub group: GroupId,
    /// The Raft term.
    pub term: u64,
}

/// The groups that a leader task runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskGroups {
    /// The meta group.
    Meta,
    /// Every shard.
    Shards,
    /// The meta group and every shard.
    All,
}

impl TaskGroups {
    const fn include(self, group: GroupId) -> bool {
        match self {
            Self::Meta => group.is_meta(),
            Self::Shards => !group.is_meta(),
            Self::All => true,
        }
    }
}

/// Work that the leader of a group does on its own initiative.
pub trait LeaderTask: Send + Sync + 'static {
    /// Its name in `henge debug tasks` and in metrics.
    const NAME: &'static str;
    /// The groups it runs for.
    const GROUPS: TaskGroups;
    /// Its memory between the steps of one term.
    type State: Send;

    /// A term begins. The first step follows at once.
    fn begin(&self, term: LeaderTerm, view: &View) -> Self::State;

    /// Does the work that is due now, and returns the event that the next step waits for. At the
    /// end of the term a step is dropped at an await: half-done work must be harmless, as after a
    /// crash.
    fn step(&self, step: Step<'_>, state: &mut Self::State) -> impl Future<Output = Next> + Send;

    /// The term has ended, and no step of it runs any more. The next term of the group begins after
    /// this call. Not called at shutdown.
    fn ended(&self, _term: LeaderTerm) {}
}

/// A step of a leader task.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Its term.
    pub term: LeaderTerm,
    /// The state of the group.
    pub view: &'a View,
    run: &'a RunningTask,
}

impl Step<'_> {
    /// Waits for a permit. The wait does not count as work.
    pub async fn queued<F: Future>(&self, wait: F) -> F::Output {
        self.run.set(LeaderTaskState::Queued);
        let output = wait.await;
        self.run.set(LeaderTaskState::Working);
        output
    }
}

/// The event that a leader task waits for before its next step. A notification always counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    applied_after: Option<Duration>,
    after: Option<Duration>,
}

impl Next {
    /// A notification.
    pub const fn notified() -> Self {
        Self {
            applied_after: None,
            after: None,
        }
    }

    /// A time span.
    pub const fn after(time: Duration) -> Self {
        Self::notified().or_after(time)
    }

    /// An entry that the group has applied since this step began. Entries of the first `pause`
    /// count together, at its end: a group that applies a thousand entries a second does not cause
    /// as many steps.
    pub const fn applied(pause: Duration) -> Self {
        Self {
            applied_after: Some(pause),
            after: None,
        }
    }

    /// Or a time span, whichever comes first.
    #[must_use]
    pub const fn or_after(mut self, time: Duration) -> Self {
        self.after = Some(time);
        self
    }
}

/// Notifies the leader tasks of groups; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Wakes(Arc<Mutex<BTreeMap<GroupId, Arc<Notify>>>>);

impl Wakes {
    /// The task of this group takes its next step now, or after its present step. Without effect
    /// where this node does not lead the group.
    pub fn wake(&self, group: GroupId) {
        if let Some(notify) = self.lock().get(&group) {
            notify.notify_one();
        }
    }

    /// Wakes the tasks of every group that this node leads.
    pub fn wake_all(&self) {
        for notify in self.lock().values() {
            notify.notify_one();
        }
    }

    fn of(&self, group: GroupId) -> Arc<Notify> {
        Arc::clone(self.lock().entry(group).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Arc<Notify>>> {
        self.0
            .lock()
            .expect("invariant: noting a group does not panic")
    }
}

/// The groups that this node leads, each in its term; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaderships(Arc<watch::Sender<BTreeMap<GroupId, u64>>>);

impl Leaderships {
    fn set(&self, group: GroupId, term: Option<u64>) {
        self.0.send_if_modified(|led| {
            let before = match term {
                Some(term) => led.insert(group, term),
                None => led.remove(&group),
            };
            before != term
        });
    }
}

/// Watches every group of the node, including those added later.
pub(crate) fn start(cluster: &Cluster) {
    let watching = cluster.clone();
    let watch_all = async move {
        let mut inserted = watching.groups().inserted();
        let mut watched = BTreeSet::new();
        loop {
            inserted.mark_unchanged();
            for group in watching.groups().all() {
                if watched.insert(group.id) {
                    let cluster = watching.clone();
                    let watch = async move { watch_group(&cluster, group.id).await };
                    let scope = &watching.shared.scope;
                    drop(scope.spawn("leadership of a group", OnPanic::EndProcess, watch));
                }
            }
            if inserted.changed().await.is_err() {
                return;
            }
        }
    };
    let scope = &cluster.shared.scope;
    drop(scope.spawn("leadership", OnPanic::EndProcess, watch_all));
}

/// Turns openraft's metrics into terms. After a core has ended, its replacement is watched.
async fn watch_group(cluster: &Cluster, group: GroupId) {
    let mut inserted = cluster.groups().inserted();
    loop {
        inserted.mark_unchanged();
        if let Ok(replica) = cluster.groups().get(group) {
            let mut metrics = replica.raft.server_metrics();
            loop {
                let leadership = replica.leadership(cluster.node());
                let term = leadership.map(|leadership| leadership.term);
                cluster.shared.leaderships.set(group, term);
                if metrics.changed().await.is_err() {
                    break;
                }
            }
        }
        cluster.shared.leaderships.set(group, None);
        if inserted.changed().await.is_err() {
            return;
        }
    }
}

impl Cluster {
    /// Runs a task for every group of its kind that this node leads, from now on, in `scope`.
    /// `wakes` notifies it.
    ///
    /// The threads of this crate's own scope elect leaders and send heartbeats: a task that reads
    /// much of a state runs in another scope.
    pub fn lead<T: LeaderTask>(&self, task: T, wakes: Wakes, scope: &Scope) {
        let (cluster, tasks) = (self.clone(), scope.clone());
        let supervise = async move { supervise(&cluster, &Arc::new(task), &wakes, &tasks).await };
        drop(scope.spawn("leader tasks", OnPanic::EndProcess, supervise));
    }

    /// The leader tasks that run on this node now, by name and group.
    pub fn leader_tasks(&self) -> Vec<LeaderTaskReport> {
        self.shared.leader_tasks.report(self.clock().instant())
    }
}

/// Starts a run of the task for every term that begins.
async fn supervise<T: LeaderTask>(cluster: &Cluster, task: &Arc<T>, wakes: &Wakes, scope: &Scope) {
    let mut leaderships = cluster.shared.leaderships.0.subscribe();
    let mut runs: BTreeMap<GroupId, (u64, JoinHandle<()>)> = BTreeMap::new();
    loop {
        let led = leaderships.borrow_and_update().clone();
        for (group, term) in led {
            let known = runs.get(&group);
            let is_running = known.is_some_and(|(of, run)| *of == term && !run.is_finished());
            if is_running || !T::GROUPS.include(group) {
                continue;
            }
            let before = runs.remove(&group).map(|(_, run)| run);
            let run = Run {
                cluster: cluster.clone(),
                task: Arc::clone(task),
                term: LeaderTerm { group, term },
                wake: wakes.of(group),
            };
            let run = scope.spawn(T::NAME, OnPanic::EndProcess, run.until_ended(before));
            runs.insert(group, (term, run));
        }
        if leaderships.changed().await.is_err() {
            return;
        }
    }
}

/// A task in one term.
struct Run<T> {
    cluster: Cluster,
    task: Arc<T>,
    term: LeaderTerm,
    wake: Arc<Notify>,
}

impl<T: LeaderTask> Run<T> {
    /// Runs until the term ends, after the run of the term before has ended.
    async fn until_ended(self, before: Option<JoinHandle<()>>) {
        if let Some(before) = before {
            // A panic of that run has ended the process.
            before.await.ok();
        }
        let LeaderTerm { group, term } = self.term;
        let Some(view) = self.cluster.view(group) else {
            return;
        };
        let mut leaderships = self.cluster.shared.leaderships.0.subscribe();
        // The sender is this node's own: the channel does not close.
        let ended = async {
            drop(
                leaderships
                    .wait_for(|led| led.get(&group) != Some(&term))
                    .await,
            );
        };
        tokio::select! {
            biased;
            () = ended => {}
            () = self.steps(&view) => {}
        }
        // At shutdown the cores end before the tasks.
        if !self.cluster.groups().closing().is_cancelled() {
            self.task.ended(self.term);
        }
    }

    async fn steps(&self, view: &View) {
        let tasks = &self.cluster.shared.leader_tasks;
        let run = tasks.begin(T::NAME, self.term, Arc::clone(self.cluster.clock()));
        let mut applied = view.applied();
        let mut state = self.task.begin(self.term, view);
        loop {
            applied.mark_unchanged();
            run.begin_step();
            let step = Step {
                term: self.term,
                view,
                run: &run,
            };
            let next = self.task.step(step, &mut state).await;
            run.end_step(LeaderTaskState::waiting(next.after, next.applied_after));
            wait(next, &mut applied, &self.wake).await;
        }
    }
}

async fn wait(next: Next, applied: &mut watch::Receiver<u64>, wake: &Notify) {
    let time = async {
        match next.after {
            Some(time) => tokio::time::sleep(time).await,
            None => pending().await,
        }
    };
    let entry = async {
        match next.applied_after {
            Some(pause) => tokio::time::sleep(pause).await,
            None => pending().await,
        }
        // A dropped machine applies no more entries: the term ends.
        if applied.changed().await.is_err() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = wake.notified() => {}
        () = entry => {}
        () = time => {}
    }
}

type TaskKey = (&'static str, GroupId);

#[derive(Debug)]
struct Row {
    term: u64,
    steps: u64,
    state: LeaderTaskState,
    since: Instant,
    /// Working time of the present step so far.
    worked: Duration,
}

/// The states of the leader tasks of this node; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaderTasks(Arc<Mutex<BTreeMap<TaskKey, Row>>>);

impl LeaderTasks {
    fn begin(&self, name: &'static str, term: LeaderTerm, clock: Arc<dyn Clock>) -> RunningTask {
        let row = Row {
            term: term.term,
            steps: 0,
            state: LeaderTaskState::Working,
            since: clock.instant(),
            worked: Duration::ZERO,
        };
        self.lock().insert((name, term.group), row);
        metrics::leader_task_began(name);
        RunningTask {
            tasks: self.clone(),
            key: (name, term.group),
            clock,
        }
    }

    fn report(&self, now: Instant) -> Vec<LeaderTaskReport> {
        let millis = |row: &Row| now.saturating_duration_since(row.since).as_millis();
        let rows = self.lock();
        let reports = rows.iter().map(|((name, group), row)| LeaderTaskReport {
            name: (*name).to_owned(),
            group: *group,
            term: row.term,
            steps: row.steps,
            state: row.state,
            state_ms: u64::try_from(millis(row)).unwrap_or(u64::MAX),
        });
        reports.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskKey, Row>> {
        self.0
            .lock()
            .expect("invariant: noting a state does not panic")
    }
}

/// The row of a task, while the task runs.
#[derive(Debug)]
struct RunningTask {
    tasks: LeaderTasks,
    key: TaskKey,
    clock: Arc<dyn Clock>,
}

impl RunningTask {
    fn begin_step(&self) {
        self.change(|row| {
            row.steps += 1;
            row.worked = Duration::ZERO;
            row.state = LeaderTaskState::Working;
        });
    }

    fn set(&self, state: LeaderTaskState) {
        self.change(|row| row.state = state);
    }

    fn end_step(&self, next: LeaderTaskState) {
        self.change(|row| row.state = next);
        let worked = self.tasks.lock().get(&self.key).map(|row| row.worked);
        metrics::leader_task_stepped(self.key.0, worked.unwrap_or_default());
    }

    /// Ends the present state and begins the next one.
    fn change(&self, change: impl FnOnce(&mut Row)) {
        let now = self.clock.instant();
        if let Some(row) = self.tasks.lock().get_mut(&self.key) {
            if row.state == LeaderTaskState::Working {
                row.worked += now.saturating_duration_since(row.since);
            }
            row.since = now;
            change(row);
        }
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.tasks.lock().remove(&self.key);
        metrics::leader_task_ended(self.key.0);
    }
}

#[cfg(test)]
mod tests;
