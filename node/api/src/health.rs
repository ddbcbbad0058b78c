//! Health for load balancers and supervisors, and the page of metrics.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use henge_auth::Authorized;
use henge_auth::action::{ReadHealth, ReadMetrics};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::router::Api;

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz(_: Authorized<ReadHealth>) -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the node serves; 503 with the reason when it does not.
pub(crate) async fn readyz(_: Authorized<ReadHealth>, State(api): State<Api>) -> Response {
    match api.backend.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// `GET /metrics`: Prometheus text.
pub(crate) async fn metrics(_: Authorized<ReadMetrics>, State(api): State<Api>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], api.metrics.render()).into_response()
}
