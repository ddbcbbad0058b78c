//! The source of randomness, as a parameter. The state machines never use it: they get a seed in a
//! header.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The step of splitmix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A source of random numbers.
pub trait Random: Debug + Send + Sync + 'static {
    /// 64 random bits.
    fn number(&self) -> u64;

    /// 16 random bytes: ids, tokens, seeds.
    fn bytes(&self) -> [u8; 16] {
        let halves = [self.number().to_be_bytes(), self.number().to_be_bytes()];
        let mut bytes = [0; 16];
        bytes.copy_from_slice(halves.as_flattened());
        bytes
    }

    /// A number of `range`, or its start where it is empty. For jitter: not exactly uniform.
    fn within(&self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start).max(1);
        range.start.saturating_add(self.number() % width)
    }
}

/// The system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl SystemRandom {
    /// A shared handle for components.
    pub fn shared() -> Arc<dyn Random> {
        Arc::new(Self)
    }
}

impl Random for SystemRandom {
    fn number(&self) -> u64 {
        rand::random()
    }

    fn bytes(&self) -> [u8; 16] {
        rand::random()
    }
}

/// The same numbers for the same seed (splitmix64), in the order in which they are drawn. For tests
/// and simulations.
#[derive(Debug)]
pub struct SeededRandom(AtomicU64);

impl SeededRandom {
    /// Begins with `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A shared handle for components.
    pub fn shared(seed: u64) -> Arc<dyn Random> {
        Arc::new(Self::new(seed))
    }
}

impl Random for SeededRandom {
    fn number(&self) -> u64 {
        let state = self.0.fetch_add(STEP, Ordering::Relaxed);
        let mut mixed = state.wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers() {
        let drawn = |seed| {
            let random = SeededRandom::new(seed);
            let number = random.number();
            (number, random.bytes(), random.within(15..60))
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn numbers_stay_within_their_range() {
        let random = SeededRandom::new(1);
        for _ in 0..1000 {
            assert!((15..60).contains(&random.within(15..60)));
            assert_eq!(random.within(5..6), 5);
        }
        assert_eq!(random.within(9..9), 9, "the start of an empty range");
    }
}
