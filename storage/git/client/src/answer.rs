//! Incremental parser for the answer to a fetch: the lines before the pack, and the side-bands with
//! the pack.

use std::io::{self, Write};

use henge_git::Protocol;
use henge_git::pkt::{self, LINE_BYTES_MAX, Packet};

use crate::error::{Error, printable};

/// The expected meaning of the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// The name of a section (v2).
    Section,
    /// A line of a section that a client with one round ignores.
    Skipped,
    /// `ACK`, `NAK` or the pack (v0, v1).
    Acknowledgment,
    /// Side-bands.
    Pack,
    /// Nothing.
    End,
}

/// Parses the answer to a fetch. It does not read by itself: the caller feeds it.
#[derive(Debug)]
pub(crate) struct AnswerReader {
    expects: Expects,
    /// An incomplete frame.
    pending: Vec<u8>,
}

impl AnswerReader {
    pub(crate) const fn new(protocol: Protocol) -> Self {
        Self {
            expects: match protocol {
                Protocol::V2 => Expects::Section,
                Protocol::V0 | Protocol::V1 => Expects::Acknowledgment,
            },
            pending: Vec::new(),
        }
    }

    /// Parses the next bytes. Pack data goes to `pack`, messages of the remote to `tell`.
    pub(crate) fn feed(
        &mut self,
        data: &[u8],
        pack: &mut dyn Write,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        self.pending.extend_from_slice(data);
        let mut frames = std::mem::take(&mut self.pending);
        let mut rest = frames.as_slice();
        let mut buffer = Vec::new();
        while let Some(length) = frame_bytes(rest)? {
            if rest.len() < length {
                break;
            }
            if let Some(packet) = pkt::read(&mut rest, &mut buffer)? {
                self.take(packet, pack, tell)?;
            }
        }
        // In place: input that arrives byte by byte must not be copied for each byte.
        let taken = frames.len() - rest.len();
        frames.drain(..taken);
        self.pending = frames;
        Ok(())
    }

    /// Marks the end of the input.
    ///
    /// # Errors
    /// When the answer is incomplete.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        if self.expects == Expects::End && self.pending.is_empty() {
            Ok(())
        } else {
            Err(Error::protocol("it ends early"))
        }
    }

    fn take(
        &mut self,
        packet: Packet<'_>,
        pack: &mut dyn Write,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        if let Some(message) = packet.line().and_then(|line| line.strip_prefix(b"ERR ")) {
            let message = printable(message);
            return Err(Error::Remote { message });
        }
        match (self.expects, packet) {
            (Expects::Section, Packet::Data(_)) => {
                self.section(packet.line().unwrap_or_default())?;
            }
            (Expects::Skipped, Packet::Data(_)) => {}
            (Expects::Skipped, Packet::Delimiter) => self.expects = Expects::Section,
            (Expects::Acknowledgment, Packet::Data(data)) => {
                let line = packet.line().unwrap_or_default();
                if line.starts_with(b"shallow ") {
                    return Err(Error::Shallow);
                }
                if line != b"NAK" && !line.starts_with(b"ACK ") {
                    self.expects = Expects::Pack;
                    return side_band(data, pack, tell);
                }
            }
            (Expects::Pack, Packet::Data(data)) => side_band(data, pack, tell)?,
            (Expects::Pack, Packet::Flush) => self.expects = Expects::End,
            (Expects::End, Packet::ResponseEnd) => {}
            (
                Expects::Section
                | Expects::Skipped
                | Expects::Acknowledgment
                | Expects::Pack
                | Expects::End,
                _,
            ) => return Err(Error::protocol("a frame stands where none may")),
        }
        Ok(())
    }

    fn section(&mut self, name: &[u8]) -> Result<(), Error> {
        self.expects = match name {
            b"packfile" => Expects::Pack,
            b"acknowledgments" | b"wanted-refs" => Expects::Skipped,
            b"shallow-info" => return Err(Error::Shallow),
            other => {
                let name = printable(other);
                return Err(Error::protocol(format!(
                    "section {name:?} was not asked for"
                )));
            }
        };
        Ok(())
    }
}

/// The length of the frame at the start of `bytes`; `None` while its length field is incomplete.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(head) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = std::str::from_utf8(head)
        .ok()
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .and_then(|digits| usize::from_str_radix(digits, 16).ok())
        .filter(|length| *length <= LINE_BYTES_MAX)
        .ok_or_else(|| Error::protocol("what came are no pkt-lines"))?;
    // The markers 0000, 0001 and 0002 are four bytes long.
    Ok(Some(length.max(4)))
}

fn side_band(data: &[u8], pack: &mut dyn Write, tell: &mut dyn FnMut(&str)) -> Result<(), Error> {
    match data.split_first() {
        Some((1, data)) => pack.write_all(data).map_err(Error::from_stream),
        Some((2, text)) => {
            tell(&String::from_utf8_lossy(text));
            Ok(())
        }
        Some((3, message)) => {
            let message = printable(message);
            Err(Error::Remote { message })
        }
        _ => Err(Error::protocol("a frame of no side-band")),
    }
}

/// A writer that feeds an [`AnswerReader`], for a source in the same process.
pub(crate) struct AnswerSink<'a> {
    pub(crate) reader: AnswerReader,
    pub(crate) pack: &'a mut dyn Write,
    pub(crate) tell: &'a mut dyn FnMut(&str),
    /// The error that ended the writing.
    pub(crate) failed: Option<Error>,
}

impl Write for AnswerSink<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.reader.feed(data, self.pack, self.tell) {
            Ok(()) => Ok(data.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the answer is not taken"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl henge_git::Output for AnswerSink<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            match *part {
                b"" => pkt::write_flush(&mut bytes).unwrap(),
                b"-" => pkt::write_delimiter(&mut bytes).unwrap(),
                part => pkt::write(&mut bytes, part).unwrap(),
            }
        }
        bytes
    }

    /// The pack and the messages, for an input fed in pieces of `step` bytes.
    fn read(protocol: Protocol, bytes: &[u8], step: usize) -> Result<(Vec<u8>, String), Error> {
        let mut reader = AnswerReader::new(protocol);
        let (mut pack, mut told) = (Vec::new(), String::new());
        for piece in bytes.chunks(step) {
            reader.feed(piece, &mut pack, &mut |text| told.push_str(text))?;
        }
        reader.finish()?;
        Ok((pack, told))
    }

    #[test]
    fn packs_come_out_whole_whatever_the_pieces() {
        let second = frames(&[
            b"acknowledgments\n",
            b"ACK 11\n",
            b"ready\n",
            b"-",
            b"packfile\n",
            b"\x01PACK",
            b"\x02counting\r",
            b"\x01",
            b"\x01body",
            b"",
        ]);
        let first = frames(&[b"NAK\n", b"\x02counting\r", b"\x01PACK", b"\x01body", b""]);
        for (protocol, bytes) in [(Protocol::V2, second), (Protocol::V0, first)] {
            for step in [1, 2, 3, 7, 1000] {
                let (pack, told) = read(protocol, &bytes, step).unwrap();
                assert_eq!((&pack[..], told.as_str()), (&b"PACKbody"[..], "counting\r"));
            }
            for cut in 0..bytes.len() {
                assert!(read(protocol, &bytes[..cut], 5).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn refusals_and_nonsense_are_errors() {
        for (parts, expected) in [
            (
                &[&b"ERR upload-pack: not our ref\n"[..]][..],
                "the remote says: upload-pack: not our ref",
            ),
            (
                &[b"packfile\n", b"\x03it broke\n"],
                "the remote says: it broke",
            ),
            (&[b"shallow-info\n"], "shallow"),
            (&[b"packfile-uris\n"], "was not asked for"),
            (&[b"packfile\n", b"\x07"], "no side-band"),
            (&[b"packfile\n", b"-"], "a frame stands"),
            (&[b"packfile\n", b"", b"\x01more"], "a frame stands"),
            (&[b"", b""], "a frame stands"),
        ] {
            let error = read(Protocol::V2, &frames(parts), 100)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(read(Protocol::V2, b"<html>", 100).is_err());
        assert!(read(Protocol::V2, b"fff1", 100).is_err());
        assert!(read(Protocol::V2, b"0003", 100).is_err());
    }
}
