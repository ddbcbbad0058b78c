//! The shared state of handlers.

use std::sync::Arc;

use henge_runtime::Scope;
use henge_types::ErrorCode;

use crate::backend::Backend;
use crate::error::ApiError;
use crate::metrics::MetricsHandle;

/// The shared state of handlers.
#[derive(Clone)]
pub(crate) struct Api {
    /// The cluster.
    pub(crate) backend: Arc<dyn Backend>,
    /// The page of metrics.
    pub(crate) metrics: MetricsHandle,
    /// This release.
    pub(crate) version: &'static str,
    /// The scope of work that would block the serving threads.
    pub(crate) work: Scope,
}

impl Api {
    /// Runs long work away from the serving threads, as one of a bounded number of jobs.
    pub(crate) async fn blocking<T, F>(&self, name: &'static str, job: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let done = self.work.blocking(name, job).await;
        done.map_err(|error| {
            tracing::error!(name, %error, "work for a request failed");
            ApiError::new(ErrorCode::Internal, "the node's log says more")
        })
    }
}
