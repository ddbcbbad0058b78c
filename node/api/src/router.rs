//! The complete router: the routes of the features, and the layers and the gate around them.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use henge_auth::Authorized;
use henge_auth::action::MissRoute;
use henge_runtime::{Clock, Scope};
use henge_types::ErrorCode;
use http::{Method, StatusCode, Uri};

use crate::api::Api;
use crate::auth::{self, AnonymousReads, Gate};
use crate::backend::Backend;
use crate::error::ApiError;
use crate::metrics::{self, MetricsHandle};
use crate::request::Observer;
use crate::routes::{Route, Routes, any};
use crate::tokens::Tokens;
use crate::{gitea, health, own, request};

/// The dependencies of the router.
#[derive(Clone)]
pub struct ApiDeps {
    /// The cluster.
    pub backend: Arc<dyn Backend>,
    /// The git protocol ([`henge_git::http::router`]): everything that is not the API, health or
    /// metrics goes there, with a [`henge_git::http::Caller`] in its extensions.
    pub git: Router,
    /// The accepted tokens.
    pub tokens: Tokens,
    /// The requests without a token that are answered.
    pub anonymous_reads: AnonymousReads,
    /// The page of metrics.
    pub metrics: MetricsHandle,
    /// This release.
    pub version: &'static str,
    /// For latencies.
    pub clock: Arc<dyn Clock>,
    /// The scope of work that would block the serving threads.
    pub work: Scope,
}

impl fmt::Debug for ApiDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiDeps")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The routes that report the state of the node: they are also answered while the node may not
/// serve.
const ALWAYS: [&str; 4] = [
    "/metrics",
    "/api/henge/v1/cluster",
    "/api/henge/v1/node",
    "/api/henge/v1/node/tasks",
];

/// A node that may not serve answers no request about repositories: its state may be obsolete.
async fn while_serving(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.backend.serving() {
        Err(reason) if !ALWAYS.contains(&request.uri().path()) => {
            ApiError::new(ErrorCode::Unavailable, reason).into_response()
        }
        Ok(()) | Err(_) => next.run(request).await,
    }
}

async fn no_such_route(_: Authorized<MissRoute>, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(256).collect();
    ApiError::not_found(format!("there is no {path} in this API: see docs/api.md"))
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let error = ApiError::invalid(format!("{} does not take {method}", uri.path()));
    error.with_status(StatusCode::METHOD_NOT_ALLOWED)
}

fn api_routes() -> Routes {
    Routes::new()
        .merge(gitea::routes())
        .merge(own::routes())
        .at("/api", any(MissRoute, no_such_route))
        .at("/api/", any(MissRoute, no_such_route))
        .at("/api/{*rest}", any(MissRoute, no_such_route))
        .under(|router| {
            router
                .method_not_allowed_fallback(no_such_method)
                .layer(middleware::from_fn(request::within_deadline))
                .layer(middleware::from_fn(request::only_as_json))
        })
}

/// The routes behind the gate.
fn gated_routes() -> Routes {
    api_routes().merge(health::metrics_routes())
}

/// Every route but git's, with its action.
pub fn routes() -> Vec<Route> {
    gated_routes()
        .merge(health::routes())
        .into_parts()
        .1
        .routes()
}

/// All of a node's HTTP: git, the API, health and metrics. Everything but `/healthz`, `/readyz` and
/// reading public repositories needs the token.
pub fn router(deps: ApiDeps) -> Router {
    metrics::describe();
    metrics::build_info(deps.version);
    let api = Api {
        backend: deps.backend,
        metrics: deps.metrics,
        version: deps.version,
        work: deps.work,
    };
    let observer = Observer::new(Arc::clone(&deps.clock));
    let (gated, rules) = gated_routes().into_parts();
    let gate = Gate::new(rules, deps.tokens, deps.anonymous_reads, deps.clock);
    let (health, _) = health::routes().into_parts();
    gated
        .fallback_service(deps.git)
        .layer(middleware::from_fn_with_state(api.clone(), while_serving))
        .layer(middleware::from_fn_with_state(gate, auth::authenticate))
        .merge(health)
        .layer(middleware::from_fn_with_state(observer, request::observe))
        .with_state(api)
}
