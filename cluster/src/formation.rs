//! How groups come to be: a founder begins the meta group (`begin`), its leader writes the members
//! and the placement of the shards, and every node then runs the groups that this table assigns to
//! it. A node whose `configuration` names another cluster ends.
//!
//! The placement is decided once: nodes follow the table in the meta group's state and never
//! compute it again.
//!
//! Before that leader writes, it asks all founders for their release. If every founder reports that
//! it knows this release, the cluster begins at its release level ([`crate::levels`]). If a founder
//! is older or silent, the cluster begins at the first level, because an older node would stop at
//! entries of a newer one.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use henge_runtime::tasks::OnPanic;
use henge_state::{MetaView, State};
use henge_storage::kv::{Kv, SledKv};
use henge_storage::wal::GroupLog;
use henge_types::command::VERSION_KNOWN;
use henge_types::health::group_name;
use henge_types::{Command, ConditionKind, GroupId, LogIndex, MetaCommand, NodeId};
use openraft::Config;

use crate::cluster::Cluster;
use crate::effects::StartedFrom;
use crate::group::Group;
use crate::levels::LevelError;
use crate::log_store::LogStore;
use crate::logged::LoggedEntries;
use crate::machine::{Machine, View};
use crate::network::Clients;
use crate::placement;
use crate::raft::{Position, Raft};
use crate::server::quiet_until;
use crate::start_error::StartError;

mod begin;
pub(crate) mod configuration;
mod lost_state;

/// Time-out of the proposal that forms the cluster; it is retried after that.
const FORM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the formation of a cluster waits for founders that have not reported their release.
const FOUNDERS_WAIT: Duration = Duration::from_secs(2);
/// Delay before a retry of a group that could not start.
const RUN_AGAIN: Duration = Duration::from_secs(5);
/// Between two checks of a meta group that is not formed yet.
const FORM_PAUSE: Duration = Duration::from_millis(25);

/// Starts groups according to the meta group's table.
pub(crate) struct Formation {
    cluster: Cluster,
    raft: Arc<Config>,
    kv: Arc<SledKv>,
    /// Whether the log already has the warning that the configuration's addresses differ from the
    /// cluster's.
    told_addresses: AtomicBool,
}

impl Formation {
    /// Starts the meta group and every shard that the table already assigns to this node; follows
    /// the table from then on.
    ///
    /// # Errors
    /// When a group cannot start.
    pub(crate) async fn start(
        cluster: &Cluster,
        raft: Arc<Config>,
        kv: Arc<SledKv>,
    ) -> Result<(), StartError> {
        let formation = Arc::new(Self {
            cluster: cluster.clone(),
            raft,
            kv,
            told_addresses: AtomicBool::new(false),
        });
        let founders: Vec<NodeId> = cluster
            .shared
            .config
            .founders
            .iter()
            .map(|node| node.node)
            .collect();
        formation.run_group(GroupId::META, &founders, 1).await?;
        // A shard that cannot start does not block the others: it is retried.
        formation.follow_table().await.ok();
        let scope = cluster.shared.scope.clone();
        let reviving = Arc::clone(&formation).revive();
        scope.spawn("formation", OnPanic::EndProcess, formation.follow());
        scope.spawn("ended groups", OnPanic::EndProcess, reviving);
        Ok(())
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    async fn follow(self: Arc<Self>) {
        let Some(mut applied) = self.cluster.meta_applied() else {
            return;
        };
        let mut led_since = None;
        loop {
            let all_run = self.follow_table().await.is_ok();
            let formed = self.cluster.is_formed();
            if formed && !all_run {
                if let Ok(Err(_)) = tokio::time::timeout(RUN_AGAIN, applied.changed()).await {
                    return;
                }
            } else if formed {
                if applied.changed().await.is_err() {
                    return;
                }
            } else {
                if self.may_form(&mut led_since).await {
                    self.form().await;
                }
                // A leader may be elected without an applied entry.
                if let Ok(Err(_)) = tokio::time::timeout(FORM_PAUSE, applied.changed()).await {
                    return;
                }
            }
        }
    }

    fn meta<T>(&self, look: impl FnOnce(MetaView<'_, State>) -> T) -> Option<T> {
        let view = self.cluster.view(GroupId::META)?;
        Some(view.with(|state, _| look(MetaView::new(state))))
    }

    /// Takes over the members, and runs every assigned group that does not run yet.
    async fn follow_table(&self) -> Result<(), StartError> {
        let Some((nodes, placements)) = self.meta(|meta| {
            (
                meta.nodes().collect::<Vec<_>>(),
                meta.placements().collect::<Vec<_>>(),
            )
        }) else {
            return Ok(());
        };
        if !nodes.is_empty() {
            self.check_configuration(&nodes);
            self.cluster.members().replace(nodes);
        }
        self.cluster.follow_starts();
        let own = self.cluster.node();
        let mut failed = None;
        let mine: Vec<_> = placements
            .iter()
            .filter(|placement| placement.replicas.contains(&own))
            .collect();
        let (conditions, missing) = (self.cluster.conditions(), ConditionKind::ReplicaMissing);
        for placement in &mine {
            if self.cluster.groups().closing().is_cancelled() {
                return Ok(());
            }
            if self.cluster.groups().get(placement.group).is_err() {
                let of = mine.len() + 1;
                let run = self
                    .run_group(placement.group, &placement.replicas, of)
                    .await;
                let subject = group_name(placement.group);
                if let Err(error) = run {
                    tracing::error!(group = %placement.group, %error, "a group does not run on this node");
                    conditions.raise(missing, subject, error.to_string());
                    failed = Some(error);
                } else {
                    conditions.clear(missing, &subject);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether this node leads the meta group and the formation need not wait. The wait ends when
    /// the meta group is at this release's level, or after [`FOUNDERS_WAIT`].
    async fn may_form(&self, led_since: &mut Option<Instant>) -> bool {
        if self.cluster.leadership(GroupId::META).is_none() {
            *led_since = None;
            return false;
        }
        let now = self.cluster.clock().instant();
        let waited = now.duration_since(*led_since.get_or_insert(now));
        let raised = self
            .cluster
            .raise_level(GroupId::META, VERSION_KNOWN, FORM_TIMEOUT)
            .await;
        match raised {
            Ok(()) => true,
            Err(LevelError::OtherRelease(_)) if waited < FOUNDERS_WAIT => false,
            Err(LevelError::OtherRelease(node)) => {
                tracing::info!(%node, "a founder runs an older release or is silent: the cluster begins without what is new");
                true
            }
            Err(LevelError::Propose(error)) => {
                tracing::debug!(%error, "the meta group is not at this release's level yet");
                false
            }
        }
    }

    async fn form(&self) {
        let config = &self.cluster.shared.config;
        let nodes: Vec<NodeId> = config.founders.iter().map(|node| node.node).collect();
        let replication = usize::try_from(config.replication).unwrap_or(usize::MAX);
        let command = Command::Meta(MetaCommand::FormCluster {
            cluster: config.identity.cluster,
            replication: config.replication,
            nodes: config.founders.clone(),
            placements: placement::propose(&nodes, config.shards, replication),
        });
        match self
            .cluster
            .propose(GroupId::META, command, None, FORM_TIMEOUT)
            .await
        {
            Ok(applied) => tracing::info!(index = %applied.index, "cluster formed"),
            Err(error) => tracing::debug!(%error, "the cluster is not formed yet"),
        }
    }

    /// Runs a group, one of `of` groups that this node should run.
    async fn run_group(
        &self,
        group: GroupId,
        replicas: &[NodeId],
        of: usize,
    ) -> Result<(), StartError> {
        let shared = &self.cluster.shared;
        let log = shared.wal.group(group);
        let had_log = log.vote.is_some() || log.last_index.is_some();
        let (state, position) = self.believed(group, &log).await?;
        let taken = self.reach_log(group, replicas, &position).await?;
        let (machine, view) = Machine::new(group, state, position, shared.deps.clone());
        let opened = shared.groups.all().len();
        let last = log.last_index.unwrap_or(0).saturating_sub(1);
        shared
            .progress
            .group(group, (opened, of), view.applied(), last);
        let replica = self
            .run_core(group, (machine, view), had_log, taken)
            .await?;
        if taken.is_some() {
            self.settle_taken(group, replica.view.now().state).await;
        }
        if !had_log {
            let begun = self.begin(group, &replica.raft, replicas).await;
            begun.map_err(|reason| StartError::Group { group, reason })?;
        }
        shared.groups.insert(replica);
        Ok(())
    }

    /// Starts openraft on a group's log and machine. Packs named after `taken` may not be durable,
    /// even where the snapshot covers them: it is another replica's snapshot.
    ///
    /// # Errors
    /// When openraft refuses the log or the state.
    pub(crate) async fn run_core(
        &self,
        group: GroupId,
        (machine, view): (Machine, View),
        had_log: bool,
        taken: Option<LogIndex>,
    ) -> Result<Group, StartError> {
        let shared = &self.cluster.shared;
        let own = self.cluster.node();
        let clients = Clients::new(
            own,
            group,
            (shared.peers.clone(), shared.bulk.clone()),
            (shared.starts.clone(), shared.followed.clone()),
        );
        let store = LogStore::new(group, shared.wal.clone());
        let newest = self.newest_snapshot(group).await?;
        let snapshot = taken.map_or(newest, |taken| taken.min(newest));
        let effects = &shared.deps.effects;
        effects.replay_begins(group, LoggedEntries::new(shared.wal.clone()));
        let raft = Raft::new(own.get(), Arc::clone(&self.raft), clients, store, machine).await;
        let raft = raft.map_err(|error| StartError::Group {
            group,
            reason: error.to_string(),
        })?;
        let quiet_until = quiet_until(
            shared.clock.as_ref(),
            had_log,
            shared.config.timings.lease_max(),
        );
        // Nothing is applied meanwhile: this replica is in no group's registry yet and does not
        // stand for election.
        raft.runtime_config().elect(false);
        self.replay_ends(group, &view, snapshot).await?;
        self.stay_quiet(&raft, quiet_until);
        Ok(Group {
            id: group,
            raft,
            view,
            quiet_until,
        })
    }

    /// Ends the replay: a group is served and snapshotted only after the packs of its state are
    /// here or known to be missing.
    async fn replay_ends(
        &self,
        group: GroupId,
        view: &View,
        snapshot: LogIndex,
    ) -> Result<(), StartError> {
        let effects = Arc::clone(&self.cluster.shared.deps.effects);
        let at = view.now();
        let from = StartedFrom {
            applied: at.applied,
            snapshot,
        };
        let scope = &self.cluster.shared.scope;
        let ended = scope.blocking("look for packs", move || {
            effects.started(group, &at.state, from);
        });
        ended.await.map_err(StartError::io("cannot look for packs"))
    }

    /// The last entry that a group's newest snapshot covers; 0 without one.
    async fn newest_snapshot(&self, group: GroupId) -> Result<LogIndex, StartError> {
        let snapshots = self.cluster.shared.deps.snapshots.clone();
        let scope = &self.cluster.shared.scope;
        let newest = scope.blocking("find snapshot", move || match snapshots.latest(group)? {
            Some(file) => Ok(decode_position(group, &file.meta)?.index()),
            None => Ok(0),
        });
        let newest = newest
            .await
            .map_err(StartError::io("cannot look for a snapshot"))?;
        newest.map(LogIndex::new)
    }

    /// Disables this replica's elections until the leases that it may have granted before have
    /// expired. They stay disabled while a moved data directory is not confirmed.
    fn stay_quiet(&self, raft: &Raft, until: Option<Instant>) {
        let mut moved = self.cluster.shared.starts.moved();
        if until.is_none() && !*moved.borrow() {
            raft.runtime_config().elect(true);
            return;
        }
        raft.runtime_config().elect(false);
        let raft = raft.clone();
        self.cluster
            .shared
            .scope
            .spawn("quiet", OnPanic::EndProcess, async move {
                if let Some(until) = until {
                    tokio::time::sleep_until(until.into()).await;
                }
                if moved.wait_for(|moved| !moved).await.is_ok() {
                    raft.runtime_config().elect(true);
                }
            });
    }

    /// The kv's state of a group after a clean shutdown, unless it is ahead of the log and of the
    /// snapshot: openraft would adopt it and vote with a log that it does not have.
    async fn believed(
        &self,
        group: GroupId,
        log: &GroupLog,
    ) -> Result<(State, Position), StartError> {
        let (kv, snapshots) = (
            Arc::clone(&self.kv),
            self.cluster.shared.deps.snapshots.clone(),
        );
        let log_end = log.last_index;
        let loading = self.cluster.shared.scope.blocking("load state", move || {
            let Some((pairs, position)) = readable(kv.as_ref(), group) else {
                return Ok((State::empty(), Position::default()));
            };
            let snapshot = snapshots.latest(group)?;
            let snapshot_end = match snapshot {
                Some(file) => Some(decode_position(group, &file.meta)?.index()),
                None => None,
            };
            let proven = log_end.map(|slot| slot.saturating_sub(1)).max(snapshot_end);
            if position.applied.is_some() && proven.is_none_or(|proven| position.index() > proven) {
                tracing::warn!(%group, applied = position.index(), ?proven, "the kv is ahead of the log: it is built again from snapshot and log");
                wipe(kv.as_ref(), group);
                return Ok((State::empty(), Position::default()));
            }
            let state = State::from_pairs(pairs);
            henge_state::check_version(&state).map_err(|error| StartError::Group {
                group,
                reason: error.to_string(),
            })?;
            Ok((state, position))
        });
        loading
            .await
            .map_err(StartError::io("cannot load the state"))?
    }
}

/// The kv's image of a group, if it is readable. An unreadable one is rebuilt from snapshot and
/// log, as after a kill.
fn readable(kv: &dyn Kv, group: GroupId) -> Option<(Vec<(Bytes, Bytes)>, Position)> {
    match kv.load(group) {
        Ok(None) => None,
        Ok(Some(image)) => match Position::decode(&image.meta) {
            Ok(position) => Some((image.pairs, position)),
            Err(error) => {
                tracing::warn!(%group, %error, "the kv's position of a group cannot be read: it is built again");
                wipe(kv, group);
                None
            }
        },
        Err(error) => {
            tracing::warn!(%group, %error, "the kv of a group cannot be read: it is built again");
            wipe(kv, group);
            None
        }
    }
}

/// Removes a group from the kv. If that fails, the next start does not trust the kv either.
fn wipe(kv: &dyn Kv, group: GroupId) {
    if let Err(error) = kv.wipe(group) {
        tracing::warn!(%group, %error, "the kv is not written to until the next start, which builds it again");
    }
}

fn decode_position(group: GroupId, bytes: &Bytes) -> Result<Position, StartError> {
    Position::decode(bytes).map_err(|error| StartError::Group {
        group,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_storage::kv::{GroupImage, KvError, MemoryKv};

    /// A store whose files were damaged while the node was stopped.
    #[derive(Debug)]
    struct Damaged;

    impl Kv for Damaged {
        fn load(&self, _: GroupId) -> Result<Option<GroupImage>, KvError> {
            Err(KvError::Broken)
        }

        fn commit(
            &self,
            _: GroupId,
            _: Bytes,
            _: &[(Bytes, Option<Bytes>)],
        ) -> Result<(), KvError> {
            Err(KvError::Broken)
        }

        fn replace(
            &self,
            _: GroupId,
            _: Bytes,
            _: &mut dyn Iterator<Item = (Bytes, Bytes)>,
        ) -> Result<(), KvError> {
            Err(KvError::Broken)
        }

        fn wipe(&self, _: GroupId) -> Result<(), KvError> {
            Err(KvError::Broken)
        }

        fn close_clean(&self) -> Result<(), KvError> {
            Err(KvError::Broken)
        }
    }

    /// An unreadable pair kept its shard off the node over every restart, until the node was
    /// killed: only then was the kv rebuilt.
    #[test]
    fn what_the_kv_cannot_read_is_built_again() {
        let group = GroupId::new(1);
        assert!(readable(&Damaged, group).is_none());
        let kv = MemoryKv::new();
        assert!(readable(&kv, group).is_none(), "nothing yet");
        let writes = [(Bytes::from("key"), Some(Bytes::from("value")))];
        let position = Position::default();
        kv.commit(group, position.encode(), &writes).unwrap();
        let (pairs, found) = readable(&kv, group).unwrap();
        assert_eq!((pairs.len(), found), (1, position));
        kv.commit(group, Bytes::from("no position"), &writes)
            .unwrap();
        assert!(readable(&kv, group).is_none());
        assert_eq!(kv.load(group).unwrap(), None, "wiped");
    }
}
