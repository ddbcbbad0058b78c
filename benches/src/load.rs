//! Closed loop: each client writes again after the answer to its last write.

use std::time::Duration;

use anyhow::Context as _;
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock as _, Scope, SystemClock};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::samples::Samples;

/// Pause after a failed write.
const PAUSE: Duration = Duration::from_millis(10);
/// Deadline of one write: a stalled client counts as an error.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// One client.
pub(crate) trait Writer: Send + 'static {
    /// Makes one durable change and waits for its acknowledgement.
    fn write(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// The result of the clients.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Latencies of the writes acknowledged in the measured time.
    pub(crate) latencies: Samples,
    /// Measured time of all runs.
    pub(crate) measured: Duration,
    pub(crate) errors: u64,
    /// The first error.
    pub(crate) error: Option<String>,
}

impl Load {
    /// Adds another run of the same load.
    pub(crate) fn append(&mut self, other: Self) {
        self.latencies.append(other.latencies);
        self.measured += other.measured;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
    }

    /// Acknowledged writes per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.measured.as_secs_f64()
    }
}

/// Runs all clients at once for `measured`, after a warm-up that does not count.
///
/// # Errors
/// When a client died or no write was acknowledged.
pub(crate) async fn closed_loop<W: Writer>(
    scope: &Scope,
    writers: Vec<W>,
    warm_up: Duration,
    measured: Duration,
) -> anyhow::Result<Load> {
    let clients = writers.len();
    let (done, mut results) = mpsc::channel(clients.max(1));
    let start = SystemClock.instant() + warm_up;
    for writer in writers {
        let done = done.clone();
        scope.spawn("client", OnPanic::Log, async move {
            let load = one_client(writer, start, measured).await;
            // The receiver is gone when the bench was interrupted.
            drop(done.send(load).await);
        });
    }
    drop(done);
    let mut all = Load::default();
    for _ in 0..clients {
        all.append(results.recv().await.context("a client died")?);
    }
    all.measured = measured;
    if all.latencies.is_empty() {
        let error = all.error.unwrap_or_default();
        anyhow::bail!("no write was acknowledged; the first error: {error}");
    }
    Ok(all)
}

async fn one_client<W: Writer>(
    mut writer: W,
    start: std::time::Instant,
    measured: Duration,
) -> Load {
    let mut load = Load::default();
    let end = start + measured;
    loop {
        let began = SystemClock.instant();
        let written = timeout(WRITE_DEADLINE, writer.write()).await;
        let ended = SystemClock.instant();
        let written = written.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in 10 s")));
        let failed = written.is_err();
        match written {
            // Counted by the time of the answer, at both ends alike, so that slow writes are
            // included.
            Ok(()) if ended >= start && ended < end => {
                load.latencies.push(ended.duration_since(began));
            }
            Ok(()) => {}
            Err(error) => {
                load.errors += 1;
                load.error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
        if ended >= end {
            return load;
        }
        if failed {
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Handle;

    struct Refused;

    impl Writer for Refused {
        async fn write(&mut self) -> anyhow::Result<()> {
            anyhow::bail!("no")
        }
    }

    #[tokio::test]
    async fn a_load_of_errors_is_an_error() {
        let scope = Scope::root("test", Handle::current(), 1);
        let now = Duration::ZERO;
        let load = closed_loop(&scope, vec![Refused], now, now).await;
        let error = load.expect_err("nothing was written");
        assert!(error.to_string().contains("the first error: no"), "{error}");
    }

    #[test]
    fn runs_of_the_same_load_add_up() {
        let mut all = Load::default();
        for _ in 0..2 {
            let mut run = Load {
                measured: Duration::from_secs(1),
                ..Load::default()
            };
            run.latencies.push(Duration::from_millis(1));
            run.latencies.push(Duration::from_millis(3));
            all.append(run);
        }
        assert_eq!(all.rate(), 2.0);
    }
}
