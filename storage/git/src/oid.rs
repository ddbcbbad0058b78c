//! Conversion between the product's object ids and gix's, and the checksums at the end of files and
//! packs.

use henge_types::{ObjectFormat, ObjectId};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) use gix_hash::{Kind as HashKind, ObjectId as Oid, oid};

/// Ids that a client sent. Tables of gix take the first bytes of an id as its hash. This suits ids
/// of objects, which are hashes already. A client could send ids that collide, so this set hashes
/// them.
pub(crate) type ClaimedIds = std::collections::HashSet<Oid>;

/// The longest raw id, in bytes.
pub(crate) const OID_BYTES_MAX: usize = 32;

/// The hash of an object format, as gix names it.
pub(crate) const fn hash_kind(format: ObjectFormat) -> HashKind {
    match format {
        ObjectFormat::Sha1 => HashKind::Sha1,
        ObjectFormat::Sha256 => HashKind::Sha256,
    }
}

/// Converts an id to gix; `None` for an id of another format, which names no object of this one.
pub(crate) fn to_gix(id: ObjectId, format: ObjectFormat) -> Option<Oid> {
    match (id, format) {
        (ObjectId::Sha1(bytes), ObjectFormat::Sha1) => Some(Oid::Sha1(bytes)),
        (ObjectId::Sha256(bytes), ObjectFormat::Sha256) => Some(Oid::Sha256(bytes)),
        (ObjectId::Sha1(_), ObjectFormat::Sha256) | (ObjectId::Sha256(_), ObjectFormat::Sha1) => {
            None
        }
    }
}

/// Converts an id from gix.
pub(crate) fn from_gix(id: &oid) -> ObjectId {
    ObjectId::from_bytes(id.as_bytes())
        .expect("invariant: gix ids are 20 or 32 bytes in this build")
}

/// The object format of an id, by its length.
pub(crate) fn format_of(id: &oid) -> ObjectFormat {
    from_gix(id).format()
}

/// Parses the hex digits of an id; their number must be exactly that of the format.
pub(crate) fn parse_hex(text: &[u8], format: ObjectFormat) -> Option<Oid> {
    if text.len() == format.hex_bytes() {
        Oid::from_hex(text).ok()
    } else {
        None
    }
}

/// An id of zeros, in hex: the protocol's value for no object.
pub(crate) fn null_hex(format: ObjectFormat) -> String {
    "0".repeat(format.hex_bytes())
}

/// The number of a format in reverse indexes (gitformat-pack(5)) and commit-graphs
/// (gitformat-commit-graph(5)).
pub(crate) const fn format_number(format: ObjectFormat) -> u8 {
    match format {
        ObjectFormat::Sha1 => 1,
        ObjectFormat::Sha256 => 2,
    }
}

/// The checksum at the end of packs, indexes, bitmaps and commit-graphs: the hash of the object
/// format.
#[derive(Debug, Clone)]
pub(crate) enum Checksum {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Checksum {
    pub(crate) fn new(format: ObjectFormat) -> Self {
        match format {
            ObjectFormat::Sha1 => Self::Sha1(Sha1::new()),
            ObjectFormat::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn of(format: ObjectFormat, data: &[u8]) -> Oid {
        let mut checksum = Self::new(format);
        checksum.update(data);
        checksum.finish()
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(data),
            Self::Sha256(hash) => hash.update(data),
        }
    }

    pub(crate) fn finish(self) -> Oid {
        match self {
            Self::Sha1(hash) => Oid::Sha1(hash.finalize().into()),
            Self::Sha256(hash) => Oid::Sha256(hash.finalize().into()),
        }
    }
}
