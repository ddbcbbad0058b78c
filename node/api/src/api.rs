//! What handlers share.

use std::sync::Arc;

use henge_runtime::Scope;
use henge_types::ErrorCode;

use crate::backend::Backend;
use crate::error::ApiError;
use crate::metrics::MetricsHandle;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    /// The cluster.
    pub(crate) backend: Arc<dyn Backend>,
    /// The page of metrics.
    pub(crate) metrics: MetricsHandle,
    /// This release.
    pub(crate) version: &'static str,
    /// Where work runs that would hold up the threads that serve.
    pub(crate) work: Scope,
}

impl Api {
    /// Runs what may take long away from the threads that serve, one of a bounded number of jobs.
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
