//! Metrics of this crate, the page that shows every crate's, and the list of them all.
//!
//! Labels: `method` (a known HTTP method or `other`), `route` (a template, never a name that a user
//! chose), `status` (the HTTP status). The address of a client is never one: the log names it.

pub mod catalogue;
mod handle;

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

pub use handle::{InstallError, MetricsHandle};
/// For tests of crates that record through this one.
pub use metrics::set_default_local_recorder;

/// Answered requests, by method, route and status.
pub const REQUESTS: &str = "henge_api_requests_total";
/// The duration of requests, by method and route.
pub const REQUEST_DURATION: &str = "henge_api_request_duration_seconds";
/// Requests being answered.
pub const IN_FLIGHT: &str = "henge_api_requests_in_flight";
/// Requests whose handler panicked.
pub const PANICS: &str = "henge_api_panics_total";
/// Requests refused for their token, by reason.
pub const AUTH_FAILURES: &str = "henge_api_auth_failures_total";
/// Requests without a token to routes that may be public, by result.
pub const ANONYMOUS: &str = "henge_api_anonymous_requests_total";
/// Answers to wrong tokens, by their delay.
pub const WRONG_TOKENS: &str = "henge_api_wrong_token_answers_total";
/// Connections of the listener, by kind.
pub const CONNECTIONS: &str = "henge_api_connections";
/// Connections, requests and streams that the listener refused or ended, by reason.
pub const LISTENER_REFUSALS: &str = "henge_api_listener_refusals_total";
/// Always 1; its label is the release.
pub const BUILD_INFO: &str = "henge_build_info";

/// Registers the descriptions of this crate's metrics.
pub fn describe() {
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "HTTP requests answered, by method, route and status"
    );
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "Time from a request's head to its answer's head, by method and route"
    );
    describe_gauge!(
        IN_FLIGHT,
        Unit::Count,
        "HTTP requests whose answer has not begun"
    );
    describe_counter!(
        PANICS,
        Unit::Count,
        "Requests answered 500 because their handler panicked: a defect, see the log"
    );
    describe_counter!(
        AUTH_FAILURES,
        Unit::Count,
        "Requests refused for their token, by reason (missing, malformed, wrong, narrow: it opens something else)"
    );
    describe_counter!(
        ANONYMOUS,
        Unit::Count,
        "Requests without a token to what may be public, by result (admitted, throttled)"
    );
    describe_counter!(
        WRONG_TOKENS,
        Unit::Count,
        "Answers to wrong tokens, by when they were given (at_once: among the first of an address; late: after a wait; crowded: at once, because as many wait as may)"
    );
    describe_gauge!(
        CONNECTIONS,
        Unit::Count,
        "HTTP connections that are open, by kind (any, health: of those that are kept for health and metrics)"
    );
    describe_counter!(
        LISTENER_REFUSALS,
        Unit::Count,
        "What the HTTP listener refused or ended, by reason (displaced: an idle connection, for a newcomer; busy: told 503; full: closed without an answer; late: no request came in time; malformed: no plain HTTP; stalled, stream_stalled: the client took nothing of an answer; stream_late: a request took too long)"
    );
    describe_gauge!(
        BUILD_INFO,
        Unit::Count,
        "Always 1; the label version is the node's release"
    );
}

pub(crate) fn build_info(version: &'static str) {
    gauge!(BUILD_INFO, "version" => version).set(1.0);
}

pub(crate) fn answered(method: &'static str, route: &str, status: u16, took: Duration) {
    let (route, status) = (route.to_owned(), status.to_string());
    histogram!(REQUEST_DURATION, "method" => method, "route" => route.clone())
        .record(took.as_secs_f64());
    counter!(REQUESTS, "method" => method, "route" => route, "status" => status).increment(1);
}

pub(crate) fn panicked() {
    counter!(PANICS).increment(1);
}

pub(crate) fn auth_failed(reason: &'static str) {
    counter!(AUTH_FAILURES, "reason" => reason).increment(1);
}

pub(crate) fn anonymous(result: &'static str) {
    counter!(ANONYMOUS, "result" => result).increment(1);
}

pub(crate) fn wrong_token(answered: &'static str) {
    counter!(WRONG_TOKENS, "answered" => answered).increment(1);
}

/// Records the number of connections of the listener: those for any request, and those reserved for
/// health.
pub fn connections(any: usize, health: usize) {
    for (kind, held) in [("any", any), ("health", health)] {
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        gauge!(CONNECTIONS, "kind" => kind).set(f64::from(held));
    }
}

/// Counts a refusal or an end by the listener, for one of the reasons that the description names.
pub fn listener_refused(reason: &'static str) {
    counter!(LISTENER_REFUSALS, "reason" => reason).increment(1);
}

/// One request in flight; counted until it is dropped.
pub(crate) struct InFlight(metrics::Gauge);

impl InFlight {
    pub(crate) fn start() -> Self {
        let gauge = gauge!(IN_FLIGHT);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
