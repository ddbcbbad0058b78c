//! One HTTP/1.1 request and its answer, blocking: the waiting thread drives the connection itself.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, Read};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use henge_git::Stop;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::network::Network;
use crate::url::RemoteUrl;

/// The interval at which a wait checks for cancellation and reports progress.
const TICK: Duration = Duration::from_millis(200);
/// Bytes of a file per chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// Maximum size of an answer's header.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The body of a request: bytes in memory, followed by a file.
pub(crate) struct Upload {
    head: Bytes,
    file: Option<File>,
    /// Bytes of the file that are not sent yet.
    left: u64,
    /// Bytes handed to the connection.
    sent: Arc<AtomicU64>,
}

impl Upload {
    pub(crate) fn new(head: Bytes, file: Option<(File, u64)>) -> Self {
        let (file, left) = file.map_or((None, 0), |(file, bytes)| (Some(file), bytes));
        Self {
            head,
            file,
            left,
            sent: Arc::default(),
        }
    }

    fn bytes(&self) -> u64 {
        self.head.len() as u64 + self.left
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if !self.head.is_empty() {
            return Ok(Some(std::mem::take(&mut self.head)));
        }
        let Some(file) = self.file.as_mut().filter(|_| self.left > 0) else {
            return Ok(None);
        };
        let wanted = usize::try_from(self.left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut chunk = vec![0; wanted];
        file.read_exact(&mut chunk)?;
        self.left -= wanted as u64;
        Ok(Some(chunk.into()))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    /// Reads the file synchronously: the polling thread may block.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.next();
        if let Ok(Some(data)) = &next {
            self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(next.map(|data| data.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes())
    }
}

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection that is driven while the caller waits for a future on it.
struct Driven {
    connection: Option<Connection>,
}

impl Driven {
    /// Waits for `future` and drives the connection meanwhile.
    async fn with<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            // An error of the connection is reported by `future`.
            if let Some(connection) = &mut self.connection
                && connection.as_mut().poll(context).is_ready()
            {
                self.connection = None;
            }
            future.as_mut().poll(context)
        })
        .await
    }
}

/// Idle time-out and cancellation of an exchange.
struct Patience<'a> {
    host: &'a str,
    rest: Duration,
    stop: &'a Stop,
}

impl Patience<'_> {
    /// Waits for `future` while bytes move, up to the idle time-out. `tick` is called periodically
    /// with the number of moved bytes.
    async fn wait<F: Future>(
        &self,
        future: F,
        moved: &AtomicU64,
        tick: &mut dyn FnMut(u64),
    ) -> Result<F::Output, Error> {
        let mut future = pin!(future);
        let (mut rested, mut last) = (Duration::ZERO, 0);
        loop {
            if let Ok(done) = tokio::time::timeout(TICK, future.as_mut()).await {
                return Ok(done);
            }
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            let now = moved.load(Ordering::Relaxed);
            rested = if now == last {
                rested + TICK
            } else {
                Duration::ZERO
            };
            last = now;
            tick(now);
            if rested >= self.rest {
                return Err(Error::Rested {
                    host: self.host.to_owned(),
                    seconds: self.rest.as_secs(),
                });
            }
        }
    }
}

/// Sends a request to the server of `url` and waits for the head of the answer. `sent` is called
/// with the number of sent bytes of the body.
pub(crate) fn send(
    network: &Network,
    url: &RemoteUrl,
    request: Request<Upload>,
    answer_bytes_max: u64,
    stop: &Stop,
    sent: &mut dyn FnMut(u64),
) -> Result<Answer, Error> {
    let patience = Patience {
        host: url.host(),
        rest: network.timeouts.rest,
        stop,
    };
    let moved = Arc::clone(&request.body().sent);
    let still = AtomicU64::new(0);
    let (driven, response) = network.handle.block_on(async {
        // The connection has shorter time-outs of its own; this wait adds the cancellation.
        let stream = patience
            .wait(network.connect(url), &still, &mut |_| {})
            .await??;
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await;
        let (mut sender, connection) = handshake.map_err(|error| broken(url.host(), &error))?;
        let mut driven = Driven {
            connection: Some(Box::pin(connection)),
        };
        let response = driven.with(sender.send_request(request));
        let response = patience.wait(response, &moved, sent).await?;
        let response = response.map_err(|error| broken(url.host(), &error))?;
        Ok::<_, Error>((driven, response))
    })?;
    let (parts, body) = response.into_parts();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: AnswerBody {
            handle: network.handle.clone(),
            host: url.host().to_owned(),
            rest: network.timeouts.rest,
            stop: stop.clone(),
            driven,
            body: Some(body),
            current: Bytes::new(),
            bytes_max: answer_bytes_max,
            left: answer_bytes_max,
        },
    })
}

fn broken(host: &str, error: &hyper::Error) -> Error {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    Error::Broken {
        host: host.to_owned(),
        reason,
    }
}

/// An answer with an unread body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

/// The body of an answer, limited in size. An error in it is an [`Error`] inside an [`io::Error`].
pub(crate) struct AnswerBody {
    handle: Handle,
    host: String,
    rest: Duration,
    stop: Stop,
    driven: Driven,
    /// `None` after its end.
    body: Option<Incoming>,
    current: Bytes,
    bytes_max: u64,
    left: u64,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerBody({} bytes at most left)", self.left)
    }
}

impl AnswerBody {
    /// The next bytes; empty at the end.
    fn next(&mut self) -> Result<Bytes, Error> {
        let Some(body) = &mut self.body else {
            return Ok(Bytes::new());
        };
        let patience = Patience {
            host: &self.host,
            rest: self.rest,
            stop: &self.stop,
        };
        let still = AtomicU64::new(0);
        loop {
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            let frame = self.driven.with(body.frame());
            let frame = self
                .handle
                .block_on(patience.wait(frame, &still, &mut |_| {}))?;
            let Some(frame) = frame else {
                self.body = None;
                return Ok(Bytes::new());
            };
            let frame = frame.map_err(|error| broken(&self.host, &error))?;
            let data = frame.into_data().unwrap_or_default();
            if data.is_empty() {
                continue;
            }
            self.left = self
                .left
                .checked_sub(data.len() as u64)
                .ok_or(Error::TooLarge {
                    bytes_max: self.bytes_max,
                })?;
            return Ok(data);
        }
    }

    /// The first line of its first bytes, for a message.
    pub(crate) fn message(&mut self) -> String {
        let mut text = Vec::new();
        // A truncated message is good enough.
        drop(self.take(1024).read_to_end(&mut text));
        let line = text.split(|byte| *byte == b'\n').next();
        crate::error::printable(line.unwrap_or_default())
    }
}

impl Read for AnswerBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let taken = available.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for AnswerBody {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.current = self.next().map_err(io::Error::other)?;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, bytes: usize) {
        let taken = bytes.min(self.current.len());
        drop(self.current.split_to(taken));
    }
}
