//! The page of metrics in Prometheus' text format.

use std::fmt;

use metrics::set_global_recorder;
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use thiserror::Error;

/// From a tenth of a millisecond, the duration of a fast flush, to a minute, that of a large push.
const SECONDS_BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];
/// From a log entry without a pack to a large pack.
const BYTES_BUCKETS: &[f64] = &[
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    16_777_216.0,
    268_435_456.0,
    2_147_483_648.0,
];
/// Counts, for example entries in a batch.
const COUNT_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0, 4_096.0,
];

/// Metrics cannot be collected.
#[derive(Debug, Error)]
pub enum InstallError {
    /// Another recorder of this process collects them already.
    #[error("metrics are collected by something else in this process")]
    Taken,
}

/// Renders the recorded metrics. Clones share them.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// A recorder that is not installed, and its handle: for tests, which may have one each.
    pub fn recorder() -> (PrometheusRecorder, Self) {
        let by_suffix = |suffix: &str| Matcher::Suffix(suffix.to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(by_suffix("_seconds"), SECONDS_BUCKETS)
            .and_then(|with| with.set_buckets_for_metric(by_suffix("_bytes"), BYTES_BUCKETS))
            .and_then(|with| with.set_buckets(COUNT_BUCKETS))
            .expect("invariant: no list of buckets is empty")
            .build_recorder();
        let handle = Self(recorder.handle());
        (recorder, handle)
    }

    /// Collects the whole process's metrics from here on.
    ///
    /// # Errors
    /// When another recorder is installed already.
    pub fn install() -> Result<Self, InstallError> {
        let (recorder, handle) = Self::recorder();
        set_global_recorder(recorder).map_err(|_| InstallError::Taken)?;
        Ok(handle)
    }

    /// The page.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Moves recorded samples into their buckets. To be called every few seconds: between two calls
    /// each sample takes memory of its own.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsHandle").finish_non_exhaustive()
    }
}
