//! An index of the windows of a base.

use crate::delta::WINDOW_BYTES;

/// Maximum number of positions of the base that are compared with one position of a target.
pub(super) const CANDIDATES_MAX: usize = 32;
/// Maximum number of windows of one base: bounds the memory of an index at 48 MiB. In a larger base
/// the windows lie further apart.
const WINDOWS_MAX: usize = 1 << 22;
/// Copies have offsets of 32 bits: bytes beyond them are not indexed.
const INDEXED_BYTES_MAX: usize = u32::MAX as usize;
/// The end of a chain.
const NONE: u32 = u32::MAX;

/// One window of the base.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// The low half of its hash. The high bits select the bucket.
    check: u32,
    /// The next window of the bucket, at a higher offset.
    next: u32,
}

/// The windows of a base by their hash. Owns or borrows the base.
#[derive(Debug)]
pub(crate) struct DeltaIndex<B> {
    base: B,
    /// The first window of each bucket.
    heads: Vec<u32>,
    windows: Vec<Window>,
    /// Bytes from one window to the next.
    stride: usize,
    /// The shift of a hash that selects a bucket.
    shift: u32,
}

impl<B: AsRef<[u8]>> DeltaIndex<B> {
    /// Indexes `base`. The index takes at most as much memory as the base, and at most 48 MiB.
    pub(crate) fn new(base: B) -> Self {
        let data = base.as_ref();
        let data = &data[..data.len().min(INDEXED_BYTES_MAX)];
        let stride = WINDOW_BYTES.max(data.len().div_ceil(WINDOWS_MAX));
        let count = match data.len().checked_sub(WINDOW_BYTES) {
            Some(last) => last / stride + 1,
            None => 0,
        };
        let bits = count.max(2).next_power_of_two().trailing_zeros();
        let mut index = Self {
            heads: vec![NONE; 1 << bits],
            windows: vec![
                Window {
                    check: 0,
                    next: NONE
                };
                count
            ],
            stride,
            shift: u64::BITS - bits,
            base,
        };
        index.fill();
        index
    }

    /// Filled from the back, so that a bucket is walked from low to high offsets.
    fn fill(&mut self) {
        let data = self.base.as_ref();
        let mut following = None;
        for number in (0..self.windows.len()).rev() {
            let at = number * self.stride;
            let Some(window) = window_at(data, at) else {
                continue;
            };
            let hash = hash(window);
            let bucket = bucket(hash, self.shift);
            let check = low_half(hash);
            let mut next = self.heads[bucket];
            // Of a run of equal windows only the first is kept: a match begins there, or is
            // extended back.
            if following == Some(hash) && next != NONE && self.windows[next as usize].check == check
            {
                next = self.windows[next as usize].next;
            }
            self.windows[number] = Window { check, next };
            self.heads[bucket] = window_number(number);
            following = Some(hash);
        }
    }

    pub(crate) fn base(&self) -> &[u8] {
        self.base.as_ref()
    }

    /// Bytes of memory of the index, without the base.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.heads.len() * size_of::<u32>() + self.windows.len() * size_of::<Window>()
    }

    /// Offsets of the base that may hold `window`, in ascending order.
    pub(super) fn candidates(&self, window: &[u8; WINDOW_BYTES]) -> impl Iterator<Item = usize> {
        let hash = hash(window);
        let check = low_half(hash);
        let mut next = self.heads[bucket(hash, self.shift)];
        let mut steps = 0;
        std::iter::from_fn(move || {
            while next != NONE && steps < CANDIDATES_MAX {
                let number = next as usize;
                let window = self.windows[number];
                next = window.next;
                steps += 1;
                if window.check == check {
                    return Some(number * self.stride);
                }
            }
            None
        })
    }
}

/// The window that begins at `at`.
#[inline]
pub(super) fn window_at(data: &[u8], at: usize) -> Option<&[u8; WINDOW_BYTES]> {
    data.get(at..)?.first_chunk()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "no more than WINDOWS_MAX windows are kept"
)]
const fn window_number(number: usize) -> u32 {
    number as u32
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "only the low half is meant"
)]
const fn low_half(hash: u64) -> u32 {
    hash as u32
}

/// The highest bits of a hash select its bucket.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are no more than 2^23 buckets"
)]
const fn bucket(hash: u64, shift: u32) -> usize {
    (hash >> shift) as usize
}

/// Two multiplications over the whole window: fast enough to be computed at every byte of a target.
#[inline]
fn hash(window: &[u8; WINDOW_BYTES]) -> u64 {
    let value = u128::from_le_bytes(*window);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
    let (low, high) = (value as u64, (value >> 64) as u64);
    let mixed = low.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ high.rotate_left(29);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 29)
}
