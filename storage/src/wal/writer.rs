//! The log's writer: takes the queue, writes it as one batch, syncs, and only then calls the
//! callbacks.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use henge_types::{GroupId, limits};

use super::frame::{Batch, HEADER_BYTES, Header, Kind, Place, stride};
use super::group::{Cell, Freed, Hard};
use super::origin;
use super::queue::{Operation, Taken, Wait, Work, closed};
use super::segments::{SegmentFile, removed};
use super::{Done, Record, Shared};
use crate::metrics;

/// Reclamations per turn while only the reserve is left; queued operations wait meanwhile.
const RECLAIMS_PER_TURN: u32 = 8;
/// Attempts of a closing log to get a segment, one second apart, before it ends without one.
const CLOSING_ATTEMPTS: u32 = 5;

/// The position of the next write.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: SegmentFile,
    pub(super) salt: u32,
    pub(super) generation: u32,
    pub(super) offset: u64,
    pub(super) sequence: u64,
    pub(super) batch: u64,
}

/// An effect of the batch that is applied once it is durable.
enum Settled {
    Entries {
        cell: Arc<Cell>,
        first: u64,
        offsets: Vec<u32>,
    },
    Moved {
        cell: Arc<Cell>,
        index: u64,
        from: (u32, u32),
        to: (u32, u32),
    },
    Truncate {
        cell: Arc<Cell>,
        freed: Freed,
    },
    Purge {
        cell: Arc<Cell>,
        upto: u64,
        freed: Freed,
    },
    Drop {
        group: GroupId,
        freed: Freed,
    },
    /// Segments below this generation may be reused.
    Free(u32),
    Done(Done, u32),
}

/// Whether another thread fills spare segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filling {
    Inline,
    Background,
}

/// The log's writer.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) active: Active,
    pub(super) batch: Batch,
    hard: BTreeMap<GroupId, Hard>,
    committed: BTreeMap<GroupId, (Arc<Cell>, Bytes)>,
    settled: Vec<Settled>,
    /// Entries in the cached tail, in eviction order.
    cached: VecDeque<(Arc<Cell>, u64)>,
    /// Segments below this generation are recorded as free.
    pub(super) oldest: u32,
    filling: Filling,
    /// Whether the last turn freed something while only the reserve was left.
    gains: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("active", &self.active)
            .field("oldest", &self.oldest)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        active: Active,
        hard: BTreeMap<GroupId, Hard>,
        oldest: u32,
    ) -> Self {
        Self {
            shared,
            active,
            batch: Batch::default(),
            hard,
            committed: BTreeMap::new(),
            settled: Vec::new(),
            cached: VecDeque::new(),
            oldest,
            filling: Filling::Inline,
            gains: false,
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn fill_in_background(&mut self) {
        self.filling = Filling::Background;
    }

    /// Writes and syncs the whole queue. `false` when the log has ended.
    pub(super) fn turn(&mut self, wait: Wait) -> bool {
        let taken = self.shared.queue.take(wait);
        let closing = taken.closing;
        metrics::wal_queue_depth(self.shared.queue.depth());
        let mut left = VecDeque::from(taken.operations);
        let result = match self.shared.check_alive() {
            Ok(()) => self.write(&mut left, taken.committed),
            Err(error) => Err(error),
        };
        let result = result.and_then(|()| if closing { self.close() } else { Ok(()) });
        match result {
            Ok(()) if closing => self.end(left, &closed()),
            Ok(()) => return true,
            Err(error) => {
                if self.shared.check_alive().is_ok() {
                    self.shared.die(&error);
                }
                self.end(left, &error);
            }
        }
        false
    }

    fn write(
        &mut self,
        operations: &mut VecDeque<Operation>,
        committed: BTreeMap<GroupId, (Arc<Cell>, Bytes)>,
    ) -> io::Result<()> {
        while let Some(operation) = operations.pop_front() {
            self.encode(operation)?;
        }
        self.committed.extend(committed);
        self.reclaim()?;
        if !self.batch.is_empty() {
            self.encode_committed()?;
        }
        self.flush()?;
        for _ in 0..RECLAIMS_PER_TURN {
            self.gains = self.is_short() && {
                self.reclaim()?;
                !self.batch.is_empty()
            };
            if !self.gains {
                break;
            }
            self.flush()?;
        }
        if self.filling == Filling::Inline {
            self.tidy()?;
        }
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.shared.room(&self.shared.table()).is_short()
    }

    /// Whether the next turn waits for operations. While only the reserve is left, no further
    /// change may arrive, so the writer continues by itself while it gains space.
    pub(super) fn next_wait(&self) -> Wait {
        match self.gains {
            true => Wait::Never,
            false => Wait::ForWork,
        }
    }

    fn encode(&mut self, operation: Operation) -> io::Result<()> {
        let Operation {
            cell,
            work,
            done,
            cost,
        } = operation;
        let group = cell.id;
        match work {
            Work::Entries(records) => self.encode_entries(&cell, &records)?,
            Work::Vote(vote) => {
                self.push(Kind::Vote, group, 0, &vote)?;
                self.hard.entry(group).or_default().vote = Some(vote);
            }
            Work::Truncate { keep, freed } => {
                self.push(Kind::Truncate, group, keep, &[])?;
                self.hard.entry(group).or_default().truncate_after(keep);
                self.settled.push(Settled::Truncate { cell, freed });
            }
            Work::Purge { upto, freed } => {
                self.push(Kind::Purge, group, upto.index, &upto.id)?;
                let index = upto.index;
                self.hard.entry(group).or_default().purge(upto);
                self.settled.push(Settled::Purge {
                    cell,
                    upto: index,
                    freed,
                });
            }
            Work::Drop { freed } => {
                self.push(Kind::Drop, group, 0, &[])?;
                self.hard.remove(&group);
                self.committed.remove(&group);
                self.settled.push(Settled::Drop { group, freed });
            }
            Work::Barrier => {}
        }
        self.settled.push(Settled::Done(done, cost));
        if self.batch.len() >= limits::WAL_BATCH_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn encode_entries(&mut self, cell: &Arc<Cell>, records: &[Record]) -> io::Result<()> {
        let Some(first) = records.first().map(|record| record.index) else {
            return Ok(());
        };
        let mut offsets = Vec::with_capacity(records.len());
        let mut start = first;
        for record in records {
            // A batch ends here: its part of this append is settled with it.
            if self.must_flush(record.payload.len()) {
                self.settle_later(cell, &mut start, &mut offsets);
            }
            let offset = self.push(Kind::Entry, cell.id, record.index, &record.payload)?;
            offsets.push(offset);
            let fits = self.hard.entry(cell.id).or_default().append(record.index);
            assert!(
                fits,
                "invariant: entries were checked when they were queued"
            );
        }
        self.settle_later(cell, &mut start, &mut offsets);
        Ok(())
    }

    fn settle_later(&mut self, cell: &Arc<Cell>, first: &mut u64, offsets: &mut Vec<u32>) {
        let offsets = std::mem::take(offsets);
        if offsets.is_empty() {
            return;
        }
        let entries = offsets.len() as u64;
        self.settled.push(Settled::Entries {
            cell: Arc::clone(cell),
            first: *first,
            offsets,
        });
        *first += entries;
    }

    /// Committed positions are written with a batch; they do not start one.
    fn encode_committed(&mut self) -> io::Result<()> {
        for (group, (cell, committed)) in std::mem::take(&mut self.committed) {
            // A dropped group's cell differs from the one in the map: none of its state may return.
            let current = self.shared.groups().get(&group).cloned();
            if !current.is_some_and(|current| Arc::ptr_eq(&current, &cell)) {
                continue;
            }
            self.push(Kind::Committed, group, 0, &committed)?;
            self.hard.entry(group).or_default().committed = Some(committed);
        }
        Ok(())
    }

    /// Whether a record of `payload` bytes starts a new batch.
    fn must_flush(&self, payload: usize) -> bool {
        let bytes = self.batch.len() + stride(payload);
        let room = self.shared.config.segment_bytes - self.active.offset;
        bytes > limits::WAL_BATCH_BYTES_MAX || bytes as u64 > room
    }

    /// Adds a record to the batch, after a flush or a change of segment if necessary. Returns its
    /// offset in the segment.
    pub(super) fn push(
        &mut self,
        kind: Kind,
        group: GroupId,
        index: u64,
        payload: &[u8],
    ) -> io::Result<u32> {
        if self.must_flush(payload.len()) {
            self.flush()?;
            let room = self.shared.config.segment_bytes - self.active.offset;
            if stride(payload.len()) as u64 > room {
                self.next_segment()?;
            }
        }
        let offset = self.active.offset + self.batch.len() as u64;
        self.batch.push(self.place(), kind, group, index, payload);
        self.active.sequence += 1;
        u32::try_from(offset).map_err(io::Error::other)
    }

    fn place(&self) -> Place {
        Place {
            salt: self.active.salt,
            generation: u64::from(self.active.generation),
            sequence: self.active.sequence,
            batch: self.active.batch,
        }
    }

    /// Writes the batch, syncs it, and calls the callbacks of its changes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            let bytes = self.batch.finish();
            let len = bytes.len();
            self.active.file.file.write_at(bytes, self.active.offset)?;
            let started = self.shared.clock.instant();
            self.active.file.file.sync_data()?;
            metrics::wal_batch(self.shared.clock.instant() - started, len);
            // Checked after the sync: a name that exists now is found by the next start.
            if !self.shared.spares.is_in_place(&self.active.file) {
                let error = removed(&self.active.file.path);
                if self.shared.queue.is_closing() {
                    self.shared.kill(&error);
                }
                return Err(error);
            }
            self.active.offset += len as u64;
            self.active.batch += 1;
            self.batch.clear();
        }
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        let (mut operations, mut cost) = (0, 0);
        for settled in std::mem::take(&mut self.settled) {
            match settled {
                Settled::Entries {
                    cell,
                    first,
                    offsets,
                } => self.settle_entries(&cell, first, &offsets),
                Settled::Moved {
                    cell,
                    index,
                    from,
                    to,
                } => self.settle_moved(&cell, index, from, to),
                Settled::Truncate { cell, freed } => {
                    cell.lock().settle_truncation();
                    self.shared.forget(cell.id, &freed);
                }
                Settled::Purge { cell, upto, freed } => {
                    cell.lock().settle_purge(upto);
                    self.shared.forget(cell.id, &freed);
                }
                Settled::Drop { group, freed } => self.shared.forget(group, &freed),
                Settled::Free(below) => {
                    let freed = self.shared.table().free_below(below);
                    self.shared.spares.give_back(freed);
                }
                Settled::Done(done, spent) => {
                    operations += 1;
                    cost += u64::from(spent);
                    done(Ok(()));
                }
            }
        }
        self.shared.queue.release(operations, cost);
        self.evict();
    }

    fn settle_entries(&mut self, cell: &Arc<Cell>, first: u64, offsets: &[u32]) {
        let generation = self.active.generation;
        let mut live = 0;
        {
            let mut state = cell.lock();
            for (index, offset) in (first..).zip(offsets) {
                live += state.settle(index, generation, *offset).unwrap_or(0);
            }
        }
        if live > 0 {
            self.shared.table().add(generation, cell.id, live);
            let last = first + offsets.len() as u64 - 1;
            self.cached.push_back((Arc::clone(cell), last));
        }
    }

    fn settle_moved(&self, cell: &Cell, index: u64, from: (u32, u32), to: (u32, u32)) {
        let moved = cell.lock().settle_moved(index, from, to);
        if let Some(bytes) = moved {
            let mut table = self.shared.table();
            table.subtract(from.0, cell.id, bytes);
            table.add(to.0, cell.id, bytes);
        }
    }

    /// Registers a rewritten entry; its new position is used once it is durable.
    pub(super) fn moved(&mut self, cell: Arc<Cell>, index: u64, from: (u32, u32), to: u32) {
        self.settled.push(Settled::Moved {
            cell,
            index,
            from,
            to: (self.active.generation, to),
        });
    }

    pub(super) fn free_when_durable(&mut self, below: u32) {
        self.settled.push(Settled::Free(below));
    }

    fn evict(&mut self) {
        let max = self.shared.config.tail_bytes_max;
        while self.shared.tail_bytes.load(Ordering::Relaxed) > max {
            let Some((cell, index)) = self.cached.pop_front() else {
                return;
            };
            let freed = cell.lock().evict(index);
            self.shared.tail_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    /// Continues in a new segment: a durable header, then a checkpoint of every group as its first
    /// batch.
    pub(super) fn next_segment(&mut self) -> io::Result<()> {
        let file = self.spare_in_place()?;
        let generation = self
            .active
            .generation
            .checked_add(1)
            .ok_or_else(|| io::Error::other("log generations are used up"))?;
        let header = Header {
            generation: u64::from(generation),
            previous: u64::from(self.active.generation),
            previous_end: self.active.offset,
            first_sequence: self.active.sequence,
            first_batch: self.active.batch,
            oldest: u64::from(self.oldest),
            segment_bytes: self.shared.config.segment_bytes,
            salt: salt(),
        };
        let mut page = header.encode();
        origin::mark(&mut page, &file.file.origin()?);
        file.file.write_at(&page, 0)?;
        file.file.sync_data()?;
        let salt = header.salt;
        self.shared.table().insert(generation, file.clone(), salt);
        self.shared.report();
        self.active.file = file;
        self.active.salt = salt;
        self.active.generation = generation;
        self.active.offset = HEADER_BYTES as u64;
        self.checkpoint()
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        let place = self.place();
        let room = self.shared.config.segment_bytes / 2 - HEADER_BYTES as u64;
        let mut sequence = place.sequence;
        for (group, hard) in &self.hard {
            let payload = postcard::to_stdvec(hard).map_err(io::Error::other)?;
            let place = Place { sequence, ..place };
            self.batch.push(place, Kind::State, *group, 0, &payload);
            sequence += 1;
        }
        self.active.sequence = sequence;
        if self.batch.len() as u64 > room {
            return Err(io::Error::other(
                "the groups' hard state does not fit into a log segment: make segments larger",
            ));
        }
        Ok(())
    }

    /// A spare segment that still has its name, so that a restart finds it.
    fn spare_in_place(&self) -> io::Result<SegmentFile> {
        loop {
            let file = self.spare()?;
            if self.shared.spares.is_in_place(&file) {
                return Ok(file);
            }
            tracing::warn!(path = ?file.path, "a spare log segment was removed: another one is made");
        }
    }

    fn spare(&self) -> io::Result<SegmentFile> {
        let spares = &self.shared.spares;
        if self.filling == Filling::Background {
            let give_up = |attempts| {
                let enough = attempts >= CLOSING_ATTEMPTS && self.shared.queue.is_closing();
                enough || self.shared.dead.get().is_some()
            };
            return spares
                .take_waiting(give_up)
                .ok_or_else(|| io::ErrorKind::StorageFull.into());
        }
        if let Some(file) = spares.take_ready() {
            return Ok(file);
        }
        spares.fill_one()?;
        spares
            .take_ready()
            .ok_or_else(|| io::ErrorKind::StorageFull.into())
    }

    /// Removes superfluous files, in place of the filling thread.
    fn tidy(&self) -> io::Result<()> {
        while let Some(file) = self.shared.spares.chore_now() {
            self.shared.spares.unlink(file)?;
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.encode_committed()?;
        self.push(Kind::Close, GroupId::META, 0, &[])?;
        self.flush()
    }

    /// Ends the log: calls the callbacks of all waiting operations with an error.
    fn end(&mut self, left: VecDeque<Operation>, why: &io::Error) {
        let again = || io::Error::new(why.kind(), why.to_string());
        self.shared.spares.stop();
        for settled in std::mem::take(&mut self.settled) {
            if let Settled::Done(done, _) = settled {
                done(Err(again()));
            }
        }
        let Taken { operations, .. } = self.shared.queue.abandon();
        for operation in left.into_iter().chain(operations) {
            (operation.done)(Err(again()));
        }
    }
}

/// A random initial value for the checksums of a segment.
fn salt() -> u32 {
    let [a, b, c, d, ..] = henge_runtime::random_bytes();
    u32::from_le_bytes([a, b, c, d])
}
