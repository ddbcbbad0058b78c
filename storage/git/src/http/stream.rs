//! Bodies that a blocking job writes while the client reads.

use std::io::{self, Write};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use tokio::sync::mpsc;

use crate::protocol::Stop;

/// Chunks on their way: a slow client stops the job behind this many.
const CHUNKS_MAX: usize = 4;
/// Bytes in a full chunk.
const CHUNK_BYTES: usize = 64 * 1024;

enum Item {
    Data(Bytes),
    /// The job ended and everything was sent.
    End,
}

/// Runs `job` on the blocking pool of `scope`; what it writes becomes the body, with back-pressure.
///
/// When the client goes away, `stop` is set and the job's next write fails. When the job fails or panics, the body
/// breaks off, so that no client takes half an answer for a whole one.
pub fn stream_blocking<F>(scope: &Scope, stop: &Stop, job: F) -> Body
where
    F: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let pool = scope.clone();
    // The handle is not needed: the body ends with the job.
    drop(scope.spawn("git-stream", OnPanic::Log, async move {
        let outcome = pool.blocking("git-stream", move || run(job, sender)).await;
        if let Err(error) = outcome {
            tracing::error!(%error, "an answer broke off");
        }
    }));
    let reader = Reader {
        receiver,
        stop: StopOnDrop(stop.clone()),
    };
    Body::from_stream(stream::try_unfold(reader, |mut reader| async move {
        match reader.receiver.recv().await {
            Some(Item::Data(data)) => Ok(Some((data, reader))),
            Some(Item::End) => Ok(None),
            None => {
                // Keeps the guard in this future: the job is over either way.
                drop(reader.stop);
                Err(io::Error::other("the answer broke off"))
            }
        }
    }))
}

fn run<F>(job: F, sender: mpsc::Sender<Item>)
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let mut output = ChannelWriter {
        sender,
        buffer: Vec::with_capacity(CHUNK_BYTES),
    };
    let outcome = job(&mut output).and_then(|()| output.send());
    match outcome {
        // The client may be gone by now: nobody is left to tell.
        Ok(()) => drop(output.sender.blocking_send(Item::End)),
        Err(error) => tracing::debug!(%error, "an answer was not finished"),
    }
}

struct Reader {
    receiver: mpsc::Receiver<Item>,
    stop: StopOnDrop,
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct ChannelWriter {
    sender: mpsc::Sender<Item>,
    buffer: Vec<u8>,
}

impl ChannelWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sender
            .blocking_send(Item::Data(full.into()))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away"))
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.buffer.len();
        let taken = room.min(data.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio::runtime::Handle;

    fn scope() -> Scope {
        Scope::root("test", Handle::current(), 2)
    }

    #[tokio::test]
    async fn what_the_job_writes_is_the_body() {
        let body = stream_blocking(&scope(), &Stop::default(), |output| {
            for number in 0_u8..=255 {
                output.write_all(&[number; 3000])?;
            }
            Ok(())
        });
        let data = body.collect().await.unwrap().to_bytes();
        let expected: Vec<u8> = (0_u8..=255).flat_map(|number| [number; 3000]).collect();
        assert_eq!(data, expected);
    }

    #[tokio::test]
    async fn a_job_that_fails_or_panics_breaks_the_body_off() {
        for panics in [false, true] {
            let body = stream_blocking(&scope(), &Stop::default(), move |output| {
                output.write_all(&[1; CHUNK_BYTES])?;
                assert!(!panics, "on purpose");
                Err(io::Error::other("on purpose"))
            });
            assert!(body.collect().await.is_err(), "panics: {panics}");
        }
    }

    #[tokio::test]
    async fn a_job_without_a_client_is_stopped() {
        let stop = Stop::default();
        let (ended, end) = tokio::sync::oneshot::channel();
        let body = stream_blocking(&scope(), &stop, move |output| {
            let outcome = loop {
                if let Err(error) = output.write_all(&[1; CHUNK_BYTES]) {
                    break error.kind();
                }
            };
            ended
                .send(outcome)
                .map_err(|_| io::Error::other("nobody waits"))
        });
        drop(body);
        assert_eq!(end.await.unwrap(), io::ErrorKind::BrokenPipe);
        assert!(stop.is_set());
    }
}
