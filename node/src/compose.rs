//! A node's parts, wired together. The only place that knows them all.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use henge_client::Secret;
use henge_runtime::Scope;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::data_dir::TlsPaths;
use crate::http_server::HttpServer;
use crate::identity::Identity;

/// What a node is made of.
#[expect(
    dead_code,
    reason = "the cluster takes identity, certificates, token and the Raft runtime when it is wired in"
)]
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) identity: Identity,
    pub(crate) tls: TlsPaths,
    pub(crate) token: Secret,
    /// Where Raft runs.
    pub(crate) raft: Handle,
    /// Where everything else runs.
    pub(crate) scope: Scope,
}

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Node {
    scope: Scope,
    http: HttpServer,
}

impl Node {
    /// Starts the parts, each after those that it needs.
    pub(crate) async fn start(parts: Parts<'_>) -> anyhow::Result<Self> {
        let listen = parts.config.http_listen;
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route(
                "/readyz",
                get(|| async {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "this build has no cluster\n",
                    )
                }),
            );
        let http = HttpServer::start(listen, router, &parts.scope)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        Ok(Self {
            scope: parts.scope,
            http,
        })
    }

    /// Stops the parts in the reverse order of their start.
    pub(crate) async fn stop(self, deadline: Duration) -> anyhow::Result<()> {
        let ended = self.http.stop(deadline).await;
        anyhow::ensure!(ended, "requests were cut off");
        anyhow::ensure!(
            self.scope.shutdown(deadline).await,
            "not everything stopped within {} s",
            deadline.as_secs()
        );
        Ok(())
    }
}
