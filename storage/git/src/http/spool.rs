//! The body of a request, inflated and bounded: in memory while it is small, then in a temporary file.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use henge_types::{ErrorCode, limits};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::http::ServiceError;

/// Bodies up to this stay in memory.
const MEMORY_BYTES_MAX: usize = 256 * 1024;
/// Compressed bytes inflated at once: they become at most about a thousand times as many.
const INFLATE_STEP_BYTES: usize = 4096;

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It is larger than allowed, after inflating.
    #[error(
        "the request is larger than {max} bytes, the most this server accepts: push in smaller steps"
    )]
    TooLarge {
        /// What is allowed.
        max: u64,
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
}

impl From<SpoolError> for ServiceError {
    fn from(error: SpoolError) -> Self {
        let code = match error {
            SpoolError::TooLarge { .. }
            | SpoolError::Encoding { .. }
            | SpoolError::Gzip(_)
            | SpoolError::Body(_)
            | SpoolError::Late => ErrorCode::Invalid,
            SpoolError::Io(_) => ErrorCode::Unavailable,
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

    /// What is in memory; a body that was received without a directory is.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.content {
            Content::Memory(bytes) => bytes,
            Content::File(_) => Bytes::new(),
        }
    }

    /// Takes a body of at most `bytes_max` bytes (inflated). It stays in memory if there is no `directory` for it, and has
    /// less time to arrive then. Whoever sends it holds places that others wait for.
    pub(super) async fn receive(
        body: Body,
        encoding: Encoding,
        bytes_max: u64,
        directory: Option<&Path>,
    ) -> Result<Self, SpoolError> {
        let within_ms = match directory {
            None => limits::FETCH_REQUEST_MS_MAX,
            Some(_) => limits::GIT_REQUEST_MS_MAX,
        };
        let taken = Self::take(body, encoding, bytes_max, directory);
        tokio::time::timeout(Duration::from_millis(within_ms), taken)
            .await
            .map_err(|_| SpoolError::Late)?
    }

    async fn take(
        mut body: Body,
        encoding: Encoding,
        bytes_max: u64,
        directory: Option<&Path>,
    ) -> Result<Self, SpoolError> {
        let mut sink = Sink {
            memory: Vec::new(),
            file: None,
            directory,
            bytes: 0,
            bytes_max,
        };
        let mut gzip = match encoding {
            Encoding::Plain => None,
            Encoding::Gzip => Some(MultiGzDecoder::new(Vec::new())),
        };
        let too_large = || SpoolError::TooLarge { max: bytes_max };
        let mut left = deflated_max(bytes_max);
        let rest = Duration::from_millis(limits::CLIENT_REST_MS_MAX);
        loop {
            let frame = tokio::time::timeout(rest, body.frame()).await;
            let Some(frame) = frame.map_err(|_| SpoolError::Late)? else {
                break;
            };
            let Ok(data) = frame.map_err(SpoolError::Body)?.into_data() else {
                continue;
            };
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
        sink.finish().await
    }
}

/// What `bytes` have at most when they are compressed.
const fn deflated_max(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 1024).saturating_add(1024)
}

struct Sink<'a> {
    memory: Vec<u8>,
    file: Option<(tokio::fs::File, tempfile::TempPath)>,
    directory: Option<&'a Path>,
    bytes: u64,
    bytes_max: u64,
}

impl Sink<'_> {
    async fn take(&mut self, data: &[u8]) -> Result<(), SpoolError> {
        self.bytes += data.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(SpoolError::TooLarge {
                max: self.bytes_max,
            });
        }
        if let Some((file, _)) = &mut self.file {
            return file.write_all(data).await.map_err(SpoolError::Io);
        }
        self.memory.extend_from_slice(data);
        match self.directory {
            Some(directory) if self.memory.len() > MEMORY_BYTES_MAX => {
                let (file, path) = tempfile::Builder::new()
                    .prefix("push-")
                    .tempfile_in(directory)
                    .map_err(SpoolError::Io)?
                    .into_parts();
                let mut file = tokio::fs::File::from_std(file);
                let memory = std::mem::take(&mut self.memory);
                file.write_all(&memory).await.map_err(SpoolError::Io)?;
                self.file = Some((file, path));
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn finish(self) -> Result<Spool, SpoolError> {
        let content = match self.file {
            None => Content::Memory(self.memory.into()),
            Some((mut file, path)) => {
                file.flush().await.map_err(SpoolError::Io)?;
                Content::File(path)
            }
        };
        Ok(Spool {
            content,
            bytes: self.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::io::Read;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn content(spool: &Spool) -> Vec<u8> {
        let mut data = Vec::new();
        spool.reader().unwrap().read_to_end(&mut data).unwrap();
        data
    }

    #[tokio::test]
    async fn small_bodies_stay_in_memory_and_large_ones_go_to_a_file() {
        let directory = tempfile::tempdir().unwrap();
        for (size, files) in [(10, 0), (MEMORY_BYTES_MAX + 1, 1)] {
            let data: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            for encoding in [Encoding::Plain, Encoding::Gzip] {
                let body = if encoding == Encoding::Gzip {
                    gzip(&data)
                } else {
                    data.clone()
                };
                let spool =
                    Spool::receive(Body::from(body), encoding, 1 << 30, Some(directory.path()))
                        .await
                        .unwrap();
                assert_eq!(content(&spool), data);
                assert_eq!(spool.bytes(), size as u64);
                assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), files);
            }
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_bomb_is_refused_before_it_is_inflated() {
        let body = gzip(&vec![0; 64 * 1024 * 1024]);
        assert!(body.len() < 1024 * 1024);
        let outcome = Spool::receive(Body::from(body), Encoding::Gzip, 1024 * 1024, None).await;
        assert!(matches!(
            outcome,
            Err(SpoolError::TooLarge { max: 1_048_576 })
        ));
    }

    #[tokio::test]
    async fn a_body_that_inflates_to_nothing_ends() {
        let body = gzip(b"").repeat(10_000);
        assert!(body.len() > 100_000);
        let outcome = Spool::receive(Body::from(body), Encoding::Gzip, 100_000, None).await;
        assert!(matches!(outcome, Err(SpoolError::TooLarge { .. })));
        let several = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        let spool = Spool::receive(Body::from(several), Encoding::Gzip, 100, None)
            .await
            .unwrap();
        assert_eq!(content(&spool), b"one two");
        // A name of a file that does not end, in the head.
        let mut head = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff".to_vec();
        head.resize(10_000_000, b'n');
        let outcome = Spool::receive(Body::from(head), Encoding::Gzip, 1 << 30, None).await;
        assert!(matches!(outcome, Err(SpoolError::Gzip(_))));
    }

    #[tokio::test]
    async fn incompressible_bodies_of_the_largest_size_are_taken() {
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(100_000)
        .collect();
        let body = gzip(&noise);
        assert!(body.len() > noise.len());
        let spool = Spool::receive(Body::from(body), Encoding::Gzip, 100_000, None).await;
        assert_eq!(content(&spool.unwrap()), noise);
    }

    /// Such bodies held their connections, and the places of clients without a token, for as long as anybody liked.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_or_drips_is_given_up() {
        let day = Duration::from_secs(24 * 60 * 60);
        let directory = tempfile::tempdir().unwrap();
        let pause = Duration::from_millis(limits::CLIENT_REST_MS_MAX / 2);
        for directory in [None, Some(directory.path())] {
            let still = Body::from_stream(stream::pending::<io::Result<Bytes>>());
            let taken = Spool::receive(still, Encoding::Plain, 1000, directory);
            let taken = tokio::time::timeout(day, taken).await.expect("given up");
            assert!(matches!(taken, Err(SpoolError::Late)), "{taken:?}");

            let drips = stream::unfold((), move |()| async move {
                tokio::time::sleep(pause).await;
                Some((io::Result::Ok(Bytes::from_static(b"x")), ()))
            });
            let taken = Spool::receive(Body::from_stream(drips), Encoding::Plain, 1000, directory);
            let taken = tokio::time::timeout(day, taken).await.expect("given up");
            assert!(matches!(taken, Err(SpoolError::Late)), "{taken:?}");

            let slow = stream::unfold(0, move |sent| async move {
                tokio::time::sleep(pause / 4).await;
                (sent < 3).then(|| (io::Result::Ok(Bytes::from_static(b"x")), sent + 1))
            });
            let taken = Spool::receive(Body::from_stream(slow), Encoding::Plain, 1000, directory);
            assert_eq!(content(&taken.await.unwrap()), b"xxx");
        }
    }

    #[tokio::test]
    async fn what_is_not_gzip_is_refused() {
        let outcome = Spool::receive(Body::from("hello"), Encoding::Gzip, 1000, None).await;
        assert!(matches!(outcome, Err(SpoolError::Gzip(_))));
        let mut cut = gzip(b"hello");
        cut.truncate(cut.len() - 3);
        let outcome = Spool::receive(Body::from(cut), Encoding::Gzip, 1000, None).await;
        assert!(matches!(outcome, Err(SpoolError::Gzip(_))));
    }
}
