//! The cluster, and the node that answers.

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::ReadCluster;
use henge_types::status::{ClusterStatus, NodeReport};
use henge_types::tasks::NodeTasks;

use crate::api::Api;
use crate::routes::{Routes, get};

pub(super) fn routes() -> Routes {
    Routes::new()
        .at("/api/henge/v1/cluster", get(ReadCluster, cluster_status))
        .at("/api/henge/v1/node", get(ReadCluster, node_report))
        .at("/api/henge/v1/node/tasks", get(ReadCluster, node_tasks))
}

/// `GET /api/henge/v1/cluster`: also answered without a quorum.
async fn cluster_status(_: Authorized<ReadCluster>, State(api): State<Api>) -> Json<ClusterStatus> {
    Json(api.backend.status().await)
}

/// `GET /api/henge/v1/node`: the report of the node that answers.
async fn node_report(_: Authorized<ReadCluster>, State(api): State<Api>) -> Json<NodeReport> {
    Json(api.backend.report())
}

/// `GET /api/henge/v1/node/tasks`: the background tasks of the node that answers.
async fn node_tasks(_: Authorized<ReadCluster>, State(api): State<Api>) -> Json<NodeTasks> {
    Json(api.backend.tasks())
}
