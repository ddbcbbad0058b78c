//! The bytes of a snapshot file.
//!
//! `header`: `b"HENGESNP"`, version (4 bytes), 4 zeros. Then the body, then the meta. `footer`, 56
//! bytes: body length (8), meta length (4), 4 zeros, SHA-256 of everything before it (32),
//! `b"HENGEEND"`. Numbers are little-endian.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The first bytes of a snapshot file.
pub(super) const HEADER: [u8; 16] = *b"HENGESNP\x01\0\0\0\0\0\0\0";
const END: [u8; 8] = *b"HENGEEND";
const FOOTER_BYTES: usize = 56;
const SUM_AT: usize = 16;
const META_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Writes a file and computes its digest.
#[derive(Debug)]
pub(super) struct Digesting {
    file: io::BufWriter<File>,
    digest: Sha256,
}

impl Digesting {
    pub(super) fn new(file: File) -> Self {
        Self {
            file: io::BufWriter::with_capacity(256 * 1024, file),
            digest: Sha256::new(),
        }
    }

    /// Writes meta and footer after a body of `body_bytes`.
    pub(super) fn finish(&mut self, meta: &[u8], body_bytes: u64) -> io::Result<()> {
        if meta.len() > META_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.write_all(meta)?;
        let meta_bytes = u32::try_from(meta.len()).map_err(io::Error::other)?;
        self.write_all(&body_bytes.to_le_bytes())?;
        self.write_all(&meta_bytes.to_le_bytes())?;
        self.write_all(&[0; 4])?;
        let sum = std::mem::take(&mut self.digest).finalize();
        self.file.write_all(&sum)?;
        self.file.write_all(&END)?;
        self.file.flush()
    }
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a whole file and returns its meta and the length of its body. `None` when it is not a
/// complete, undamaged snapshot, or when the disk cannot read all of it.
pub(super) fn verify(path: &Path) -> io::Result<Option<(Bytes, u64)>> {
    match read_through(path) {
        Err(error) if is_damage(&error) => {
            tracing::warn!(%error, ?path, "snapshot cannot be read");
            Ok(None)
        }
        read => read,
    }
}

/// Whether bytes are missing or unreadable. Any other error is no evidence about the file.
fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn read_through(path: &Path) -> io::Result<Option<(Bytes, u64)>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let ends = (HEADER.len() + FOOTER_BYTES) as u64;
    let Some(inner) = len.checked_sub(ends) else {
        return Ok(None);
    };
    let mut header = [0; HEADER.len()];
    file.read_exact(&mut header)?;
    if header != HEADER {
        return Ok(None);
    }
    let mut digest = Sha256::new();
    digest.update(header);
    let mut tail = Tail::default();
    let mut rest = (&mut file).take(inner);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = rest.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let piece = buffer.get(..read).unwrap_or_default();
        digest.update(piece);
        tail.push(piece);
    }
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact(&mut footer)?;
    Ok(check(&footer, digest, inner, &tail))
}

/// Keeps the last bytes of a stream, which include the meta.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > 2 * META_BYTES_MAX {
            let superfluous = self.bytes.len() - META_BYTES_MAX;
            self.bytes.drain(..superfluous);
        }
    }
}

fn check(
    footer: &[u8; FOOTER_BYTES],
    mut digest: Sha256,
    inner: u64,
    tail: &Tail,
) -> Option<(Bytes, u64)> {
    digest.update(footer.get(..SUM_AT)?);
    let sum = footer.get(SUM_AT..SUM_AT + 32)?;
    if digest.finalize().as_slice() != sum || footer.get(SUM_AT + 32..)? != END {
        return None;
    }
    let body_bytes = u64::from_le_bytes(footer.get(..8)?.try_into().ok()?);
    let meta_bytes = u32::from_le_bytes(footer.get(8..12)?.try_into().ok()?);
    if body_bytes.checked_add(u64::from(meta_bytes))? != inner {
        return None;
    }
    let from = tail
        .bytes
        .len()
        .checked_sub(usize::try_from(meta_bytes).ok()?)?;
    Some((Bytes::copy_from_slice(tail.bytes.get(from..)?), body_bytes))
}
