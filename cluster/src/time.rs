//! The time of groups: the stamps of proposals, and larger steps of a group's own time.

use std::time::Duration;

use henge_state::{request_generation, time_ms, wants_tending};
use henge_types::limits::{CLOCK_SKEW_MS_MAX, TIME_STEP_MS_MAX};
use henge_types::status::{NodeClock, NodeReport};
use henge_types::{Command, ConditionKind, GroupId, NodeId, NodeRecord};

use crate::clocks::{ClockState, Moment, Reading};
use crate::cluster::Cluster;
use crate::group::Group;
use crate::metrics;

/// Time-out of one step of a group's time; it is retried.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// The subject of the condition of a wrong clock.
const CLOCK: &str = "clock";
/// How far a group's time may be ahead of its leader's clock, milliseconds: two right clocks never
/// differ by more.
const AHEAD_MS_MAX: u64 = 2 * CLOCK_SKEW_MS_MAX;

/// The results of the last judgements of this node's clock.
#[derive(Debug, Default)]
pub(crate) struct ClockSeen {
    /// The last reading showed a wrong clock.
    was_wrong: bool,
    /// The node leads no group and stands for no election.
    stepped_aside: bool,
}

impl Cluster {
    /// The state of this node's clock relative to the other members'.
    pub fn clock_state(&self) -> ClockState {
        self.shared.clocks.judge().0
    }

    /// The time of a group for its leader's own work: when mirrors are due, how old marks and
    /// former tips are. Milliseconds since the Unix epoch; never behind the group's own time.
    pub fn now_ms(&self, group: GroupId) -> u64 {
        let corrected = self.shared.clocks.corrected_ms();
        let last = self
            .view(group)
            .and_then(|view| view.with(|state, _| time_ms(state)));
        last.map_or(corrected, |last| last.max(corrected))
    }

    /// A lower bound of the time of the entries that this leader proposes from now on, milliseconds
    /// since the Unix epoch. The time of an idle group is first moved up to the clocks. `None`
    /// while this node's clock must not be used.
    ///
    /// [`Self::now_ms`] may be later by more than one entry moves the time, while no clock is known
    /// to be right.
    pub async fn entry_time_ms(&self, group: GroupId, deadline: Duration) -> Option<u64> {
        self.keep_time(group, deadline).await;
        let replica = self.groups().get(group).ok()?;
        let stamp = self.stamp(&replica).await?;
        let last = replica.view.with(|state, _| time_ms(state));
        Some(last.map_or(stamp, |last| {
            stamp.clamp(last, last.saturating_add(TIME_STEP_MS_MAX))
        }))
    }

    /// Whether a group keeps its own time.
    pub fn keeps_time(&self, group: GroupId) -> bool {
        let view = self.view(group);
        view.is_some_and(|view| view.with(|state, _| time_ms(state).is_some()))
    }

    /// The stamp of a proposal to a group; `None` while this node's clock must not be used.
    pub(crate) async fn stamp(&self, group: &Group) -> Option<u64> {
        self.read_if_set().await;
        let own = self.clock().unix_ms();
        match self.shared.clocks.judge().0 {
            ClockState::Right => Some(own),
            // The group's time stands still until a clock is known to be right.
            ClockState::Undecided { .. } => {
                Some(group.view.with(|state, _| time_ms(state)).unwrap_or(own))
            }
            ClockState::Unknown | ClockState::Wrong { .. } => None,
        }
    }

    /// Reads the members' clocks again if this node's was set since: the earlier readings are void
    /// then.
    async fn read_if_set(&self) {
        if self.shared.clocks.was_set() {
            drop(Box::pin(self.status()).await);
        }
    }

    /// Moves a group's time before a proposal if one entry could not: the group was idle for longer
    /// than an entry moves the time.
    pub(crate) async fn keep_time(&self, group: GroupId, deadline: Duration) {
        let own = self.clock().unix_ms();
        let rested = |last: u64| own > last.saturating_add(TIME_STEP_MS_MAX);
        let last = self
            .view(group)
            .and_then(|view| view.with(|state, _| time_ms(state)));
        if last.is_some_and(rested) {
            self.read_if_set().await;
            self.move_time(group, deadline).await;
        }
    }

    /// Maintains the time of the groups that this node leads. A time ahead of the clocks is moved
    /// back. Records of an earlier release are returned by the groups that keep them.
    pub(crate) async fn tend_time(&self) {
        for group in self.local_groups() {
            let Some(view) = self
                .view(group)
                .filter(|_| self.leadership(group).is_some())
            else {
                continue;
            };
            let own = self.clock().unix_ms();
            let is_due = view.with(|state, _| {
                let ahead = |last: u64| last > own.saturating_add(AHEAD_MS_MAX);
                time_ms(state).is_some_and(ahead) || wants_tending(state, own)
            });
            if is_due {
                self.move_time(group, STEP_TIMEOUT).await;
            }
        }
    }

    async fn move_time(&self, group: GroupId, deadline: Duration) {
        let Some(leadership) = self.leadership(group) else {
            return;
        };
        // Of clocks that are far apart none is known to be right.
        if self.clock_state() != ClockState::Right {
            return;
        }
        let Some(clocks) = self.shared.clocks.majority(&leadership.voters) else {
            return;
        };
        let command = Command::MoveTime { clocks };
        match self.write(group, command, None, deadline).await {
            Ok(applied) => {
                tracing::debug!(%group, index = %applied.index, "the group's time was moved by the clocks of a majority");
            }
            Err(error) => tracing::debug!(%group, %error, "the group's time was not moved"),
        }
    }

    /// The generation of request records for a new id of a group: the higher one of the replica
    /// here and of the members' last reports.
    pub(crate) fn request_generation(&self, group: GroupId) -> Option<u64> {
        // A stopped or lagging replica knows an older generation than its peers.
        let heard = self.shared.heard_generations().get(&group).copied();
        let own = self
            .view(group)
            .and_then(|view| view.with(|state, _| request_generation(state)));
        own.max(heard)
    }

    /// This node's report of its clock.
    pub(crate) fn clock_report(&self) -> NodeClock {
        let (state, ahead_ms) = self.shared.clocks.judge();
        NodeClock {
            ahead_ms,
            fault: state.fault(),
        }
    }

    /// Hands over the groups that this node leads, and stands for no election, for as long as its
    /// clock is wrong.
    ///
    /// Two wrong readings in a row are required: one may have been in progress while a clock was
    /// set.
    pub(crate) async fn mind_clock(&self, seen: &mut ClockSeen) {
        let (state, ahead_ms) = self.shared.clocks.judge();
        metrics::clock_skew(ahead_ms);
        let conditions = self.conditions();
        match state.fault() {
            Some(fault) => conditions.raise(ConditionKind::ClockSkew, CLOCK, fault),
            None => conditions.clear(ConditionKind::ClockSkew, CLOCK),
        }
        let is_wrong = matches!(state, ClockState::Wrong { .. });
        let wrong = is_wrong && seen.was_wrong;
        seen.was_wrong = is_wrong;
        if wrong != seen.stepped_aside {
            match state.fault() {
                Some(fault) => tracing::error!(ahead_ms, "{fault}"),
                None => tracing::info!(ahead_ms, "this node's clock is right again"),
            }
        }
        if !wrong && !seen.stepped_aside {
            return;
        }
        seen.stepped_aside = wrong;
        let now = self.clock().instant();
        let groups = self.groups().all();
        for group in &groups {
            let quiet = group.quiet_until.is_some_and(|until| now < until);
            let config = group.raft.runtime_config();
            // A node with a moved data directory stands for no election before it is confirmed.
            let is_moved = *self.shared.starts.moved().borrow();
            config.elect(!wrong && !quiet && !is_moved);
            config.heartbeat(true);
        }
        if !wrong {
            return;
        }
        let handovers = groups.iter().map(|group| self.step_aside(group));
        futures::future::join_all(handovers).await;
    }

    /// Hands the group over to another voter. If none takes it over, heartbeats stop and the others
    /// elect one.
    async fn step_aside(&self, group: &Group) {
        let right = |node: u64| self.shared.clocks.is_right(NodeId::new(node));
        self.hand_over(group, right).await;
        if self.leadership(group.id).is_some() {
            group.raft.runtime_config().heartbeat(false);
        }
    }

    /// The moment of a request to a member.
    pub(crate) fn asked_now(&self) -> Moment {
        Moment::now(self.clock().as_ref())
    }

    /// Records the clocks in the members' responses.
    pub(crate) fn heard_clocks(
        &self,
        members: &[NodeRecord],
        answers: &[Option<(NodeReport, Option<Reading>)>],
    ) {
        let others = members.iter().zip(answers);
        let others = others.filter(|(member, _)| member.node != self.node());
        let heard: Vec<_> = others
            .filter_map(|(member, answer)| Some((member.node, answer.as_ref()?.1)))
            .collect();
        let is_other = |member: &&NodeRecord| member.node != self.node();
        let others = members.iter().filter(is_other).count();
        let count = heard.len();
        let readings = heard.into_iter();
        let readings = readings.filter_map(|(node, reading)| Some((node, reading?)));
        self.shared.clocks.heard(others, count, readings.collect());
    }
}
