//! Reading a pack and its index through: checksums and names, not the objects.

use std::fs::File;
use std::io::{self, Read};

use henge_types::{ObjectId, PackId};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::PackFault;

const IDX_MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];

/// `None` when pack and index are what the name says.
pub(super) fn verify(
    pack: &PackId,
    pack_file: File,
    idx_file: File,
) -> io::Result<Option<PackFault>> {
    match pack.checksum() {
        ObjectId::Sha1(_) => verify_with::<Sha1>(pack, pack_file, idx_file),
        ObjectId::Sha256(_) => verify_with::<Sha256>(pack, pack_file, idx_file),
    }
}

fn verify_with<D: Digest>(
    pack: &PackId,
    pack_file: File,
    idx_file: File,
) -> io::Result<Option<PackFault>> {
    let name = pack.checksum().as_bytes();
    let Some(sums) = read_through::<D>(pack_file)? else {
        return Ok(Some(PackFault::NotAPack));
    };
    if !sums.head.starts_with(b"PACK\0\0\0\x02") {
        return Ok(Some(PackFault::NotAPack));
    }
    if sums.trailer != sums.digest {
        return Ok(Some(PackFault::Checksum));
    }
    if sums.trailer != name {
        return Ok(Some(PackFault::OtherPack));
    }
    let objects = sums.head.get(8..12).map(<[u8]>::to_vec);
    let Some(sums) = read_through::<D>(idx_file)? else {
        return Ok(Some(PackFault::Index));
    };
    if !sums.head.starts_with(&IDX_MAGIC) || sums.trailer != sums.digest {
        return Ok(Some(PackFault::Index));
    }
    // The last entry of the fan-out table is the number of objects.
    let counted = sums.head.get(8 + 255 * 4..8 + 256 * 4).map(<[u8]>::to_vec);
    if sums.before_trailer != name || counted != objects {
        return Ok(Some(PackFault::OtherIndex));
    }
    Ok(None)
}

/// A file's first bytes, its last checksum-lengths, and what it adds up to.
struct Sums {
    head: Vec<u8>,
    digest: Vec<u8>,
    trailer: Vec<u8>,
    before_trailer: Vec<u8>,
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
    let mut buffer = vec![0; 128 * 1024];
    let mut rest = (&mut file).take(body);
    loop {
        let read = rest.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let piece = buffer.get(..read).unwrap_or_default();
        digest.update(piece);
        if head.is_empty() {
            head.extend_from_slice(piece.get(..piece.len().min(2048)).unwrap_or_default());
        }
        tail.extend_from_slice(piece);
        let superfluous = tail.len().saturating_sub(sum_bytes);
        tail.drain(..superfluous);
    }
    let mut trailer = vec![0; sum_bytes];
    file.read_exact(&mut trailer)?;
    Ok(Some(Sums {
        head,
        digest: digest.finalize().to_vec(),
        trailer,
        before_trailer: tail,
    }))
}
