//! The write-ahead log: one log for all groups of a node, one writer, one `fdatasync` per batch.
//!
//! A change is acknowledged (by its `done` callback) only after the `fdatasync` of its batch has
//! returned. Until then, and while the cache has room, its payload is readable from memory. A
//! failed sync ends the process: the contents of the disk are then unknown, and only a restart
//! reads them again.
//!
//! - `frame`: the bytes of segment headers and records.
//! - `group`: one group's state in memory.
//! - `cut`: truncation of a damaged log before the damage.
//! - `origin`: the identity of the file that a segment was written to, for the detection of copied
//!   directories.
//! - `shared`: state shared by handles and writer.
//! - `queue`: the operations that wait for the writer.
//! - `writer`, `reclaim`: the writer, and how it frees segments; `room`: admission of new entries.
//! - `segments`: the files, in use and spare.
//! - `recovery`: reading the log at start.
//! - `read`: reading entries.

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

/// Configuration of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalConfig {
    /// The directory of the segments; created if missing.
    pub dir: PathBuf,
    /// One segment's length, bytes; at most 1 GiB.
    pub segment_bytes: u64,
    /// Limit of all segments together, bytes; at least four segments. Part of it is a reserve: see
    /// [`Wal::may_grow`].
    pub bytes_max: u64,
    /// Payloads kept in memory for readers of the tail, bytes. Also limits the queue of the writer.
    pub tail_bytes_max: usize,
}

impl WalConfig {
    /// The log in `dir` with the default limits.
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

/// The end of the purged part of a group's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The last purged position.
    pub index: u64,
    /// The log id of that entry, opaque here.
    pub id: Bytes,
}

/// The log's state of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// The last saved vote.
    pub vote: Option<Bytes>,
    /// The last saved committed position; may be older than the last one passed to
    /// [`Wal::save_committed`].
    pub committed: Option<Bytes>,
    /// The end of the purged part.
    pub purged: Option<Purged>,
    /// The first entry, if any.
    pub first_index: Option<u64>,
    /// The last entry, or the purged position when no entry follows it.
    pub last_index: Option<u64>,
}

/// Called when a change is durable, or has failed for good. Runs on the log's writer: it must not
/// block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The effect of an I/O error of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFatal {
    /// The process ends at once; a restart recovers.
    Abort,
    /// The log is closed: all waiting and later operations fail. For simulated disks.
    Die,
}

/// A cheap, cloneable handle of the log.
#[derive(Debug, Clone)]
pub struct Wal {
    shared: Arc<Shared>,
    closer: Arc<Closer>,
}

/// Closes the queue when the last handle is dropped; [`Wal::close`] also joins the threads.
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
    /// Opens the log, reads all of it, and starts its writer. Blocking. An I/O error of the writer
    /// ends the process.
    ///
    /// # Errors
    /// [`WalError`]; after [`WalError::LostAcknowledged`] the directory is unchanged.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: WalConfig,
    ) -> Result<Self, WalError> {
        Self::open_with(disk, clock, config, OnFatal::Abort)
    }

    /// Like [`Wal::open`], with a choice of the effect of an I/O error of the writer.
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

    /// Like [`Wal::open`], but without threads: the caller runs the writer's turns. For
    /// deterministic simulation; an I/O error closes the log, it does not end the process.
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

    /// Checks that the newest segment still has its name; otherwise ends the log, and with it the
    /// process. A log with writes checks this by itself. Blocking.
    pub fn check_in_place(&self) {
        self.shared.check_in_place();
    }

    /// The groups with data in the log.
    pub fn recovered_groups(&self) -> Vec<GroupId> {
        self.shared.groups().keys().copied().collect()
    }

    /// The log's state of a group, including changes that are not durable yet.
    pub fn group(&self, group: GroupId) -> GroupLog {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map(|cell| cell.lock().view()).unwrap_or_default()
    }

    /// Appends entries that follow the group's last one. They are readable when this returns;
    /// `done` is called once they are durable. After `Err`, `done` is not called and nothing was
    /// appended. An append never fails for lack of space: callers check [`Wal::may_grow`] before
    /// they create an entry.
    ///
    /// # Errors
    /// `InvalidInput` for entries that do not follow, or are too long; `BrokenPipe` when the log is
    /// closed; otherwise the error that closed the log.
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

    /// Saves the group's vote, in order with its entries.
    ///
    /// # Errors
    /// `InvalidInput` when it is too long; `BrokenPipe` when the log is closed; otherwise the error
    /// that closed it.
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

    /// Saves the group's committed position with the next batch, without waiting for it. It is
    /// never written before the entries appended earlier.
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

    /// Removes the entries after `index`; 0 removes all.
    ///
    /// # Errors
    /// `InvalidInput` for an index below the purged position; `BrokenPipe` when the log is closed;
    /// otherwise the error that closed it.
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

    /// Removes the entries up to `upto`. `upto` may lie after the last entry: then the log is empty
    /// and continues after `upto`. A purge below an earlier one has no effect.
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

    /// Removes all data of a group.
    ///
    /// # Errors
    /// `BrokenPipe` when the log is closed; otherwise the error that closed it.
    pub async fn drop_group(&self, group: GroupId, done: Done) -> io::Result<()> {
        let shared = &self.shared;
        let room = shared.admit(0).await?;
        let cell = shared.cell(group);
        let mut state = cell.lock();
        state.check_kept()?;
        let (freed, cached) = state.drop_all();
        shared.tail_bytes.fetch_sub(cached, Ordering::Relaxed);
        shared.enqueue(&cell, Work::Drop { freed }, done, room)?;
        // Only now: later operations of the group are queued after the drop.
        shared.groups_mut().remove(&group);
        Ok(())
    }

    /// Reads entries: at least the first of `range` if it exists, then up to `bytes_max` of
    /// payload. Ends early at the end of the log. Blocking.
    ///
    /// # Errors
    /// Errors of the disk; `InvalidData` for an entry that is damaged on disk.
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

    /// Like [`Wal::read`], from memory only; `None` when an entry is not cached.
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

    /// The last durable entry (or purged position); 0 when there is none.
    pub fn durable_index(&self, group: GroupId) -> u64 {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map_or(0, |cell| cell.lock().durable)
    }

    /// The group that should take a snapshot and purge now, because it pins the oldest segment.
    pub fn pressure(&self) -> watch::Receiver<Option<GroupId>> {
        self.shared.pressure.subscribe()
    }

    /// Whether a group may add deferrable entries. Other records (votes, a new leader's first
    /// entry, changes of membership and release level) may always be appended: the reserve is for
    /// them.
    ///
    /// A group may hold as much as is still free. A group that cannot take a snapshot is therefore
    /// limited to half of the log, and the other groups continue.
    pub fn may_grow(&self, group: GroupId) -> bool {
        let shared = &self.shared;
        shared.room(&shared.table()).may_grow(group)
    }

    /// Log bytes per group that cannot be freed.
    pub fn pinned_bytes(&self) -> BTreeMap<GroupId, u64> {
        self.shared.table().pinned()
    }

    /// Bytes of all segments, in use and spare.
    pub fn total_bytes(&self) -> u64 {
        self.shared.total_bytes()
    }

    /// The reason why no spare segment can be made, with the number of spares left; `None` while
    /// there is no failure. Writes continue until the spares are used up, and then wait for a new
    /// one.
    pub fn spares_refused(&self) -> Option<String> {
        self.shared.spares.refusal()
    }

    /// Log bytes of a group after `index`.
    pub fn bytes_since(&self, group: GroupId, index: u64) -> u64 {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map_or(0, |cell| cell.lock().bytes_since(index))
    }

    /// The last index before the last `bytes` of a group's entries up to `upto`; 0 when there are
    /// no earlier entries.
    pub fn index_before(&self, group: GroupId, upto: u64, bytes: u64) -> u64 {
        let cell = self.shared.groups().get(&group).cloned();
        cell.map_or(0, |cell| cell.lock().index_before(upto, bytes))
    }

    /// Writes and syncs the queue, marks the log as cleanly closed and ends its threads. Blocking;
    /// must not be called from a `done`.
    ///
    /// # Errors
    /// The error that closed the log.
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

/// Runs the turns of a log opened with [`Wal::open_stepped`].
#[cfg(any(test, feature = "sim"))]
#[derive(Debug)]
pub struct Stepper {
    writer: Writer,
}

#[cfg(any(test, feature = "sim"))]
impl Stepper {
    /// Writes and syncs the whole queue. `false` when the log has ended.
    pub fn turn(&mut self) -> bool {
        self.writer.turn(Wait::Never)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
