//! The write-ahead log: one log for all groups of a node, one writer, one `fdatasync` per batch.
//!
//! A change is acknowledged (its `done` is called) only after the `fdatasync` of its batch has returned.
//! Until then, and as long as there is room, its payload is readable from memory. A failed sync ends the
//! process: what the disk then holds is unknown and only a restart reads it again.
//!
//! - `frame`: the bytes of segment headers and records.
//! - `group`: one group's state in memory.
//! - `cut`: a damaged log, ended in front of the damage.
//! - `origin`: which file a segment was written as, so that a copied directory is found.
//! - `shared`: what handles and writer share.
//! - `queue`: what waits for the writer.
//! - `writer`, `reclaim`: the writer, and how it frees segments; `room`: who may still add to the log.
//! - `segments`: the files, in use and spare.
//! - `recovery`: reading it all back.
//! - `read`: giving entries to readers.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock, Scope};
use henge_types::{GroupId, limits};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::disk::Disk;

mod cut;
mod error;
mod fill;
mod frame;
mod group;
mod origin;
mod queue;
mod read;
mod reclaim;
mod recovery;
mod room;
mod segments;
mod shared;
mod writer;

pub use cut::cut;
pub use error::WalError;
pub use origin::{adopt, is_empty, is_marked};

use queue::{Wait, Work};
use shared::Shared;
#[cfg(any(test, feature = "sim"))]
use writer::Writer;

/// How the log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalConfig {
    /// The directory of the segments; made if missing.
    pub dir: PathBuf,
    /// One segment's length, bytes; at most 1 GiB.
    pub segment_bytes: u64,
    /// All segments together, bytes; at least four segments. Part of it is a reserve: see
    /// [`Wal::may_grow`].
    pub bytes_max: u64,
    /// Payloads kept in memory for readers of the tail, bytes. Also bounds what waits for the writer.
    pub tail_bytes_max: usize,
}

impl WalConfig {
    /// The log in `dir` with the limits of the product.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            segment_bytes: limits::WAL_SEGMENT_BYTES,
            bytes_max: limits::WAL_BYTES_MAX,
            tail_bytes_max: limits::WAL_TAIL_BYTES_MAX,
        }
    }
}

/// A log entry of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position in the group's log, from 1.
    pub index: u64,
    /// The entry, opaque here.
    pub payload: Bytes,
}

/// Up to where a group's log was purged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The last purged position.
    pub index: u64,
    /// The log id of that entry, opaque here.
    pub id: Bytes,
}

/// What the log holds of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// The last saved vote.
    pub vote: Option<Bytes>,
    /// The last saved committed position; may be older than the last one given.
    pub committed: Option<Bytes>,
    /// Up to where the log was purged.
    pub purged: Option<Purged>,
    /// The first entry there is.
    pub first_index: Option<u64>,
    /// The last entry, or the purged position when there is none behind it.
    pub last_index: Option<u64>,
}

/// Told when a change is durable, or that it never will be. Runs on the log's writer: it must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What happens after an I/O error of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFatal {
    /// The process ends at once; a restart recovers.
    Abort,
    /// The log is dead: everything waiting and everything later fails. For simulated disks.
    Die,
}

/// A cheap, cloneable handle of the log.
#[derive(Debug, Clone)]
pub struct Wal {
    shared: Arc<Shared>,
    closer: Arc<Closer>,
}

/// Closes the queue when the last handle goes, and joins the threads when asked to.
#[derive(Debug)]
struct Closer {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Wal {
    /// Opens the log, reading back all of it, and starts its writer. Blocking. An I/O error of the
    /// writer ends the process.
    ///
    /// # Errors
    /// [`WalError`]; after [`WalError::LostAcknowledged`] the directory is as it was.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: WalConfig,
    ) -> Result<Self, WalError> {
        Self::open_with(disk, clock, config, OnFatal::Abort)
    }

    /// As [`Wal::open`], with a choice of what an I/O error of the writer means.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: WalConfig,
        on_fatal: OnFatal,
    ) -> Result<Self, WalError> {
        let mut writer = recovery::open(disk, clock, config, on_fatal)?;
        let shared = writer.shared();
        let filler = Arc::clone(&shared);
        writer.fill_in_background();
        let io = |source| WalError::Io {
            doing: "start its threads",
            source,
        };
        let filler =
            Scope::thread("wal-filler", OnPanic::EndProcess, move || filler.fill()).map_err(io)?;
        let writer = Scope::thread("wal-writer", OnPanic::EndProcess, move || {
            let mut wait = Wait::ForWork;
            while writer.turn(wait) {
                wait = writer.next_wait();
            }
        })
        .map_err(io)?;
        Ok(Self::handle(shared, vec![writer, filler]))
    }

    /// As [`Wal::open`], but nothing happens by itself: the caller takes the writer's turns. For
    /// deterministic simulation; an I/O error kills the log, not the process.
    ///
    /// # Errors
    /// As [`Wal::open`].
    #[cfg(any(test, feature = "sim"))]
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: WalConfig,
    ) -> Result<(Self, Stepper), WalError> {
        let writer = recovery::open(disk, clock, config, OnFatal::Die)?;
        let wal = Self::handle(writer.shared(), Vec::new());
        Ok((wal, Stepper { writer }))
    }

    fn handle(shared: Arc<Shared>, threads: Vec<JoinHandle<()>>) -> Self {
        Self {
            closer: Arc::new(Closer {
                shared: Arc::clone(&shared),
                threads: Mutex::new(threads),
            }),
            shared,
        }
    }

    /// Ends the log, and with it the process, where its files were taken away; a log that is written to notices that by
    /// itself. Blocking.
    pub fn check_in_place(&self) {
        self.shared.check_in_place();
    }

    /// The groups that the log holds something of.
    pub fn recovered_groups(&self) -> Vec<GroupId> {
        self.shared.groups().keys().copied().collect()
    }

    /// What the log holds of a group, including what is not durable yet.
    pub fn group(&self, group: GroupId) -> GroupLog {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map(|cell| cell.lock().view()).unwrap_or_default()
    }

    /// Appends entries that follow the group's last one. They are readable when this returns; `done` is
    /// called once they are durable. After `Err`, `done` is not called and nothing was appended. An append
    /// never fails for want of space: [`Wal::may_grow`] is asked before an entry comes into being.
    ///
    /// # Errors
    /// `InvalidInput` for entries that do not follow, or are too long; `BrokenPipe` when the log is closed;
    /// else what killed the log.
    pub async fn append(&self, group: GroupId, records: Vec<Record>, done: Done) -> io::Result<()> {
        let shared = &self.shared;
        let longest = records.iter().map(|record| record.payload.len()).max();
        shared.check_len(longest.unwrap_or(0))?;
        let bytes = records.iter().map(|record| record.payload.len()).sum();
        let room = shared.admit(bytes).await?;
        let cell = shared.cell(group);
        let mut state = cell.lock();
        state.check_kept()?;
        state.check_append(&records)?;
        let added = state.append(&records);
        shared.tail_bytes.fetch_add(added, Ordering::Relaxed);
        let work = Work::Entries(records);
        shared.enqueue(&cell, work, done, room)
    }

    /// Saves the group's vote, in one order with its entries.
    ///
    /// # Errors
    /// `InvalidInput` when it is too long; `BrokenPipe` when the log is closed; else what killed it.
    pub async fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) -> io::Result<()> {
        let shared = &self.shared;
        shared.check_len(vote.len())?;
        let room = shared.admit(vote.len()).await?;
        let cell = shared.cell(group);
        let mut state = cell.lock();
        state.check_kept()?;
        state.vote = Some(vote.clone());
        shared.enqueue(&cell, Work::Vote(vote), done, room)
    }

    /// Saves the group's committed position with the next batch; without waiting for it. It never gets
    /// ahead of the entries appended before.
    ///
    /// # Errors
    /// As [`Wal::save_vote`].
    #[expect(
        clippy::unused_async,
        reason = "the log's changes are all async, so that a later one may wait for room"
    )]
    pub async fn save_committed(&self, group: GroupId, committed: Bytes) -> io::Result<()> {
        let shared = &self.shared;
        shared.check_alive()?;
        shared.check_len(committed.len())?;
        let cell = shared.cell(group);
        let mut state = cell.lock();
        state.check_kept()?;
        state.committed = Some(committed.clone());
        shared.queue.commit(Arc::clone(&cell), committed)
    }

    /// Removes the entries behind `index`; 0 removes all.
    ///
    /// # Errors
    /// `InvalidInput` below what is purged; `BrokenPipe` when the log is closed; else what killed it.
    pub async fn truncate_after(&self, group: GroupId, index: u64, done: Done) -> io::Result<()> {
        let shared = &self.shared;
        let room = shared.admit(0).await?;
        let cell = shared.cell(group);
        let mut state = cell.lock();
        state.check_kept()?;
        state.check_truncate(index)?;
        let (freed, cached) = state.truncate_after(index);
        shared.tail_bytes.fetch_sub(cached, Ordering::Relaxed);
        let work = Work::Truncate { keep: index, freed };
        shared.enqueue(&cell, work, done, room)
    }

    /// Removes the entries up to `upto`, which may lie behind the last one: then the log is empty and
    /// goes on after `upto`. Purging less than was purged before changes nothing.
    ///
    /// # Errors
    /// As [`Wal::save_vote`].
    pub async fn purge(&self, group: GroupId, upto: Purged, done: Done) -> io::Result<()> {
        let shared = &self.shared;
        shared.check_len(upto.id.len())?;
        let room = shared.admit(upto.id.len()).await?;
        let cell = shared.cell(group);
        let mut state = cell.lock();
        state.check_kept()?;
        let known = state.purged.as_ref().map(|purged| purged.index);
        let work = if known.is_some_and(|known| known > upto.index) {
            Work::Barrier
        } else {
            let (freed, cached) = state.purge(upto.clone());
            shared.tail_bytes.fetch_sub(cached, Ordering::Relaxed);
            Work::Purge { upto, freed }
        };
        shared.enqueue(&cell, work, done, room)
    }

    /// Forgets everything about a group.
    ///
    /// # Errors
    /// `BrokenPipe` when the log is closed; else what killed it.
    pub async fn drop_group(&self, group: GroupId, done: Done) -> io::Result<()> {
        let shared = &self.shared;
        let room = shared.admit(0).await?;
        let cell = shared.cell(group);
        let mut state = cell.lock();
        state.check_kept()?;
        let (freed, cached) = state.drop_all();
        shared.tail_bytes.fetch_sub(cached, Ordering::Relaxed);
        shared.enqueue(&cell, Work::Drop { freed }, done, room)?;
        // Only now: whatever comes for the group from here on is queued behind.
        shared.groups_mut().remove(&group);
        Ok(())
    }

    /// Reads entries: at least the first of `range` if it exists, then up to `bytes_max` of payload.
    /// Ends early at the end of the log. Blocking.
    ///
    /// # Errors
    /// What the disk says; `InvalidData` for an entry that is damaged on disk.
    pub fn read(
        &self,
        group: GroupId,
        range: RangeInclusive<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<Record>> {
        let cell = self.shared.groups().get(&group).cloned();
        match cell {
            Some(cell) => self.shared.read(&cell, &range, bytes_max),
            None => Ok(Vec::new()),
        }
    }

    /// As [`Wal::read`], from memory only; `None` when an entry is not there.
    pub fn read_cached(
        &self,
        group: GroupId,
        range: RangeInclusive<u64>,
        bytes_max: usize,
    ) -> Option<Vec<Record>> {
        let cell = self.shared.groups().get(&group).cloned()?;
        let sources = cell.lock().sources(range, bytes_max);
        let records = sources.into_iter().map(|source| match source {
            group::Source::Cached(record) => Some(record),
            group::Source::File { .. } => None,
        });
        records.collect()
    }

    /// The last entry (or purged position) that is durable; 0 when there is none.
    pub fn durable_index(&self, group: GroupId) -> u64 {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map_or(0, |cell| cell.lock().durable)
    }

    /// The group that should take a snapshot and purge now, because it pins the oldest segment.
    pub fn pressure(&self) -> watch::Receiver<Option<GroupId>> {
        self.shared.pressure.subscribe()
    }

    /// Whether a group may add entries that can wait. What cannot wait (votes, a new leader's first entry,
    /// changes of membership and release level) may be appended all the same: it has the reserve.
    ///
    /// A group may hold as much as is still free. So one group that cannot take a snapshot gets half of
    /// the log at most, and the others go on.
    pub fn may_grow(&self, group: GroupId) -> bool {
        let shared = &self.shared;
        shared.room(&shared.table()).may_grow(group)
    }

    /// Log bytes that each group keeps from being freed.
    pub fn pinned_bytes(&self) -> BTreeMap<GroupId, u64> {
        self.shared.table().pinned()
    }

    /// Bytes of all segments, in use and spare.
    pub fn total_bytes(&self) -> u64 {
        self.shared.total_bytes()
    }

    /// Why no spare segment can be made, with how many are ready; `None` while they can. Writes go on until those are used,
    /// and wait then until one can be made.
    pub fn spares_refused(&self) -> Option<String> {
        self.shared.spares.refusal()
    }

    /// Log bytes of a group behind `index`.
    pub fn bytes_since(&self, group: GroupId, index: u64) -> u64 {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map_or(0, |cell| cell.lock().bytes_since(index))
    }

    /// The last index of a group's log before the last `bytes` of its entries up to `upto`; 0 when those are
    /// all there are.
    pub fn index_before(&self, group: GroupId, upto: u64, bytes: u64) -> u64 {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map_or(0, |cell| cell.lock().index_before(upto, bytes))
    }

    /// Writes and syncs what is queued, marks the log as cleanly closed and ends its threads. Blocking;
    /// not to be called from a `done`.
    ///
    /// # Errors
    /// What killed the log.
    pub fn close(&self) -> io::Result<()> {
        self.shared.queue.close();
        let threads = std::mem::take(&mut *lock(&self.closer.threads));
        for thread in threads {
            if thread.join().is_err() {
                return Err(io::Error::other("a thread of the write-ahead log panicked"));
            }
        }
        self.shared.check_alive()
    }
}

/// Takes the turns of a log opened with [`Wal::open_stepped`].
#[cfg(any(test, feature = "sim"))]
#[derive(Debug)]
pub struct Stepper {
    writer: Writer,
}

#[cfg(any(test, feature = "sim"))]
impl Stepper {
    /// Writes and syncs everything queued. `false` when the log has ended.
    pub fn turn(&mut self) -> bool {
        self.writer.turn(Wait::Never)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
