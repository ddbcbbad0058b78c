//! Encodes a delta from a base and a target.

use crate::delta::index::{DeltaIndex, window_at};
use crate::delta::{COPY_BYTES_MAX, WINDOW_BYTES, push_size};
use crate::object::common_prefix;

/// Maximum bytes of one insertion.
const INSERT_BYTES_MAX: usize = 0x7f;
/// Maximum number of unmatched bytes held back: a later match may extend back over them.
const LITERAL_BYTES_MAX: usize = 16 * INSERT_BYTES_MAX;
/// A match of this length ends the search for a longer one.
const MATCH_BYTES_ENOUGH: usize = 4096;

/// The delta that makes `target` out of the base of `index`; `None` if it would exceed `max_len`
/// bytes.
///
/// The caller keeps targets below 4 GiB.
pub(crate) fn encode<B: AsRef<[u8]>>(
    index: &DeltaIndex<B>,
    target: &[u8],
    max_len: usize,
) -> Option<Vec<u8>> {
    let base = index.base();
    let mut delta = Delta {
        output: Vec::with_capacity(max_len.min(target.len() / 8 + 64)),
        max_len,
    };
    push_size(base.len(), &mut delta.output);
    push_size(target.len(), &mut delta.output);
    // Bytes before `literal` are written. Bytes from `literal` to `at` match nothing.
    let mut literal = 0;
    let mut at = 0;
    while let Some(window) = window_at(target, at) {
        let mut best = Match::default();
        for offset in index.candidates(window) {
            let length = common_prefix(&base[offset..], &target[at..]);
            if length < WINDOW_BYTES {
                continue;
            }
            let back = common_suffix(&base[..offset], &target[literal..at]);
            if length + back > best.length {
                best = Match {
                    offset: offset - back,
                    back,
                    length: length + back,
                };
            }
            if best.length >= MATCH_BYTES_ENOUGH {
                break;
            }
        }
        if best.length == 0 {
            at += 1;
            if at - literal >= LITERAL_BYTES_MAX {
                delta.insert(&target[literal..literal + LITERAL_BYTES_MAX / 2])?;
                literal += LITERAL_BYTES_MAX / 2;
            }
            continue;
        }
        let begin = at - best.back;
        delta.insert(&target[literal..begin])?;
        delta.copy(best.offset, best.length)?;
        at = begin + best.length;
        literal = at;
    }
    delta.insert(&target[literal..])?;
    Some(delta.output)
}

/// Bytes that base and target have in common around a position.
#[derive(Debug, Clone, Copy, Default)]
struct Match {
    /// Their start in the base.
    offset: usize,
    /// Number of them before the position.
    back: usize,
    length: usize,
}

fn common_suffix(left: &[u8], right: &[u8]) -> usize {
    left.iter()
        .rev()
        .zip(right.iter().rev())
        .take_while(|(left, right)| left == right)
        .count()
}

/// A delta under construction.
struct Delta {
    output: Vec<u8>,
    max_len: usize,
}

impl Delta {
    /// Whether `more` bytes would exceed the limit.
    fn is_too_long(&self, more: usize) -> bool {
        self.output.len() + more > self.max_len
    }

    fn insert(&mut self, bytes: &[u8]) -> Option<()> {
        let heads = bytes.len().div_ceil(INSERT_BYTES_MAX);
        if self.is_too_long(bytes.len() + heads) {
            return None;
        }
        for part in bytes.chunks(INSERT_BYTES_MAX) {
            self.output.push(part.len().to_le_bytes()[0]);
            self.output.extend_from_slice(part);
        }
        Some(())
    }

    fn copy(&mut self, mut offset: usize, mut length: usize) -> Option<()> {
        while length > 0 {
            let taken = length.min(COPY_BYTES_MAX);
            self.copy_part(offset, taken);
            if self.is_too_long(0) {
                return None;
            }
            offset += taken;
            length -= taken;
        }
        Some(())
    }

    /// A byte of flags, then the nonzero bytes of offset and size. A size of zero stands for
    /// `COPY_BYTES_MAX`.
    fn copy_part(&mut self, offset: usize, length: usize) {
        let head = self.output.len();
        self.output.push(0);
        let mut flags = 0x80_u8;
        let size = if length == COPY_BYTES_MAX { 0 } else { length };
        let offset = (offset as u64).to_le_bytes();
        let size = (size as u64).to_le_bytes();
        for (bit, byte) in offset[..4].iter().chain(&size[..2]).enumerate() {
            if *byte != 0 {
                flags |= 1 << bit;
                self.output.push(*byte);
            }
        }
        self.output[head] = flags;
    }
}
