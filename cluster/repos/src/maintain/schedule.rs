//! Scheduled pruning.
//!
//! The schedule is the network's mark in the state of its shard: its time by the clock of the
//! entry, the tips that refs lost since, and whether there may be unreachable objects. A new leader
//! continues the schedule of the old one. A network without lost tips is not walked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::{LeaderTask, LeaderTerm, Next, Step, TaskGroups, View, Wakes};
use henge_git::history_holds;
use henge_state::ShardView;
use henge_types::command::VERSION_REPOS;
use henge_types::status::CompactionDepth as Depth;
use henge_types::{MarkFound, NetworkId, PruneMark};
use tokio::sync::Semaphore;

use crate::maintain::compact::{CompactError, Led, PROPOSE_WAIT, stopped_on_drop};
use crate::maintain::prune::{is_ahead, object_format};
use crate::metrics;
use crate::repos::{Inner, Repos};

/// How often a leader reads its clock, to see whether a look is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks within one interval of the schedule, so that the delay is a small part of it.
const LOOKS: u32 = 64;
/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Networks of a shard for which one look makes marks or reads the history.
const STEPS_PER_LOOK: usize = 32;

/// The schedule of pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneSchedule {
    /// Minimum interval between two steps for a network.
    pub every: Duration,
    /// How long objects must have been unreachable before they are dropped.
    pub grace: Duration,
}

/// The next step for a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PruneStep {
    /// Nothing yet.
    Wait,
    /// A new mark is needed. It replaces one that is full, or whose clock was wrong.
    Mark,
    /// The history has to be searched: the lost tips may still be reachable.
    Look,
    /// Objects that have been unreachable since the mark can be dropped.
    Drop,
}

impl PruneSchedule {
    fn step(&self, mark: Option<&PruneMark>, now_ms: u64) -> PruneStep {
        let Some(mark) = mark.filter(|mark| !is_ahead(mark, now_ms)) else {
            return PruneStep::Mark;
        };
        let age_ms = now_ms.saturating_sub(mark.at_ms);
        if age_ms < millis(self.every) {
            PruneStep::Wait
        } else if mark.is_full {
            PruneStep::Mark
        } else if mark.may_hold_unreached {
            match age_ms >= millis(self.grace) {
                true => PruneStep::Drop,
                false => PruneStep::Wait,
            }
        } else if mark.lost_tips > 0 {
            PruneStep::Look
        } else {
            PruneStep::Wait
        }
    }

    fn pause_ms(&self) -> u64 {
        millis((self.every / LOOKS).min(PAUSE_MAX))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Repos {
    /// Starts scheduled pruning in the networks of the shards that this node leads. Without it
    /// pruning runs only on request.
    pub fn start_pruning(&self, schedule: PruneSchedule) {
        let task = Pruning {
            inner: Arc::clone(&self.inner),
            schedule,
            turn: Semaphore::new(1),
        };
        let inner = &self.inner;
        inner.cluster.lead(task, Wakes::default(), &inner.scope);
    }
}

/// Runs the steps of the schedule in the shards that this node leads.
struct Pruning {
    inner: Arc<Inner>,
    schedule: PruneSchedule,
    /// One shard at a time: a look reads history, and holds stores open meanwhile.
    turn: Semaphore,
}

impl LeaderTask for Pruning {
    const NAME: &'static str = "prune schedule";
    const GROUPS: TaskGroups = TaskGroups::Shards;
    /// The time of the last look at the shard, in milliseconds since the Unix epoch.
    type State = Option<u64>;

    fn begin(&self, _term: LeaderTerm, _view: &View) -> Self::State {
        None
    }

    async fn step(&self, step: Step<'_>, looked_ms: &mut Self::State) -> Next {
        let now_ms = self.inner.clock.unix_ms();
        // A clock that was set back makes the shard due as well.
        let pause_ms = self.schedule.pause_ms();
        if looked_ms.is_none_or(|looked_ms| now_ms.abs_diff(looked_ms) >= pause_ms) {
            *looked_ms = Some(now_ms);
            let _turn = step.queued(self.turn.acquire()).await;
            let inner = &self.inner;
            let now_ms = inner.clock.unix_ms();
            inner.take_prune_steps(&self.schedule, step, now_ms).await;
        }
        Next::after(LOOK_EVERY)
    }
}

impl Inner {
    async fn take_prune_steps(
        self: &Arc<Self>,
        schedule: &PruneSchedule,
        step: Step<'_>,
        now_ms: u64,
    ) {
        let steps = self.prune_steps(schedule, step, now_ms);
        for (led, step, mark) in steps.into_iter().take(STEPS_PER_LOOK) {
            let (group, network) = (led.group, led.network);
            match Box::pin(self.take_step(schedule, led, step, mark)).await {
                Ok(()) => {}
                // Transient errors, whose causes are reported elsewhere.
                Err(
                    error @ (CompactError::NotLeader
                    | CompactError::WrongClock
                    | CompactError::Parked
                    | CompactError::Level(_)
                    | CompactError::Propose(_)),
                ) => tracing::debug!(%group, %network, %error, "the schedule of pruning waits"),
                Err(error) => {
                    tracing::warn!(%group, %network, %error, "the schedule of pruning is held up: it is tried again later");
                }
            }
        }
    }

    /// The pending steps of a shard, the oldest mark first.
    fn prune_steps(
        &self,
        schedule: &PruneSchedule,
        step: Step<'_>,
        now_ms: u64,
    ) -> Vec<(Led, PruneStep, Option<PruneMark>)> {
        let Step { term, view, .. } = step;
        let group_ms = self.cluster.now_ms(term.group);
        let mut steps = Vec::new();
        view.with(|state, _| {
            let shard = ShardView::new(state);
            for network in shard.networks() {
                let mark = shard.prune_mark(&network);
                let step = schedule.step(mark.as_ref(), group_ms);
                let has_packs = shard.packs(&network).next().is_some();
                if step != PruneStep::Wait && has_packs && !self.failed_lately(&network, now_ms) {
                    steps.push((Led::of(term, network), step, mark));
                }
            }
        });
        steps.sort_by_key(|(led, _, mark)| (mark.map_or(0, |mark| mark.at_ms), led.network));
        steps
    }

    async fn take_step(
        self: &Arc<Self>,
        schedule: &PruneSchedule,
        led: Led,
        step: PruneStep,
        mark: Option<PruneMark>,
    ) -> Result<(), CompactError> {
        let raise = self
            .cluster
            .raise_level(led.group, VERSION_REPOS, PROPOSE_WAIT);
        raise.await?;
        let instead_of = mark.map(|mark| mark.at);
        match step {
            PruneStep::Wait => Ok(()),
            PruneStep::Mark => self.mark(led, instead_of, MarkFound::Unknown).await,
            PruneStep::Look => {
                let found = self.look_for_lost(led).await?;
                self.mark(led, instead_of, found).await
            }
            PruneStep::Drop => {
                let (group, network) = (led.group, led.network);
                let grace_ms = millis(schedule.grace);
                let is_new = !self.maintenance.is_asked(&network)
                    && !self.maintenance.is_running(&network)
                    && self
                        .maintenance
                        .ask(group, network, Depth::Prune { grace_ms });
                if is_new {
                    tracing::info!(%group, %network, "what no ref reaches is to be dropped, as scheduled");
                    metrics::prune_scheduled();
                }
                Ok(())
            }
        }
    }

    /// Whether the history of the refs still contains the tips lost since the mark: a branch that
    /// only grew lost none.
    async fn look_for_lost(self: &Arc<Self>, led: Led) -> Result<MarkFound, CompactError> {
        let network = led.network;
        let _reading = self.effects.readers().enter(network);
        let at = self.latest(led.group).await?;
        if self.effects.parking().is_parked(&network) {
            return Err(CompactError::Parked);
        }
        let view = ShardView::new(&at.state);
        let repos = view.repos_of(&network);
        let tips = repos.flat_map(|repo| view.ref_texts(&repo, "").map(|(_, tip)| tip));
        let tips: Vec<_> = tips.collect();
        let lost: Vec<_> = view.lost_tips(&network).collect();
        let format = object_format(&at, &network);
        let tips_lost = u32::try_from(lost.len()).unwrap_or(u32::MAX);
        let objects = self.opened(&network, format);
        let stop = self.repack_options(format).stop;
        let until = stop.clone();
        let looking = self.work_of_maintenance.blocking("prune", move || {
            let held = history_holds(&objects, &lost, &tips, &until);
            held.map_err(|error| CompactError::Io(io::Error::other(error)))
        });
        let held = stopped_on_drop(stop, looking).await?;
        Ok(match held {
            true => MarkFound::LostTipsReached { tips: tips_lost },
            false => MarkFound::Unknown,
        })
    }

    /// Whether a compaction of the network failed less than an hour ago: the next one waits.
    fn failed_lately(&self, network: &NetworkId, now_ms: u64) -> bool {
        const REST_MS: u64 = 60 * 60 * 1000;
        let last = self.maintenance.last(network);
        last.is_some_and(|last| last.failed.is_some() && now_ms.abs_diff(last.at_ms) < REST_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::LogIndex;

    const SCHEDULE: PruneSchedule = PruneSchedule {
        every: Duration::from_millis(10),
        grace: Duration::from_millis(30),
    };

    fn mark() -> PruneMark {
        PruneMark {
            at: LogIndex::new(7),
            at_ms: 1000,
            lost_tips: 0,
            is_full: false,
            may_hold_unreached: false,
        }
    }

    fn steps(mark: PruneMark) -> [PruneStep; 4] {
        [1009, 1010, 1029, 1030].map(|now_ms| SCHEDULE.step(Some(&mark), now_ms))
    }

    #[test]
    fn what_may_be_out_of_reach_goes_after_the_grace_and_nothing_else_is_walked() {
        assert_eq!(SCHEDULE.step(None, 0), PruneStep::Mark);
        let wait = [PruneStep::Wait; 4];
        assert_eq!(steps(mark()), wait, "nothing was lost");
        let suspected = PruneMark {
            may_hold_unreached: true,
            ..mark()
        };
        let drop = [
            PruneStep::Wait,
            PruneStep::Wait,
            PruneStep::Wait,
            PruneStep::Drop,
        ];
        assert_eq!(steps(suspected), drop);
        let moved = PruneMark {
            lost_tips: 3,
            ..mark()
        };
        let look = [
            PruneStep::Wait,
            PruneStep::Look,
            PruneStep::Look,
            PruneStep::Look,
        ];
        assert_eq!(steps(moved), look);
        let full = PruneMark {
            is_full: true,
            ..suspected
        };
        let anew = [
            PruneStep::Wait,
            PruneStep::Mark,
            PruneStep::Mark,
            PruneStep::Mark,
        ];
        assert_eq!(steps(full), anew, "it can tell nothing any more");
        let often = PruneSchedule {
            every: Duration::from_millis(50),
            ..SCHEDULE
        };
        assert_eq!(often.step(Some(&suspected), 1049), PruneStep::Wait);
        assert_eq!(often.step(Some(&suspected), 1050), PruneStep::Drop);
        // A mark from a clock that is far ahead, and one from a clock slightly ahead of this one.
        let ahead = PruneMark {
            at_ms: 400 * 24 * 3_600_000,
            ..suspected
        };
        assert_eq!(SCHEDULE.step(Some(&ahead), 1030), PruneStep::Mark);
        assert_eq!(SCHEDULE.step(Some(&suspected), 5), PruneStep::Wait);
    }
}
