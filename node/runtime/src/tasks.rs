//! The task scope: every task, blocking job and thread of a node is started here and nowhere else.
//!
//! A scope has a name, a cancellation token and a count of its tasks. Child scopes are cancelled
//! with their parent. A task that panics is logged with its name. A task declared
//! [`OnPanic::EndProcess`] ends the process too, because a restart is better than going on without
//! it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The effect of a task's panic on the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPanic {
    /// The task served one request or one peer: the panic is logged.
    Log,
    /// The node cannot be trusted without this task: the process ends, and a restart recovers.
    EndProcess,
}

/// A scope of tasks. Clones share it.
#[derive(Debug, Clone)]
pub struct Scope {
    name: Arc<str>,
    handle: Handle,
    cancel: CancellationToken,
    tracker: TaskTracker,
    blocking: Arc<Semaphore>,
}

impl Scope {
    /// A root scope on the runtime `handle`, with at most `blocking_jobs_max` blocking jobs at
    /// once.
    pub fn root(name: &str, handle: Handle, blocking_jobs_max: usize) -> Self {
        Self {
            name: name.into(),
            handle,
            cancel: CancellationToken::new(),
            tracker: TaskTracker::new(),
            blocking: Arc::new(Semaphore::new(blocking_jobs_max)),
        }
    }

    /// A scope that is cancelled with this one, or earlier by itself. Shares the blocking pool.
    pub fn child(&self, name: &str) -> Self {
        Self {
            name: format!("{}/{name}", self.name).into(),
            handle: self.handle.clone(),
            cancel: self.cancel.child_token(),
            tracker: TaskTracker::new(),
            blocking: Arc::clone(&self.blocking),
        }
    }

    /// The same scope (cancelled together) on another runtime.
    pub fn on(&self, name: &str, handle: Handle) -> Self {
        let mut scope = self.child(name);
        scope.handle = handle;
        scope
    }

    /// Starts a task. It is dropped at its next await when the scope is cancelled.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns tasks"
    )]
    pub fn spawn<F>(&self, name: &'static str, on_panic: OnPanic, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        let guard = PanicGuard { name, on_panic };
        let task = self.tracker.track_future(async move {
            let guard = guard;
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = future => {}
            }
            drop(guard);
        });
        self.handle.spawn(task)
    }

    /// Runs blocking work on the bounded pool and waits for its result.
    ///
    /// # Errors
    /// When the job panicked; the job's own result is returned unchanged. Never returns when the
    /// runtime shuts down.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that starts blocking jobs"
    )]
    pub async fn blocking<T, F>(&self, name: &'static str, job: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.blocking)
            .acquire_owned()
            .await
            .map_err(|_| io::Error::other("the blocking pool is closed"))?;
        let job = self.handle.spawn_blocking(move || {
            let result = job();
            drop(permit);
            result
        });
        match job.await {
            Ok(result) => Ok(result),
            // Only a runtime that shuts down drops a job, and the caller ends with it: an error
            // would look like one of the disk.
            Err(error) if error.is_cancelled() => std::future::pending().await,
            Err(error) => Err(io::Error::other(format!(
                "blocking job {name} died: {error}"
            ))),
        }
    }

    /// Runs `future` on this scope's runtime and waits for its result. The caller may be on another
    /// runtime.
    ///
    /// # Errors
    /// When the scope was cancelled or the future panicked.
    pub async fn run<T, F>(&self, name: &'static str, future: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (result, received) = tokio::sync::oneshot::channel();
        self.spawn(name, OnPanic::Log, async move {
            // The caller may have been dropped meanwhile.
            result.send(future.await).ok();
        });
        received
            .await
            .map_err(|_| io::Error::other(format!("{name} was cut off")))
    }

    /// Starts a named thread for work that blocks for the life of the node (the log's writer).
    ///
    /// # Errors
    /// When the operating system refuses the thread.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that starts threads"
    )]
    pub fn thread<F>(
        name: &'static str,
        on_panic: OnPanic,
        job: F,
    ) -> io::Result<std::thread::JoinHandle<()>>
    where
        F: FnOnce() + Send + 'static,
    {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let guard = PanicGuard { name, on_panic };
                job();
                drop(guard);
            })
    }

    /// Resolves when the scope is cancelled.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Whether the scope is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Cancels the scope without waiting.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Cancels the scope and waits for its tasks; `false` when the deadline passed first.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
    }
}

struct PanicGuard {
    name: &'static str,
    on_panic: OnPanic,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        tracing::error!(task = self.name, "task panicked");
        if self.on_panic == OnPanic::EndProcess {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancelled_parent_ends_the_tasks_of_its_children() {
        let root = Scope::root("root", Handle::current(), 1);
        let child = root.child("child");
        let task = child.spawn("forever", OnPanic::Log, std::future::pending());
        assert!(root.shutdown(Duration::from_secs(5)).await);
        task.await.expect("the task ended without a panic");
    }

    #[tokio::test]
    async fn blocking_work_returns_its_result() {
        let root = Scope::root("root", Handle::current(), 1);
        assert_eq!(
            root.blocking("sum", || 1 + 1).await.expect("the job ran"),
            2
        );
    }
}
