//! Health for load balancers and supervisors, and the page of metrics.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use henge_auth::Authorized;
use henge_auth::action::{ReadHealth, ReadMetrics};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::api::Api;
use crate::routes::{Routes, get};

/// The routes in front of the gate: the credentials of a request do not matter.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .at("/healthz", get(ReadHealth, healthz))
        .at("/readyz", get(ReadHealth, readyz))
}

/// The page of metrics, which is behind the gate.
pub(crate) fn metrics_routes() -> Routes {
    Routes::new().at("/metrics", get(ReadMetrics, metrics))
}

/// `GET /healthz`: the process answers.
async fn healthz(_: Authorized<ReadHealth>) -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the node serves; 503 with the reason when it does not.
async fn readyz(_: Authorized<ReadHealth>, State(api): State<Api>) -> Response {
    match api.backend.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// `GET /metrics`: Prometheus text.
async fn metrics(_: Authorized<ReadMetrics>, State(api): State<Api>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], api.metrics.render()).into_response()
}
