//! A full read of a pack and its index: checksums and names are verified, the objects are not.

use std::fs::File;
use std::io::{self, Read};

use henge_types::{ObjectId, PackId};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::PackFault;
use super::blocks::{BlockSums, FileSums, Summer, Trailers, keep_tail};

pub(super) const PACK_MAGIC: &[u8] = b"PACK\0\0\0\x02";
pub(super) const IDX_MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
/// The last entry of an index's fan-out table is the number of objects.
pub(super) const IDX_FAN_OUT_LAST_AT: u64 = 8 + 255 * 4;

/// The block checksums of both files, when pack and index match the name.
pub(super) fn verify(
    pack: &PackId,
    pack_file: File,
    idx_file: File,
) -> io::Result<Result<BlockSums, PackFault>> {
    match pack.checksum() {
        ObjectId::Sha1(_) => verify_with::<Sha1>(pack, pack_file, idx_file),
        ObjectId::Sha256(_) => verify_with::<Sha256>(pack, pack_file, idx_file),
    }
}

fn verify_with<D: Digest>(
    pack: &PackId,
    pack_file: File,
    idx_file: File,
) -> io::Result<Result<BlockSums, PackFault>> {
    let name = pack.checksum().as_bytes();
    let Some(sums) = read_through::<D>(pack_file)? else {
        return Ok(Err(PackFault::NotAPack));
    };
    if !sums.head.starts_with(PACK_MAGIC) {
        return Ok(Err(PackFault::NotAPack));
    }
    if sums.trailer != sums.digest {
        return Ok(Err(PackFault::Checksum));
    }
    if sums.trailer != name {
        return Ok(Err(PackFault::OtherPack));
    }
    let objects = sums.head.get(8..12).map(<[u8]>::to_vec);
    let pack_sums = sums.blocks;
    let Some(sums) = read_through::<D>(idx_file)? else {
        return Ok(Err(PackFault::Index));
    };
    if !sums.head.starts_with(&IDX_MAGIC) || sums.trailer != sums.digest {
        return Ok(Err(PackFault::Index));
    }
    // The last entry of the fan-out table is the number of objects.
    let counted = sums.head.get(8 + 255 * 4..8 + 256 * 4).map(<[u8]>::to_vec);
    if sums.before_trailer != name || counted != objects {
        return Ok(Err(PackFault::OtherIndex));
    }
    let trailers = Trailers {
        pack: name.to_vec(),
        idx: sums.trailer,
    };
    Ok(Ok(BlockSums::new(pack_sums, sums.blocks, trailers)))
}

/// First bytes of a file, its last two checksum fields, and its computed checksums.
struct Sums {
    head: Vec<u8>,
    digest: Vec<u8>,
    trailer: Vec<u8>,
    before_trailer: Vec<u8>,
    blocks: FileSums,
}

/// `None` when the file is too short.
fn read_through<D: Digest>(mut file: File) -> io::Result<Option<Sums>> {
    let sum_bytes = <D as Digest>::output_size();
    let len = file.metadata()?.len();
    let Some(body) = len.checked_sub(sum_bytes as u64) else {
        return Ok(None);
    };
    let mut digest = D::new();
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let mut blocks = Summer::default();
    let mut buffer = vec![0; 128 * 1024];
    let mut rest = (&mut file).take(body);
    loop {
        let read = rest.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let piece = buffer.get(..read).unwrap_or_default();
        digest.update(piece);
        blocks.update(piece);
        if head.is_empty() {
            head.extend_from_slice(piece.get(..piece.len().min(2048)).unwrap_or_default());
        }
        keep_tail(&mut tail, piece, sum_bytes);
    }
    let mut trailer = vec![0; sum_bytes];
    file.read_exact(&mut trailer)?;
    blocks.update(&trailer);
    Ok(Some(Sums {
        head,
        digest: digest.finalize().to_vec(),
        trailer,
        before_trailer: tail,
        blocks: blocks.finish(),
    }))
}
