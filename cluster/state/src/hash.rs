//! The hash of a group's state: a sum over its pairs, updated with each change of a pair.

use sha2::{Digest, Sha256};

/// Sum modulo 2^256 of `SHA-256(u32 big-endian key length, key, value)` over all pairs.
///
/// A sum (and not a chain) does not depend on the order, and one pair can be subtracted again.
/// Replicas are compared by it. It is no defence against an attacker who chooses pairs to make two
/// states collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StateHash {
    /// Least significant limb first.
    limbs: [u64; 4],
}

impl StateHash {
    /// Adds a pair.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        let term = Self::of_pair(key, value);
        let mut carry = false;
        for (limb, other) in self.limbs.iter_mut().zip(term.limbs) {
            let (sum, first) = limb.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    /// Subtracts a pair that was added before.
    pub(crate) fn remove(&mut self, key: &[u8], value: &[u8]) {
        let term = Self::of_pair(key, value);
        let mut borrow = false;
        for (limb, other) in self.limbs.iter_mut().zip(term.limbs) {
            let (rest, first) = limb.overflowing_sub(other);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            *limb = rest;
            borrow = first || second;
        }
    }

    /// The sum as a big-endian number.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.limbs.iter().rev()) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }

    fn of_pair(key: &[u8], value: &[u8]) -> Self {
        let length = u32::try_from(key.len()).expect("invariant: keys are far below 4 GiB");
        let mut digest = Sha256::new();
        digest.update(length.to_be_bytes());
        digest.update(key);
        digest.update(value);
        let digest: [u8; 32] = digest.finalize().into();
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().rev().zip(digest.chunks_exact(8)) {
            let chunk = chunk.try_into().expect("invariant: chunks of eight");
            *limb = u64::from_be_bytes(chunk);
        }
        Self { limbs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// printf '\0\0\0\1kv' | sha256sum
    #[test]
    fn one_pair_hashes_to_its_digest() {
        let mut hash = StateHash::default();
        hash.add(b"k", b"v");
        let expected: [u8; 32] = Sha256::digest(b"\0\0\0\x01kv").into();
        assert_eq!(hash.to_bytes(), expected);
    }

    #[test]
    fn the_sum_wraps_and_carries() {
        let mut hash = StateHash {
            limbs: [u64::MAX; 4],
        };
        hash.add(b"a", b"b");
        let mut expected = StateHash::of_pair(b"a", b"b");
        // -1 + x
        expected.limbs[0] -= 1;
        assert_eq!(hash, expected);
        hash.remove(b"a", b"b");
        assert_eq!(hash.limbs, [u64::MAX; 4]);
    }

    /// Every limb but the lowest overflows by the carry alone.
    #[test]
    fn the_carry_runs_through_all_limbs() {
        let mut negative = StateHash::default();
        negative.remove(b"a", b"b");
        let mut limbs = StateHash::of_pair(b"a", b"b").limbs.map(|limb| !limb);
        limbs[0] = limbs[0].wrapping_add(1);
        assert_eq!(negative.limbs, limbs);
        negative.add(b"a", b"b");
        assert_eq!(negative, StateHash::default());
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let mut one = StateHash::default();
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        let mut other = StateHash::default();
        other.add(b"b", b"2");
        other.add(b"c", b"3");
        other.add(b"a", b"1");
        other.remove(b"c", b"3");
        assert_eq!(one, other);
    }

    #[test]
    fn the_border_of_key_and_value_counts() {
        let mut one = StateHash::default();
        one.add(b"ab", b"c");
        let mut other = StateHash::default();
        other.add(b"a", b"bc");
        assert_ne!(one, other);
    }
}
