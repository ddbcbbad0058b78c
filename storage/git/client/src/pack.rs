//! A pack in a file, verified while it is written (gitformat-pack(5)).

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Seek, Write};
use std::path::Path;

use henge_git::Protocol;
use henge_types::ObjectFormat;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::answer::AnswerReader;
use crate::error::Error;
use crate::transfer::Event;

/// Size of the write buffer.
const BUFFER_BYTES: usize = 128 * 1024;
/// `PACK`, the version, the number of objects.
const HEADER_BYTES: usize = 12;

enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    fn new(format: ObjectFormat) -> Self {
        match format {
            ObjectFormat::Sha1 => Self::Sha1(Sha1::new()),
            ObjectFormat::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(data),
            Self::Sha256(hasher) => hasher.update(data),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// Passes a pack on and verifies its checksum.
pub(crate) struct PackWriter<W> {
    output: W,
    hasher: Hasher,
    header: Vec<u8>,
    /// The last bytes so far: the checksum, if no bytes follow.
    tail: Vec<u8>,
    checksum_bytes: usize,
    bytes: u64,
    bytes_max: u64,
}

impl<W: Write> PackWriter<W> {
    pub(crate) fn new(output: W, format: ObjectFormat, bytes_max: u64) -> Self {
        Self {
            output,
            hasher: Hasher::new(format),
            header: Vec::with_capacity(HEADER_BYTES),
            tail: Vec::new(),
            checksum_bytes: format.id_bytes(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The output and the number of objects.
    ///
    /// # Errors
    /// When the bytes were not a complete pack.
    pub(crate) fn finish(self) -> Result<(W, u32), Error> {
        let count = self
            .header
            .strip_prefix(b"PACK\0\0\0\x02")
            .or_else(|| self.header.strip_prefix(b"PACK\0\0\0\x03"))
            .and_then(|rest| rest.try_into().ok())
            .map(u32::from_be_bytes)
            .ok_or(Error::Pack { what: "none" })?;
        if self.tail != self.hasher.finish() {
            let what = "damaged: its checksum is another one";
            return Err(Error::Pack { what });
        }
        Ok((self.output, count))
    }
}

impl<W: Write> Write for PackWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes + data.len() as u64 > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(io::Error::other(Error::TooLarge { bytes_max }));
        }
        let taken = self.output.write(data)?;
        let data = &data[..taken];
        self.bytes += taken as u64;
        let missing = HEADER_BYTES - self.header.len();
        self.header.extend_from_slice(&data[..missing.min(taken)]);
        // All but the last bytes are hashed.
        if taken >= self.checksum_bytes {
            let (body, tail) = data.split_at(taken - self.checksum_bytes);
            self.hasher.update(&self.tail);
            self.hasher.update(body);
            self.tail.clear();
            self.tail.extend_from_slice(tail);
        } else {
            self.tail.extend_from_slice(data);
            let over = self.tail.len().saturating_sub(self.checksum_bytes);
            self.hasher.update(&self.tail[..over]);
            self.tail.drain(..over);
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// A complete pack in a temporary file, which is removed with this value.
#[derive(Debug)]
pub struct PackFile {
    file: File,
    bytes: u64,
    objects: u32,
}

impl PackFile {
    /// Runs `write` on a new file in `directory`, limited to `bytes_max` bytes, and checks that it
    /// wrote a pack.
    ///
    /// # Errors
    /// The error of `write`, or an error for an incomplete pack.
    pub(crate) fn write(
        directory: &Path,
        format: ObjectFormat,
        bytes_max: u64,
        write: impl FnOnce(&mut PackWriter<BufWriter<File>>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let failed = || Error::io(format!("cannot write to {}", directory.display()));
        let file = tempfile::tempfile_in(directory).map_err(failed())?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = PackWriter::new(file, format, bytes_max);
        write(&mut writer)?;
        let bytes = writer.bytes();
        let (file, objects) = writer.finish()?;
        let file = file
            .into_inner()
            .map_err(|error| failed()(error.into_error()))?;
        Ok(Self {
            file,
            bytes,
            objects,
        })
    }

    /// Reads the answer to a fetch (gitprotocol-pack(5), gitprotocol-v2(5)) and stores its pack, of
    /// at most `bytes_max` bytes, in `directory`.
    ///
    /// # Errors
    /// When the answer ends early, is malformed or a refusal, or its pack is invalid or too large.
    pub fn from_answer(
        directory: &Path,
        format: ObjectFormat,
        bytes_max: u64,
        protocol: Protocol,
        answer: &mut dyn BufRead,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self, Error> {
        Self::write(directory, format, bytes_max, |pack| {
            let mut reader = AnswerReader::new(protocol);
            loop {
                let data = answer.fill_buf().map_err(Error::from_stream)?;
                let bytes = data.len();
                if bytes == 0 {
                    return reader.finish();
                }
                reader.feed(data, pack, &mut |text| tell(Event::Said(text)))?;
                answer.consume(bytes);
                tell(Event::Received {
                    bytes: pack.bytes(),
                });
            }
        })
    }

    /// A pack without objects, for a push to a remote that has all objects already.
    pub(crate) fn empty(directory: &Path, format: ObjectFormat) -> Result<Self, Error> {
        Self::write(directory, format, 1024, |writer| {
            let header = b"PACK\0\0\0\x02\0\0\0\0";
            let mut hasher = Hasher::new(format);
            hasher.update(header);
            writer
                .write_all(header)
                .and_then(|()| writer.write_all(&hasher.finish()))
                .map_err(Error::io("cannot write an empty pack"))
        })
    }

    /// Its length in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Objects in it.
    pub const fn objects(&self) -> u32 {
        self.objects
    }

    /// A handle positioned at the start. Handles share their position: only one may read at a time.
    ///
    /// # Errors
    /// When no file handle is left.
    pub fn reader(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    /// Appends it to `output`.
    ///
    /// # Errors
    /// When either file fails.
    pub fn copy_to(&self, output: &mut dyn Write) -> io::Result<()> {
        let copied = io::copy(&mut self.reader()?.take(self.bytes), output)?;
        if copied == self.bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(body: &[u8]) -> Vec<u8> {
        let mut bytes = [&b"PACK\0\0\0\x02\0\0\0\x07"[..], body].concat();
        bytes.extend(Sha1::digest(&bytes));
        bytes
    }

    fn written(bytes: &[u8], step: usize) -> Result<u32, Error> {
        let mut writer = PackWriter::new(Vec::new(), ObjectFormat::Sha1, 10_000);
        for piece in bytes.chunks(step) {
            writer.write_all(piece).map_err(Error::from_stream)?;
        }
        let (output, objects) = writer.finish()?;
        assert_eq!(output, bytes);
        Ok(objects)
    }

    #[test]
    fn checksums_are_compared_whatever_the_pieces() {
        let bytes = pack(&[9; 300]);
        for step in [1, 7, 19, 20, 21, 64, 1000] {
            assert_eq!(written(&bytes, step).unwrap(), 7);
            assert!(written(&bytes[..bytes.len() - 1], step).is_err());
            let mut bent = bytes.clone();
            bent[50] ^= 1;
            assert!(written(&bent, step).is_err());
        }
        assert!(written(b"", 1).is_err());
        assert!(written(&[b'x'; 100], 10).is_err());
        let error = written(&pack(&[0; 10_000]), 100).unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { bytes_max: 10_000 }),
            "{error}"
        );
    }

    #[test]
    fn an_empty_pack_is_a_pack() {
        let dir = tempfile::tempdir().unwrap();
        for (format, bytes) in [(ObjectFormat::Sha1, 32), (ObjectFormat::Sha256, 44)] {
            let pack = PackFile::empty(dir.path(), format).unwrap();
            assert_eq!((pack.bytes(), pack.objects()), (bytes, 0));
            let mut copy = Vec::new();
            pack.copy_to(&mut copy).unwrap();
            pack.copy_to(&mut copy).unwrap();
            assert_eq!(copy.len() as u64, 2 * bytes);
        }
    }
}
