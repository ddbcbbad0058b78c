//! Checks every object of every pack: each is inflated and hashed.

use std::path::{Path, PathBuf};

use gix_utils::progress::Discard;

use crate::fsck::{Finding, Fsck, FsckError, Stage, hash_mismatch};
use crate::oid::{HashKind, from_gix, hash_kind};
use crate::store::{Decoder, PackFiles, StoreError, idx_files};

/// Maximum bytes of decoded objects that are cached while a pack is read.
const KEPT_BYTES_MAX: usize = 96 * 1024 * 1024;

struct OpenPack {
    path: PathBuf,
    index: gix_pack::index::File,
    data: gix_pack::data::File,
}

impl Fsck<'_> {
    /// Checks the packs of a directory one after the other.
    pub(super) fn check_packs(&mut self, objects: &Path) -> Result<(), FsckError> {
        let directory = objects.join("pack");
        let listing = idx_files(&directory).map_err(|source| StoreError::Open {
            path: directory,
            source,
        })?;
        let mut packs = Vec::with_capacity(listing.len());
        for idx in listing {
            match open(&idx, hash_kind(self.format)) {
                Ok(pack) => packs.push(pack),
                Err(finding) => self.find(finding),
            }
        }
        let counts = packs.iter().map(|pack| u64::from(pack.index.num_objects()));
        let total = counts.sum();
        for pack in packs {
            self.report.packs += 1;
            self.check_pack(&pack, total)?;
        }
        Ok(())
    }

    /// Checks the pack of one index.
    pub(super) fn check_one_pack(&mut self, idx: &Path) -> Result<(), FsckError> {
        match open(idx, hash_kind(self.format)) {
            Ok(pack) => {
                self.report.packs += 1;
                self.check_pack(&pack, u64::from(pack.index.num_objects()))
            }
            Err(finding) => {
                self.find(finding);
                Ok(())
            }
        }
    }

    fn check_pack(&mut self, pack: &OpenPack, total: u64) -> Result<(), FsckError> {
        self.check_files(pack)?;
        // In the order of the file: a base was usually read shortly before.
        let mut entries: Vec<(u64, u32)> = (0..pack.index.num_objects())
            .map(|entry| (pack.index.pack_offset_at_index(entry), entry))
            .collect();
        entries.sort_unstable();
        let mut decoder = Decoder::keeping(KEPT_BYTES_MAX);
        for (position, (offset, entry)) in entries.iter().enumerate() {
            let next = entries.get(position + 1).map(|(offset, _)| *offset);
            let end = next.unwrap_or_else(|| pack.data.pack_end() as u64);
            if let Some(reason) = wrong_with(pack, *entry, *offset..end, &mut decoder) {
                self.find(Finding::Damaged {
                    id: from_gix(pack.index.oid_at_index(*entry)),
                    path: pack.path.clone(),
                    reason,
                });
            }
            self.report.packed += 1;
            self.tell(Stage::Packs, self.report.packed, Some(total))?;
        }
        Ok(())
    }

    fn check_files(&mut self, pack: &OpenPack) -> Result<(), FsckError> {
        let idx = pack.path.with_extension("idx");
        let stop = self.stop;
        let checks = [
            (&idx, pack.index.verify_checksum(&mut Discard, stop.flag())),
            (
                &pack.path,
                pack.data.verify_checksum(&mut Discard, stop.flag()),
            ),
        ];
        if stop.is_set() {
            return Err(FsckError::Stopped);
        }
        for (path, outcome) in checks {
            if let Err(error) = outcome {
                self.find(Finding::File {
                    path: path.clone(),
                    reason: error.to_string(),
                });
            }
        }
        if pack.data.checksum() != pack.index.pack_checksum()
            || pack.data.num_objects() != pack.index.num_objects()
        {
            self.find(Finding::File {
                path: idx,
                reason: "it is not the index of the pack beside it".to_owned(),
            });
        }
        Ok(())
    }
}

fn open(idx: &Path, kind: HashKind) -> Result<OpenPack, Finding> {
    let path = idx.with_extension("pack");
    let failed = |path: &Path, error: gix_error::Error| Finding::File {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    Ok(OpenPack {
        index: gix_pack::index::File::at(idx, kind).map_err(|error| failed(idx, error))?,
        data: gix_pack::data::File::at(&path, kind).map_err(|error| failed(&path, error))?,
        path,
    })
}

/// The problem with an entry. The checksum of its bytes is compared first, since a damaged header
/// is not reliable.
fn wrong_with(
    pack: &OpenPack,
    entry: u32,
    range: std::ops::Range<u64>,
    decoder: &mut Decoder,
) -> Option<String> {
    let offset = range.start;
    let Some(raw) = pack.data.entry_slice(range) else {
        return Some("its entry reaches beyond the pack".to_owned());
    };
    let expected = pack.index.crc32_at_index(entry);
    if expected.is_some_and(|expected| crc32fast::hash(raw) != expected) {
        return Some("its entry has another checksum than the index says".to_owned());
    }
    let files = PackFiles {
        index: &pack.index,
        data: &pack.data,
        sound: None,
    };
    match decoder.decode(files, offset) {
        Ok(object) => {
            let id = pack.index.oid_at_index(entry);
            hash_mismatch(id, object.kind, &object.data)
        }
        Err(error) => Some(error.to_string()),
    }
}
