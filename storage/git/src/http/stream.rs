//! Bodies that a blocking job writes while the client reads.

use std::io::{self, Write};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::stream;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use tokio::sync::mpsc;

use crate::output::{Output, PackPart};
use crate::protocol::Stop;

/// Batches on their way: a slow client stops the job behind this many.
const BATCHES_MAX: usize = 4;
/// Bytes in a full batch.
const BATCH_BYTES: usize = 128 * 1024;
/// Bytes of one's own that are gathered before they become a piece of a batch.
const CHUNK_BYTES: usize = 64 * 1024;

enum Item {
    Data(Vec<Bytes>),
    /// The job ended and everything was sent.
    End,
}

/// Runs `job` on the blocking pool of `scope`; what it writes becomes the body, with back-pressure.
///
/// When the client goes away, `stop` is set and the job's next write fails. When the job fails or panics, the body
/// breaks off, so that no client takes half an answer for a whole one.
pub fn stream_blocking<F>(scope: &Scope, stop: &Stop, job: F) -> Body
where
    F: FnOnce(&mut dyn Output) -> io::Result<()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
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
                    // Keeps the guard in this future: the job is over either way.
                    drop(reader.stop);
                    return Err(io::Error::other("the answer broke off"));
                }
            }
        }
    }))
}

fn run<F>(job: F, sender: mpsc::Sender<Item>)
where
    F: FnOnce(&mut dyn Output) -> io::Result<()>,
{
    let mut output = ChannelWriter {
        sender,
        buffer: BytesMut::new(),
        batch: Vec::new(),
        batch_bytes: 0,
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
    /// Written, and not yet a piece of the batch.
    buffer: BytesMut,
    batch: Vec<Bytes>,
    batch_bytes: usize,
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
        self.sender
            .blocking_send(Item::Data(std::mem::take(&mut self.batch)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away"))
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

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Output for ChannelWriter {
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        self.seal()?;
        self.add(part.into_bytes()?)
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
