//! Tests deltas with an applier that shares no code with the encoder, and the other applier against
//! that one.

use proptest::prelude::*;

use super::apply::DeltaError;
use super::{DeltaIndex, encode};

/// Applies a delta as described in gitformat-pack(5).
fn apply(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut input = delta.iter().copied();
    let mut size = || {
        let (mut value, mut shift) = (0_usize, 0);
        loop {
            let byte = input.next()?;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    };
    let (base_size, target_size) = (size()?, size()?);
    assert_eq!(base_size, base.len());
    let mut target = Vec::new();
    while let Some(head) = input.next() {
        if head & 0x80 == 0 {
            assert_ne!(head, 0, "reserved");
            for _ in 0..head {
                target.push(input.next()?);
            }
            continue;
        }
        let mut field = |bits: std::ops::Range<u8>| {
            let mut value = 0_usize;
            for (shift, bit) in bits.enumerate() {
                if head & (1 << bit) != 0 {
                    value |= usize::from(input.next()?) << (8 * shift);
                }
            }
            Some(value)
        };
        // The two fields follow each other. The ranges are flag bits, low to high.
        let (offset, size) = (field(0..4)?, field(4..7)?);
        let size = if size == 0 { 0x1_0000 } else { size };
        target.extend_from_slice(base.get(offset..offset + size)?);
    }
    (target.len() == target_size).then_some(target)
}

fn delta(base: &[u8], target: &[u8]) -> Vec<u8> {
    let delta = encode(&DeltaIndex::new(base), target, usize::MAX).unwrap();
    assert!(
        apply(base, &delta).unwrap() == target,
        "the delta makes another object"
    );
    let mut made = b"what was there before".to_vec();
    super::apply(base, &delta, &mut made).unwrap();
    assert!(made == target, "the appliers differ");
    delta
}

/// Pseudo-random bytes, the same on every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_changed_line_costs_a_few_bytes() {
    let base: String = (0..2000).map(|line| format!("line {line}\n")).collect();
    let target = base.replace("line 1000\n", "another line\n");
    assert!(delta(base.as_bytes(), target.as_bytes()).len() < 40);
    assert_eq!(delta(base.as_bytes(), base.as_bytes()).len(), 9);
}

#[test]
fn long_copies_are_split_and_keep_their_place() {
    let base = noise(1, 300_000);
    let mut target = base[200_001..].to_vec();
    target.extend_from_slice(&base[..0x1_0000]);
    target.extend_from_slice(&base[0x1_0000 - 1..200_000]);
    assert!(delta(&base, &target).len() < 80);
}

#[test]
fn what_is_too_long_is_not_written() {
    let (base, target) = (noise(1, 5000), noise(2, 5000));
    let index = DeltaIndex::new(&base[..]);
    assert_eq!(encode(&index, &target, 4999), None);
    let whole = encode(&index, &target, usize::MAX).unwrap();
    assert!(encode(&index, &target, whole.len()).is_some());
    assert_eq!(encode(&index, &target, whole.len() - 1), None);
}

#[test]
fn what_is_there_often_is_compared_only_so_often() {
    let zeros = vec![0; 1 << 20];
    assert!(delta(&zeros, &zeros).len() < 128);
    let mut late = noise(3, 1 << 16);
    late.extend_from_slice(&zeros);
    assert!(delta(&late, &zeros).len() < 128);
    // Two blocks, repeated: each bucket would hold half of the base.
    let block = noise(4, 32);
    let repeated: Vec<u8> = block.iter().copied().cycle().take(1 << 20).collect();
    assert!(delta(&repeated, &repeated[8..]).len() < 256);
    let shuffled: Vec<u8> = repeated
        .chunks(48)
        .flat_map(|part| part.iter().rev().copied())
        .collect();
    assert!(!delta(&repeated, &shuffled).is_empty());
}

#[test]
fn memory_is_bounded_by_the_base() {
    for length in [0, 1, 15, 16, 17, 31, 1000, 1 << 20] {
        let base = noise(5, length);
        let index = DeltaIndex::new(&base[..]);
        assert!(index.memory_bytes() <= length + 64, "{length}");
        assert_eq!(index.base().len(), length);
        delta(&base, &base);
    }
}

/// A base, and a target made of pieces of the base and of other pieces.
fn similar() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let base = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2000),
        proptest::collection::vec(0_u8..3, 0..2000),
        (1_usize..40, 0_usize..3000).prop_map(|(period, length)| {
            noise(6, period).into_iter().cycle().take(length).collect()
        }),
    ];
    let edits = proptest::collection::vec(
        (
            any::<prop::sample::Index>(),
            0_usize..300,
            proptest::collection::vec(any::<u8>(), 0..200),
        ),
        0..8,
    );
    (base, edits).prop_map(|(base, edits)| {
        let mut target = Vec::new();
        for (from, length, own) in edits {
            let from = from.index(base.len() + 1);
            target.extend_from_slice(&base[from..(from + length).min(base.len())]);
            target.extend_from_slice(&own);
        }
        (base, target)
    })
}

proptest! {
    #[test]
    fn a_delta_makes_its_target((base, target) in similar(), max_len in 0_usize..4000) {
        let index = DeltaIndex::new(&base[..]);
        let whole = encode(&index, &target, usize::MAX).unwrap();
        let made = apply(&base, &whole);
        prop_assert_eq!(made.as_deref(), Some(&target[..]));
        let bounded = encode(&index, &target, max_len);
        prop_assert_eq!(bounded.is_some(), whole.len() <= max_len);
    }
}

#[test]
fn deltas_that_do_not_fit_are_told_apart() {
    let base = b"0123456789";
    let mut made = Vec::new();
    let mut check = |delta: &[u8]| super::apply(base, delta, &mut made);
    assert_eq!(check(&[10, 3, 0x91, 4, 3]), Ok(()));
    for (delta, expected) in [
        (&[][..], DeltaError::Truncated),
        (&[10], DeltaError::Truncated),
        (&[0x8a], DeltaError::Truncated),
        (&[10, 3, 0x91, 4], DeltaError::Truncated),
        (&[10, 3, 3, b'a', b'b'], DeltaError::Truncated),
        (&[0xff; 12], DeltaError::Size),
        (
            &[11, 3, 0x91, 4, 3],
            DeltaError::Base {
                expected: 11,
                actual: 10,
            },
        ),
        (&[10, 3, 0x91, 8, 3], DeltaError::Copy),
        (&[10, 3, 0x8f, 255, 255, 255, 255], DeltaError::Copy),
        (&[10, 3, 0x80], DeltaError::Copy),
        (&[10, 3, 0, 0x91, 4, 3], DeltaError::Reserved),
        (&[10, 4, 0x91, 4, 3], DeltaError::Target),
        (&[10, 2, 0x91, 4, 3], DeltaError::Target),
        (
            &[10, 255, 255, 255, 255, 255, 255, 255, 255, 127],
            DeltaError::Memory {
                bytes: i64::MAX.unsigned_abs(),
            },
        ),
    ] {
        assert_eq!(check(delta), Err(expected), "{delta:?}");
    }
}

proptest! {
    /// Both appliers agree on arbitrary bytes, and neither panics.
    #[test]
    fn any_bytes_are_applied_or_refused(
        base in proptest::collection::vec(any::<u8>(), 0..64),
        size in 0_u8..127,
        instructions in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut delta = vec![u8::try_from(base.len()).unwrap(), size];
        delta.extend(&instructions);
        let mut made = Vec::new();
        let outcome = super::apply(&base, &delta, &mut made);
        if outcome != Err(DeltaError::Reserved) && !instructions.contains(&0) {
            prop_assert_eq!(outcome.ok().map(|()| made), apply(&base, &delta));
        }
    }
}
