//! The log's bytes: segment headers and record frames. All numbers little-endian.
//!
//! A record's frame is 48 bytes, then the payload, then zeros up to a multiple of 8:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | CRC32C of everything from byte 4 to the payload's end, started with the salt |
//! | 4 | 4 | payload length |
//! | 8 | 4 | group |
//! | 12 | 1 | kind |
//! | 13 | 1 | flags: bit 0 = last record of its batch |
//! | 14 | 2 | zero |
//! | 16 | 8 | generation of the segment |
//! | 24 | 8 | sequence: counts records over all segments |
//! | 32 | 8 | batch: counts batches over all segments |
//! | 40 | 8 | index, or 0 |

use henge_types::GroupId;

/// Bytes before a record's payload.
pub(super) const FRAME_BYTES: usize = 48;
/// Bytes before a segment's first record.
pub(super) const HEADER_BYTES: usize = 4096;
/// Records start at multiples of this.
pub(super) const ALIGN: usize = 8;
const LAST_OF_BATCH: u8 = 1;
const MAGIC: [u8; 8] = *b"HENGEWAL";
const VERSION: u32 = 1;
const HEADER_USED: usize = 80;

/// The type of a record. The numbers are stored on disk and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A log entry at `index`, the one after the group's last.
    Entry,
    /// A live log entry rewritten because its segment is to be freed.
    Moved,
    /// A vote.
    Vote,
    /// The committed position.
    Committed,
    /// Entries after `index` are removed.
    Truncate,
    /// Entries up to `index` are removed; the payload names the last of them.
    Purge,
    /// The group is removed.
    Drop,
    /// Checkpoint of a group's hard state, at the start of a segment.
    State,
    /// Segments of a generation below `index` are free.
    Oldest,
    /// The log was closed cleanly here.
    Close,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Moved => 2,
            Self::Vote => 3,
            Self::Committed => 4,
            Self::Truncate => 5,
            Self::Purge => 6,
            Self::Drop => 7,
            Self::State => 8,
            Self::Oldest => 9,
            Self::Close => 10,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Entry,
            2 => Self::Moved,
            3 => Self::Vote,
            4 => Self::Committed,
            5 => Self::Truncate,
            6 => Self::Purge,
            7 => Self::Drop,
            8 => Self::State,
            9 => Self::Oldest,
            10 => Self::Close,
            _ => return None,
        })
    }
}

/// A parsed record with a valid checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) ends_batch: bool,
    pub(super) group: GroupId,
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) batch: u64,
    pub(super) index: u64,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The record at the start of `bytes`; `None` when it is damaged or absent.
    pub(super) fn parse(salt: u32, bytes: &'a [u8]) -> Option<Self> {
        let len = usize::try_from(u32_at(bytes, 4)?).ok()?;
        let covered = bytes.get(4..FRAME_BYTES.checked_add(len)?)?;
        let kind = Kind::from_number(*bytes.get(12)?)?;
        if crc32c::crc32c_append(salt, covered) != u32_at(bytes, 0)? {
            return None;
        }
        Some(Self {
            kind,
            ends_batch: bytes.get(13)? & LAST_OF_BATCH != 0,
            group: GroupId::new(u32_at(bytes, 8)?),
            generation: u64_at(bytes, 16)?,
            sequence: u64_at(bytes, 24)?,
            batch: u64_at(bytes, 32)?,
            index: u64_at(bytes, 40)?,
            payload: bytes.get(FRAME_BYTES..FRAME_BYTES + len)?,
        })
    }

    /// The generation field of a frame at the start of `bytes`, valid or not.
    pub(super) fn generation_at(bytes: &[u8]) -> Option<u64> {
        u64_at(bytes, 16)
    }

    /// Bytes up to the next record.
    pub(super) fn stride(&self) -> usize {
        stride(self.payload.len())
    }
}

/// Bytes of a record with a payload of `len` bytes.
pub(super) const fn stride(len: usize) -> usize {
    (FRAME_BYTES + len).next_multiple_of(ALIGN)
}

/// Records that are written at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Start of the last record, and the salt of its segment.
    last: Option<(usize, u32)>,
}

/// The position of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) salt: u32,
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) batch: u64,
}

impl Batch {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a record; returns its start within the batch.
    pub(super) fn push(
        &mut self,
        place: Place,
        kind: Kind,
        group: GroupId,
        index: u64,
        payload: &[u8],
    ) -> usize {
        let start = self.bytes.len();
        let len = u32::try_from(payload.len()).expect("invariant: records are checked on entry");
        self.bytes.reserve(stride(payload.len()));
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(&group.get().to_le_bytes());
        self.bytes.extend_from_slice(&[kind.number(), 0, 0, 0]);
        self.bytes
            .extend_from_slice(&place.generation.to_le_bytes());
        self.bytes.extend_from_slice(&place.sequence.to_le_bytes());
        self.bytes.extend_from_slice(&place.batch.to_le_bytes());
        self.bytes.extend_from_slice(&index.to_le_bytes());
        self.bytes.extend_from_slice(payload);
        self.seal(start, place.salt);
        self.bytes.resize(start + stride(payload.len()), 0);
        self.last = Some((start, place.salt));
        start
    }

    /// Marks the last record and returns the bytes to write.
    pub(super) fn finish(&mut self) -> &[u8] {
        if let Some((start, salt)) = self.last.take() {
            if let Some(flags) = self.bytes.get_mut(start + 13) {
                *flags |= LAST_OF_BATCH;
            }
            let len = u32_at(&self.bytes, start + 4).unwrap_or_default();
            let end = start + FRAME_BYTES + usize::try_from(len).unwrap_or_default();
            let padded = self.bytes.len();
            self.bytes.truncate(end);
            self.seal(start, salt);
            self.bytes.resize(padded, 0);
        }
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.last = None;
        // A huge batch must not keep its buffer allocated.
        self.bytes.shrink_to(8 * 1024 * 1024);
    }

    /// Writes the checksum of the record that starts at `start` and ends at the buffer's end.
    fn seal(&mut self, start: usize, salt: u32) {
        let covered = self.bytes.get(start + 4..).unwrap_or_default();
        let crc = crc32c::crc32c_append(salt, covered);
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// The header of a segment; fsynced before the segment's first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of segment uses so far; never reused.
    pub(super) generation: u64,
    /// The generation of the segment before this one; 0 when this is the first.
    pub(super) previous: u64,
    /// The end of the segment before this one: bytes after it were cut.
    pub(super) previous_end: u64,
    /// The sequence of the first record.
    pub(super) first_sequence: u64,
    /// The batch of the first record.
    pub(super) first_batch: u64,
    /// Segments of a generation below this are free.
    pub(super) oldest: u64,
    /// The segment's length.
    pub(super) segment_bytes: u64,
    /// Initial value of the checksums of this segment's records. It is unpredictable, so that a
    /// payload cannot imitate a record.
    pub(super) salt: u32,
}

/// The reason why a header could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Zeros, torn, or damaged.
    Invalid,
    /// Written by a newer release.
    Version(u32),
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for number in [
            self.generation,
            self.previous,
            self.previous_end,
            self.first_sequence,
            self.first_batch,
            self.oldest,
            self.segment_bytes,
            u64::from(self.salt),
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        if let Some(field) = bytes.get_mut(12..16) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        Self::fields(bytes).ok_or(HeaderFault::Invalid)?
    }

    fn fields(bytes: &[u8]) -> Option<Result<Self, HeaderFault>> {
        let mut used: [u8; HEADER_USED] = bytes.get(..HEADER_USED)?.try_into().ok()?;
        let crc = u32_at(&used, 12)?;
        used.get_mut(12..16)?.fill(0);
        if used.get(..8)? != MAGIC || crc32c::crc32c(&used) != crc {
            return None;
        }
        let version = u32_at(&used, 8)?;
        if version != VERSION {
            return Some(Err(HeaderFault::Version(version)));
        }
        Some(Ok(Self {
            generation: u64_at(&used, 16)?,
            previous: u64_at(&used, 24)?,
            previous_end: u64_at(&used, 32)?,
            first_sequence: u64_at(&used, 40)?,
            first_batch: u64_at(&used, 48)?,
            oldest: u64_at(&used, 56)?,
            segment_bytes: u64_at(&used, 64)?,
            salt: u32_at(&used, 72)?,
        }))
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        salt: 99,
        generation: 3,
        sequence: 17,
        batch: 5,
    };

    #[test]
    fn a_record_comes_back_and_the_last_of_a_batch_says_so() {
        let mut batch = Batch::default();
        batch.push(PLACE, Kind::Vote, GroupId::new(7), 0, b"vote");
        let second = batch.push(PLACE, Kind::Entry, GroupId::new(8), 9, b"an entry");
        let bytes = batch.finish().to_vec();
        let first = Frame::parse(99, &bytes).expect("a valid record");
        assert_eq!((first.kind, first.ends_batch), (Kind::Vote, false));
        assert_eq!(first.stride(), second);
        let frame = Frame::parse(99, &bytes[second..]).expect("a valid record");
        assert_eq!((frame.kind, frame.ends_batch), (Kind::Entry, true));
        assert_eq!((frame.group, frame.index), (GroupId::new(8), 9));
        assert_eq!((frame.generation, frame.sequence, frame.batch), (3, 17, 5));
        assert_eq!(frame.payload, b"an entry");
        assert!(Frame::parse(98, &bytes).is_none(), "another segment's salt");
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let mut batch = Batch::default();
        batch.push(PLACE, Kind::Entry, GroupId::new(1), 1, b"payload!");
        let bytes = batch.finish().to_vec();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(Frame::parse(99, &damaged).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_header_comes_back_and_a_newer_one_is_named() {
        let header = Header {
            generation: 4,
            previous: 3,
            previous_end: 5000,
            first_sequence: 100,
            first_batch: 20,
            oldest: 2,
            segment_bytes: 65536,
            salt: 77,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(Header::decode(&[0; 4096]), Err(HeaderFault::Invalid));
        let mut newer = bytes;
        newer[8] = 2;
        newer[12..16].fill(0);
        let crc = crc32c::crc32c(&newer[..HEADER_USED]);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(HeaderFault::Version(2)));
    }
}
