//! The body of a request, inflated and bounded: in memory while it is small, then in a temporary
//! file.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use henge_types::{ErrorCode, limits};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::http::ServiceError;
use crate::http::memory::{self, MemoryShare, NoMemory};

/// The maximum size of a push's body in memory.
const MEMORY_BYTES_MAX: usize = 256 * 1024;
/// The interval in bytes at which free disk space is checked.
const ROOM_STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Compressed bytes inflated at once: they grow at most about a thousandfold, before memory is held
/// for the result.
const INFLATE_STEP_BYTES: usize = 256;

/// Reasons not to accept a body.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The body is over the limit of bytes after inflating.
    #[error(
        "the request is larger than {max} bytes, the most this server accepts: push in smaller steps, older commits first (git push REMOTE COMMIT:BRANCH)"
    )]
    TooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// The disk has no space for the body.
    #[error(
        "the disk of this server has no room for the push ({room} bytes may be taken now): push to another node, or ask the operator to free disk space"
    )]
    NoRoom {
        /// Bytes available at the last check.
        room: u64,
    },
    /// An unsupported encoding.
    #[error("content encoding {encoding:?} is not supported: use gzip or none")]
    Encoding {
        /// The encoding of the request.
        encoding: String,
    },
    /// The body is not valid gzip.
    #[error("the request body is not valid gzip: {0}")]
    Gzip(#[source] io::Error),
    /// The connection broke.
    #[error("the request body broke off: {0}")]
    Body(#[source] axum::Error),
    /// The body stalled, or took too long.
    #[error("the request body did not arrive in time: nothing was done")]
    Late,
    /// The disk failed.
    #[error("the request could not be spooled: {0}")]
    Io(#[source] io::Error),
    /// The memory budget for clients is exhausted.
    #[error(transparent)]
    Memory(#[from] NoMemory),
}

impl SpoolError {
    /// The reason for a failed write to the spool.
    fn writing(error: io::Error) -> Self {
        let is_full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        if is_full {
            Self::NoRoom { room: 0 }
        } else {
            Self::Io(error)
        }
    }

    /// Whether the client continues to send, and can get a response afterwards.
    const fn leaves_the_client_sending(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::NoRoom { .. } | Self::Io(_) => true,
            Self::Encoding { .. }
            | Self::Gzip(_)
            | Self::Body(_)
            | Self::Late
            | Self::Memory(_) => false,
        }
    }
}

/// The place for the body of a push until the response.
pub(super) struct SpoolDir<'a> {
    /// An existing directory.
    pub(super) path: &'a Path,
    /// Bytes available there, checked repeatedly.
    pub(super) room: &'a (dyn Fn() -> io::Result<u64> + Sync),
}

/// A push that was not accepted, and its beginning.
pub(super) struct NotSpooled {
    pub(super) error: SpoolError,
    pub(super) begun: Option<Spool>,
}

impl From<SpoolError> for ServiceError {
    fn from(error: SpoolError) -> Self {
        let code = match error {
            SpoolError::TooLarge { .. }
            | SpoolError::Encoding { .. }
            | SpoolError::Gzip(_)
            | SpoolError::Body(_)
            | SpoolError::Late => ErrorCode::Invalid,
            SpoolError::NoRoom { .. } | SpoolError::Io(_) => ErrorCode::Unavailable,
            SpoolError::Memory(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, SpoolError> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Self::Plain);
        };
        match value.as_bytes() {
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"" | b"identity" => Ok(Self::Plain),
            other => Err(SpoolError::Encoding {
                encoding: String::from_utf8_lossy(other).into_owned(),
            }),
        }
    }
}

/// A complete request body. Its file is removed on drop.
#[derive(Debug)]
pub struct Spool {
    content: Content,
    bytes: u64,
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    File(tempfile::TempPath),
}

impl Spool {
    /// A body in memory.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            bytes: bytes.len() as u64,
            content: Content::Memory(bytes),
        }
    }

    /// A complete body in a file, which is removed with this value.
    ///
    /// # Errors
    /// When the file's length cannot be read.
    pub fn from_file(path: tempfile::TempPath) -> io::Result<Self> {
        let bytes = std::fs::metadata(&path)?.len();
        let content = Content::File(path);
        Ok(Self { content, bytes })
    }

    /// The length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A reader from the start. It may be called again.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn reader(&self) -> io::Result<Box<dyn BufRead + Send + '_>> {
        match &self.content {
            Content::Memory(bytes) => Ok(Box::new(&bytes[..])),
            Content::File(path) => {
                let file = std::fs::File::open(path)?;
                Ok(Box::new(BufReader::with_capacity(64 * 1024, file)))
            }
        }
    }

    /// Receives a body of at most `bytes_max` bytes (inflated) in memory, counted in `held`.
    pub(super) async fn receive(
        body: Body,
        encoding: Encoding,
        bytes_max: u64,
        within: Duration,
        held: MemoryShare,
    ) -> Result<Bytes, SpoolError> {
        let mut sink = Sink::new(None, bytes_max);
        sink.held = Some(held);
        let taken = take(body, encoding, &mut sink);
        let (_, taken) = tokio::time::timeout(within, taken)
            .await
            .map_err(|_| SpoolError::Late)?;
        taken?;
        Ok(match sink.held {
            Some(held) => memory::owned(sink.memory, held),
            None => sink.memory.into(),
        })
    }

    /// Receives the body of a push, of at most `bytes_max` bytes (inflated). A large one goes into
    /// a file in `directory`.
    ///
    /// A client reads the response only after it has sent everything. So a body that is too large
    /// is read to its end, up to [`limits::REFUSED_PUSH_BYTES_MAX`], before it is refused.
    pub(super) async fn receive_push(
        body: Body,
        encoding: Encoding,
        bytes_max: u64,
        directory: SpoolDir<'_>,
    ) -> Result<Self, NotSpooled> {
        Self::receive_into(Sink::new(Some(directory), bytes_max), body, encoding).await
    }

    async fn receive_into(
        mut sink: Sink<'_>,
        body: Body,
        encoding: Encoding,
    ) -> Result<Self, NotSpooled> {
        sink.announced = HttpBody::size_hint(&body).exact().unwrap_or_default();
        let within = Duration::from_millis(limits::GIT_REQUEST_MS_MAX);
        let taken = async {
            let (body, taken) = take(body, encoding, &mut sink).await;
            match taken {
                Err(error) if error.leaves_the_client_sending() => {
                    drain(body).await;
                    Err(error)
                }
                taken => taken,
            }
        };
        let taken = tokio::time::timeout(within, taken).await;
        let error = match taken.unwrap_or(Err(SpoolError::Late)) {
            Ok(()) => return sink.finish().await,
            Err(error) => error,
        };
        let begun = match sink.finish().await {
            Ok(spool) => Some(spool),
            Err(unfinished) => unfinished.begun,
        };
        Err(NotSpooled { error, begun })
    }
}

/// Reads a body into `sink`. Returns the rest of the body, and the result.
async fn take(
    mut body: Body,
    encoding: Encoding,
    sink: &mut Sink<'_>,
) -> (Body, Result<(), SpoolError>) {
    let taken = take_from(&mut body, encoding, sink).await;
    (body, taken)
}

async fn take_from(
    body: &mut Body,
    encoding: Encoding,
    sink: &mut Sink<'_>,
) -> Result<(), SpoolError> {
    let mut gzip = match encoding {
        Encoding::Plain => None,
        Encoding::Gzip => Some(MultiGzDecoder::new(Vec::new())),
    };
    let bytes_max = sink.bytes_max;
    let too_large = || SpoolError::TooLarge { max: bytes_max };
    let mut left = deflated_max(bytes_max);
    while let Some(data) = next(body).await? {
        // Input that inflates to nothing is counted too: it could be endless.
        left = left.checked_sub(data.len() as u64).ok_or_else(too_large)?;
        let Some(decoder) = &mut gzip else {
            sink.take(&data).await?;
            continue;
        };
        for step in data.chunks(INFLATE_STEP_BYTES) {
            decoder.write_all(step).map_err(SpoolError::Gzip)?;
            let inflated = std::mem::take(decoder.get_mut());
            sink.take(&inflated).await?;
        }
    }
    if let Some(decoder) = gzip {
        let rest = decoder.finish().map_err(SpoolError::Gzip)?;
        sink.take(&rest).await?;
    }
    Ok(())
}

/// The next bytes of a body; `None` at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, SpoolError> {
    let rest = Duration::from_millis(limits::CLIENT_REST_MS_MAX);
    loop {
        let frame = tokio::time::timeout(rest, body.frame()).await;
        let Some(frame) = frame.map_err(|_| SpoolError::Late)? else {
            return Ok(None);
        };
        if let Ok(data) = frame.map_err(SpoolError::Body)?.into_data() {
            return Ok(Some(data));
        }
    }
}

/// Reads and discards the rest of a body, up to the limit.
async fn drain(mut body: Body) {
    let mut left = limits::REFUSED_PUSH_BYTES_MAX;
    while let Ok(Some(data)) = next(&mut body).await {
        match left.checked_sub(data.len() as u64) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// The maximum compressed size of `bytes` bytes.
const fn deflated_max(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 1024).saturating_add(1024)
}

/// Creates the file for a body in a directory.
type Create<'a> = dyn Fn(&Path) -> io::Result<(std::fs::File, tempfile::TempPath)> + Sync + 'a;

fn create(directory: &Path) -> io::Result<(std::fs::File, tempfile::TempPath)> {
    let file = tempfile::Builder::new()
        .prefix("push-")
        .tempfile_in(directory)?;
    Ok(file.into_parts())
}

struct Sink<'a> {
    create: &'a Create<'a>,
    memory: Vec<u8>,
    /// The memory held for the bytes in memory.
    held: Option<MemoryShare>,
    file: Option<(tokio::fs::File, tempfile::TempPath)>,
    directory: Option<SpoolDir<'a>>,
    bytes: u64,
    bytes_max: u64,
    /// The announced length in bytes; 0 if unknown.
    announced: u64,
    /// The total of bytes at which free space is checked next.
    look_at: u64,
}

impl<'a> Sink<'a> {
    fn new(directory: Option<SpoolDir<'a>>, bytes_max: u64) -> Self {
        Self {
            create: &create,
            memory: Vec::new(),
            held: None,
            file: None,
            directory,
            bytes: 0,
            bytes_max,
            announced: 0,
            look_at: MEMORY_BYTES_MAX as u64,
        }
    }

    /// Refuses a body that the disk has no space for.
    fn make_room(&self, bytes: u64) -> Result<(), SpoolError> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let room = (directory.room)().map_err(SpoolError::Io)?;
        if bytes > room {
            return Err(SpoolError::NoRoom { room });
        }
        Ok(())
    }

    async fn take(&mut self, data: &[u8]) -> Result<(), SpoolError> {
        self.bytes += data.len() as u64;
        if self.file.is_none() && self.directory.is_some() {
            // Also for a push that is refused below: its beginning determines the response.
            self.memory.extend_from_slice(data);
        }
        if self.bytes > self.bytes_max {
            return Err(SpoolError::TooLarge {
                max: self.bytes_max,
            });
        }
        if self.bytes > self.look_at && self.directory.is_some() {
            let more = self.announced.saturating_sub(self.bytes);
            self.make_room(more.max(ROOM_STEP_BYTES))?;
            self.look_at = self.bytes + ROOM_STEP_BYTES;
        }
        if let Some((file, _)) = &mut self.file {
            return file.write_all(data).await.map_err(SpoolError::writing);
        }
        match &self.directory {
            None => self.keep(data).await,
            Some(directory) if self.memory.len() > MEMORY_BYTES_MAX => {
                let (file, path) = (self.create)(directory.path).map_err(SpoolError::writing)?;
                let mut file = tokio::fs::File::from_std(file);
                file.write_all(&self.memory)
                    .await
                    .map_err(SpoolError::writing)?;
                // The error of a write is returned by the next one: only a flush shows whether this
                // write failed.
                file.flush().await.map_err(SpoolError::writing)?;
                // Only then: if the file cannot be written, the response is made from memory.
                self.memory = Vec::new();
                self.file = Some((file, path));
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Appends bytes in memory, after the budget allows them.
    async fn keep(&mut self, data: &[u8]) -> Result<(), SpoolError> {
        let bytes = self.memory.len().saturating_add(data.len());
        if bytes > self.memory.capacity() {
            // The capacity after the growth, which doubles it.
            let capacity = bytes.max(self.memory.capacity().saturating_mul(2));
            if let Some(held) = &mut self.held {
                held.hold(capacity).await?;
            }
            self.memory.reserve_exact(capacity - self.memory.len());
        }
        self.memory.extend_from_slice(data);
        Ok(())
    }

    /// The complete body. If its last bytes could not be written, the part before them.
    async fn finish(self) -> Result<Spool, NotSpooled> {
        let (content, flushed) = match self.file {
            None => (Content::Memory(self.memory.into()), Ok(())),
            Some((mut file, path)) => (Content::File(path), file.flush().await),
        };
        let spool = Spool {
            content,
            bytes: self.bytes,
        };
        match flushed {
            Ok(()) => Ok(spool),
            Err(error) => Err(NotSpooled {
                error: SpoolError::writing(error),
                begun: Some(spool),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
