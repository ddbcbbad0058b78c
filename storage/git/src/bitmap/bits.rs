//! A set of positions in memory.

/// A set of numbers below a bound, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Box<[u64]>,
    len: u32,
}

impl Bits {
    /// The empty set of numbers below `len`.
    pub(crate) fn new(len: u32) -> Self {
        Self {
            words: vec![0; len.div_ceil(u64::BITS) as usize].into(),
            len,
        }
    }

    pub(crate) const fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) const fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Whether all numbers are below the bound. Only a set from a file can exceed it.
    pub(super) fn is_bounded(&self) -> bool {
        let used = self.len % u64::BITS;
        match self.words.last() {
            Some(last) if used != 0 => last >> used == 0,
            Some(_) | None => true,
        }
    }

    pub(crate) fn contains(&self, bit: u32) -> bool {
        let (word, mask) = place(bit);
        self.words.get(word).is_some_and(|word| word & mask != 0)
    }

    /// Adds a number below the bound; returns whether it is new.
    pub(crate) fn insert(&mut self, bit: u32) -> bool {
        debug_assert!(bit < self.len, "{bit} is not below {}", self.len);
        let (word, mask) = place(bit);
        let word = &mut self.words[word];
        let is_new = *word & mask == 0;
        *word |= mask;
        is_new
    }

    fn combine(&mut self, other: &Self, operation: impl Fn(&mut u64, u64)) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            operation(word, *other);
        }
    }

    pub(crate) fn or(&mut self, other: &Self) {
        self.combine(other, |word, other| *word |= other);
    }

    pub(crate) fn and(&mut self, other: &Self) {
        self.combine(other, |word, other| *word &= other);
    }

    pub(crate) fn and_not(&mut self, other: &Self) {
        self.combine(other, |word, other| *word &= !other);
    }

    pub(crate) fn xor(&mut self, other: &Self) {
        self.combine(other, |word, other| *word ^= other);
    }

    /// Number of positions in which two sets differ.
    pub(crate) fn distance(&self, other: &Self) -> u32 {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(left, right)| (left ^ right).count_ones()).sum()
    }

    pub(crate) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The numbers, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        (0_u32..)
            .step_by(u64::BITS as usize)
            .zip(&self.words)
            .flat_map(|(start, word)| {
                let mut left = *word;
                std::iter::from_fn(move || {
                    let bit = (left != 0).then(|| left.trailing_zeros())?;
                    left &= left - 1;
                    Some(start + bit)
                })
            })
    }
}

const fn place(bit: u32) -> (usize, u64) {
    ((bit / u64::BITS) as usize, 1 << (bit % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn bits(len: u32, numbers: &BTreeSet<u32>) -> Bits {
        let mut bits = Bits::new(len);
        for number in numbers {
            assert!(bits.insert(*number));
        }
        bits
    }

    fn list(bits: &Bits) -> BTreeSet<u32> {
        bits.iter().collect()
    }

    proptest! {
        #[test]
        fn they_are_a_set(
            left in proptest::collection::btree_set(0_u32..300, 0..80),
            right in proptest::collection::btree_set(0_u32..300, 0..80),
        ) {
            let (a, b) = (bits(300, &left), bits(300, &right));
            prop_assert_eq!(&list(&a), &left);
            prop_assert_eq!(a.count() as usize, left.len());
            prop_assert!((0..400).all(|bit| a.contains(bit) == left.contains(&bit)));
            let applied = |operation: fn(&mut Bits, &Bits)| {
                let mut bits = a.clone();
                operation(&mut bits, &b);
                list(&bits)
            };
            prop_assert_eq!(applied(Bits::or), &left | &right);
            prop_assert_eq!(applied(Bits::and), &left & &right);
            prop_assert_eq!(applied(Bits::and_not), &left - &right);
            prop_assert_eq!(applied(Bits::xor), &left ^ &right);
            prop_assert_eq!(a.distance(&b) as usize, (&left ^ &right).len());
            prop_assert!(a.is_bounded());
        }
    }
}
