//! State shared by handles and writer.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use henge_runtime::Clock;
use henge_types::GroupId;
use tokio::sync::watch;

use super::fill::SpareError;
use super::frame::{self, HEADER_BYTES};
use super::group::{Cell, Freed, GroupState, invalid};
use super::queue::{self, Operation, Queue, Work};
use super::room::Room;
use super::segments::{Chore, Spares, Table, removed};
use super::{Done, OnFatal, WalConfig, lock};

/// State shared by handles and writer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: WalConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) groups: RwLock<BTreeMap<GroupId, Arc<Cell>>>,
    pub(super) queue: Queue,
    pub(super) table: Mutex<Table>,
    pub(super) spares: Spares,
    pub(super) tail_bytes: AtomicUsize,
    pub(super) pressure: watch::Sender<Option<GroupId>>,
    pub(super) on_fatal: OnFatal,
    pub(super) dead: OnceLock<String>,
}

impl Shared {
    pub(super) fn cell(&self, group: GroupId) -> Arc<Cell> {
        if let Some(cell) = self.groups().get(&group) {
            return Arc::clone(cell);
        }
        let mut groups = self.groups_mut();
        let cell = groups
            .entry(group)
            .or_insert_with(|| Arc::new(Cell::new(group, GroupState::default())));
        Arc::clone(cell)
    }

    pub(super) async fn admit(&self, bytes: usize) -> io::Result<queue::Room<'_>> {
        self.check_alive()?;
        match self.queue.admit(bytes).await {
            Ok(room) => Ok(room),
            Err(error) => Err(self.check_alive().err().unwrap_or(error)),
        }
    }

    pub(super) fn enqueue(
        &self,
        cell: &Arc<Cell>,
        work: Work,
        done: Done,
        room: queue::Room<'_>,
    ) -> io::Result<()> {
        let operation = Operation {
            cell: Arc::clone(cell),
            work,
            done,
            cost: room.spend(),
        };
        match self.queue.push(operation) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.check_alive().err().unwrap_or(error)),
        }
    }

    /// A record must fit into a new segment after the checkpoint.
    pub(super) fn check_len(&self, bytes: usize) -> io::Result<()> {
        let max = self.config.segment_bytes / 2;
        if frame::stride(bytes) as u64 > max {
            return Err(invalid(format!(
                "a record of {bytes} bytes; at most {max} fit into a segment"
            )));
        }
        Ok(())
    }

    pub(super) fn check_alive(&self) -> io::Result<()> {
        match self.dead.get() {
            None => Ok(()),
            Some(why) => Err(io::Error::other(format!(
                "the write-ahead log is dead: {why}"
            ))),
        }
    }

    /// Handles an I/O error after which the contents of the disk are unknown.
    pub(super) fn die(&self, error: &io::Error) {
        tracing::error!(%error, "the write-ahead log cannot go on");
        match self.on_fatal {
            OnFatal::Abort => std::process::abort(),
            OnFatal::Die => self.kill(error),
        }
    }

    /// Fails all waiting and later operations.
    pub(super) fn kill(&self, error: &io::Error) {
        self.dead.get_or_init(|| error.to_string());
        self.queue.close();
        self.spares.stop();
    }

    /// Checks whether the segment that is written to still has its name, and ends the log
    /// otherwise. Needed for a log without writes, which would not detect the loss of its files.
    pub(super) fn check_in_place(&self) {
        let newest = || self.table().newest();
        let Some((generation, file)) = newest() else {
            return;
        };
        if self.spares.is_in_place(&file) {
            return;
        }
        // A segment that is no longer written to may be gone by now.
        if newest().is_some_and(|(newest, _)| newest == generation) {
            let error = removed(&file.path);
            match self.queue.is_closing() {
                true => self.kill(&error),
                false => self.die(&error),
            }
        }
    }

    /// Publishes the gauges that are measured periodically.
    pub(super) fn report(&self) {
        crate::metrics::wal_bytes(self.total_bytes());
        for (group, bytes) in self.table().pinned() {
            crate::metrics::wal_pinned(group, bytes);
        }
    }

    pub(super) fn total_bytes(&self) -> u64 {
        // One lock after the other: the filling thread takes the table's lock while it holds that
        // of the spares.
        let used = self.table().len();
        let ready = self.spares.ready();
        (used + ready) as u64 * self.config.segment_bytes
    }

    /// Maximum number of segments.
    pub(super) fn segments_max(&self) -> usize {
        usize::try_from(self.config.bytes_max / self.config.segment_bytes).unwrap_or(usize::MAX)
    }

    /// The fill level of the log.
    pub(super) fn room<'a>(&self, table: &'a Table) -> Room<'a> {
        Room {
            table,
            segments_max: self.segments_max(),
            usable_bytes: self.config.segment_bytes - HEADER_BYTES as u64,
        }
    }

    /// The filling thread: keeps spare segments ready and removes superfluous ones.
    pub(super) fn fill(&self) {
        loop {
            let room = |ready| self.table().len() + ready < self.segments_max();
            let result = match self.spares.next_chore(room) {
                Chore::Stop => return,
                Chore::Unlink(file) => self.spares.unlink(file),
                Chore::Fill => self.spares.fill_one(),
            };
            match result {
                Ok(()) => self.spares.note_success(),
                Err(SpareError::Refused(error)) => {
                    self.spares.note_refusal(&error);
                    self.spares.back_off();
                }
                // A spare contains no acknowledged data.
                Err(SpareError::Fatal(error)) if self.queue.is_closing() => {
                    return self.kill(&error);
                }
                Err(SpareError::Fatal(error)) => return self.die(&error),
            }
        }
    }

    pub(super) fn groups(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<GroupId, Arc<Cell>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn groups_mut(
        &self,
    ) -> std::sync::RwLockWriteGuard<'_, BTreeMap<GroupId, Arc<Cell>>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(super) fn forget(&self, group: GroupId, freed: &Freed) {
        let mut table = self.table();
        for (segment, bytes) in freed {
            table.subtract(*segment, group, *bytes);
        }
    }
}
