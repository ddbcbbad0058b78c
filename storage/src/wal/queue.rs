//! The queue of the log's writer: ordered, shared by all groups, limited in bytes.

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
    /// Nothing to write: its `done` is called when everything before is durable.
    Barrier,
}

/// A change and its callback.
pub(super) struct Operation {
    pub(super) cell: Arc<Cell>,
    pub(super) work: Work,
    pub(super) done: Done,
    pub(super) cost: u32,
}

/// The operations that the writer takes from the queue.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) operations: Vec<Operation>,
    /// Newest committed position per group; written after all taken operations.
    pub(super) committed: BTreeMap<GroupId, (Arc<Cell>, Bytes)>,
    pub(super) closing: bool,
}

#[derive(Default)]
struct Waiting {
    taken: Taken,
    closed: bool,
    writer_waits: bool,
}

/// The queue. Senders wait while it is full.
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

    /// Waits for a permit.
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

    /// Records a group's committed position; it is written with the next batch.
    pub(super) fn commit(&self, cell: Arc<Cell>, committed: Bytes) -> io::Result<()> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.taken.closing {
            return Err(closed());
        }
        waiting.taken.committed.insert(cell.id, (cell, committed));
        Ok(())
    }

    /// All queued operations. With `Wait::ForWork`, blocks until there is an operation or the queue
    /// closes.
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

    /// Returns permits and counts operations as done.
    pub(super) fn release(&self, operations: usize, cost: u64) {
        self.depth.fetch_sub(operations, Ordering::Relaxed);
        self.room
            .add_permits(usize::try_from(cost).unwrap_or_default());
    }

    /// Accepts no more operations: the writer ends after it has written the queued ones.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.taken.closing = true;
        self.room.close();
        self.wake(&waiting);
    }

    /// Called when the writer has ended: removes the operations that will not be written.
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

/// A permit for the queue, returned on drop unless it is spent.
pub(super) struct Room<'a> {
    permit: SemaphorePermit<'a>,
    cost: u32,
}

impl Room<'_> {
    /// The cost for the operation; returned when that is written.
    pub(super) fn spend(self) -> u32 {
        self.permit.forget();
        self.cost
    }
}

/// Whether the writer blocks when the queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    ForWork,
    /// The writer has work of its own, or a simulation runs the turns.
    Never,
}

pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the write-ahead log is closed")
}
