//! The bytes of a push at its leader: a blocking reader over a stream or a spooled file. It records
//! whether the input broke off, so that a broken stream is never taken for a broken pack.

use std::io::{self, BufRead, BufReader, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use henge_cluster::BulkStream;
use henge_git::http::Spool;
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_util::io::SyncIoBridge;

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Idle time-out of a stream between two nodes.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the input broke off; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broken(Arc<AtomicBool>);

impl Broken {
    /// Whether fewer bytes arrived than were announced.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The source of a push's bytes.
#[derive(Debug)]
pub(crate) enum Source {
    /// This node received it.
    Spool(Arc<Spool>),
    /// Another node received it.
    Stream(Lent),
}

/// The reading half of a stream from another node.
pub(crate) type Reading = SyncIoBridge<Impatient<ReadHalf<BulkStream>>>;

/// The reading half of a stream, given back on drop so that the unread rest can be read: closing a
/// connection with unread bytes may discard the answer.
#[derive(Debug)]
pub(crate) struct Lent {
    reading: Option<Reading>,
    back: Option<oneshot::Sender<Reading>>,
}

impl Lent {
    /// Lends `read`, which comes back through the receiver.
    pub(crate) fn new(read: ReadHalf<BulkStream>) -> (Self, oneshot::Receiver<Reading>) {
        let (back, returned) = oneshot::channel();
        let reading = SyncIoBridge::new(Impatient::new(read));
        (
            Self {
                reading: Some(reading),
                back: Some(back),
            },
            returned,
        )
    }
}

impl Read for Lent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reading = self.reading.as_mut();
        reading
            .expect("invariant: taken out only on drop")
            .read(buffer)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((reading, back)) = self.reading.take().zip(self.back.take()) {
            // The send fails when the stream's task has ended: the reading half then closes here.
            back.send(reading).ok();
        }
    }
}

impl Source {
    /// Opens the source for one reading. Blocking from here on.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub(crate) fn open(&mut self, bytes: u64) -> io::Result<PushInput<'_>> {
        Ok(match self {
            Self::Spool(spool) => PushInput::new(spool.reader()?, bytes),
            Self::Stream(stream) => PushInput::new(stream, bytes),
        })
    }
}

/// Exactly the announced number of bytes; fewer are an error and set [`Broken`].
pub(crate) struct PushInput<'a> {
    inner: BufReader<Announced<'a>>,
    broken: Broken,
}

struct Announced<'a> {
    inner: Box<dyn Read + 'a>,
    left: u64,
    broken: Broken,
}

impl<'a> PushInput<'a> {
    /// `bytes` bytes of `inner`.
    fn new(inner: impl Read + 'a, bytes: u64) -> Self {
        let broken = Broken::default();
        let announced = Announced {
            inner: Box::new(inner),
            left: bytes,
            broken: broken.clone(),
        };
        Self {
            inner: BufReader::with_capacity(BUFFER_BYTES, announced),
            broken,
        }
    }

    /// The flag that is set when the bytes break off, also later.
    pub(crate) fn broken(&self) -> Broken {
        self.broken.clone()
    }
}

impl Read for Announced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let read = match self.inner.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        match &read {
            Ok(read) => self.left -= u64::try_from(*read).unwrap_or(u64::MAX).min(self.left),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.broken.set(),
        }
        read
    }
}

impl Read for PushInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl BufRead for PushInput<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

/// A reader with an idle time-out.
#[derive(Debug)]
pub(crate) struct Impatient<R> {
    inner: R,
    rest_max: Duration,
    patience: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<R> Impatient<R> {
    /// Reads from `inner` with an idle time-out of [`IDLE_TIMEOUT`].
    pub(crate) fn new(inner: R) -> Self {
        Self::for_at_most(IDLE_TIMEOUT, inner)
    }

    /// Reads from `inner` with an idle time-out of `rest_max`.
    pub(crate) fn for_at_most(rest_max: Duration, inner: R) -> Self {
        Self {
            inner,
            rest_max,
            patience: Box::pin(tokio::time::sleep(rest_max)),
            waiting: false,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Impatient<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(done) = Pin::new(&mut self.inner).poll_read(cx, buf) {
            self.waiting = false;
            return Poll::Ready(done);
        }
        if !self.waiting {
            self.waiting = true;
            self.patience = Box::pin(tokio::time::sleep(self.rest_max));
        }
        match self.patience.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_bytes_than_announced_are_a_broken_stream() {
        let mut input = PushInput::new(&b"abc"[..], 4);
        let broken = input.broken();
        let mut bytes = Vec::new();
        let error = input.read_to_end(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(broken.is_set());
    }

    #[test]
    fn nothing_is_read_behind_what_was_announced() {
        let mut input = PushInput::new(&b"abcdef"[..], 4);
        let broken = input.broken();
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abcd");
        assert!(!broken.is_set());
    }
}
