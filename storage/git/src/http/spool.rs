//! The body of a request, inflated and bounded: in memory while it is small, then in a temporary file.

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

/// Bodies up to this stay in memory.
const MEMORY_BYTES_MAX: usize = 256 * 1024;
/// Free space is looked at whenever so many bytes more were taken.
const ROOM_STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Compressed bytes inflated at once: they become at most about a thousand times as many, for which no memory is held yet.
const INFLATE_STEP_BYTES: usize = 256;

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It is larger than allowed, after inflating.
    #[error(
        "the request is larger than {max} bytes, the most this server accepts: push in smaller steps, older commits first (git push REMOTE COMMIT:BRANCH)"
    )]
    TooLarge {
        /// What is allowed.
        max: u64,
    },
    /// The disk has no room for it.
    #[error(
        "the disk of this server has no room for the push ({room} bytes may be taken now): push to another node, or ask the operator to free disk space"
    )]
    NoRoom {
        /// Bytes that might be taken when it was looked at last.
        room: u64,
    },
    /// An encoding that is not known.
    #[error("content encoding {encoding:?} is not supported: use gzip or none")]
    Encoding {
        /// What the client used.
        encoding: String,
    },
    /// It cannot be inflated.
    #[error("the request body is not valid gzip: {0}")]
    Gzip(#[source] io::Error),
    /// The client went away.
    #[error("the request body broke off: {0}")]
    Body(#[source] axum::Error),
    /// It stood still, or took too long.
    #[error("the request body did not arrive in time: nothing was done")]
    Late,
    /// The disk failed.
    #[error("the request could not be spooled: {0}")]
    Io(#[source] io::Error),
    /// The node holds too much already.
    #[error(transparent)]
    Memory(#[from] NoMemory),
}

impl SpoolError {
    /// What a failed write to the spool is.
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

    /// Whether the client goes on sending and can be answered all the same.
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

/// Where the body of a push lies until it is answered.
pub(super) struct SpoolDir<'a> {
    /// An existing directory.
    pub(super) path: &'a Path,
    /// Bytes that may still be taken there, asked again and again.
    pub(super) room: &'a (dyn Fn() -> io::Result<u64> + Sync),
}

/// A push that was not taken, and its beginning.
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

/// How a body is encoded.
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

/// A whole request body. A file behind it is removed when this is dropped.
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
    /// A body that is in memory.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            bytes: bytes.len() as u64,
            content: Content::Memory(bytes),
        }
    }

    /// A body that lies in a file, all of it, which goes with this value.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn from_file(path: tempfile::TempPath) -> io::Result<Self> {
        let bytes = std::fs::metadata(&path)?.len();
        let content = Content::File(path);
        Ok(Self { content, bytes })
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads it from its start. May be called again.
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

    /// Takes a body of at most `bytes_max` bytes (inflated) into memory, for which `held` is held.
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

    /// Takes the body of a push, of at most `bytes_max` bytes (inflated); what is large goes into `directory`.
    ///
    /// A client listens only after it has sent everything. So what is too large is read to its end, up to
    /// [`limits::REFUSED_PUSH_BYTES_MAX`], before it is refused.
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

/// Reads a body into `sink`; what is left of it, and how that went.
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
        // What inflates to nothing has no end either.
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

/// The next bytes of a body; none at its end.
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

/// Reads on to the end of a body that is not wanted, within the bound.
async fn drain(mut body: Body) {
    let mut left = limits::REFUSED_PUSH_BYTES_MAX;
    while let Ok(Some(data)) = next(&mut body).await {
        match left.checked_sub(data.len() as u64) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// What `bytes` have at most when they are compressed.
const fn deflated_max(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 1024).saturating_add(1024)
}

/// Makes the file of a body in a directory.
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
    /// For what is in memory.
    held: Option<MemoryShare>,
    file: Option<(tokio::fs::File, tempfile::TempPath)>,
    directory: Option<SpoolDir<'a>>,
    bytes: u64,
    bytes_max: u64,
    /// Bytes that were announced; 0 where they were not.
    announced: u64,
    /// Bytes in all at which free space is looked at again.
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

    /// Refuses what the disk has no room for.
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
            // Also of a push that is refused right here: its beginning says how it is answered.
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
                // A write is reported by the next one: whether this one failed, only a flush tells.
                file.flush().await.map_err(SpoolError::writing)?;
                // Only then: the beginning of a push that cannot be written is answered from memory.
                self.memory = Vec::new();
                self.file = Some((file, path));
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Keeps bytes in memory, once there may be so many.
    async fn keep(&mut self, data: &[u8]) -> Result<(), SpoolError> {
        let bytes = self.memory.len().saturating_add(data.len());
        if bytes > self.memory.capacity() {
            // As much as it grows by: it doubles.
            let capacity = bytes.max(self.memory.capacity().saturating_mul(2));
            if let Some(held) = &mut self.held {
                held.hold(capacity).await?;
            }
            self.memory.reserve_exact(capacity - self.memory.len());
        }
        self.memory.extend_from_slice(data);
        Ok(())
    }

    /// All that was taken; where its last bytes could not be written, what lies in front of them.
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
