//! One group's replicated machine behind openraft: the pure `apply` of henge-state, its
//! copy-on-write state in memory, the kv behind it, its snapshots.
//!
//! All readers use the state in memory. The kv follows it through a queue and is trusted only after
//! a clean shutdown. Writes that a power cut removes from the kv are restored from the snapshot and
//! the log.

use std::fmt;
use std::io;
use std::sync::{Arc, RwLock};

use futures::{Stream, StreamExt};
use henge_state::{Header, State, Write};
use henge_storage::snapshots::{SnapshotFile, SnapshotStore};
use henge_types::{GroupId, LogIndex, Proposal, Reply};
use openraft::entry::RaftEntry;
use openraft::storage::{
    ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta,
};
use openraft::{EntryPayload, OptionalSend, StoredMembership};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::builds::Builds;
use crate::effects::{AppliedEntry, Effects};
use crate::kv_writer::KvWriter;
use crate::raft::{Applied, Entry, LogId, Members, Position, TypeConfig, term_of};
use crate::snapshot_file;

/// Entries applied in one step: one publication of the state, one kv batch.
const STEP_ENTRIES_MAX: usize = 256;

/// A group's state at one index.
#[derive(Debug, Clone)]
pub struct StateAt {
    /// The pairs; cloning shares them.
    pub state: State,
    /// The last applied entry; 0 before the first.
    pub applied: LogIndex,
}

#[derive(Debug)]
struct Published {
    state: State,
    position: Position,
}

/// Readers' side of a machine; clones share it.
#[derive(Clone)]
pub struct View {
    published: Arc<RwLock<Published>>,
    applied: Arc<watch::Sender<u64>>,
    /// The permit of the one machine that may publish.
    machine: Arc<Semaphore>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View(applied {})", *self.applied.borrow())
    }
}

impl View {
    /// The state now.
    pub fn now(&self) -> StateAt {
        let published = read(&self.published);
        StateAt {
            state: published.state.clone(),
            applied: LogIndex::new(published.position.index()),
        }
    }

    /// Runs `look` on the state now, without copying it.
    pub fn with<T>(&self, look: impl FnOnce(&State, LogIndex) -> T) -> T {
        let published = read(&self.published);
        look(&published.state, LogIndex::new(published.position.index()))
    }

    /// Changes with every applied step.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Another machine that continues at the position of the last one. Waits until that one is
    /// dropped.
    pub(crate) async fn next_machine(&self, group: GroupId, deps: MachineDeps) -> Machine {
        let turn = Arc::clone(&self.machine).acquire_owned().await;
        Machine {
            group,
            deps,
            view: self.clone(),
            _turn: turn.expect("invariant: the semaphore is never closed"),
        }
    }
}

fn read(published: &RwLock<Published>) -> std::sync::RwLockReadGuard<'_, Published> {
    published
        .read()
        .expect("invariant: publishing does not panic")
}

/// The dependencies of a machine.
#[derive(Clone)]
pub struct MachineDeps {
    /// The effects of applied entries on every replica.
    pub effects: Arc<dyn Effects>,
    /// Storage of the state between clean shutdowns.
    pub kv: KvWriter,
    /// Storage of the snapshots.
    pub snapshots: SnapshotStore,
    /// The states of the groups' latest snapshot builds.
    pub builds: Builds,
}

impl fmt::Debug for MachineDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineDeps").finish_non_exhaustive()
    }
}

/// The state machine of one group as openraft drives it.
pub struct Machine {
    group: GroupId,
    deps: MachineDeps,
    view: View,
    _turn: OwnedSemaphorePermit,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine that starts from `state` at `position`: the kv's after a clean shutdown, or empty
    /// ones.
    pub fn new(
        group: GroupId,
        state: State,
        position: Position,
        deps: MachineDeps,
    ) -> (Self, View) {
        let machine = Arc::new(Semaphore::new(1));
        let turn = Arc::clone(&machine).try_acquire_owned();
        let view = View {
            applied: Arc::new(watch::Sender::new(position.index())),
            published: Arc::new(RwLock::new(Published { state, position })),
            machine,
        };
        let machine = Self {
            group,
            deps,
            view: view.clone(),
            _turn: turn.expect("invariant: it has a permit"),
        };
        (machine, view)
    }

    fn snapshot_builder(&self, need: Need) -> SnapshotBuilder {
        let published = read(&self.view.published);
        SnapshotBuilder {
            group: self.group,
            need,
            state: published.state.clone(),
            position: published.position.clone(),
            deps: self.deps.clone(),
        }
    }

    fn publish(&self, state: State, position: Position) {
        let index = position.index();
        *self
            .view
            .published
            .write()
            .expect("invariant: publishing does not panic") = Published { state, position };
        self.view.applied.send_replace(index);
    }

    /// Applies one step of entries: outcome by outcome on a private copy, effects, then one
    /// publication.
    async fn step(&self, entries: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let (mut state, mut position) = {
            let published = read(&self.view.published);
            (published.state.clone(), published.position.clone())
        };
        let mut replies: Vec<(ApplyResponder<TypeConfig>, Applied)> =
            Vec::with_capacity(entries.len());
        let mut writes = Vec::new();
        for (entry, responder) in entries {
            let id = entry.log_id();
            let index = LogIndex::new(id.index());
            let reply = self
                .one(&mut state, &mut position, entry, &mut writes)
                .await?;
            position.applied = Some(id);
            if let Some(responder) = responder {
                replies.push((responder, Applied { index, reply }));
            }
        }
        self.deps
            .kv
            .commit(self.group, position.encode(), writes)
            .await?;
        self.publish(state, position);
        for (responder, applied) in replies {
            responder.send(applied);
        }
        Ok(())
    }

    async fn one(
        &self,
        state: &mut State,
        position: &mut Position,
        entry: Entry,
        writes: &mut Vec<Write>,
    ) -> io::Result<Reply> {
        let id = entry.log_id();
        match entry.payload {
            EntryPayload::Blank => Ok(Reply::Done),
            EntryPayload::Membership(membership) => {
                position.members = StoredMembership::new(Some(id), membership);
                Ok(Reply::Done)
            }
            EntryPayload::Normal(proposed) => {
                // An entry this release cannot read stops the group: skipping it would fork the
                // state.
                let proposal = Proposal::decode(&proposed.0).map_err(|error| {
                    tracing::error!(group = %self.group, index = id.index(), %error, "cannot read a log entry: the group stops");
                    io::Error::other(error)
                })?;
                let outcome = henge_state::apply(
                    state,
                    &header(self.group, &id, &proposal),
                    &proposal.command,
                );
                if !outcome.effects.is_empty() {
                    let effects = Arc::clone(&self.deps.effects);
                    let entry = AppliedEntry {
                        group: self.group,
                        index: LogIndex::new(id.index()),
                        request: proposal.request.as_ref().map(|request| request.id),
                    };
                    let list = outcome.effects;
                    self.deps
                        .kv
                        .scope()
                        .blocking("effects", move || effects.apply(&entry, &list))
                        .await?;
                }
                state.commit(&outcome.writes);
                writes.extend(outcome.writes);
                Ok(outcome.reply)
            }
        }
    }
}

pub(crate) fn header(group: GroupId, id: &LogId, proposal: &Proposal) -> Header {
    Header {
        group,
        index: LogIndex::new(id.index()),
        term: term_of(id),
        proposed_at_ms: proposal.proposed_at_ms,
        seed: proposal.seed,
        request: proposal.request.clone(),
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Members)> {
        let published = read(&self.view.published);
        Ok((
            published.position.applied,
            published.position.members.clone(),
        ))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut steps = entries.ready_chunks(STEP_ENTRIES_MAX);
        while let Some(step) = steps.next().await {
            let step = step.into_iter().collect::<io::Result<Vec<_>>>()?;
            self.step(step).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.snapshot_builder(Need::Must)
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        Some(self.snapshot_builder(if force { Need::Must } else { Need::May }))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<
            openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>,
            u64,
            openraft::impls::EmptyNode,
        >,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        let position = Position {
            applied: meta.last_log_id,
            members: meta.last_membership.clone(),
        };
        let (deps, group) = (self.deps.clone(), self.group);
        let applied = LogIndex::new(read(&self.view.published).position.index());
        let state = self
            .deps
            .kv
            .scope()
            .blocking("install snapshot", move || {
                let state = snapshot_file::load(&deps.snapshots, &snapshot)?;
                henge_state::check_version(&state).map_err(io::Error::other)?;
                // Before the name: from then on the log drops the entries with these packs.
                deps.effects.before_install(group, applied, &state)?;
                // Named only here: this replica's log has accepted it, and its packs are durable.
                let named = deps.snapshots.name(group, &snapshot);
                named.map_err(io::Error::other)?;
                io::Result::Ok(state)
            })
            .await??;
        self.deps
            .kv
            .replace(self.group, position.encode(), state.clone())
            .await?;
        tracing::info!(group = %self.group, index = position.index(), pairs = state.len(), "snapshot installed");
        self.publish(state, position);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>>>
    {
        let (snapshots, group) = (self.deps.snapshots.clone(), self.group);
        let file = self
            .deps
            .kv
            .scope()
            .blocking("find snapshot", move || {
                snapshots.latest(group).map_err(io::Error::other)
            })
            .await??;
        let Some(file) = file else { return Ok(None) };
        let position = Position::decode(&file.meta).map_err(io::Error::other)?;
        Ok(Some(Snapshot {
            meta: meta_of(&position),
            snapshot: file,
        }))
    }
}

pub fn meta_of(
    position: &Position,
) -> SnapshotMeta<
    openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>,
    u64,
    openraft::impls::EmptyNode,
> {
    SnapshotMeta {
        last_log_id: position.applied,
        last_membership: position.members.clone(),
    }
}

/// Whether a group can go on without the requested snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It cannot: a failure stops it.
    Must,
    /// It can: a failure is retried later.
    May,
}

/// Writes a snapshot of one point in time while the machine continues to apply.
pub struct SnapshotBuilder {
    group: GroupId,
    need: Need,
    state: State,
    position: Position,
    deps: MachineDeps,
}

impl fmt::Debug for SnapshotBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotBuilder")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(
        &mut self,
    ) -> io::Result<openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>> {
        match (self.write().await, self.need) {
            // A leader's snapshot was installed meanwhile, and its installation reports it to
            // openraft. If it were also the result of this build, openraft could regard the
            // installation as done too early.
            (Ok((position, file)), Need::May) if position.index() > self.position.index() => {
                self.deps.builds.forget(self.group);
                tracing::info!(group = %self.group, index = self.position.index(), newer = position.index(), bytes = file.body_bytes, "snapshot not taken: a newer one was installed meanwhile");
                Ok(nothing())
            }
            (Ok((position, file)), _) => {
                self.deps
                    .builds
                    .take(self.group, position.index(), file.body_bytes);
                tracing::info!(group = %self.group, index = position.index(), bytes = file.body_bytes, "snapshot taken");
                Ok(Snapshot {
                    meta: meta_of(&position),
                    snapshot: file,
                })
            }
            (Err(error), Need::Must) => Err(error),
            // openraft stops a group whose build fails.
            (Err(error), Need::May) => {
                self.deps.builds.fail(self.group, error.to_string());
                tracing::error!(group = %self.group, %error, "no snapshot taken: tried again later");
                Ok(nothing())
            }
        }
    }
}

/// The result of a build that took no snapshot: openraft ignores one without a position.
fn nothing() -> openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile> {
    Snapshot {
        meta: meta_of(&Position::default()),
        snapshot: SnapshotFile::nothing(),
    }
}

impl SnapshotBuilder {
    /// Writes the snapshot. Returns the group's latest snapshot after that, with its position.
    async fn write(&self) -> io::Result<(Position, SnapshotFile)> {
        let (group, state, deps) = (self.group, self.state.clone(), self.deps.clone());
        let position = self.position.clone();
        let writing = self.deps.kv.scope().blocking("build snapshot", move || {
            // Packs of all entries up to here become durable before the snapshot, because the
            // snapshot lets the log drop those entries.
            deps.effects.before_snapshot(group, &state)?;
            snapshot_file::write(&deps.snapshots, group, &position, &state)
        });
        let file = writing.await??;
        let position = Position::decode(&file.meta).map_err(io::Error::other)?;
        Ok((position, file))
    }
}
