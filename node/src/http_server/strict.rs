//! HTTP/1.1 without the latitude that two servers may read in two ways (request smuggling).
//!
//! hyper accepts a bare line feed as the end of a line. It also accepts a length beside chunks, and
//! uses the chunks. A proxy in front that decides otherwise sees other requests than this server:
//! bytes of one client become another client's request (RFC 9112, sections 2.2, 6.1 and 11.2). So
//! the bytes are checked as they arrive. The end of a line that is not plain becomes a byte that no
//! head holds; hyper answers it with 400 and ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::refusals::Client;

/// Bytes kept of every line: more than a length, an encoding or a chunk size has.
const LINE_BYTES_KEPT: usize = 64;
/// A byte that no head and no chunk size holds.
const NEVER: u8 = 0;

/// A connection whose requests are plain for every reader, or broken.
#[derive(Debug)]
pub(super) struct Strict<S> {
    inner: S,
    client: Client,
    requests: Requests,
}

impl<S> Strict<S> {
    pub(super) fn new(inner: S, client: Client) -> Self {
        Self {
            inner,
            client,
            requests: Requests::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.requests.part == Part::Broken {
            let text = "the request is not plain HTTP/1.1";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Some(new) = buf.filled_mut().get_mut(before..) {
            self.requests.look_at(new);
        }
        if self.requests.part == Part::Broken {
            self.client.malformed();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The part of a request that the next byte belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// The first line, or an empty one before it.
    #[default]
    Request,
    /// A line of the head.
    Header,
    /// A body with this many more bytes.
    Body(u64),
    /// The line with the size of the next chunk.
    ChunkSize,
    /// A chunk with this many more bytes.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// A line behind the last chunk.
    Trailer,
    /// After bytes that were not plain: no later byte is answered.
    Broken,
}

/// The framing of a body, as the head gives it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    None,
    Length(u64),
    Chunks,
}

/// The request is ambiguous, or not in the form that all servers agree on.
#[derive(Debug)]
struct NotPlain;

/// The requests of a connection, one after another.
#[derive(Debug, Default)]
struct Requests {
    part: Part,
    framing: Framing,
    /// The beginning of the line, its length and its last byte.
    line: Vec<u8>,
    bytes: usize,
    last: u8,
}

impl Requests {
    fn look_at(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            at += self.step(rest);
        }
    }

    /// Consumes some of the bytes and returns their number.
    fn step(&mut self, rest: &mut [u8]) -> usize {
        match self.part {
            // Bytes behind it are not parsed.
            Part::Broken => {
                rest.fill(NEVER);
                rest.len()
            }
            Part::Body(left) => {
                let taken = at_most(rest.len(), left);
                self.part = match left - taken.1 {
                    0 => Part::Request,
                    left => Part::Body(left),
                };
                taken.0
            }
            Part::Chunk(left) => {
                let taken = at_most(rest.len(), left);
                self.part = match left - taken.1 {
                    0 => Part::ChunkEnd,
                    left => Part::Chunk(left),
                };
                taken.0
            }
            Part::Request | Part::Header | Part::ChunkSize | Part::ChunkEnd | Part::Trailer => {
                self.line(rest)
            }
        }
    }

    /// Consumes bytes up to the end of the line.
    fn line(&mut self, rest: &mut [u8]) -> usize {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let room = LINE_BYTES_KEPT.saturating_sub(self.line.len());
        self.line.extend(text.iter().take(room));
        self.bytes += text.len();
        self.last = text.last().copied().unwrap_or(self.last);
        let Some(end) = end else {
            return rest.len();
        };
        let is_bare = self.last != b'\r';
        let next = match is_bare {
            false => self.end_of_line(),
            true => Err(NotPlain),
        };
        // hyper refuses a bare line feed in a chunk size and its extensions, so it stays. Another
        // byte would be part of an extension.
        let is_refused = is_bare && self.part == Part::ChunkSize;
        self.part = next.unwrap_or(Part::Broken);
        if let (Part::Broken, false, Some(byte)) = (self.part, is_refused, rest.get_mut(end)) {
            *byte = NEVER;
        }
        self.line.clear();
        self.bytes = 0;
        self.last = 0;
        end + 1
    }

    /// The part that follows a line with a correct end.
    fn end_of_line(&mut self) -> Result<Part, NotPlain> {
        let is_empty = self.bytes == 1;
        match self.part {
            Part::Request if is_empty => Ok(Part::Request),
            Part::Request => {
                self.framing = Framing::None;
                Ok(Part::Header)
            }
            Part::Header if is_empty => Ok(match self.framing {
                Framing::None | Framing::Length(0) => Part::Request,
                Framing::Length(bytes) => Part::Body(bytes),
                Framing::Chunks => Part::ChunkSize,
            }),
            Part::Header => {
                self.header()?;
                Ok(Part::Header)
            }
            // The rest of a longer line is not kept: it may give another size.
            Part::ChunkSize if self.bytes > LINE_BYTES_KEPT => Err(NotPlain),
            Part::ChunkSize => match chunk_size(&self.line)? {
                0 => Ok(Part::Trailer),
                bytes => Ok(Part::Chunk(bytes)),
            },
            Part::ChunkEnd if is_empty => Ok(Part::ChunkSize),
            Part::Trailer if is_empty => Ok(Part::Request),
            Part::Trailer => Ok(Part::Trailer),
            Part::ChunkEnd | Part::Body(_) | Part::Chunk(_) | Part::Broken => Err(NotPlain),
        }
    }

    /// Reads the framing: a body has one, given once.
    fn header(&mut self) -> Result<(), NotPlain> {
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else {
            return Ok(());
        };
        let (name, value) = self.line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let framing = if name.eq_ignore_ascii_case(b"content-length") {
            Framing::Length(length(value)?)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(NotPlain);
            }
            Framing::Chunks
        } else {
            return Ok(());
        };
        if self.bytes > LINE_BYTES_KEPT || self.framing != Framing::None {
            return Err(NotPlain);
        }
        self.framing = framing;
        Ok(())
    }
}

/// `bytes`, but at most `left`, in both types.
fn at_most(bytes: usize, left: u64) -> (usize, u64) {
    let wide = u64::try_from(bytes).unwrap_or(u64::MAX).min(left);
    (usize::try_from(wide).unwrap_or(bytes), wide)
}

/// Parses a number that has digits and nothing else.
fn length(value: &[u8]) -> Result<u64, NotPlain> {
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_plain);
    text.and_then(|text| text.parse().ok()).ok_or(NotPlain)
}

/// Parses the number at the beginning of a line. Extensions follow it, which are ignored.
fn chunk_size(line: &[u8]) -> Result<u64, NotPlain> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = line.get(..digits.count()).unwrap_or_default();
    let text = std::str::from_utf8(digits).map_err(|_| NotPlain)?;
    u64::from_str_radix(text, 16).map_err(|_| NotPlain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether all bytes pass unchanged, in pieces of each size.
    fn passes(text: &str) -> bool {
        let mut seen = Vec::new();
        for piece in [1, 2, 7, text.len()] {
            let mut requests = Requests::default();
            let mut bytes = text.as_bytes().to_vec();
            for piece in bytes.chunks_mut(piece) {
                requests.look_at(piece);
            }
            seen.push(bytes == text.as_bytes());
        }
        assert!(seen.iter().all(|one| *one == seen[0]), "{text:?}: {seen:?}");
        seen[0]
    }

    #[test]
    fn plain_requests_pass_one_behind_the_other() {
        let get = "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nHost: h\r\ncontent-LENGTH:  5 \r\n\r\na\nb\n\n";
        let chunks = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
            3;x=\"y\"\r\n\n\n\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
        let long = format!("GET /{0} HTTP/1.1\r\nX: {0}\r\n\r\n", "a".repeat(300));
        assert!(passes(&format!("{get}{sized}{chunks}{long}{sized}{get}")));
    }

    #[test]
    fn what_is_not_plain_is_broken() {
        for head in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(!passes(head), "{head:?}");
            let behind = format!("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\n{head}");
            assert!(!passes(&behind), "{behind:?}");
        }
        let padded = format!("Content-Length: {}1", "0".repeat(100));
        assert!(!passes(&format!("POST / HTTP/1.1\r\n{padded}\r\n\r\n")));
        // A bare line feed in a size stays, because hyper refuses it; no byte behind it passes.
        for size in ["3\n", "3;x\nAAA\r\n"] {
            let text = format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}abc\r\n0\r\n\r\n"
            );
            assert!(!passes(&text), "{text:?}");
        }
        let long = format!("{}5\r\nabcde\r\n", "0".repeat(70));
        for body in [
            long.as_str(),
            "x\r\n",
            "\r\n",
            "3\r\nabcd\r\n",
            "0\r\nX: y\n\r\n",
        ] {
            let text = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert!(!passes(&text), "{text:?}");
        }
    }
}
