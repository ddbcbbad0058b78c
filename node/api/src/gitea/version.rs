//! The release, in Gitea's dialect.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::ReadCluster;
use serde::Serialize;

use crate::api::Api;
use crate::routes::{Routes, get};

/// The release of Gitea whose shapes these are. Clients derive the available features from the
/// version; Forgejo's servers answer in the same way.
const GITEA: &str = "1.22.0";

pub(super) fn routes() -> Routes {
    Routes::new().at("/api/v1/version", get(ReadCluster, version))
}

#[derive(Serialize)]
struct Version {
    version: String,
}

/// `GET /api/v1/version`.
async fn version(_: Authorized<ReadCluster>, State(api): State<Api>) -> Json<Version> {
    Json(Version {
        version: format!("{}+gitea-{GITEA}", api.version),
    })
}
