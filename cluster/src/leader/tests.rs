use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use henge_runtime::Scope;
use henge_types::Command;
use henge_types::command::VERSION_KNOWN;
use tokio::runtime::Handle;

use super::*;
use crate::lone_replica::run;
use crate::one_node_tests::{SHARD, eventually, start};

const OTHER: GroupId = GroupId::new(2);
const LONG: Duration = Duration::from_secs(3600);

/// The begun and ended terms and the steps of a task.
#[derive(Debug, Default)]
struct Seen {
    begun: Mutex<Vec<LeaderTerm>>,
    ended: Mutex<Vec<LeaderTerm>>,
    steps: AtomicU64,
}

impl Seen {
    fn begun(&self) -> Vec<LeaderTerm> {
        self.begun.lock().expect("not poisoned").clone()
    }

    fn ended(&self) -> Vec<LeaderTerm> {
        self.ended.lock().expect("not poisoned").clone()
    }

    fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }
}

/// Takes a step, and waits for the next one.
struct Steps {
    seen: Arc<Seen>,
    next: Next,
}

impl LeaderTask for Steps {
    const NAME: &'static str = "steps";
    const GROUPS: TaskGroups = TaskGroups::Shards;
    type State = u64;

    fn begin(&self, term: LeaderTerm, _view: &View) -> u64 {
        self.seen.begun.lock().expect("not poisoned").push(term);
        0
    }

    async fn step(&self, step: Step<'_>, steps: &mut u64) -> Next {
        if step.term.group == SHARD {
            *steps += 1;
            self.seen.steps.store(*steps, Ordering::SeqCst);
        }
        self.next
    }

    fn ended(&self, term: LeaderTerm) {
        self.seen.ended.lock().expect("not poisoned").push(term);
    }
}

/// A node with a task, once the task has taken its first step.
async fn with_task(dir: &std::path::Path, next: Next) -> (Cluster, Arc<Seen>, Wakes) {
    let scope = Scope::root("node", Handle::current(), 16);
    let cluster = start(dir, &scope).await;
    eventually("it serves", async || cluster.is_ready().is_ok()).await;
    let (seen, wakes) = (Arc::new(Seen::default()), Wakes::default());
    let task = Steps {
        seen: Arc::clone(&seen),
        next,
    };
    cluster.lead(task, wakes.clone(), &scope);
    eventually("a step", async || seen.steps() > 0).await;
    (cluster, seen, wakes)
}

async fn write(cluster: &Cluster) {
    let barrier = Command::VersionBarrier {
        version: VERSION_KNOWN,
    };
    let written = cluster.propose(SHARD, barrier, None, Duration::from_secs(10));
    written.await.expect("the shard takes writes");
}

fn waits(cluster: &Cluster) -> bool {
    cluster.leader_tasks().iter().any(|task| {
        let of_shard = task.name == Steps::NAME && task.group == SHARD;
        of_shard && matches!(task.state, LeaderTaskState::Waiting { .. })
    })
}

#[test]
fn a_task_runs_for_each_group_of_its_kind() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let (cluster, seen, _) = with_task(dir.path(), Next::notified()).await;
        let both = BTreeSet::from([SHARD, OTHER]);
        eventually("both shards", async || {
            let begun = seen.begun().into_iter().map(|term| term.group);
            begun.collect::<BTreeSet<_>>() == both
        })
        .await;
        for term in seen.begun() {
            assert_eq!(term.term, cluster.term(term.group));
        }
        cluster.shutdown(Duration::from_secs(20)).await;
        assert_eq!(
            seen.ended(),
            [],
            "the tasks of a node that stops are dropped"
        );
    });
}

#[test]
fn an_applied_entry_causes_a_step() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let next = Next::applied(Duration::ZERO);
        let (cluster, seen, _) = with_task(dir.path(), next).await;
        for _ in 0..3 {
            eventually("it waits", async || waits(&cluster)).await;
            let before = seen.steps();
            write(&cluster).await;
            eventually("another step", async || seen.steps() > before).await;
        }
        cluster.shutdown(Duration::from_secs(20)).await;
    });
}

#[test]
fn a_notification_causes_a_step_of_its_group_only() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let (cluster, seen, wakes) = with_task(dir.path(), Next::after(LONG)).await;
        for step in 2..5 {
            wakes.wake(OTHER);
            wakes.wake(GroupId::META);
            assert_eq!(seen.steps(), step - 1);
            wakes.wake(SHARD);
            eventually("another step", async || seen.steps() == step).await;
        }
        wakes.wake_all();
        eventually("one more", async || seen.steps() == 5).await;
        cluster.shutdown(Duration::from_secs(20)).await;
    });
}

#[test]
fn time_causes_a_step() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let next = Next::applied(LONG).or_after(Duration::from_millis(1));
        let (cluster, seen, _) = with_task(dir.path(), next).await;
        eventually("steps", async || seen.steps() >= 5).await;
        cluster.shutdown(Duration::from_secs(20)).await;
    });
}

/// The end of a core ends its term: the task of the next core begins after the first one has ended,
/// with a new state.
#[test]
fn a_term_that_ends_ends_its_task_before_the_next_begins() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let (cluster, seen, wakes) = with_task(dir.path(), Next::notified()).await;
        wakes.wake(SHARD);
        eventually("a second step", async || seen.steps() == 2).await;
        let of_shard = |terms: Vec<LeaderTerm>| -> Vec<LeaderTerm> {
            terms
                .into_iter()
                .filter(|term| term.group == SHARD)
                .collect()
        };
        let first = of_shard(seen.begun());
        let core = cluster.groups().get(SHARD).expect("runs here");
        core.raft.shutdown().await.expect("ends");
        eventually("the task ends", async || of_shard(seen.ended()) == first).await;
        eventually("another one begins", async || {
            of_shard(seen.begun()).len() == 2 && seen.steps() == 1
        })
        .await;
        let [old, new] = of_shard(seen.begun())[..] else {
            panic!("two terms: {:?}", seen.begun());
        };
        assert!(old.term < new.term, "{old:?}, {new:?}");
        let rows = cluster.leader_tasks();
        let row = rows
            .iter()
            .find(|row| row.name == Steps::NAME && row.group == SHARD);
        assert_eq!(row.map(|row| row.term), Some(new.term));
        cluster.shutdown(Duration::from_secs(20)).await;
    });
}
