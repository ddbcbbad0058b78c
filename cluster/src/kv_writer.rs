//! The one writer of the node's kv: machines queue their batches and continue.
//!
//! Writes are asynchronous: the kv is trusted only after a clean shutdown, and a clean shutdown
//! drains this queue first. So batches are collected for a while, and a key that is written twice
//! meanwhile is written once.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use henge_state::{State, Write};
use henge_storage::kv::Kv;
use henge_types::GroupId;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

/// Batches waiting for the kv, of all groups; machines wait when it is full.
const QUEUE_MAX: usize = 1024;
/// Interval of the polls of the queue while batches are collected.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Empty polls before the collected batches are written.
const LOOKS_MAX: u32 = 25;
/// Bytes that are collected at most before they are written.
const COLLECTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pairs per written batch. sled frees the replaced values of a batch only after it: a batch of a
/// hundred thousand pairs took 300 MB.
const WRITTEN_PAIRS_MAX: usize = 256;
/// Size of a pair beside its bytes.
const PAIR_BYTES: usize = 64;

enum Job {
    Commit {
        group: GroupId,
        meta: Bytes,
        writes: Vec<Write>,
    },
    Replace {
        group: GroupId,
        meta: Bytes,
        state: State,
    },
    Close {
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// A handle on the writer; clones share it.
#[derive(Debug, Clone)]
pub struct KvWriter {
    jobs: mpsc::Sender<Job>,
    scope: Scope,
}

impl KvWriter {
    /// Starts the writer's thread over `kv`.
    ///
    /// # Errors
    /// When the operating system refuses the thread.
    pub fn start(kv: Arc<dyn Kv>, scope: Scope) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        Scope::thread("kv-writer", OnPanic::EndProcess, move || {
            run(kv.as_ref(), queue);
        })?;
        Ok(Self { jobs, scope })
    }

    /// The scope of the machines' blocking work.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Queues a batch: the writes and the resulting position, atomically.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn commit(&self, group: GroupId, meta: Bytes, writes: Vec<Write>) -> io::Result<()> {
        self.send(Job::Commit {
            group,
            meta,
            writes,
        })
        .await
    }

    /// Queues the replacement of a group's pairs by a snapshot's.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn replace(&self, group: GroupId, meta: Bytes, state: State) -> io::Result<()> {
        self.send(Job::Replace { group, meta, state }).await
    }

    /// Drains the queue, makes the kv durable and leaves the clean-stop marker.
    ///
    /// # Errors
    /// When an earlier write failed: the marker is not left then.
    pub async fn close(&self) -> io::Result<()> {
        let (done, closed) = oneshot::channel();
        self.send(Job::Close { done }).await?;
        closed.await.map_err(|_| stopped())?
    }

    async fn send(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).await.map_err(|_| stopped())
    }
}

fn stopped() -> io::Error {
    io::Error::other("the kv writer has stopped")
}

/// The combined batches of a group.
#[derive(Default)]
struct Collected {
    meta: Bytes,
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

/// The kv, and the batches that are not written to it yet.
struct Collector<'a> {
    kv: &'a dyn Kv,
    groups: BTreeMap<GroupId, Collected>,
    bytes: usize,
    /// The first failed write. It costs only the clean shutdown: from then on the kv is not
    /// trusted.
    failed: Option<String>,
}

impl Collector<'_> {
    fn add(&mut self, group: GroupId, meta: Bytes, writes: Vec<Write>) {
        let collected = self.groups.entry(group).or_default();
        collected.meta = meta;
        for write in writes {
            self.bytes += PAIR_BYTES + write.key.len() + write.value.as_ref().map_or(0, Bytes::len);
            collected.writes.insert(write.key, write.value);
        }
    }

    fn write(&mut self) {
        self.bytes = 0;
        for (group, collected) in std::mem::take(&mut self.groups) {
            let writes: Vec<_> = collected.writes.into_iter().collect();
            let (more, last) = writes.split_at(writes.len() - writes.len() % WRITTEN_PAIRS_MAX);
            // All chunks carry the last position, because the kv is not read before all are
            // written. Entries without writes move the position, too.
            for some in more.chunks(WRITTEN_PAIRS_MAX).chain([last]) {
                let written = self.kv.commit(group, collected.meta.clone(), some);
                self.note(written.map_err(io::Error::other));
            }
        }
    }

    fn replace(&mut self, group: GroupId, meta: Bytes, state: &State) {
        // The new state replaces all collected writes.
        self.groups.remove(&group);
        let pairs = state.iter();
        let mut pairs = pairs.map(|(key, value)| (key.clone(), value.clone()));
        let replaced = self.kv.replace(group, meta, &mut pairs);
        self.note(replaced.map_err(io::Error::other));
    }

    fn close(mut self) -> io::Result<()> {
        self.write();
        match self.failed {
            Some(error) => Err(io::Error::other(error)),
            None => self.kv.close_clean().map_err(io::Error::other),
        }
    }

    fn note(&mut self, written: io::Result<()>) {
        let Err(error) = written else {
            return;
        };
        if self.failed.is_none() {
            tracing::error!(%error, "kv write failed: the next start rebuilds it from snapshot and log");
        }
        self.failed = Some(error.to_string());
    }
}

fn run(kv: &dyn Kv, mut queue: mpsc::Receiver<Job>) {
    let mut collector = Collector {
        kv,
        groups: BTreeMap::new(),
        bytes: 0,
        failed: None,
    };
    let mut looks = 0;
    loop {
        let job = if collector.groups.is_empty() {
            looks = 0;
            match queue.blocking_recv() {
                Some(job) => job,
                None => return,
            }
        } else {
            match queue.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Empty) if looks < LOOKS_MAX => {
                    looks += 1;
                    std::thread::park_timeout(LOOK_EVERY);
                    continue;
                }
                Err(TryRecvError::Empty) => {
                    collector.write();
                    continue;
                }
                // Not a clean shutdown: the missing writes are in the log.
                Err(TryRecvError::Disconnected) => return collector.write(),
            }
        };
        match job {
            Job::Commit {
                group,
                meta,
                writes,
            } => collector.add(group, meta, writes),
            Job::Replace { group, meta, state } => collector.replace(group, meta, &state),
            Job::Close { done } => {
                done.send(collector.close()).ok();
                return;
            }
        }
        if collector.bytes > COLLECTED_BYTES_MAX {
            collector.write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_storage::kv::MemoryKv;

    const GROUP: GroupId = GroupId::new(1);

    fn write(key: &'static str, value: Option<&'static str>) -> Write {
        Write {
            key: Bytes::from(key),
            value: value.map(Bytes::from),
        }
    }

    fn collector(kv: &dyn Kv) -> Collector<'_> {
        Collector {
            kv,
            groups: BTreeMap::new(),
            bytes: 0,
            failed: None,
        }
    }

    fn pairs(kv: &MemoryKv, group: GroupId) -> (Bytes, Vec<(Bytes, Bytes)>) {
        let image = kv.load(group).unwrap().expect("something was written");
        (image.meta, image.pairs)
    }

    fn pair(key: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (Bytes::from(key), Bytes::from(value))
    }

    #[test]
    fn batches_are_written_as_one_with_the_last_position() {
        let kv = MemoryKv::new();
        let mut collector = collector(&kv);
        let first = vec![write("a", Some("old")), write("gone", Some("x"))];
        collector.add(GROUP, "1".into(), first);
        let second = vec![write("a", Some("new")), write("gone", None)];
        collector.add(GROUP, "2".into(), second);
        let other = GroupId::new(2);
        collector.add(other, "7".into(), vec![write("b", Some("other"))]);
        assert!(kv.load(GROUP).unwrap().is_none());
        collector.write();
        assert_eq!(pairs(&kv, GROUP), ("2".into(), vec![pair("a", "new")]));
        assert_eq!(pairs(&kv, other), ("7".into(), vec![pair("b", "other")]));
        assert_eq!((collector.bytes, collector.groups.len()), (0, 0));
        collector.add(GROUP, "3".into(), vec![write("a", None)]);
        collector.write();
        assert_eq!(pairs(&kv, GROUP), ("3".into(), vec![]));
    }

    #[test]
    fn a_snapshot_takes_the_place_of_what_was_collected() {
        let kv = MemoryKv::new();
        let mut collector = collector(&kv);
        collector.add(GROUP, "1".into(), vec![write("before", Some("x"))]);
        collector.replace(GROUP, "2".into(), &State::default());
        assert_eq!(pairs(&kv, GROUP), ("2".into(), vec![]));
        collector.add(GROUP, "3".into(), vec![write("after", Some("y"))]);
        collector.write();
        assert_eq!(pairs(&kv, GROUP), ("3".into(), vec![pair("after", "y")]));
        collector.close().unwrap();
    }

    #[test]
    fn no_stop_is_clean_after_a_failed_write() {
        let kv = MemoryKv::new();
        kv.close_clean().unwrap();
        let mut collector = collector(&kv);
        collector.add(GROUP, "1".into(), vec![write("a", Some("x"))]);
        collector.close().unwrap_err();
    }

    #[tokio::test]
    async fn what_is_queued_is_written_before_the_stop() {
        let kv = Arc::new(MemoryKv::new());
        let scope = Scope::root("writer", tokio::runtime::Handle::current(), 1);
        let writer = KvWriter::start(kv.clone(), scope).unwrap();
        let writes = vec![write("a", Some("x"))];
        writer.commit(GROUP, "1".into(), writes).await.unwrap();
        writer.close().await.unwrap();
        assert!(kv.load(GROUP).is_err(), "closed");
        writer.close().await.unwrap_err();
    }
}
