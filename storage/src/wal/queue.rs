//! What waits for the log's writer: one ordered queue for all groups, bounded in bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use henge_types::{GroupId, limits};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::group::{Cell, Freed};
use super::{Done, Purged, Record};

/// One change of a group's log.
pub(super) enum Work {
    Entries(Vec<Record>),
    Vote(Bytes),
    Truncate {
        keep: u64,
        freed: Freed,
    },
    Purge {
        upto: Purged,
        freed: Freed,
    },
    Drop {
        freed: Freed,
    },
    /// Nothing to write: only to be told when everything before is durable.
    Barrier,
}

/// A change and who is to be told once it is durable.
pub(super) struct Operation {
    pub(super) cell: Arc<Cell>,
    pub(super) work: Work,
    pub(super) done: Done,
    pub(super) cost: u32,
}

/// What the writer took from the queue.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) operations: Vec<Operation>,
    /// Newest committed position per group; behind every operation taken.
    pub(super) committed: BTreeMap<GroupId, (Arc<Cell>, Bytes)>,
    pub(super) closing: bool,
}

#[derive(Default)]
struct Waiting {
    taken: Taken,
    closed: bool,
    writer_waits: bool,
}

/// The queue. Full means: senders wait.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    room: Semaphore,
    capacity: u32,
    depth: AtomicUsize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("depth", &self.depth())
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// A queue that holds at most `bytes_max` of payload and [`limits::WAL_QUEUE_MAX`] operations.
    pub(super) fn new(bytes_max: usize) -> Self {
        let capacity = u32::try_from(bytes_max).unwrap_or(u32::MAX / 8);
        let capacity = capacity.max(u32::try_from(limits::WAL_QUEUE_MAX).unwrap_or(1));
        Self {
            waiting: Mutex::default(),
            ready: Condvar::new(),
            room: Semaphore::new(usize::try_from(capacity).unwrap_or(usize::MAX >> 3)),
            capacity,
            depth: AtomicUsize::new(0),
        }
    }

    /// Waits for room.
    pub(super) async fn admit(&self, bytes: usize) -> io::Result<Room<'_>> {
        let least = self.capacity / u32::try_from(limits::WAL_QUEUE_MAX).unwrap_or(1);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let cost = bytes.clamp(least.max(1), self.capacity);
        let permit = self.room.acquire_many(cost).await.map_err(|_| closed())?;
        Ok(Room { permit, cost })
    }

    /// Adds an admitted operation.
    pub(super) fn push(&self, operation: Operation) -> io::Result<()> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.taken.closing {
            return Err(closed());
        }
        waiting.taken.operations.push(operation);
        self.depth.fetch_add(1, Ordering::Relaxed);
        self.wake(&waiting);
        Ok(())
    }

    /// Notes a group's committed position; it rides with the next batch.
    pub(super) fn commit(&self, cell: Arc<Cell>, committed: Bytes) -> io::Result<()> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.taken.closing {
            return Err(closed());
        }
        waiting.taken.committed.insert(cell.id, (cell, committed));
        Ok(())
    }

    /// Everything queued. With `wait`, sleeps until there is an operation or the queue closes.
    pub(super) fn take(&self, wait: Wait) -> Taken {
        let mut waiting = self.lock();
        while wait == Wait::ForWork && waiting.taken.operations.is_empty() && !waiting.taken.closing
        {
            waiting.writer_waits = true;
            waiting = self
                .ready
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
            waiting.writer_waits = false;
        }
        let closing = waiting.taken.closing;
        let taken = std::mem::take(&mut waiting.taken);
        waiting.taken.closing = closing;
        taken
    }

    /// Gives back room and counts operations as done.
    pub(super) fn release(&self, operations: usize, cost: u64) {
        self.depth.fetch_sub(operations, Ordering::Relaxed);
        self.room
            .add_permits(usize::try_from(cost).unwrap_or_default());
    }

    /// No more operations: the writer ends once it has written what is queued.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.taken.closing = true;
        self.room.close();
        self.wake(&waiting);
    }

    /// The writer is gone: takes what nobody will write.
    pub(super) fn abandon(&self) -> Taken {
        self.room.close();
        let mut waiting = self.lock();
        waiting.closed = true;
        std::mem::take(&mut waiting.taken)
    }

    pub(super) fn is_closing(&self) -> bool {
        let waiting = self.lock();
        waiting.closed || waiting.taken.closing
    }

    pub(super) fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    fn wake(&self, waiting: &Waiting) {
        if waiting.writer_waits {
            self.ready.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room in the queue, given back unless it is spent.
pub(super) struct Room<'a> {
    permit: SemaphorePermit<'a>,
    cost: u32,
}

impl Room<'_> {
    /// The cost to put into the operation; given back when that is written.
    pub(super) fn spend(self) -> u32 {
        self.permit.forget();
        self.cost
    }
}

/// Whether the writer sleeps when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    ForWork,
    /// It has work of its own, or the turns are taken by a simulation.
    Never,
}

pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the write-ahead log is closed")
}
