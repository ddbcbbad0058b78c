//! Response bodies that a blocking job writes while the client reads.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::stream;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::output::{Compared, Output, PackPart};
use crate::protocol::Stop;

/// The maximum number of batches in flight: a slow client blocks the job after this many.
const BATCHES_MAX: usize = 3;
/// Bytes in a full batch.
const BATCH_BYTES: usize = 256 * 1024;
/// The maximum of written bytes in one piece of a batch.
const CHUNK_BYTES: usize = 64 * 1024;
/// The interval at which a job that waits for a slow client checks its deadline.
const LOOK_EVERY: Duration = Duration::from_secs(1);

enum Item {
    Data(Vec<Bytes>),
    /// The job ended and everything was sent.
    End,
}

/// Runs `job` on the blocking pool of `scope`. Its output becomes the body, with back-pressure.
///
/// If the client disconnects, `stop` is set, and the next write of the job fails. If `stop` is set
/// while the client reads nothing, the write fails as well. If the job fails or panics, the body
/// ends with an error, so that no client takes a partial response for a complete one.
pub fn stream_blocking<F>(scope: &Scope, stop: &Stop, job: F) -> Body
where
    F: FnOnce(&mut dyn Output) -> io::Result<()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    let (pool, deadline) = (scope.clone(), stop.clone());
    // The handle is not needed: the body ends with the job.
    drop(scope.spawn("git-stream", OnPanic::Log, async move {
        let outcome = pool.blocking("git-stream", move || run(job, sender, deadline));
        if let Err(error) = outcome.await {
            tracing::error!(%error, "an answer broke off");
        }
    }));
    let reader = Reader {
        receiver,
        pieces: Vec::new().into_iter(),
        stop: StopOnDrop(stop.clone()),
    };
    Body::from_stream(stream::try_unfold(reader, |mut reader| async move {
        loop {
            if let Some(piece) = reader.pieces.next() {
                return Ok(Some((piece, reader)));
            }
            match reader.receiver.recv().await {
                Some(Item::Data(pieces)) => reader.pieces = pieces.into_iter(),
                Some(Item::End) => return Ok(None),
                None => {
                    // Keeps the guard in this future: the job has ended in any case.
                    drop(reader.stop);
                    return Err(io::Error::other("the answer broke off"));
                }
            }
        }
    }))
}

fn run<F>(job: F, sender: mpsc::Sender<Item>, stop: Stop)
where
    F: FnOnce(&mut dyn Output) -> io::Result<()>,
{
    let mut output = ChannelWriter {
        sender,
        runtime: Handle::current(),
        stop,
        buffer: BytesMut::new(),
        batch: Vec::new(),
        batch_bytes: 0,
        compared: Compared::default(),
    };
    let outcome = job(&mut output).and_then(|()| output.send());
    match outcome {
        // The client may have disconnected: this error is of no use.
        Ok(()) => drop(output.pass(Item::End)),
        Err(error) => tracing::debug!(%error, "an answer was not finished"),
    }
}

struct Reader {
    receiver: mpsc::Receiver<Item>,
    pieces: std::vec::IntoIter<Bytes>,
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
    runtime: Handle,
    stop: Stop,
    /// Written bytes that are not yet a piece of the batch.
    buffer: BytesMut,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    compared: Compared,
}

impl ChannelWriter {
    fn add(&mut self, piece: Bytes) -> io::Result<()> {
        self.batch_bytes += piece.len();
        self.batch.push(piece);
        if self.batch_bytes >= BATCH_BYTES {
            self.send_batch()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        self.add(piece)
    }

    fn send_batch(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.pass(Item::Data(batch))
    }

    /// Waits for the client at most until the deadline: the job holds a permit that others wait
    /// for.
    fn pass(&self, item: Item) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the client went away");
        let item = match self.sender.try_send(item) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(gone()),
            Err(TrySendError::Full(item)) => item,
        };
        loop {
            let room = async { tokio::time::timeout(LOOK_EVERY, self.sender.reserve()).await };
            match self.runtime.block_on(room) {
                Ok(Ok(room)) => {
                    room.send(item);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(gone()),
                Err(_) if self.sender.is_closed() => return Err(gone()),
                Err(_) if self.stop.is_set() => {
                    let text = "the client takes nothing, and the time for it is over";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(_) => {}
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.seal()?;
        self.send_batch()
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(CHUNK_BYTES);
        }
        let room = CHUNK_BYTES - self.buffer.len();
        let taken = room.min(data.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.seal()?;
        }
        Ok(taken)
    }

    /// Never blocks: a client that has not read earlier bytes has enough to read, and the job may
    /// hold a permit that others wait for. Remaining bytes are sent with the next ones.
    fn flush(&mut self) -> io::Result<()> {
        if self.sender.capacity() == 0 && !self.sender.is_closed() {
            return Ok(());
        }
        self.send()
    }
}

impl Output for ChannelWriter {
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        self.seal()?;
        let bytes = self.compared.take(part)?;
        self.add(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

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
            loop {
                if let Err(error) = output.write_all(&[1; CHUNK_BYTES]) {
                    ended.send(error.kind()).unwrap();
                    return Err(error);
                }
            }
        });
        drop(body);
        assert_eq!(end.await.unwrap(), io::ErrorKind::BrokenPipe);
        assert!(stop.is_set());
    }

    /// A fetch that sent progress to a client that read nothing once kept its permit without a time
    /// limit.
    #[tokio::test]
    async fn a_flush_waits_for_no_client() {
        let full = BATCHES_MAX * BATCH_BYTES;
        let (flushed, is_flushed) = tokio::sync::oneshot::channel();
        let body = stream_blocking(&scope(), &Stop::default(), move |output| {
            output.write_all(&vec![1; full])?;
            for _ in 0..3 {
                output.write_all(b"progress")?;
                output.flush()?;
            }
            flushed
                .send(())
                .map_err(|()| io::Error::other("nobody waits"))
        });
        let outcome = tokio::time::timeout(Duration::from_secs(60), is_flushed).await;
        outcome.unwrap().unwrap();
        let data = body.collect().await.unwrap().to_bytes();
        assert_eq!(data.len(), full + 3 * b"progress".len());
        assert!(data.ends_with(b"progressprogressprogress"));
    }

    /// Sixty-four paused clones once kept a node from answering other fetches, without a time
    /// limit.
    #[tokio::test]
    async fn a_job_whose_client_takes_nothing_ends_at_its_deadline() {
        let stop = Stop::default();
        let (full, is_full) = tokio::sync::oneshot::channel();
        let (ended, end) = tokio::sync::oneshot::channel();
        let body = stream_blocking(&scope(), &stop, move |output| {
            let batches = BATCHES_MAX * (BATCH_BYTES / CHUNK_BYTES);
            for _ in 0..batches {
                output.write_all(&[1; CHUNK_BYTES])?;
            }
            full.send(())
                .map_err(|()| io::Error::other("nobody waits"))?;
            loop {
                if let Err(error) = output.write_all(&[1; CHUNK_BYTES]) {
                    ended.send(error.kind()).unwrap();
                    return Err(error);
                }
            }
        });
        is_full.await.unwrap();
        stop.stop();
        let outcome = tokio::time::timeout(Duration::from_secs(60), end).await;
        assert_eq!(outcome.unwrap().unwrap(), io::ErrorKind::TimedOut);
        assert!(body.collect().await.is_err(), "half an answer");
    }
}
