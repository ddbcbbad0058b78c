//! Between the product's object ids and gix's. SHA-1 only: a SHA-256 id names nothing here.

use henge_types::ObjectId;

pub(crate) use gix_hash::{ObjectId as Oid, oid};

/// The hash kind of every repository served so far.
pub(crate) const KIND: gix_hash::Kind = gix_hash::Kind::Sha1;
/// Bytes of a raw id.
pub(crate) const OID_BYTES: usize = 20;
/// Bytes of an id in hex.
pub(crate) const HEX_BYTES: usize = 40;

/// Towards gix; `None` for an id of another hash.
pub(crate) fn to_gix(id: ObjectId) -> Option<Oid> {
    match id {
        ObjectId::Sha1(bytes) => Some(Oid::Sha1(bytes)),
        ObjectId::Sha256(_) => None,
    }
}

/// From gix.
pub(crate) fn from_gix(id: &oid) -> ObjectId {
    ObjectId::from_bytes(id.as_bytes()).expect("invariant: gix ids are 20 bytes in this build")
}

/// Parses exactly 40 hex digits.
pub(crate) fn parse_hex(text: &[u8]) -> Option<Oid> {
    if text.len() == HEX_BYTES {
        Oid::from_hex(text).ok()
    } else {
        None
    }
}
