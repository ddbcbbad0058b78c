//! HTTP of a node: the API, health and metrics, and the authentication in front of them and of git.
//!
//! - [`router`]: the complete router. [`ApiDeps`]: its dependencies. [`routes()`]: every route with
//!   its action.
//! - [`Backend`]: the interface of the API to the cluster, a trait for each subject; tests have one
//!   in memory.
//! - [`Tokens`]: the accepted tokens, replaceable while the node runs; the layer that checks them
//!   is before every route but health.
//! - [`ApiError`]: the shape of failures, and the one place that maps error codes to HTTP statuses.
//! - [`MetricsHandle`]: the page of metrics; [`metrics`]: names and help of this crate's own.
//! - `gitea`: routes and shapes of Gitea's API under `/api/v1`, a file for each feature.
//! - `own`: ours under `/api/henge/v1`, a file for each feature; the shapes are those of
//!   [`henge_client::model`].
//!
//! It deliberately has no knowledge of Raft, packs or disks, keeps no state between requests, and
//! does not listen: the node owns the sockets. The git protocol is a router that the node passes
//! in.

mod api;
mod auth;
mod backend;
mod error;
mod extract;
mod gitea;
mod health;
pub mod metrics;
mod origin;
mod own;
mod refusal_log;
mod request;
mod router;
mod routes;
mod timestamp;
mod tokens;
mod wrong_tokens;

pub use self::metrics::{InstallError, MetricsHandle};
pub use auth::AnonymousReads;
pub use backend::{
    Answer, Backend, Home, Limits, Maintenance, Mirrors, NewRepo, PushCertificates, References,
    Refs, RepoEdit, Repositories, Status,
};
pub use error::ApiError;
pub use router::{ApiDeps, router, routes};
pub use routes::Route;
pub use tokens::{InvalidToken, TokenSet, Tokens};
