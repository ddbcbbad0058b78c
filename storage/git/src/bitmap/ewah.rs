//! The stored form of sets: EWAH, runs of equal words beside literal ones (gitformat-bitmap(5),
//! appendix A).

use crate::bitmap::Bits;

/// Bytes before the words: the number of bits, the number of words.
pub(super) const HEAD_BYTES: usize = 8;
/// Bytes behind the words: the position of the last run.
const TAIL_BYTES: usize = 4;
const WORD_BYTES: usize = 8;

/// Maximum length of a run, a number of 32 bits.
const RUN_MAX: usize = u32::MAX as usize;
/// Maximum number of literal words behind a run, a number of 31 bits.
const LITERALS_MAX: usize = (1 << 31) - 1;

/// A stored set is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a compressed bitmap is malformed")]
pub(super) struct Malformed;

/// A stored set with a checked length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ewah<'a> {
    words: &'a [[u8; WORD_BYTES]],
}

/// Number of bytes of the stored set that begins with `head`.
pub(super) fn stored_bytes(head: [u8; HEAD_BYTES]) -> u64 {
    let [_, _, _, _, words @ ..] = head;
    let words = u64::from(u32::from_be_bytes(words));
    (HEAD_BYTES + TAIL_BYTES) as u64 + words * WORD_BYTES as u64
}

impl<'a> Ewah<'a> {
    /// Splits a stored set off the front of `data`; returns it and the rest.
    pub(super) fn parse(data: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let head = data.first_chunk::<HEAD_BYTES>().ok_or(Malformed)?;
        let length = usize::try_from(stored_bytes(*head)).map_err(|_| Malformed)?;
        let (stored, rest) = data.split_at_checked(length).ok_or(Malformed)?;
        let (words, _) = stored[HEAD_BYTES..length - TAIL_BYTES].as_chunks();
        Ok((Self { words }, rest))
    }

    /// Applies `operation` to the words of `bits` and the corresponding words of the set, except in
    /// runs of zeros.
    fn apply(self, bits: &mut Bits, operation: impl Fn(&mut u64, u64)) -> Result<(), Malformed> {
        let mut rest = self.words;
        let words = bits.words_mut();
        let mut at = 0_usize;
        while let Some((run, behind)) = rest.split_first() {
            let run = u64::from_be_bytes(*run);
            let repeated = usize::try_from((run >> 1) & u64::from(u32::MAX));
            let repeated = repeated.map_err(|_| Malformed)?;
            let literals = usize::try_from(run >> 33).map_err(|_| Malformed)?;
            let (literals, behind) = behind.split_at_checked(literals).ok_or(Malformed)?;
            rest = behind;
            let end = at.saturating_add(repeated);
            // Words of zeros may lie beyond the end: git stores all words that it has allocated.
            if run & 1 == 1 {
                for word in words.get_mut(at..end).ok_or(Malformed)? {
                    operation(word, u64::MAX);
                }
            }
            at = end;
            for literal in literals {
                let literal = u64::from_be_bytes(*literal);
                match words.get_mut(at) {
                    Some(word) => operation(word, literal),
                    None if literal == 0 => {}
                    None => return Err(Malformed),
                }
                at = at.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Flips every bit of the set in `bits`.
    pub(super) fn xor_into(self, bits: &mut Bits) -> Result<(), Malformed> {
        self.apply(bits, |word, other| *word ^= other)
    }
}

/// Appends the stored form of a set.
pub(super) fn encode(bits: &Bits, out: &mut Vec<u8>) {
    let is_run = |word: &u64| *word == 0 || *word == u64::MAX;
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    let first_word = out.len();
    let mut rest = bits.words();
    let last_run = loop {
        let run_at = out.len();
        let first = rest.first().copied().filter(is_run).unwrap_or(0);
        let same = rest.iter().take_while(|word| **word == first);
        let repeated = same.take(RUN_MAX).count();
        rest = &rest[repeated..];
        let noise = rest.iter().take_while(|word| !is_run(word));
        let literals = noise.take(LITERALS_MAX).count();
        let is_set = u64::from(repeated > 0 && first == u64::MAX);
        let run = is_set | ((repeated as u64) << 1) | ((literals as u64) << 33);
        out.extend_from_slice(&run.to_be_bytes());
        let (stored, behind) = rest.split_at(literals);
        for word in stored {
            out.extend_from_slice(&word.to_be_bytes());
        }
        rest = behind;
        if rest.is_empty() {
            break run_at;
        }
    };
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
    let bit_count = number(bits.words().len() * u64::BITS as usize);
    let word_count = number((out.len() - first_word) / WORD_BYTES);
    out[start..start + 4].copy_from_slice(&bit_count);
    out[start + 4..first_word].copy_from_slice(&word_count);
    out.extend_from_slice(&number((last_run - first_word) / WORD_BYTES));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from_words(words: &[u64]) -> Bits {
        let mut bits = Bits::new(u32::try_from(words.len()).unwrap() * 64);
        bits.words_mut().copy_from_slice(words);
        bits
    }

    /// Words like those of real bitmaps: runs of both kinds, and noise.
    fn words() -> impl Strategy<Value = Vec<u64>> {
        let piece = prop_oneof![
            (1_usize..20).prop_map(|count| vec![0; count]),
            (1_usize..20).prop_map(|count| vec![u64::MAX; count]),
            proptest::collection::vec(any::<u64>(), 1..6),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(words in words(), other in words(), tail in 0_usize..9) {
            let bits = from_words(&words);
            let mut stored = Vec::new();
            encode(&bits, &mut stored);
            let head: [u8; HEAD_BYTES] = stored[..HEAD_BYTES].try_into().unwrap();
            prop_assert_eq!(stored_bytes(head), stored.len() as u64);
            stored.extend(vec![7; tail]);
            let (ewah, rest) = Ewah::parse(&stored).unwrap();
            prop_assert_eq!(rest.len(), tail);
            let mut read = Bits::new(u32::try_from(words.len()).unwrap() * 64);
            ewah.xor_into(&mut read).unwrap();
            prop_assert_eq!(&read, &bits);

            let length = words.len().max(other.len());
            let widen = |words: &[u64]| {
                let mut words = words.to_vec();
                words.resize(length, 0);
                from_words(&words)
            };
            let mut expected = widen(&other);
            expected.xor(&widen(&words));
            let mut turned = widen(&other);
            ewah.xor_into(&mut turned).unwrap();
            prop_assert_eq!(turned, expected);
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(words in words(), at in any::<usize>(), bit in 0_u8..8, cut in 0_usize..40) {
            let mut stored = Vec::new();
            encode(&from_words(&words), &mut stored);
            let at = at % stored.len();
            stored[at] ^= 1 << bit;
            stored.truncate(stored.len().saturating_sub(cut));
            if let Ok((ewah, _)) = Ewah::parse(&stored) {
                let mut bits = Bits::new(u32::try_from(words.len()).unwrap() * 64);
                let read = ewah.xor_into(&mut bits);
                prop_assert!(matches!(read, Ok(()) | Err(Malformed)));
            }
        }
    }

    #[test]
    fn bits_beyond_the_end_are_refused_and_zeros_are_not() {
        let mut stored = Vec::new();
        encode(&from_words(&[1, 0, 0, 0]), &mut stored);
        let mut short = Bits::new(64);
        Ewah::parse(&stored)
            .unwrap()
            .0
            .xor_into(&mut short)
            .unwrap();
        assert!(short.contains(0));
        for words in [[1, 1], [1, u64::MAX]] {
            let mut stored = Vec::new();
            encode(&from_words(&words), &mut stored);
            let mut short = Bits::new(64);
            let (ewah, _) = Ewah::parse(&stored).unwrap();
            assert_eq!(ewah.xor_into(&mut short), Err(Malformed));
        }
    }
}
