//! Packs, objects and frames made by hand.

use std::io::Write;

use flate2::write::ZlibEncoder;
use sha1::{Digest, Sha1};

/// The name of an object.
pub(crate) type Id = [u8; 20];

pub(crate) fn object_id(kind: Kind, data: &[u8]) -> Id {
    let mut hash = Sha1::new();
    hash.update(format!("{} {}\0", kind.name(), data.len()));
    hash.update(data);
    hash.finalize().into()
}

pub(crate) fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Kinds of whole objects, numbered as in packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit = 1,
    Tree = 2,
    Blob = 3,
    Tag = 4,
}

impl Kind {
    pub(crate) fn of(number: u8) -> Option<Self> {
        [Self::Commit, Self::Tree, Self::Blob, Self::Tag]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// One entry of a pack.
pub(crate) enum Entry<'a> {
    Whole(Kind, &'a [u8]),
    RefDelta(Id, &'a [u8]),
    /// Against the entry that begins this many bytes earlier.
    OfsDelta(usize, &'a [u8]),
}

/// A pack of `entries` without its trailer.
pub(crate) fn pack_body(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend((entries.len() as u32).to_be_bytes());
    for entry in entries {
        let (number, data) = match entry {
            Entry::Whole(kind, data) => (*kind as u8, data),
            Entry::OfsDelta(_, delta) => (6, delta),
            Entry::RefDelta(_, delta) => (7, delta),
        };
        push_head(&mut pack, number, data.len());
        match entry {
            Entry::Whole(..) => {}
            Entry::RefDelta(id, _) => pack.extend(id),
            Entry::OfsDelta(distance, _) => push_distance(&mut pack, *distance),
        }
        pack.extend(deflate(data));
    }
    pack
}

/// The header of an entry: kind and size.
pub(crate) fn push_head(pack: &mut Vec<u8>, number: u8, size: usize) {
    let mut rest = size >> 4;
    let mut byte = number << 4 | (size & 15) as u8;
    while rest > 0 {
        pack.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    pack.push(byte);
}

fn push_distance(pack: &mut Vec<u8>, mut distance: usize) {
    let mut bytes = vec![(distance & 0x7f) as u8];
    while distance > 0x7f {
        distance = (distance >> 7) - 1;
        bytes.push(0x80 | (distance & 0x7f) as u8);
    }
    bytes.reverse();
    pack.extend(bytes);
}

pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// Appends the matching checksum to a pack.
pub(crate) fn with_trailer(body: &[u8]) -> Vec<u8> {
    let mut pack = body.to_vec();
    pack.extend(Sha1::digest(body));
    pack
}

/// One frame.
pub(crate) fn line(data: &[u8]) -> Vec<u8> {
    let mut frame = format!("{:04x}", data.len() + 4).into_bytes();
    frame.extend(data);
    frame
}

pub(crate) fn commit_text(tree: &Id, parents: &[Id]) -> Vec<u8> {
    let parents: String = parents
        .iter()
        .map(|parent| format!("parent {}\n", hex(parent)))
        .collect();
    let who = "A <a@example.org> 1700000000 +0000";
    let tree = hex(tree);
    format!("tree {tree}\n{parents}author {who}\ncommitter {who}\n\nmessage\n").into_bytes()
}

pub(crate) fn tag_text(target: &Id, kind: &str) -> Vec<u8> {
    let target = hex(target);
    let who = "A <a@example.org> 1700000000 +0000";
    format!("object {target}\ntype {kind}\ntag v1\ntagger {who}\n\nmessage\n").into_bytes()
}
