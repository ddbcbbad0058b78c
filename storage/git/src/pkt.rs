//! pkt-lines: the framing of every git protocol (gitprotocol-common(5)).

use std::io::{self, BufRead, Read, Write};

use crate::output::{Output, PackPart};

/// The longest pkt-line, its four length digits included.
pub const LINE_BYTES_MAX: usize = 65_520;
/// The longest payload of a pkt-line.
pub const DATA_BYTES_MAX: usize = LINE_BYTES_MAX - 4;

/// Smaller parts of packs are copied: a frame of their own costs more.
const PART_BYTES_MIN: u64 = 16 * 1024;

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0000`: the end of a message or of a list.
    Flush,
    /// `0001`: the separator between sections of a protocol v2 message.
    Delimiter,
    /// `0002`: the end of a stateless response.
    ResponseEnd,
    /// The payload, with the newline that most lines end with.
    Data(&'a [u8]),
}

impl<'a> Packet<'a> {
    /// The payload without its newline; `None` for the three markers.
    pub fn line(self) -> Option<&'a [u8]> {
        match self {
            Self::Data(data) => Some(data.strip_suffix(b"\n").unwrap_or(data)),
            Self::Flush | Self::Delimiter | Self::ResponseEnd => None,
        }
    }
}

/// Malformed pkt-lines, or a stream that ends inside one.
#[derive(Debug, thiserror::Error)]
pub enum PktError {
    /// The stream failed or ended early.
    #[error("the stream of pkt-lines broke off: {0}")]
    Io(#[from] io::Error),
    /// Four bytes that are not a length.
    #[error("{text:?} is not the length of a pkt-line")]
    Length {
        /// The four bytes.
        text: String,
    },
}

/// Reads one frame into `buffer`; `None` at a clean end of the stream.
///
/// # Errors
/// When the length is malformed or the stream ends inside a frame.
pub fn read<'a>(
    input: &mut dyn BufRead,
    buffer: &'a mut Vec<u8>,
) -> Result<Option<Packet<'a>>, PktError> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut head = [0_u8; 4];
    input.read_exact(&mut head)?;
    let length = parse_length(head)?;
    match length {
        0 => return Ok(Some(Packet::Flush)),
        1 => return Ok(Some(Packet::Delimiter)),
        2 => return Ok(Some(Packet::ResponseEnd)),
        _ => {}
    }
    buffer.clear();
    buffer.resize(length - 4, 0);
    input.read_exact(buffer)?;
    Ok(Some(Packet::Data(buffer)))
}

fn parse_length(head: [u8; 4]) -> Result<usize, PktError> {
    let malformed = || PktError::Length {
        text: String::from_utf8_lossy(&head).into_owned(),
    };
    let mut raw = [0_u8; 2];
    hex::decode_to_slice(head, &mut raw).map_err(|_| malformed())?;
    let length = usize::from(u16::from_be_bytes(raw));
    if length == 3 || length > LINE_BYTES_MAX {
        return Err(malformed());
    }
    Ok(length)
}

/// The four length digits of a frame that carries `bytes` bytes.
fn head(bytes: usize) -> io::Result<[u8; 4]> {
    let length = bytes + 4;
    let short = u16::try_from(length)
        .ok()
        .filter(|_| length <= LINE_BYTES_MAX)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{bytes} bytes do not fit into one pkt-line"),
            )
        })?;
    let mut digits = [0_u8; 4];
    faster_hex::hex_encode(&short.to_be_bytes(), &mut digits).map_err(io::Error::other)?;
    Ok(digits)
}

/// Writes one line. The caller adds the newline.
///
/// # Errors
/// When it is too long or the output breaks.
pub fn write(output: &mut dyn Write, data: &[u8]) -> io::Result<()> {
    output.write_all(&head(data.len())?)?;
    output.write_all(data)
}

/// Appends one line, concatenated from parts. The caller adds the newline.
///
/// # Errors
/// When it is too long.
pub(crate) fn append(output: &mut Vec<u8>, parts: &[&str]) -> io::Result<()> {
    let bytes = parts.iter().map(|part| part.len()).sum();
    output.extend_from_slice(&head(bytes)?);
    for part in parts {
        output.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

/// Writes `0000`.
///
/// # Errors
/// When the output breaks.
pub fn write_flush(output: &mut dyn Write) -> io::Result<()> {
    output.write_all(b"0000")
}

/// Writes `0001`.
///
/// # Errors
/// When the output breaks.
pub fn write_delimiter(output: &mut dyn Write) -> io::Result<()> {
    output.write_all(b"0001")
}

/// Writes an `ERR` line: the client prints the message and aborts.
///
/// # Errors
/// When the output breaks.
pub fn write_error(output: &mut dyn Write, message: &str) -> io::Result<()> {
    let mut line = format!("ERR {message}");
    if line.len() > 1000 {
        line = line.chars().take(200).collect();
    }
    line.push('\n');
    write(output, line.as_bytes())
}

/// The band of a sideband frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Band {
    /// The pack or the report.
    Data = 1,
    /// Shown to the user with the prefix `remote:`.
    Progress = 2,
    /// Shown to the user; then the client aborts.
    Error = 3,
}

/// Writes `data` as one or more sideband frames of `band`.
///
/// # Errors
/// When the output breaks.
pub fn write_band(output: &mut dyn Write, band: Band, data: &[u8]) -> io::Result<()> {
    for chunk in data.chunks(DATA_BYTES_MAX - 1) {
        output.write_all(&head(chunk.len() + 1)?)?;
        output.write_all(&[band as u8])?;
        output.write_all(chunk)?;
    }
    Ok(())
}

/// A writer that sends its bytes as full sideband frames of band 1 (side-band-64k).
///
/// Bytes are sent when a frame is full: call [`SidebandWriter::finish`] to send the last frame.
pub struct SidebandWriter<'a> {
    output: &'a mut dyn Output,
    buffer: Vec<u8>,
    /// Payload bytes of a full frame, without its length digits and its band.
    full: usize,
}

impl std::fmt::Debug for SidebandWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SidebandWriter({} bytes waiting)", self.buffer.len())
    }
}

impl<'a> SidebandWriter<'a> {
    /// Wraps `output` for a client with the capability side-band-64k.
    pub fn new(output: &'a mut dyn Output) -> Self {
        Self::with_frames(output, DATA_BYTES_MAX - 1)
    }

    /// Wraps `output` for a client with the capability side-band: lines of at most 1000 bytes.
    pub fn small(output: &'a mut dyn Output) -> Self {
        Self::with_frames(output, 995)
    }

    fn with_frames(output: &'a mut dyn Output, full: usize) -> Self {
        Self {
            output,
            buffer: Vec::with_capacity(full),
            full,
        }
    }

    /// Writes the last frame and returns the output.
    ///
    /// # Errors
    /// When the output breaks.
    pub fn finish(mut self) -> io::Result<&'a mut dyn Output> {
        self.send()?;
        Ok(self.output)
    }

    fn send(&mut self) -> io::Result<()> {
        write_band(self.output, Band::Data, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for SidebandWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = self.full - self.buffer.len();
        let taken = room.min(data.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == self.full {
            self.send()?;
        }
        Ok(taken)
    }

    /// Does nothing on purpose: a flush in the middle would send small frames.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for SidebandWriter<'_> {
    fn write_part(&mut self, mut part: PackPart) -> io::Result<()> {
        if part.len() < PART_BYTES_MIN {
            return self.write_all(&part.into_bytes()?);
        }
        if !self.buffer.is_empty() {
            self.send()?;
        }
        while !part.is_empty() {
            let frame = part.split_to(self.full as u64);
            let bytes = usize::try_from(frame.len()).map_err(io::Error::other)?;
            self.output.write_all(&head(bytes + 1)?)?;
            self.output.write_all(&[Band::Data as u8])?;
            self.output.write_part(frame)?;
        }
        Ok(())
    }

    fn begin_pack(&mut self) {
        self.output.begin_pack();
    }
}

/// A reader that fails after `bytes_max` bytes: a bound on the input from a peer.
pub struct Bounded<'a> {
    input: &'a mut dyn BufRead,
    left: u64,
}

impl std::fmt::Debug for Bounded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bounded({} bytes left)", self.left)
    }
}

impl<'a> Bounded<'a> {
    /// Passes on `bytes_max` bytes of `input`.
    pub fn new(input: &'a mut dyn BufRead, bytes_max: u64) -> Self {
        Self {
            input,
            left: bytes_max,
        }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let taken = available.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for Bounded<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.input.fill_buf()?;
        if self.left == 0 && !available.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the request is larger than this server accepts",
            ));
        }
        let shown =
            usize::try_from(self.left).map_or(available.len(), |left| left.min(available.len()));
        Ok(&available[..shown])
    }

    fn consume(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
        self.input.consume(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<Option<Vec<u8>>>, PktError> {
        let mut input = bytes;
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        while let Some(packet) = read(&mut input, &mut buffer)? {
            frames.push(match packet {
                Packet::Data(data) => Some(data.to_vec()),
                Packet::Flush | Packet::Delimiter | Packet::ResponseEnd => None,
            });
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut bytes = Vec::new();
            for line in &lines {
                write(&mut bytes, line).unwrap();
            }
            write_flush(&mut bytes).unwrap();
            let mut expected: Vec<_> = lines.into_iter().map(Some).collect();
            expected.push(None);
            prop_assert_eq!(read_all(&bytes).unwrap(), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = read_all(&bytes).is_ok();
        }

        #[test]
        fn a_cut_stream_is_an_error_or_a_shorter_list(cut in 0_usize..24) {
            let mut bytes = Vec::new();
            write(&mut bytes, b"hello\n").unwrap();
            write(&mut bytes, b"world\n").unwrap();
            write_flush(&mut bytes).unwrap();
            let whole = [10, 20, 24, 0].contains(&cut);
            prop_assert_eq!(read_all(&bytes[..cut]).is_ok(), whole);
        }
    }

    #[test]
    fn lengths_that_no_line_has_are_refused() {
        for text in ["0003", "fff1", "ffff", "00g0", "-001", "+00a"] {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(70_000, b'x');
            assert!(read_all(&bytes).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn the_side_band_fills_its_frames() {
        let mut bytes = Vec::new();
        let mut writer = SidebandWriter::new(&mut bytes);
        writer.write_all(&vec![7; 100_000]).unwrap();
        writer.finish().unwrap();
        let frames = read_all(&bytes).unwrap();
        let lengths: Vec<_> = frames.iter().flatten().map(Vec::len).collect();
        assert_eq!(lengths, [65_516, 100_000 - 65_515 + 1]);
    }

    #[test]
    fn a_bounded_reader_fails_behind_its_bound_and_not_before() {
        let mut out = Vec::new();
        let mut input: &[u8] = b"12345";
        assert!(Bounded::new(&mut input, 5).read_to_end(&mut out).is_ok());
        let mut input: &[u8] = b"123456";
        assert!(Bounded::new(&mut input, 5).read_to_end(&mut out).is_err());
    }
}
