//! HTTP/1.1 without the latitude that two servers may understand in two ways.
//!
//! hyper takes a bare line feed for the end of a line, and a length beside chunks, and goes by the chunks. A proxy in front
//! that goes by the other one sees other requests than this server: what one client sends is taken for another's (RFC 9112,
//! sections 2.2, 6.1 and 11.2). So the bytes are looked at on their way in. What is not plain becomes a byte that no head
//! holds, which hyper answers with 400 and the end of the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::refusals::Client;

/// Of every line so much is kept: more than a length, an encoding or the size of a chunk has.
const LINE_BYTES_KEPT: usize = 64;
/// No head and no size of a chunk holds it.
const NEVER: u8 = 0;

/// A connection whose requests are plain, or broken for everybody who reads from it.
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

/// Where in a request the next byte is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// In the first line, or in an empty one before it.
    #[default]
    Request,
    /// In a line of the head.
    Header,
    /// In a body that has so many more bytes.
    Body(u64),
    /// In the line that says how long the next chunk is.
    ChunkSize,
    /// In a chunk that has so many more bytes.
    Chunk(u64),
    /// In the end of a line behind a chunk.
    ChunkEnd,
    /// In a line behind the last chunk.
    Trailer,
    /// Behind what was not plain: there is no answer to anything from here on.
    Broken,
}

/// How a body is delimited, as far as the head says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    None,
    Length(u64),
    Chunks,
}

/// The request says something in two ways, or not as everybody reads it.
#[derive(Debug)]
struct NotPlain;

/// The requests of a connection, one behind the other.
#[derive(Debug, Default)]
struct Requests {
    part: Part,
    framing: Framing,
    /// The beginning of the line, and its last byte.
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

    /// Takes some of the bytes, and says how many.
    fn step(&mut self, rest: &mut [u8]) -> usize {
        match self.part {
            // Nothing behind it is read as anything.
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

    /// Takes bytes up to the end of the line.
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
        // hyper refuses a bare line feed in the size of a chunk and its extensions. Another byte would be one of them.
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

    /// What follows a line that ended as it should.
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
            // The rest of a longer line is not kept: it may say another size.
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

    /// A body is delimited once, in one way.
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

/// So many bytes at most, twice.
fn at_most(bytes: usize, left: u64) -> (usize, u64) {
    let wide = u64::try_from(bytes).unwrap_or(u64::MAX).min(left);
    (usize::try_from(wide).unwrap_or(bytes), wide)
}

/// A number of digits and nothing else.
fn length(value: &[u8]) -> Result<u64, NotPlain> {
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_plain);
    text.and_then(|text| text.parse().ok()).ok_or(NotPlain)
}

/// The number in front of a line: what follows it are extensions, which nobody reads.
fn chunk_size(line: &[u8]) -> Result<u64, NotPlain> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = line.get(..digits.count()).unwrap_or_default();
    let text = std::str::from_utf8(digits).map_err(|_| NotPlain)?;
    u64::from_str_radix(text, 16).map_err(|_| NotPlain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether all of it passes as it is, whatever the pieces are that it comes in.
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
        // A bare line feed in a size stays, for hyper refuses it; nothing behind it passes.
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
