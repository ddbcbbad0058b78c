//! Mutations of bytes, the same in every run.

use crate::random::Numbers;

/// A stream of mutations.
pub(super) struct Mutations(Numbers);

impl Mutations {
    /// The stream for `name`.
    pub(super) fn new(name: &str) -> Self {
        // FNV-1a: any seed but zero is valid.
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(Numbers(seed | 1))
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound.max(1))
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// One to three changes of `seed`, some of them with parts of `other`.
    pub(super) fn of(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(3) {
            self.change(&mut bytes, other);
        }
        bytes
    }

    /// Inserts one to three words between frames or in place of one; half of the results are then
    /// mutated by [`Self::of`] too.
    pub(super) fn with_word(&mut self, seed: &[u8], other: &[u8], words: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(3) {
            let begins = frames(&bytes);
            let frame = self.below(begins.len());
            let at = begins[frame];
            let replaced = match begins.get(frame + 1) {
                Some(next) if self.below(2) == 0 => *next,
                _ => at,
            };
            let word = &words[self.below(words.len())];
            bytes.splice(at..replaced, word.iter().copied());
        }
        match self.below(2) {
            0 => bytes,
            _ => self.of(&bytes, other),
        }
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let length = 1 + self.below(8);
        let end = (at + length).min(bytes.len());
        match self.below(9) {
            0 => bytes.truncate(at),
            1 | 2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            3 => {
                for byte in &mut bytes[at..end] {
                    *byte = *[0, 1, 0x7f, 0x80, 0xff, b'0', b'f', b'\n', b' ']
                        .get(self.0.below(9))
                        .unwrap();
                }
            }
            4 => drop(bytes.drain(at..end)),
            5 => {
                let chunk: Vec<u8> = bytes[at..].iter().copied().take(64).collect();
                bytes.splice(at..at, chunk);
            }
            6 => {
                let from = self.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
            7 => {
                let new: Vec<u8> = (0..length).map(|_| self.byte()).collect();
                bytes.splice(at..at, new);
            }
            // Fields of lengths and numbers: plus or minus one.
            _ if at < bytes.len() => {
                let step = [1, 0xff][self.below(2)];
                bytes[at] = bytes[at].wrapping_add(step);
            }
            _ => bytes.push(self.byte()),
        }
    }
}

/// The starts of the pkt-lines in `bytes`, and the end of the last one.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut begins = vec![0];
    let mut at = 0;
    while let Some(digits) = bytes.get(at..at + 4) {
        let length = std::str::from_utf8(digits).ok();
        let Some(length) = length.and_then(|digits| usize::from_str_radix(digits, 16).ok()) else {
            break;
        };
        at += length.max(4);
        if at > bytes.len() {
            break;
        }
        begins.push(at);
    }
    begins
}
