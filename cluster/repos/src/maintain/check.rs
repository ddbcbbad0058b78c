//! Checks of complete stores: on request a replica reads its own packs, object by object.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use henge_git::fsck::{FsckProgress, FsckReport, Stage, fsck};
use henge_git::{Deadline, Stop};
use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_types::status::{
    CheckOutcome, CheckProblem, CheckProgress, CompactionState, ReplicaCheck,
};
use henge_types::{GroupId, LogIndex, NetworkId, NodeId, ObjectFormat, ObjectId, PackId, limits};
use tokio::sync::Notify;

use crate::catalogue::QUORUM_WAIT;
use crate::fetcher::InPlaceOf;
use crate::maintain::check_finding::{object_of, pack_of, path_of, text_of};
use crate::maintain::compact::StopOnDrop;
use crate::maintain::last_check;
use crate::parking::Missing;
use crate::repos::Inner;
use crate::retiring::Retired;

/// Networks whose last check is remembered.
const REMEMBERED_MAX: usize = 256;

/// The checks of this node's stores: requested, running, ended.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last requested check.
    run: u64,
    asked: BTreeMap<NetworkId, Asked>,
    running: Option<(Asked, CheckProgress)>,
    last: BTreeMap<NetworkId, CheckOutcome>,
}

impl State {
    fn forget_oldest(&mut self) {
        if self.last.len() > REMEMBERED_MAX {
            let oldest = self.last.iter().min_by_key(|(_, last)| last.run);
            if let Some(oldest) = oldest.map(|(network, _)| *network) {
                self.last.remove(&oldest);
            }
        }
    }
}

/// A requested check.
#[derive(Debug, Clone, Copy)]
struct Asked {
    run: u64,
    group: GroupId,
    network: NetworkId,
    repair: bool,
}

impl Checks {
    /// Queues a check of the store. `false` when the queue is full.
    pub(crate) fn ask(
        &self,
        (group, network): (GroupId, NetworkId),
        repair: bool,
        now_ms: u64,
    ) -> bool {
        let mut state = self.lock();
        if state.asked.len() >= limits::CHECKS_ASKED_MAX && !state.asked.contains_key(&network) {
            return false;
        }
        // Derived from the clock, so that a number is not reused after a restart.
        let run = now_ms.max(state.run + 1);
        state.run = run;
        let asked = state.asked.entry(network).or_insert(Asked {
            run,
            group,
            network,
            repair,
        });
        asked.run = run;
        asked.repair |= repair;
        drop(state);
        self.told.notify_one();
        true
    }

    /// The state of the check of a network's store.
    pub(crate) fn look(&self, node: NodeId, network: &NetworkId) -> ReplicaCheck {
        let state = self.lock();
        let asked = state.asked.get(network);
        let running = state.running.as_ref();
        let running = running.filter(|(asked, _)| asked.network == *network);
        let last = state.last.get(network);
        let runs = [
            asked.map(|asked| asked.run),
            running.map(|(asked, _)| asked.run),
            last.map(|last| last.run),
        ];
        ReplicaCheck {
            node,
            state: match (running, asked) {
                (Some(_), _) => CompactionState::Running,
                (None, Some(_)) => CompactionState::Queued,
                (None, None) => CompactionState::Idle,
            },
            run: runs.into_iter().flatten().max().unwrap_or(0),
            progress: running.map(|(_, progress)| progress.clone()),
            last: last.cloned(),
            failed: None,
        }
    }

    /// Restores the outcome of a check before this node started.
    fn recall(&self, network: NetworkId, outcome: CheckOutcome) {
        let mut state = self.lock();
        state.last.entry(network).or_insert(outcome);
        state.forget_oldest();
    }

    /// The check that has waited longest; it counts as running from now on.
    fn begin(&self) -> Option<Asked> {
        let mut state = self.lock();
        let next = state
            .asked
            .values()
            .min_by_key(|asked| asked.run)
            .copied()?;
        state.asked.remove(&next.network);
        let progress = CheckProgress {
            stage: "packs".to_owned(),
            done: 0,
            total: None,
        };
        state.running = Some((next, progress));
        Some(next)
    }

    fn tell(&self, progress: CheckProgress) {
        if let Some((_, known)) = &mut self.lock().running {
            *known = progress;
        }
    }

    fn end(&self, network: NetworkId, outcome: CheckOutcome) {
        let mut state = self.lock();
        state.running = None;
        state.last.insert(network, outcome);
        state.forget_oldest();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("invariant: nothing panics while the list is held")
    }
}

/// Starts the background task.
pub(crate) fn start(inner: &Arc<Inner>) {
    let checking = Arc::clone(inner);
    inner
        .scope
        .spawn("store checks", OnPanic::EndProcess, async move {
            checking.recall_unfinished().await;
            loop {
                while let Some(asked) = checking.checks.begin() {
                    checking.check(asked).await;
                }
                checking.checks.told.notified().await;
            }
        });
}

/// The result of a check.
struct Checked {
    report: FsckReport,
    /// Damaged packs of the manifest.
    damaged: BTreeSet<PackId>,
    problems: Vec<CheckProblem>,
}

impl Inner {
    async fn check(self: &Arc<Self>, asked: Asked) {
        let Asked {
            group,
            network,
            repair,
            run,
        } = asked;
        let started = self.clock.instant();
        let stop = Stop::at(Deadline::after(
            Arc::clone(&self.clock),
            Duration::from_millis(limits::CHECK_MS_MAX),
        ));
        let _stopped = StopOnDrop(stop.clone());
        let mut outcome = match Box::pin(self.check_and_repair(&asked, &stop)).await {
            Ok((checked, repaired)) => outcome_of(checked, repaired),
            Err(why) => CheckOutcome {
                failed: Some(why),
                ..CheckOutcome::default()
            },
        };
        let took = self.clock.instant().duration_since(started);
        outcome.run = run;
        outcome.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        outcome.ended_at_ms = self.clock.unix_ms();
        self.check_ended(group, &network, outcome.failed.as_deref());
        if let Some(failed) = &outcome.failed {
            tracing::warn!(%group, %network, failed, "the check of a store was not finished");
        } else if outcome.is_clean() {
            tracing::info!(%group, %network, objects = outcome.objects, repaired = outcome.repaired.len(), "a store was checked and is whole");
        } else {
            for problem in &outcome.problems {
                let (pack, object, text) = (&problem.pack, &problem.object, &problem.text);
                tracing::error!(%group, %network, ?pack, ?object, text, repair, "a store is damaged");
            }
        }
        self.keep(network, outcome.clone()).await;
        self.checks.end(network, outcome);
    }

    /// For requests after a restart. The file is removed with the store.
    async fn keep(&self, network: NetworkId, outcome: CheckOutcome) {
        let dir = self.objects().network_dir(&network);
        let kept = self
            .work_of_maintenance
            .blocking("keep check", move || last_check::write(&dir, &outcome));
        if let Err(error) = kept.await.and_then(|kept| kept)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%network, %error, "what a check found is forgotten at the next start");
        }
    }

    /// The state of the check of a network's store. If none ended since the start, with the
    /// findings of the last one before it.
    pub(crate) async fn check_of(&self, network: &NetworkId) -> ReplicaCheck {
        let node = self.cluster.node();
        let looked = self.checks.look(node, network);
        if looked.last.is_some() {
            return looked;
        }
        let dir = self.objects().network_dir(network);
        let reading = self
            .work
            .blocking("last check", move || last_check::read(&dir));
        match reading.await.and_then(|read| read) {
            Ok(Some(outcome)) => self.checks.recall(*network, outcome),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%network, %error, "what the last check found cannot be read");
            }
        }
        self.checks.look(node, network)
    }

    /// Raises the conditions of checks that an earlier process did not finish: conditions are in
    /// memory only.
    async fn recall_unfinished(&self) {
        for group in self.cluster.local_groups() {
            let Some(at) = self.cluster.state(group).filter(|_| !group.is_meta()) else {
                continue;
            };
            let objects = self.objects().clone();
            let reading = self.work_of_maintenance.blocking("last checks", move || {
                let networks = ShardView::new(&at.state).networks().into_iter();
                let failed = networks.filter_map(|network| {
                    let last = last_check::read(&objects.network_dir(&network));
                    let last = last.inspect_err(|error| {
                        tracing::warn!(%network, %error, "what the last check found cannot be read");
                    });
                    Some((network, last.ok()??.failed?))
                });
                failed.collect::<Vec<_>>()
            });
            match reading.await {
                Ok(failed) => {
                    for (network, why) in failed {
                        self.check_ended(group, &network, Some(&why));
                    }
                }
                Err(error) => {
                    tracing::warn!(%group, %error, "what the last checks found is not known");
                }
            }
        }
    }

    /// Checks the store; after a repair, once more.
    async fn check_and_repair(
        self: &Arc<Self>,
        asked: &Asked,
        stop: &Stop,
    ) -> Result<(Checked, Vec<String>), String> {
        let (group, network) = (asked.group, asked.network);
        let mut checked = self.check_store(group, network, stop).await?;
        let mut repaired = Vec::new();
        if !asked.repair {
            // Parks the network: reads are passed to other replicas, and the fetcher requests the
            // damaged packs.
            self.check_found(group, network, &checked.damaged);
        }
        if !asked.repair || checked.damaged.is_empty() {
            return Ok((checked, repaired));
        }
        let mut not_repaired = Vec::new();
        let total = checked.damaged.len() as u64;
        for (done, pack) in (0..).zip(checked.damaged) {
            self.checks.tell(CheckProgress {
                stage: "repair".to_owned(),
                done,
                total: Some(total),
            });
            match self.fetch_again(group, network, pack).await {
                Ok(()) => repaired.push(pack.to_string()),
                Err(why) => not_repaired.push(CheckProblem {
                    pack: Some(pack.to_string()),
                    object: None,
                    text: format!("the pack could not be repaired: {why}"),
                }),
            }
        }
        // Readers open the new files from now on.
        self.close(&network);
        checked = self.check_store(group, network, stop).await?;
        not_repaired.append(&mut checked.problems);
        checked.problems = not_repaired;
        Ok((checked, repaired))
    }

    /// Replaces a damaged pack by an intact copy of another replica.
    async fn fetch_again(
        self: &Arc<Self>,
        group: GroupId,
        network: NetworkId,
        pack: PackId,
    ) -> Result<(), String> {
        let missing = Missing {
            group,
            network,
            pack,
        };
        let fetched = self.fetch_from_anybody(missing, InPlaceOf::Damaged).await;
        fetched.map_err(|error| error.to_string())?;
        tracing::warn!(%group, %network, %pack, "a damaged pack was replaced by another replica's");
        let named = self.cluster.view(group).is_some_and(|view| {
            view.with(|state, _| ShardView::new(state).pack(&network, &pack).is_some())
        });
        if !named {
            // Replaced by another pack while it was being fetched.
            let retired = Retired {
                group,
                by: None,
                after: self.effects.reached(group).max(LogIndex::new(1)),
            };
            self.effects.retiring().note(network, pack, retired);
        }
        Ok(())
    }

    async fn check_store(
        self: &Arc<Self>,
        group: GroupId,
        network: NetworkId,
        stop: &Stop,
    ) -> Result<Checked, String> {
        // Before the state is read: a store that has no reader afterwards belongs to no live
        // repository.
        let reading = self.effects.readers().enter(network);
        let barrier = self.cluster.read_barrier(group, QUORUM_WAIT).await;
        barrier.map_err(|error| error.to_string())?;
        let at = self.cluster.state(group);
        let at = at.ok_or("the node has no replica of the shard any more")?;
        let view = ShardView::new(&at.state);
        if !view.network_is_live(&network) {
            return Err("the repository was deleted".to_owned());
        }
        let manifest: BTreeSet<_> = view.packs(&network).map(|record| record.pack).collect();
        let tips = self.tips(group, network);
        let repo = view.any_repo_of(&network);
        let format = repo.map(|repo| repo.object_format).unwrap_or_default();
        let (inner, stop) = (Arc::clone(self), stop.clone());
        let checking = self.work_of_maintenance.blocking("check store", move || {
            let report = inner.fsck(&network, format, &tips, &stop);
            drop(reading);
            report.map(|report| inner.judge(&network, &manifest, report))
        });
        let checked = checking.await.map_err(|error| error.to_string())?;
        checked.map_err(|error| error.to_string())
    }

    fn fsck(
        &self,
        network: &NetworkId,
        format: ObjectFormat,
        tips: &[ObjectId],
        stop: &Stop,
    ) -> Result<FsckReport, henge_git::fsck::FsckError> {
        let objects = self.objects().objects_dir(network);
        let mut tell = |progress: FsckProgress| {
            let stage = match progress.stage {
                Stage::Packs => "packs",
                Stage::Loose => "loose",
                Stage::Connectivity => "connectivity",
            };
            self.checks.tell(CheckProgress {
                stage: stage.to_owned(),
                done: progress.objects,
                total: progress.total,
            });
        };
        fsck(&objects, format, tips, stop, &mut tell)
    }

    /// Sorts the findings by the manifest of the replica: damaged packs and problems.
    fn judge(
        &self,
        network: &NetworkId,
        manifest: &BTreeSet<PackId>,
        report: FsckReport,
    ) -> Checked {
        let mut damaged = BTreeSet::new();
        let mut problems = Vec::new();
        for pack in manifest {
            if !self.objects().has_pack(network, pack) {
                damaged.insert(*pack);
                problems.push(CheckProblem {
                    pack: Some(pack.to_string()),
                    object: None,
                    text: "the pack is not here".to_owned(),
                });
            }
        }
        for finding in &report.findings {
            let pack = path_of(finding).and_then(pack_of);
            let named = pack.filter(|pack| manifest.contains(pack));
            // A replaced pack may be removed while the others are read.
            let went = named.is_none() && path_of(finding).is_some_and(|path| !path.is_file());
            if went && pack.is_some() {
                continue;
            }
            damaged.extend(named);
            problems.push(CheckProblem {
                pack: pack.map(|pack| pack.to_string()),
                object: object_of(finding).map(|id| id.to_string()),
                text: text_of(finding, self.objects().objects_dir(network).as_path()),
            });
        }
        Checked {
            report,
            damaged,
            problems,
        }
    }
}

fn outcome_of(checked: Checked, repaired: Vec<String>) -> CheckOutcome {
    let Checked {
        report,
        damaged: _,
        mut problems,
    } = checked;
    let named = problems.len();
    problems.truncate(limits::CHECK_PROBLEMS_MAX);
    let unnamed = u64::try_from(named - problems.len()).unwrap_or(u64::MAX);
    CheckOutcome {
        packs: report.packs,
        objects: report.packed.saturating_add(report.loose),
        reachable: report.reachable,
        unreachable: report.unreachable,
        more_problems: report.more_findings.saturating_add(unnamed),
        problems,
        repaired,
        ..CheckOutcome::default()
    }
}

/// The result for a replica that did not answer.
pub(crate) fn not_asked(node: NodeId, why: &io::Error) -> ReplicaCheck {
    ReplicaCheck {
        node,
        state: CompactionState::Idle,
        run: 0,
        progress: None,
        last: None,
        failed: Some(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(byte: u8) -> NetworkId {
        NetworkId::from_bytes([byte; 16])
    }

    #[test]
    fn what_is_asked_for_while_it_runs_runs_once_more() {
        let checks = Checks::default();
        let node = NodeId::new(1);
        let ask = |byte, repair, now_ms| {
            assert!(checks.ask((GroupId::new(1), network(byte)), repair, now_ms));
            checks.look(node, &network(byte)).run
        };
        let first = ask(1, false, 1000);
        assert_eq!(first, 1000);
        let begun = checks.begin().unwrap();
        assert_eq!((begun.run, begun.repair), (1000, false));
        // The clock stepped back.
        let second = ask(1, true, 5);
        assert_eq!(second, 1001);
        assert_eq!(
            checks.look(node, &network(1)).state,
            CompactionState::Running
        );
        let outcome = CheckOutcome {
            run: begun.run,
            ..CheckOutcome::default()
        };
        checks.end(network(1), outcome);
        let looked = checks.look(node, &network(1));
        assert_eq!(
            (looked.state, looked.run),
            (CompactionState::Queued, second)
        );
        assert_eq!(looked.last.unwrap().run, first);
        let begun = checks.begin().unwrap();
        assert_eq!((begun.run, begun.repair), (second, true));
        assert!(checks.begin().is_none());
    }

    #[test]
    fn no_more_wait_than_may() {
        let checks = Checks::default();
        let ask = |number: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            checks.ask(
                (GroupId::new(1), NetworkId::from_bytes(bytes)),
                false,
                number as u64,
            )
        };
        assert!((0..limits::CHECKS_ASKED_MAX).all(ask));
        assert!(!ask(limits::CHECKS_ASKED_MAX));
        assert!(ask(0), "it waits already");
    }
}
