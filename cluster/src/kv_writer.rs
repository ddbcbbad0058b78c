//! The one writer of the node's kv: machines hand it their batches and go on.
//!
//! Nothing waits for the kv, because nothing believes it but a start after a clean stop, and a clean stop
//! drains this queue first.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use henge_state::{State, Write};
use henge_storage::kv::Kv;
use henge_types::GroupId;
use tokio::sync::{mpsc, oneshot};

/// Batches waiting for the kv, of all groups; machines wait when it is full.
const QUEUE_MAX: usize = 1024;

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

    /// Where the machines run their blocking work.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Queues a batch: the writes and the position they lead to, atomically.
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
    /// When anything before failed: the marker is not left then.
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

/// A failed write only costs the clean stop: from then on the kv is not believed.
fn run(kv: &dyn Kv, mut queue: mpsc::Receiver<Job>) {
    let mut failed: Option<String> = None;
    while let Some(job) = queue.blocking_recv() {
        let result = match job {
            Job::Commit {
                group,
                meta,
                writes,
            } => {
                let writes: Vec<_> = writes
                    .into_iter()
                    .map(|write| (write.key, write.value))
                    .collect();
                kv.commit(group, meta, &writes)
            }
            Job::Replace { group, meta, state } => kv.replace(
                group,
                meta,
                &mut state
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone())),
            ),
            Job::Close { done } => {
                let result = match failed.take() {
                    Some(error) => Err(io::Error::other(error)),
                    None => kv.close_clean().map_err(io::Error::other),
                };
                done.send(result).ok();
                return;
            }
        };
        if let Err(error) = result {
            if failed.is_none() {
                tracing::error!(%error, "kv write failed: the next start rebuilds it from snapshot and log");
            }
            failed = Some(error.to_string());
        }
    }
}
