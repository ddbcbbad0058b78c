//! Everything put together: routes, authentication, deadlines.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Router, middleware};
use henge_runtime::{Clock, Scope};
use henge_types::ErrorCode;
use http::{Method, StatusCode, Uri};

use crate::auth::{self, AnonymousReads, Gate};
use crate::backend::Backend;
use crate::error::ApiError;
use crate::metrics::{self, MetricsHandle};
use crate::request::Observer;
use crate::tokens::Tokens;
use crate::{gitea, health, own, request};

/// What the router needs.
#[derive(Clone)]
pub struct ApiDeps {
    /// The cluster.
    pub backend: Arc<dyn Backend>,
    /// The git protocol ([`henge_git::http::router`]): everything that is not the API, health or metrics
    /// goes there, with a [`henge_git::http::Caller`] in its extensions.
    pub git: Router,
    /// Who is let in.
    pub tokens: Tokens,
    /// What is answered to whoever has none.
    pub anonymous_reads: AnonymousReads,
    /// The page of metrics.
    pub metrics: MetricsHandle,
    /// This release.
    pub version: &'static str,
    /// For latencies.
    pub clock: Arc<dyn Clock>,
    /// Where work runs that would hold up the threads that serve.
    pub work: Scope,
}

impl fmt::Debug for ApiDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiDeps")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) metrics: MetricsHandle,
    pub(crate) version: &'static str,
    work: Scope,
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

/// What tells how a node stands is answered also while it may not serve.
const ALWAYS: [&str; 3] = ["/metrics", "/api/henge/v1/cluster", "/api/henge/v1/node"];

/// A node that may not serve answers nothing about repositories: it may show what the cluster has left behind.
async fn while_serving(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.backend.serving() {
        Err(reason) if !ALWAYS.contains(&request.uri().path()) => {
            ApiError::new(ErrorCode::Unavailable, reason).into_response()
        }
        Ok(()) | Err(_) => next.run(request).await,
    }
}

async fn no_such_route(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(256).collect();
    ApiError::not_found(format!("there is no {path} in this API: see docs/api.md"))
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let error = ApiError::invalid(format!("{} does not take {method}", uri.path()));
    error.with_status(StatusCode::METHOD_NOT_ALLOWED)
}

fn mirror_routes() -> Router<Api> {
    Router::new()
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors",
            get(own::list_mirrors).post(own::add_mirror),
        )
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}",
            get(own::get_mirror)
                .patch(own::edit_mirror)
                .delete(own::remove_mirror),
        )
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}/sync",
            post(own::sync_mirror),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/mirror-sync",
            post(gitea::sync_pull_mirror),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/push_mirrors",
            get(gitea::list_push_mirrors).post(gitea::add_push_mirror),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/push_mirrors/{name}",
            get(gitea::get_push_mirror).delete(gitea::delete_push_mirror),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/push_mirrors-sync",
            post(gitea::sync_push_mirrors),
        )
}

fn branch_routes() -> Router<Api> {
    Router::new()
        .route(
            "/api/v1/repos/{owner}/{repo}/branch_protections",
            get(gitea::list_protections).post(gitea::create_protection),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/branch_protections/{*name}",
            get(gitea::get_protection)
                .patch(gitea::edit_protection)
                .delete(gitea::delete_protection),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/branches",
            get(gitea::list_branches),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/branches/{*branch}",
            get(gitea::get_branch),
        )
}

fn ref_routes() -> Router<Api> {
    Router::new()
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/refs",
            post(own::update_refs),
        )
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/push-certificates",
            get(own::list_certificates),
        )
}

fn api_routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/version", get(gitea::version))
        .route("/api/v1/user", get(gitea::current_user))
        .route("/api/v1/user/repos", post(gitea::create_repo))
        .route("/api/v1/repos/search", get(gitea::search_repos))
        .route(
            "/api/v1/repos/{owner}/{repo}",
            get(gitea::get_repo)
                .patch(gitea::edit_repo)
                .delete(gitea::delete_repo),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/transfer",
            post(gitea::transfer_repo),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/topics",
            get(gitea::get_topics).put(gitea::put_topics),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/topics/{topic}",
            put(gitea::add_topic).delete(gitea::remove_topic),
        )
        .route(
            "/api/v1/repos/{owner}/{repo}/forks",
            get(gitea::list_forks).post(gitea::fork_repo),
        )
        .route("/api/henge/v1/cluster", get(own::cluster_status))
        .route("/api/henge/v1/node", get(own::node_report))
        .route(
            "/api/henge/v1/repos",
            get(own::list_repos).post(own::create_repo),
        )
        .route("/api/henge/v1/repos/{owner}/{repo}", get(own::get_repo))
        .route("/api/henge/v1/repos/{owner}/{repo}/gc", post(own::gc))
        .route("/api/henge/v1/repos/{owner}/{repo}/stats", get(own::stats))
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/limits",
            get(own::limits).put(own::set_limits),
        )
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/push-rules",
            get(own::push_rules).put(own::set_push_rules),
        )
        .route(
            "/api/henge/v1/repos/{owner}/{repo}/fsck",
            get(own::fsck).post(own::start_fsck),
        )
        .merge(ref_routes())
        .merge(branch_routes())
        .merge(mirror_routes())
        .route("/api", any(no_such_route))
        .route("/api/", any(no_such_route))
        .route("/api/{*rest}", any(no_such_route))
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(request::within_deadline))
        .layer(middleware::from_fn(request::only_as_json))
}

/// All of a node's HTTP: git, the API, health and metrics. Everything but `/healthz`, `/readyz` and reading public
/// repositories needs the token.
pub fn router(deps: ApiDeps) -> Router {
    metrics::describe();
    metrics::build_info(deps.version);
    let api = Api {
        backend: deps.backend,
        metrics: deps.metrics,
        version: deps.version,
        work: deps.work,
    };
    let gate = Gate::new(deps.tokens, deps.anonymous_reads, Arc::clone(&deps.clock));
    let observer = Observer::new(deps.clock);
    api_routes()
        .route("/metrics", get(health::metrics))
        .fallback_service(deps.git)
        .layer(middleware::from_fn_with_state(api.clone(), while_serving))
        .layer(middleware::from_fn_with_state(gate, auth::authenticate))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .layer(middleware::from_fn_with_state(observer, request::observe))
        .with_state(api)
}
