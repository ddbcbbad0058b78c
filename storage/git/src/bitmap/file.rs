//! Reads a `.bitmap` file (gitformat-bitmap(5), version 1, of a single pack), one commit at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use gix_object::Kind;

use crate::bitmap::Bits;
use crate::bitmap::ewah::{self, Ewah, Malformed};
use crate::oid::{Checksum, OID_BYTES_MAX, Oid, format_of};

pub(super) const SIGNATURE: &[u8; 4] = b"BITM";
pub(super) const VERSION: u16 = 1;
/// Bytes of signature, version, flags and number of commits. The checksum of the pack follows.
pub(super) const HEAD_BYTES: usize = 12;
/// All objects that a bitmapped commit needs are in the same pack. Always set.
pub(super) const FULL_DAG: u16 = 0x1;
const HASH_CACHE: u16 = 0x4;
/// A table at the end locates the commits.
pub(super) const LOOKUP_TABLE: u16 = 0x10;
const PSEUDO_MERGES: u16 = 0x20;
const KNOWN_FLAGS: u16 = FULL_DAG | HASH_CACHE | LOOKUP_TABLE | PSEUDO_MERGES;

/// The order of the type bitmaps.
pub(super) const KINDS: [Kind; 4] = [Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag];
/// Bytes before a commit's bitmap: index entry, distance of the base, flags.
pub(super) const ENTRY_HEAD_BYTES: usize = 6;
/// Bytes of a row: index entry, file offset, row of the base.
pub(super) const ROW_BYTES: usize = 16;
/// The base of a row that has none.
pub(super) const NO_BASE: u32 = u32::MAX;
/// Maximum distance from a bitmap back to its base.
pub(super) const BASE_DISTANCE_MAX: u8 = 160;
/// Bytes read at once to compute the checksum.
const CHUNK_BYTES: usize = 64 * 1024;

/// The reason for ignoring a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no bitmap, or one of an unknown kind.
    #[error("not a bitmap of a known kind: {0}")]
    Unknown(&'static str),
    /// It belongs to another pack.
    #[error("it belongs to another pack")]
    OtherPack,
    /// Its bytes do not match its checksum.
    #[error("its checksum is wrong")]
    Checksum,
    /// A length or an offset in it is impossible.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

impl From<Malformed> for FileError {
    fn from(_: Malformed) -> Self {
        Self::Malformed("a compressed bitmap")
    }
}

/// The location of a commit's bitmap.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// The commit's entry in the pack's index.
    entry: u32,
    /// The row of its base, the bitmap that it is stored as a difference to, or [`NO_BASE`].
    base: u32,
    offset: u64,
}

/// The bitmaps of a pack. Decoded bitmaps are not cached.
#[derive(Debug)]
pub(crate) struct PackBitmap {
    file: File,
    objects: u32,
    /// By index entry.
    rows: Box<[Row]>,
    /// The offset of each type bitmap, in the order of [`KINDS`].
    types: [u64; 4],
    /// The offset of the parts behind the bitmaps.
    end: u64,
}

impl PackBitmap {
    /// Opens the bitmaps of the pack with this checksum and number of objects. `None` when the file
    /// does not exist.
    pub(crate) fn open(path: &Path, pack: &Oid, objects: u32) -> Result<Option<Self>, FileError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let length = file.metadata()?.len();
        let sum_bytes = pack.as_bytes().len();
        let head_bytes = (HEAD_BYTES + sum_bytes) as u64;
        let mut end = length
            .checked_sub(head_bytes + sum_bytes as u64)
            .ok_or(FileError::Malformed("too short"))?
            + head_bytes;
        let mut head = [0; HEAD_BYTES + OID_BYTES_MAX];
        file.read_exact_at(&mut head[..HEAD_BYTES + sum_bytes], 0)?;
        let (flags, commits) = check_head(&head, pack, objects)?;
        check_trailer(&file, end, pack)?;
        let mut cut = |bytes: u64, what| {
            end = end
                .checked_sub(bytes)
                .filter(|end| *end >= head_bytes)
                .ok_or(FileError::Malformed(what))?;
            Ok::<_, FileError>(end)
        };
        if flags & HASH_CACHE != 0 {
            cut(4 * u64::from(objects), "no room for the name hashes")?;
        }
        let table = if flags & LOOKUP_TABLE != 0 {
            let bytes = ROW_BYTES as u64 * u64::from(commits);
            Some(cut(bytes, "no room for the lookup table")?)
        } else {
            None
        };
        if flags & PSEUDO_MERGES != 0 {
            let mut size = [0; 8];
            let at = cut(8, "no room for the pseudo-merges")?;
            file.read_exact_at(&mut size, at)?;
            let rest = u64::from_be_bytes(size).saturating_sub(8);
            cut(rest, "no room for the pseudo-merges")?;
        }
        let mut bitmap = Self {
            file,
            objects,
            rows: Box::default(),
            types: [0; 4],
            end,
        };
        let mut at = head_bytes;
        for position in 0..KINDS.len() {
            bitmap.types[position] = at;
            at += bitmap.stored_bytes(at)?;
        }
        bitmap.rows = match table {
            Some(table) => bitmap.read_table(table, commits, at)?,
            None => bitmap.scan(commits, at)?,
        };
        Ok(Some(bitmap))
    }

    /// The length of the stored set at an offset.
    fn stored_bytes(&self, at: u64) -> Result<u64, FileError> {
        let mut head = [0; ewah::HEAD_BYTES];
        if at + head.len() as u64 > self.end {
            return Err(FileError::Malformed("a bitmap begins behind the end"));
        }
        self.file.read_exact_at(&mut head, at)?;
        let length = ewah::stored_bytes(head);
        if length > self.end - at {
            return Err(FileError::Malformed("a bitmap is longer than its file"));
        }
        Ok(length)
    }

    fn read_table(&self, at: u64, commits: u32, first: u64) -> Result<Box<[Row]>, FileError> {
        let mut table = vec![0; commits as usize * ROW_BYTES];
        self.file.read_exact_at(&mut table, at)?;
        let (rows, _) = table.as_chunks::<ROW_BYTES>();
        let rows: Box<[Row]> = rows
            .iter()
            .map(|[e0, e1, e2, e3, offset @ .., b0, b1, b2, b3]| Row {
                entry: u32::from_be_bytes([*e0, *e1, *e2, *e3]),
                base: u32::from_be_bytes([*b0, *b1, *b2, *b3]),
                offset: offset
                    .iter()
                    .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
            })
            .collect();
        let is_sound = |row: &Row| {
            row.entry < self.objects
                && (row.base == NO_BASE || row.base < commits)
                && row.offset >= first
                && row.offset < self.end
        };
        let is_sorted = rows.is_sorted_by(|left, right| left.entry < right.entry);
        if !is_sorted || !rows.iter().all(is_sound) {
            return Err(FileError::Malformed("the lookup table"));
        }
        Ok(rows)
    }

    /// Reads the head of every bitmap, in a file without a table.
    fn scan(&self, commits: u32, first: u64) -> Result<Box<[Row]>, FileError> {
        let mut rows = Vec::with_capacity(commits as usize);
        let mut offset = first;
        for number in 0..commits {
            let (entry, distance) = self.entry_head(offset)?;
            let base = match u32::from(distance) {
                0 => NO_BASE,
                distance if distance <= number && distance <= u32::from(BASE_DISTANCE_MAX) => {
                    number - distance
                }
                _ => return Err(FileError::Malformed("a base before the first bitmap")),
            };
            if entry >= self.objects {
                return Err(FileError::Malformed("a commit that the pack does not hold"));
            }
            rows.push(Row {
                entry,
                base,
                offset,
            });
            offset += ENTRY_HEAD_BYTES as u64;
            offset += self.stored_bytes(offset)?;
        }
        // Bases are numbered in the order of the file; rows are sorted by entry.
        let mut sorted: Vec<u32> = (0..commits).collect();
        sorted.sort_unstable_by_key(|number| rows[*number as usize].entry);
        let mut new_numbers = vec![0; rows.len()];
        for (new, old) in (0_u32..).zip(&sorted) {
            new_numbers[*old as usize] = new;
        }
        let renumbered = sorted.iter().map(|old| {
            let row = rows[*old as usize];
            let base = new_numbers.get(row.base as usize).copied();
            Row {
                base: base.unwrap_or(NO_BASE),
                ..row
            }
        });
        Ok(renumbered.collect())
    }

    /// The index entry of the bitmap at an offset, and the distance back to its base.
    fn entry_head(&self, offset: u64) -> Result<(u32, u8), FileError> {
        let mut head = [0; ENTRY_HEAD_BYTES];
        if offset + ENTRY_HEAD_BYTES as u64 > self.end {
            return Err(FileError::Malformed("a commit begins behind the end"));
        }
        self.file.read_exact_at(&mut head, offset)?;
        let [entry @ .., distance, _flags] = head;
        Ok((u32::from_be_bytes(entry), distance))
    }

    fn stored(&self, at: u64, buffer: &mut Vec<u8>) -> Result<(), FileError> {
        let length = usize::try_from(self.stored_bytes(at)?);
        let length = length.map_err(|_| FileError::Malformed("a bitmap is too long"))?;
        buffer.resize(length, 0);
        Ok(self.file.read_exact_at(buffer, at)?)
    }

    fn row(&self, entry: u32) -> Option<usize> {
        self.rows.binary_search_by_key(&entry, |row| row.entry).ok()
    }

    /// All objects that the commit at an index entry reaches, itself included; `None` when it has
    /// no bitmap.
    pub(crate) fn decode(&self, entry: u32) -> Result<Option<Bits>, FileError> {
        let Some(row) = self.row(entry) else {
            return Ok(None);
        };
        let mut bits = Bits::new(self.objects);
        let mut buffer = Vec::new();
        let mut number = row;
        // A chain is never longer than the table. The bound stops a cycle in a broken file.
        for _ in 0..self.rows.len() {
            let row = self.rows[number];
            let (found, _) = self.entry_head(row.offset)?;
            if found != row.entry {
                return Err(FileError::Malformed(
                    "the lookup table names another commit",
                ));
            }
            self.stored(row.offset + ENTRY_HEAD_BYTES as u64, &mut buffer)?;
            Ewah::parse(&buffer)?.0.xor_into(&mut bits)?;
            if row.base == NO_BASE {
                return if bits.is_bounded() {
                    Ok(Some(bits))
                } else {
                    Err(FileError::Malformed("more bits than objects"))
                };
            }
            number = row.base as usize;
        }
        Err(FileError::Malformed("a chain of bitmaps does not end"))
    }

    /// All objects of a kind in the pack.
    pub(crate) fn of_kind(&self, kind: Kind) -> Result<Bits, FileError> {
        let mut bits = Bits::new(self.objects);
        let mut buffer = Vec::new();
        for (at, of) in self.types.iter().zip(KINDS) {
            if of == kind {
                self.stored(*at, &mut buffer)?;
                Ewah::parse(&buffer)?.0.xor_into(&mut bits)?;
            }
        }
        if bits.is_bounded() {
            Ok(bits)
        } else {
            Err(FileError::Malformed("more bits than objects"))
        }
    }
}

/// Checks the head; returns the flags and the number of commits.
fn check_head(
    head: &[u8; HEAD_BYTES + OID_BYTES_MAX],
    pack: &Oid,
    objects: u32,
) -> Result<(u16, u32), FileError> {
    let [
        s0,
        s1,
        s2,
        s3,
        v0,
        v1,
        f0,
        f1,
        c0,
        c1,
        c2,
        c3,
        checksum @ ..,
    ] = head;
    if [*s0, *s1, *s2, *s3] != *SIGNATURE {
        return Err(FileError::Unknown("its signature"));
    }
    if u16::from_be_bytes([*v0, *v1]) != VERSION {
        return Err(FileError::Unknown("its version"));
    }
    let flags = u16::from_be_bytes([*f0, *f1]);
    if flags & FULL_DAG == 0 || flags & !KNOWN_FLAGS != 0 {
        return Err(FileError::Unknown("its flags"));
    }
    if !checksum.starts_with(pack.as_bytes()) {
        return Err(FileError::OtherPack);
    }
    let commits = u32::from_be_bytes([*c0, *c1, *c2, *c3]);
    if commits > objects {
        return Err(FileError::Malformed("more commits than objects"));
    }
    Ok((flags, commits))
}

/// Compares the checksum of everything before `end` with the one stored at `end`.
fn check_trailer(file: &File, end: u64, pack: &Oid) -> Result<(), FileError> {
    let mut hash = Checksum::new(format_of(pack));
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < end {
        let length = usize::try_from(end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        file.read_exact_at(&mut buffer[..length], at)?;
        hash.update(&buffer[..length]);
        at += length as u64;
    }
    let expected = hash.finish();
    let mut trailer = vec![0; expected.as_bytes().len()];
    file.read_exact_at(&mut trailer, end)?;
    if expected.as_bytes() == trailer {
        Ok(())
    } else {
        Err(FileError::Checksum)
    }
}

/// The bitmaps of an open pack, looked up on every use until the file exists.
#[derive(Debug, Default)]
pub(crate) struct LazyBitmap(OnceLock<Option<Arc<PackBitmap>>>);

impl LazyBitmap {
    /// The bitmaps in the file at `path`, opened once. A missing file is looked up again on the
    /// next call. An unusable file is logged once and then ignored.
    pub(crate) fn get(&self, path: &Path, pack: &Oid, objects: u32) -> Option<Arc<PackBitmap>> {
        if let Some(known) = self.0.get() {
            return known.clone();
        }
        let found = match PackBitmap::open(path, pack, objects) {
            Ok(None) => return None,
            Ok(Some(bitmap)) => Some(Arc::new(bitmap)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignored");
                None
            }
        };
        self.0.get_or_init(|| found).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::encode::Body;
    use proptest::prelude::*;

    const OBJECTS: u32 = 200;

    /// The checksum of a pack, in each object format.
    fn packs() -> impl Strategy<Value = Oid> {
        prop_oneof![Just(Oid::Sha1([9; 20])), Just(Oid::Sha256([9; 32]))]
    }

    /// Sets that each grow by a few numbers, as in a history, and a file of them.
    fn file(steps: &[Vec<u32>], pack: &Oid) -> (Vec<Bits>, Vec<u8>) {
        let mut bits = Bits::new(OBJECTS);
        let mut body = Body::new(OBJECTS);
        let mut sets = Vec::new();
        for (number, step) in (0_u32..).zip(steps) {
            for bit in step {
                bits.insert(*bit);
            }
            // The index holds the commits in reverse order.
            body.push(OBJECTS - 1 - number, bits.clone());
            sets.push(bits.clone());
        }
        let kinds = [0_u32, 1, 2, 3].map(|kind| {
            let mut bits = Bits::new(OBJECTS);
            for bit in (0..OBJECTS).filter(|bit| bit % 4 == kind) {
                bits.insert(bit);
            }
            bits
        });
        (sets, body.finish(pack, &kinds))
    }

    fn open(bytes: &[u8], pack: &Oid) -> Result<Option<PackBitmap>, FileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pack.bitmap");
        std::fs::write(&path, bytes).unwrap();
        PackBitmap::open(&path, pack, OBJECTS)
    }

    /// The same file with a matching checksum.
    fn summed(mut bytes: Vec<u8>, pack: &Oid) -> Vec<u8> {
        let end = bytes.len().saturating_sub(pack.as_bytes().len());
        bytes.truncate(end);
        let checksum = Checksum::of(format_of(pack), &bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// The same file as older versions of git write it: without a lookup table.
    fn without_table(mut bytes: Vec<u8>, commits: usize, pack: &Oid) -> Vec<u8> {
        let sum_bytes = pack.as_bytes().len();
        let end = bytes.len() - sum_bytes - commits * ROW_BYTES;
        bytes[7] &= !0x10;
        bytes.truncate(end + sum_bytes);
        summed(bytes, pack)
    }

    fn steps() -> impl Strategy<Value = Vec<Vec<u32>>> {
        let step = proptest::collection::vec(0..OBJECTS, 0..20);
        proptest::collection::vec(step, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read_back(steps in steps(), pack in packs()) {
            let (sets, bytes) = file(&steps, &pack);
            for bytes in [bytes.clone(), without_table(bytes, steps.len(), &pack)] {
                let bitmap = open(&bytes, &pack).unwrap().unwrap();
                for (number, set) in (0_u32..).zip(&sets) {
                    let decoded = bitmap.decode(OBJECTS - 1 - number).unwrap();
                    prop_assert_eq!(decoded.as_ref(), Some(set));
                }
                prop_assert_eq!(bitmap.decode(0).unwrap(), None);
                let trees = bitmap.of_kind(Kind::Tree).unwrap();
                prop_assert!((0..OBJECTS).all(|bit| trees.contains(bit) == (bit % 4 == 1)));
            }
        }

        #[test]
        fn damage_is_never_a_panic(
            steps in steps(),
            pack in packs(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in 0_usize..60,
            has_table in any::<bool>(),
        ) {
            let (_, bytes) = file(&steps, &pack);
            let mut bytes = if has_table { bytes } else { without_table(bytes, steps.len(), &pack) };
            let at = at.index(bytes.len());
            let is_same = bytes[at] == byte;
            bytes[at] = byte;
            prop_assert!(is_same || open(&bytes, &pack).is_err());
            // Now the checksum matches the damaged bytes.
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Ok(Some(bitmap)) = open(&summed(bytes, &pack), &pack) {
                for entry in 0..OBJECTS {
                    if let Ok(Some(bits)) = bitmap.decode(entry) {
                        prop_assert!(bits.is_bounded());
                    }
                }
            }
        }
    }

    #[test]
    fn another_pack_is_refused_and_no_file_is_no_error() {
        let pack = Oid::Sha1([9; 20]);
        let (_, bytes) = file(&[vec![1, 2, 3]], &pack);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pack.bitmap");
        assert!(PackBitmap::open(&path, &pack, OBJECTS).unwrap().is_none());
        std::fs::write(&path, &bytes).unwrap();
        for other in [Oid::Sha1([8; 20]), Oid::Sha256([9; 32])] {
            let other = PackBitmap::open(&path, &other, OBJECTS);
            assert!(matches!(other, Err(FileError::OtherPack)));
        }
        let fewer = PackBitmap::open(&path, &pack, OBJECTS - 10);
        assert!(matches!(fewer, Err(FileError::Malformed(_))));
    }
}
