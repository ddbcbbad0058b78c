//! Everything put together: routes, authentication, deadlines.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use henge_auth::Authorized;
use henge_auth::action::{
    CreateRepo, DeleteRepo, EditRepo, ForkRepo, InspectRepo, LimitRepo, ListRepos, MaintainRepo,
    MirrorRepo, MissRoute, ProtectRefs, ReadAccount, ReadCluster, ReadHealth, ReadMetrics,
    ReadRepo, TransferRepo, WriteRefs,
};
use henge_runtime::{Clock, Scope};
use henge_types::ErrorCode;
use http::{Method, StatusCode, Uri};

use crate::auth::{self, AnonymousReads, Gate};
use crate::backend::Backend;
use crate::error::ApiError;
use crate::metrics::{self, MetricsHandle};
use crate::request::Observer;
use crate::routes::{Route, Routes, any, get, post, put};
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
const ALWAYS: [&str; 4] = [
    "/metrics",
    "/api/henge/v1/cluster",
    "/api/henge/v1/node",
    "/api/henge/v1/node/tasks",
];

/// A node that may not serve answers nothing about repositories: it may show what the cluster has left behind.
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

fn mirror_routes() -> Routes {
    Routes::new()
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors",
            get(InspectRepo, own::list_mirrors).post(MirrorRepo, own::add_mirror),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}",
            get(InspectRepo, own::get_mirror)
                .patch(MirrorRepo, own::edit_mirror)
                .delete(MirrorRepo, own::remove_mirror),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/mirrors/{id}/sync",
            post(MirrorRepo, own::sync_mirror),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/mirror-sync",
            post(MirrorRepo, gitea::sync_pull_mirror),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/push_mirrors",
            get(InspectRepo, gitea::list_push_mirrors).post(MirrorRepo, gitea::add_push_mirror),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/push_mirrors/{name}",
            get(InspectRepo, gitea::get_push_mirror).delete(MirrorRepo, gitea::delete_push_mirror),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/push_mirrors-sync",
            post(MirrorRepo, gitea::sync_push_mirrors),
        )
}

fn branch_routes() -> Routes {
    Routes::new()
        .at(
            "/api/v1/repos/{owner}/{repo}/branch_protections",
            get(InspectRepo, gitea::list_protections).post(ProtectRefs, gitea::create_protection),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/branch_protections/{*name}",
            get(InspectRepo, gitea::get_protection)
                .patch(ProtectRefs, gitea::edit_protection)
                .delete(ProtectRefs, gitea::delete_protection),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/branches",
            get(ReadRepo, gitea::list_branches),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/branches/{*branch}",
            get(ReadRepo, gitea::get_branch),
        )
}

fn ref_routes() -> Routes {
    Routes::new()
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/refs",
            post(WriteRefs, own::update_refs),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/push-certificates",
            get(InspectRepo, own::list_certificates),
        )
}

fn api_routes() -> Routes {
    Routes::new()
        .at("/api/v1/version", get(ReadCluster, gitea::version))
        .at("/api/v1/user", get(ReadAccount, gitea::current_user))
        .at("/api/v1/user/repos", post(CreateRepo, gitea::create_repo))
        .at("/api/v1/repos/search", get(ListRepos, gitea::search_repos))
        .at(
            "/api/v1/repos/{owner}/{repo}",
            get(ReadRepo, gitea::get_repo)
                .patch(EditRepo, gitea::edit_repo)
                .delete(DeleteRepo, gitea::delete_repo),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/transfer",
            post(TransferRepo, gitea::transfer_repo),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/topics",
            get(ReadRepo, gitea::get_topics).put(EditRepo, gitea::put_topics),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/topics/{topic}",
            put(EditRepo, gitea::add_topic).delete(EditRepo, gitea::remove_topic),
        )
        .at(
            "/api/v1/repos/{owner}/{repo}/forks",
            get(InspectRepo, gitea::list_forks).post(ForkRepo, gitea::fork_repo),
        )
        .at(
            "/api/henge/v1/cluster",
            get(ReadCluster, own::cluster_status),
        )
        .at("/api/henge/v1/node", get(ReadCluster, own::node_report))
        .at(
            "/api/henge/v1/node/tasks",
            get(ReadCluster, own::node_tasks),
        )
        .at(
            "/api/henge/v1/repos",
            get(ListRepos, own::list_repos).post(CreateRepo, own::create_repo),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}",
            get(InspectRepo, own::get_repo),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/gc",
            post(MaintainRepo, own::gc),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/stats",
            get(InspectRepo, own::stats),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/limits",
            get(InspectRepo, own::limits).put(LimitRepo, own::set_limits),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/push-rules",
            get(InspectRepo, own::push_rules).put(LimitRepo, own::set_push_rules),
        )
        .at(
            "/api/henge/v1/repos/{owner}/{repo}/fsck",
            get(InspectRepo, own::fsck).post(MaintainRepo, own::start_fsck),
        )
        .merge(ref_routes())
        .merge(branch_routes())
        .merge(mirror_routes())
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
    api_routes().at("/metrics", get(ReadMetrics, health::metrics))
}

/// The routes in front of the gate, which are answered whatever a request says of who sends it.
fn health_routes() -> Routes {
    Routes::new()
        .at("/healthz", get(ReadHealth, health::healthz))
        .at("/readyz", get(ReadHealth, health::readyz))
}

/// Every route but git's, with the action that it stands for.
pub fn routes() -> Vec<Route> {
    gated_routes()
        .merge(health_routes())
        .into_parts()
        .1
        .routes()
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
    let observer = Observer::new(Arc::clone(&deps.clock));
    let (gated, rules) = gated_routes().into_parts();
    let gate = Gate::new(rules, deps.tokens, deps.anonymous_reads, deps.clock);
    let (health, _) = health_routes().into_parts();
    gated
        .fallback_service(deps.git)
        .layer(middleware::from_fn_with_state(api.clone(), while_serving))
        .layer(middleware::from_fn_with_state(gate, auth::authenticate))
        .merge(health)
        .layer(middleware::from_fn_with_state(observer, request::observe))
        .with_state(api)
}
