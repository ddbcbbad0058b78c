//! The conditions under which a pack counts as present.

use std::fs;

use henge_storage::objects::{ObjectStore, PackFault, PackLengths, Presence};
use henge_types::{NetworkId, ObjectId, PackId};
use sha1::{Digest, Sha1};

const NETWORK: NetworkId = NetworkId::from_bytes([0xab; 16]);

/// A pack of no objects and its index.
fn empty_pack() -> (PackId, Vec<u8>, Vec<u8>) {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
    let sum: [u8; 20] = Sha1::digest(&pack).into();
    pack.extend_from_slice(&sum);
    let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
    idx.resize(8 + 256 * 4, 0);
    idx.extend_from_slice(&sum);
    let idx_sum: [u8; 20] = Sha1::digest(&idx).into();
    idx.extend_from_slice(&idx_sum);
    (PackId::new(ObjectId::Sha1(sum)), pack, idx)
}

/// A pack with both names counted as present: the empty and torn files of a power cut were served.
#[test]
fn a_name_alone_is_no_pack() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = ObjectStore::open(dir.path()).expect("opens");
    let (id, pack, idx) = empty_pack();
    let lengths = PackLengths {
        pack: pack.len() as u64,
        idx: idx.len() as u64,
    };
    assert_eq!(store.presence(&NETWORK, &id, None), Presence::Missing);
    let seen = |pack: &[u8], idx: &[u8]| {
        store
            .install_pack(&NETWORK, &id, pack, idx)
            .expect("installs");
        let seen = store.presence(&NETWORK, &id, Some(lengths));
        assert_eq!(store.has_pack(&NETWORK, &id), seen == Presence::Whole);
        seen
    };
    assert_eq!(seen(&pack, &idx), Presence::Whole);
    for fault in [seen(b"", &idx), seen(&pack[..20], &idx), seen(&pack, b"")] {
        assert_eq!(fault, Presence::Damaged(PackFault::Length));
    }
    let damaged = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let expected = [
        (damaged(&pack, 1), idx.clone(), PackFault::NotAPack),
        (damaged(&pack, 20), idx.clone(), PackFault::OtherPack),
        (pack.clone(), damaged(&idx, 3), PackFault::Index),
        (pack.clone(), damaged(&idx, 1031), PackFault::OtherIndex),
        (pack.clone(), damaged(&idx, 1040), PackFault::OtherIndex),
    ];
    for (pack, idx, fault) in expected {
        assert_eq!(seen(&pack, &idx), Presence::Damaged(fault));
    }
    assert_eq!(seen(&pack, &idx), Presence::Whole);
    fs::remove_file(store.side_file(&NETWORK, &id, "idx")).expect("removes");
    let no_index = Presence::Damaged(PackFault::NoIndex);
    assert_eq!(store.presence(&NETWORK, &id, None), no_index);
    assert!(!store.has_lengths(&NETWORK, &id, lengths));
}
