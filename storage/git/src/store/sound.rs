//! Verification of packs before their bytes are used, with checksums of blocks from the pack's
//! arrival.
//!
//! Bytes sent unchanged are verified at every send. Blocks of decoded entries are verified once,
//! because zlib verifies them as well. An index is verified as a whole when it is opened. Without
//! checksums of blocks (plain repositories with large packs), entries are verified with the index's
//! checksums.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use henge_storage::objects::blocks::{
    BlockMismatch, BlockSums, FileSums, SMALL_PACK_BYTES_MAX, Trailers,
};
use henge_types::ObjectFormat;

use crate::oid::Checksum;

/// The interval in bytes at which the length of a pack is checked while it is sent.
const LOOK_BYTES: u64 = 1024 * 1024;

/// An unusable pack: its bytes, or those of its index, have changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is damaged: {what}", path = path.display())]
pub struct DamagedPack {
    /// The pack or its index.
    pub path: PathBuf,
    /// The difference.
    pub what: String,
}

impl DamagedPack {
    pub(crate) fn new(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

/// The identity of a file when it was opened. Packs never change: a different file is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl FileStamp {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

/// Both files of a pack when they were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackStamp {
    pack: FileStamp,
    idx: FileStamp,
}

impl PackStamp {
    /// The stamp of the current files.
    pub(super) fn of(pack: &Path, idx: &Path) -> io::Result<Self> {
        Ok(Self {
            pack: FileStamp::of(pack)?,
            idx: FileStamp::of(idx)?,
        })
    }

    /// Whether the file at `path` is the pack, truncated since.
    fn is_cut(&self, path: &Path) -> bool {
        FileStamp::of(path).is_ok_and(|now| {
            (now.device, now.inode) == (self.pack.device, self.pack.inode)
                && now.bytes < self.pack.bytes
        })
    }
}

/// The verification of an open pack.
#[derive(Debug)]
pub(crate) struct Sound {
    stamp: PackStamp,
    sums: Option<FileSums>,
    /// A bit for each block that was verified since the pack was opened.
    seen: Box<[AtomicU64]>,
}

impl Sound {
    /// Reads the checksums of a pack that was just opened, and verifies its index with them. A
    /// small pack without checksums is verified as a whole, with its index.
    ///
    /// # Errors
    /// When the index cannot be read. The inner error: when either file is damaged.
    pub(super) fn open(
        stamp: PackStamp,
        files: (&gix_pack::data::File, &gix_pack::index::File),
        format: ObjectFormat,
    ) -> io::Result<Result<Self, DamagedPack>> {
        let (data, index) = files;
        let (pack_path, idx_path) = (data.path(), index.path());
        if data.checksum() != index.pack_checksum() {
            let damage = DamagedPack::new(idx_path, "it is of another pack");
            return Ok(Err(damage));
        }
        let trailers = Trailers {
            pack: data.checksum().as_bytes().to_vec(),
            idx: index.index_checksum().as_bytes().to_vec(),
        };
        let known = BlockSums::read(&BlockSums::path_of(pack_path), &trailers);
        let known = known.unwrap_or_else(|error| {
            tracing::warn!(path = ?pack_path, %error, "the checksums of a pack cannot be read");
            None
        });
        if let Some(BlockSums { pack, idx, .. }) = known {
            if pack.bytes() != data.data_len() as u64 {
                let damage = DamagedPack::new(pack_path, "it has another length than it was given");
                return Ok(Err(damage));
            }
            return Ok(match idx.check_file(idx_path)? {
                Ok(()) => Ok(Self::new(stamp, Some(pack))),
                Err(mismatch) => Err(DamagedPack::new(idx_path, mismatch.to_string())),
            });
        }
        let pack_bytes = data.data_len() as u64;
        if pack_bytes + stamp.idx.bytes > SMALL_PACK_BYTES_MAX {
            // These are checksums of other files, or torn ones: perhaps the end of the index
            // differs.
            let doubtful = BlockSums::path_of(pack_path).is_file();
            if doubtful && !adds_up(&fs::read(idx_path)?, format) {
                return Ok(Err(DamagedPack::new(idx_path, "its checksum is wrong")));
            }
            return Ok(Ok(Self::new(stamp, None)));
        }
        let pack = data.entry_slice(0..pack_bytes).unwrap_or_default();
        let idx = fs::read(idx_path)?;
        for (path, bytes) in [(pack_path, pack), (idx_path, idx.as_slice())] {
            if !adds_up(bytes, format) {
                let damage = DamagedPack::new(path, "its checksum is wrong");
                return Ok(Err(damage));
            }
        }
        Ok(Ok(Self::new(stamp, Some(FileSums::of(pack)))))
    }

    fn new(stamp: PackStamp, sums: Option<FileSums>) -> Self {
        let blocks = sums.as_ref().map_or(0, FileSums::blocks);
        let words = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0));
        Self {
            stamp,
            sums,
            seen: words.collect(),
        }
    }

    /// Whether the files at these paths are the opened ones.
    pub(super) fn is_current(&self, pack: &Path, idx: &Path) -> bool {
        PackStamp::of(pack, idx).is_ok_and(|now| now == self.stamp)
    }

    /// Whether any part of the pack can be verified.
    pub(super) const fn has_sums(&self) -> bool {
        self.sums.is_some()
    }

    /// Verifies bytes that are sent unchanged. Bytes before `compared` have just been verified.
    pub(super) fn check_leaving(
        &self,
        data: &gix_pack::data::File,
        range: &Range<u64>,
        compared: u64,
    ) -> Result<(), DamagedPack> {
        if range.start == 0 || range.start / LOOK_BYTES != range.end / LOOK_BYTES {
            self.check_length(data)?;
        }
        let Some(sums) = &self.sums else {
            return Ok(());
        };
        let checked = sums.check(whole(data), compared.max(range.start)..range.end);
        checked.map_err(|mismatch| damaged(data, mismatch))
    }

    /// Checks the length: a read past the end of a truncated mapped file would kill the process.
    fn check_length(&self, data: &gix_pack::data::File) -> Result<(), DamagedPack> {
        if self.stamp.is_cut(data.path()) {
            return Err(DamagedPack::new(data.path(), "it was cut short"));
        }
        Ok(())
    }

    /// Verifies blocks of decoded bytes, unless they were verified since the pack was opened.
    pub(super) fn check_read(
        &self,
        data: &gix_pack::data::File,
        range: &Range<u64>,
    ) -> Result<(), DamagedPack> {
        let Some(sums) = &self.sums else {
            return Ok(());
        };
        for block in FileSums::touched(range) {
            let (word, bit) = (self.seen.get(block / 64), 1 << (block % 64));
            if word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0) {
                continue;
            }
            let checked = sums.check_block(whole(data), block);
            checked.map_err(|mismatch| damaged(data, mismatch))?;
            if let Some(word) = word {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

fn whole(data: &gix_pack::data::File) -> &[u8] {
    let whole = data.entry_slice(0..data.data_len() as u64);
    whole.unwrap_or_default()
}

fn damaged(data: &gix_pack::data::File, mismatch: BlockMismatch) -> DamagedPack {
    DamagedPack::new(data.path(), mismatch.to_string())
}

/// Whether a file's last bytes are the checksum of all others.
fn adds_up(file: &[u8], format: ObjectFormat) -> bool {
    let sum_bytes = match format {
        ObjectFormat::Sha1 => 20,
        ObjectFormat::Sha256 => 32,
    };
    let body_bytes = file.len().saturating_sub(sum_bytes);
    let (body, sum) = file.split_at(body_bytes);
    Checksum::of(format, body).as_bytes() == sum
}
