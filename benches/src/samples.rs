//! Measured durations, and their statistics.

use std::time::Duration;

/// Measured durations, in microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    micros: Vec<u64>,
}

impl Samples {
    pub(crate) fn push(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.push(micros);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.micros.append(&mut other.micros);
    }

    pub(crate) fn len(&self) -> usize {
        self.micros.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }

    /// The smallest sample that at least `percent` of a hundred do not exceed (the nearest rank, so
    /// the 99th of fewer than a hundred samples is their maximum), in milliseconds. NaN without
    /// samples.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        let micros = sorted.get(rank - 1);
        micros.map_or(f64::NAN, |micros| *micros as f64 / 1_000.0)
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.percentile_ms(100)
    }

    /// The minimum and the maximum.
    pub(crate) fn range_ms(&self) -> String {
        format!("{:.1} - {:.1}", self.percentile_ms(0), self.max_ms())
    }

    /// In the order of the measurement, in whole milliseconds.
    pub(crate) fn list_ms(&self) -> String {
        let texts: Vec<String> = self
            .micros
            .iter()
            .map(|micros| (micros / 1_000).to_string())
            .collect();
        texts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ms: &[u64]) -> Samples {
        let mut samples = Samples::default();
        for ms in ms {
            samples.push(Duration::from_millis(*ms));
        }
        samples
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let all: Vec<u64> = (1..=200).rev().collect();
        let all = samples(&all);
        assert_eq!(all.percentile_ms(50), 100.0);
        assert_eq!(all.percentile_ms(99), 198.0);
        assert_eq!(all.max_ms(), 200.0);
        let few = samples(&[3, 1, 2]);
        assert_eq!(few.percentile_ms(50), 2.0);
        assert_eq!(few.percentile_ms(99), 3.0);
        assert_eq!(few.range_ms(), "1.0 - 3.0");
        assert_eq!(few.list_ms(), "3 1 2");
        assert!(samples(&[]).percentile_ms(50).is_nan());
    }
}
