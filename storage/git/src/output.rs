//! The destination of a response: a writer that can pass on parts of packs without copying them.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use henge_storage::objects::blocks::BLOCK_BYTES;

use crate::store::Pack;

/// A writer for responses to fetches.
pub trait Output: Write {
    /// Writes a part of a pack. An output may keep the part itself instead of a copy of its bytes.
    ///
    /// # Errors
    /// When the output breaks.
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        self.write_all(&part.into_bytes()?)
    }

    /// Marks the beginning of the pack. An output that records a response for the cache may hold
    /// back the bytes that follow.
    fn begin_pack(&mut self) {}
}

impl Output for Vec<u8> {}

impl Output for io::Sink {}

impl<W: Write> Output for io::BufWriter<W> {}

/// A part of a pack on disk. This value keeps the pack readable.
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

    /// The length in bytes.
    pub const fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether the length is 0.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Verifies the part against the checksums of its blocks, where the pack has any.
    ///
    /// # Errors
    /// When the pack is damaged; the error is a [`DamagedPack`](crate::DamagedPack).
    pub fn check(&self) -> io::Result<()> {
        let checked = self.pack.check_leaving(&self.range, self.range.start);
        checked.map_err(io::Error::other)
    }

    /// The bytes of the part, without a copy, verified against the checksums of their blocks where
    /// the pack has any.
    ///
    /// # Errors
    /// When the pack is shorter than the part. When the pack is damaged, with a
    /// [`DamagedPack`](crate::DamagedPack) as the error.
    pub fn into_bytes(self) -> io::Result<Bytes> {
        let start = self.range.start;
        self.into_bytes_from(start)
    }

    /// The same, where the bytes of the pack before `compared` have just been verified.
    fn into_bytes_from(self, compared: u64) -> io::Result<Bytes> {
        let checked = self.pack.check_leaving(&self.range, compared);
        checked.map_err(io::Error::other)?;
        self.pack
            .shared(self.range)
            .ok_or_else(|| io::Error::other("a pack is shorter than its index says"))
    }

    /// Splits off at most `bytes` bytes from the start.
    pub(crate) fn split_to(&mut self, bytes: u64) -> Self {
        let middle = self.range.end.min(self.range.start + bytes);
        let first = self.range.start..middle;
        self.range.start = middle;
        Self {
            pack: Arc::clone(&self.pack),
            range: first,
        }
    }

    /// The pack, and the range in it.
    pub(crate) fn into_place(self) -> (Arc<Pack>, Range<u64>) {
        (self.pack, self.range)
    }

    /// The pack, without keeping it readable, and the range in it.
    pub(crate) fn place(&self) -> (Weak<Pack>, Range<u64>) {
        (Arc::downgrade(&self.pack), self.range.clone())
    }
}

/// The extent of verification in a pack whose parts are sent in sequence. Parts end within blocks;
/// with this value no block is read twice.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// The pack of the last part, and the end of that part.
    last: Option<(Weak<Pack>, u64)>,
}

impl Compared {
    /// [`PackPart::into_bytes`] of the next part.
    ///
    /// # Errors
    /// Those of [`PackPart::into_bytes`].
    pub(crate) fn take(&mut self, part: PackPart) -> io::Result<Bytes> {
        let compared = self.from(&part);
        self.last = None;
        let (pack, range) = part.place();
        let bytes = part.into_bytes_from(compared)?;
        self.last = Some((pack, range.end));
        Ok(bytes)
    }

    /// The offset at which verification of the next part begins.
    fn from(&self, part: &PackPart) -> u64 {
        let start = part.range.start;
        let follows = self
            .last
            .as_ref()
            .is_some_and(|(pack, end)| pack.as_ptr() == Arc::as_ptr(&part.pack) && *end == start);
        match follows {
            true => start.next_multiple_of(BLOCK_BYTES as u64),
            false => start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ObjectFormat;

    /// A part skips its first, partial block only where it directly follows the last part of the
    /// same pack.
    #[test]
    fn only_a_part_that_follows_is_compared_from_the_next_block_on() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            crate::store::put_empty_pack(directory.path(), name);
            let idx = directory.path().join(format!("pack-{name}.idx"));
            Arc::new(Pack::open(&idx, ObjectFormat::Sha1).unwrap())
        };
        let (first, second) = (open("0"), open("1"));
        let part = |pack: &Arc<Pack>, range| PackPart::new(Arc::clone(pack), range);
        let block = BLOCK_BYTES as u64;
        let mut compared = Compared::default();
        assert_eq!(compared.from(&part(&first, 0..12)), 0);
        compared.take(part(&first, 0..12)).unwrap();
        assert_eq!(compared.from(&part(&first, 12..20)), block, "it follows");
        assert_eq!(compared.from(&part(&first, 0..12)), 0, "it does not");
        assert_eq!(compared.from(&part(&first, 13..20)), 13, "nor this");
        assert_eq!(compared.from(&part(&second, 12..20)), 12, "another pack");
        compared.take(part(&second, 0..12)).unwrap();
        assert_eq!(compared.from(&part(&first, 12..20)), 12, "it is between");
        assert!(compared.take(part(&second, 12..4000)).is_err(), "too long");
        assert_eq!(compared.from(&part(&second, 4000..4001)), 4000);
    }
}
