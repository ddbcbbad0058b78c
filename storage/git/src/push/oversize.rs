//! Identifies an object of a pack that exceeds the maximum size, so that its owner can find it.

use std::io::{self, Read};

use flate2::read::ZlibDecoder;
use gix_object::Kind;
use gix_pack::data::entry::Header;
use gix_pack::data::input::Entry;
use henge_types::ObjectId;

use crate::oid::{HashKind, from_gix};

/// Up to this size an object is inflated to compute its id: the largest take seconds.
const HASHED_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
const STEP_BYTES: usize = 64 * 1024;

/// An object over the maximum size, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OversizedObject {
    /// Its id; `None` where the object could not be read to its end.
    pub id: Option<ObjectId>,
    /// Its position among the objects of the pack, from 1.
    pub place: u64,
    /// Its size, where its id is known.
    pub bytes: u64,
}

impl std::fmt::Display for OversizedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            Some(id) => write!(f, "object {id} has {} bytes", self.bytes),
            None => write!(f, "object number {} of the pack is too large", self.place),
        }
    }
}

/// The object of a whole entry of more than `bytes_max` bytes. `None` for smaller objects, and for
/// deltas: the size of their result is checked when they are resolved.
pub(super) fn oversized(
    entry: &Entry,
    place: u64,
    bytes_max: u64,
    kind: HashKind,
) -> Option<OversizedObject> {
    let object = match entry.header {
        Header::Commit => Kind::Commit,
        Header::Tree => Kind::Tree,
        Header::Blob => Kind::Blob,
        Header::Tag => Kind::Tag,
        Header::OfsDelta { .. } | Header::RefDelta { .. } => return None,
    };
    let bytes = entry.decompressed_size;
    if bytes <= bytes_max {
        return None;
    }
    let deflated = entry.compressed.as_deref();
    let id = deflated
        .filter(|_| bytes <= HASHED_BYTES_MAX)
        .and_then(|deflated| hash(object, deflated, bytes, kind).ok());
    Some(OversizedObject { id, place, bytes })
}

fn hash(object: Kind, deflated: &[u8], bytes: u64, kind: HashKind) -> io::Result<ObjectId> {
    let mut hasher = gix_hash::hasher(kind);
    hasher.update(&gix_object::encode::loose_header(object, bytes));
    let mut inflated = ZlibDecoder::new(deflated).take(bytes);
    let mut step = vec![0; STEP_BYTES];
    loop {
        let read = inflated.read(&mut step)?;
        if read == 0 {
            break;
        }
        hasher.update(&step[..read]);
    }
    let id = hasher.try_finalize().map_err(io::Error::other)?;
    Ok(from_gix(&id))
}
