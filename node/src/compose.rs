//! A node's parts, wired together. The only place that knows them all.

use std::future::IntoFuture as _;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use henge_client::Secret;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::data_dir::TlsPaths;
use crate::identity::Identity;

/// What a node is made of.
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
    failed: oneshot::Receiver<anyhow::Error>,
}

impl Node {
    /// Starts the parts, each after those that it needs.
    pub(crate) async fn start(parts: Parts<'_>) -> anyhow::Result<Self> {
        let listen = parts.config.http_listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
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
        let (report, failed) = oneshot::channel();
        let serve = axum::serve(listener, router).into_future();
        parts.scope.spawn("http", OnPanic::EndProcess, async move {
            if let Err(error) = serve.await {
                let error = anyhow::Error::new(error).context("the HTTP listener failed");
                drop(report.send(error));
            }
        });
        Ok(Self {
            scope: parts.scope,
            failed,
        })
    }

    /// Waits for a failure that the node cannot live with.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.failed).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops the parts in the reverse order of their start.
    pub(crate) async fn stop(self, deadline: Duration) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.scope.shutdown(deadline).await,
            "not everything stopped within {} s",
            deadline.as_secs()
        );
        Ok(())
    }
}
