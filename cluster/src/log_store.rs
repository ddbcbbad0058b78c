//! openraft's log of one group, over the node's one write-ahead log.
//!
//! openraft counts entries from 0, the write-ahead log from 1 (its 0 means *none*): [`slot`]
//! translates.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures::{Stream, StreamExt, stream};
use henge_storage::wal::{Purged, Record, Wal};
use henge_types::{GroupId, limits};
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use crate::raft::{self, Entry, LogId, TypeConfig, Vote};

/// A handle on one group's part of the log; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    group: GroupId,
    wal: Wal,
}

impl LogStore {
    /// The log of `group`.
    pub(crate) fn new(group: GroupId, wal: Wal) -> Self {
        Self { group, wal }
    }

    fn last_log_id(&self) -> io::Result<Option<LogId>> {
        let log = self.wal.group(self.group);
        let purged = match &log.purged {
            Some(purged) => Some(raft::decode_log_id(&purged.id).map_err(io::Error::other)?),
            None => None,
        };
        let Some(last) = log.last_index else {
            return Ok(purged);
        };
        if purged
            .as_ref()
            .is_some_and(|purged| slot(purged.index()) >= last)
        {
            return Ok(purged);
        }
        let records = self.wal.read(self.group, last..=last, 1)?;
        let record = records.first().ok_or_else(|| {
            io::Error::other(format!("log of group {} lacks entry {last}", self.group))
        })?;
        Ok(Some(decode(record)?.log_id()))
    }

    /// Entries `from..end`, from memory if they are cached there, else read on a blocking thread.
    async fn read(&self, from: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let log = self.wal.group(self.group);
        let Some(first) = log.first_index.map(|first| first.max(slot(from))) else {
            return Ok(Vec::new());
        };
        let Some(last) = log.last_index.map(|last| last.min(end)) else {
            return Ok(Vec::new());
        };
        if first > last {
            return Ok(Vec::new());
        }
        let records = match self.wal.read_cached(self.group, first..=last, bytes_max) {
            Some(records) => records,
            None => {
                let (wal, group) = (self.wal.clone(), self.group);
                blocking(move || wal.read(group, first..=last, bytes_max)).await?
            }
        };
        records.iter().map(decode).collect()
    }
}

/// Runs a read of old log on a blocking thread: openraft's tasks must not wait for a disk.
#[allow(
    clippy::disallowed_methods,
    reason = "reads are bounded by the number of replication tasks, one each"
)]
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(job)
        .await
        .map_err(io::Error::other)?
}

/// The write-ahead log's index of openraft's entry `index`.
pub(crate) fn slot(index: u64) -> u64 {
    index.saturating_add(1)
}

fn decode(record: &Record) -> io::Result<Entry> {
    raft::decode_entry(&record.payload).map_err(io::Error::other)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(from) => from.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (from, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut from, end) = bounds(&range);
        let mut entries = Vec::new();
        loop {
            let part = self.read(from, end, limits::APPEND_BYTES_MAX).await?;
            let Some(last) = part.last() else {
                return Ok(entries);
            };
            from = last.log_id().index() + 1;
            entries.extend(part);
        }
    }

    /// Lazily, a bounded batch at a time: the entries to apply may be gigabytes.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, end) = bounds(&range);
        let store = self.clone();
        stream::unfold(
            (store, from, false),
            move |(store, from, failed)| async move {
                if failed {
                    return None;
                }
                match store.read(from, end, limits::APPEND_BYTES_MAX).await {
                    Ok(entries) => {
                        let next = entries.last()?.log_id().index() + 1;
                        let items: Vec<_> = entries.into_iter().map(Ok).collect();
                        Some((stream::iter(items), (store, next, false)))
                    }
                    Err(error) => Some((stream::iter(vec![Err(error)]), (store, from, true))),
                }
            },
        )
        .flatten()
        .boxed()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.wal
            .group(self.group)
            .vote
            .map(|vote| raft::decode_vote(&vote).map_err(io::Error::other))
            .transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, limits::APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let purged = self.wal.group(self.group).purged;
        let last_purged_log_id = purged
            .map(|purged| raft::decode_log_id(&purged.id).map_err(io::Error::other))
            .transpose()?;
        Ok(LogState {
            last_purged_log_id,
            last_log_id: self.last_log_id()?,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, synced) = waiter();
        self.wal
            .save_vote(self.group, raft::encode_vote(vote), done)
            .await?;
        wait(synced).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => {
                self.wal
                    .save_committed(self.group, raft::encode_log_id(&id))
                    .await
            }
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.wal.group(self.group).committed;
        committed
            .map(|id| raft::decode_log_id(&id).map_err(io::Error::other))
            .transpose()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries
            .into_iter()
            .map(|entry| Record {
                index: slot(entry.log_id().index()),
                payload: raft::encode_entry(&entry),
            })
            .collect();
        self.wal
            .append(
                self.group,
                records,
                Box::new(move |result| callback.io_completed(result)),
            )
            .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let keep = last_log_id.map_or(0, |id| slot(id.index()));
        let (done, synced) = waiter();
        self.wal.truncate_after(self.group, keep, done).await?;
        wait(synced).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let upto = Purged {
            index: slot(log_id.index()),
            id: raft::encode_log_id(&log_id),
        };
        let (done, synced) = waiter();
        self.wal.purge(self.group, upto, done).await?;
        wait(synced).await
    }
}

fn waiter() -> (henge_storage::wal::Done, oneshot::Receiver<io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    let done = move |result| {
        // The receiver is gone if the group was stopped meanwhile.
        sender.send(result).ok();
    };
    (Box::new(done), receiver)
}

async fn wait(synced: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    synced
        .await
        .map_err(|_| io::Error::other("the write-ahead log has stopped"))?
}
