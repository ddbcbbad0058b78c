//! Where an answer goes: a writer that can also pass parts of packs on without copying them.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::store::Pack;

/// A writer for answers to fetches.
pub trait Output: Write {
    /// Writes a part of a pack. An output that can keeps it as it is, without copying.
    ///
    /// # Errors
    /// When the output breaks.
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        self.write_all(&part.into_bytes()?)
    }

    /// The pack begins: an output that keeps answers may hold back what comes.
    fn begin_pack(&mut self) {}
}

impl Output for Vec<u8> {}

impl Output for io::Sink {}

impl<W: Write> Output for io::BufWriter<W> {}

/// A part of a pack on disk, kept readable by this value.
pub struct PackPart {
    pack: Arc<Pack>,
    range: Range<u64>,
}

impl std::fmt::Debug for PackPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackPart({:?})", self.range)
    }
}

impl PackPart {
    pub(crate) const fn new(pack: Arc<Pack>, range: Range<u64>) -> Self {
        Self { pack, range }
    }

    /// How many bytes it is.
    pub const fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether it is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Compares it with the checksums of its blocks, where there are any.
    ///
    /// # Errors
    /// When the pack is damaged: then the error is a [`DamagedPack`](crate::DamagedPack).
    pub fn check(&self) -> io::Result<()> {
        let checked = self.pack.check_leaving(self.range.clone());
        checked.map_err(io::Error::other)
    }

    /// Its bytes, not copied, and compared with the checksums of their blocks where there are any.
    ///
    /// # Errors
    /// When the pack is shorter than that, or damaged: then the error is a [`DamagedPack`](crate::DamagedPack).
    pub fn into_bytes(self) -> io::Result<Bytes> {
        self.check()?;
        self.pack
            .shared(self.range)
            .ok_or_else(|| io::Error::other("a pack is shorter than its index says"))
    }

    /// Takes at most `bytes` off its start.
    pub(crate) fn split_to(&mut self, bytes: u64) -> Self {
        let middle = self.range.end.min(self.range.start + bytes);
        let first = self.range.start..middle;
        self.range.start = middle;
        Self {
            pack: Arc::clone(&self.pack),
            range: first,
        }
    }

    /// Where it lies.
    pub(crate) fn into_place(self) -> (Arc<Pack>, Range<u64>) {
        (self.pack, self.range)
    }

    /// Where it lies; the pack is not kept.
    pub(crate) fn place(&self) -> (Weak<Pack>, Range<u64>) {
        (Arc::downgrade(&self.pack), self.range.clone())
    }
}
