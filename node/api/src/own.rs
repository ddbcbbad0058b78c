//! Our own API: what Gitea has no word for.

mod certificates;
mod limits;
mod mirrors;
mod packs;
mod refs;
mod repos;

pub(crate) use certificates::list_certificates;
pub(crate) use limits::{limits, push_rules, set_limits, set_push_rules};
pub(crate) use mirrors::{
    add_mirror, change_mirror, edit_mirror, get_mirror, list_mirrors, remove_mirror, sync_mirror,
};
pub(crate) use packs::{fsck, gc, start_fsck, stats};
pub(crate) use refs::update_refs;
pub(crate) use repos::{create_repo, get_repo, list_repos};

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::ReadCluster;
use henge_types::status::{ClusterStatus, NodeReport};
use henge_types::tasks::NodeTasks;

use crate::router::Api;

/// `GET /api/henge/v1/cluster`: also answered without a quorum.
pub(crate) async fn cluster_status(
    _: Authorized<ReadCluster>,
    State(api): State<Api>,
) -> Json<ClusterStatus> {
    Json(api.backend.status().await)
}

/// `GET /api/henge/v1/node`: what the node that answers says of itself.
pub(crate) async fn node_report(
    _: Authorized<ReadCluster>,
    State(api): State<Api>,
) -> Json<NodeReport> {
    Json(api.backend.report())
}

/// `GET /api/henge/v1/node/tasks`: what the node that answers does in the background.
pub(crate) async fn node_tasks(
    _: Authorized<ReadCluster>,
    State(api): State<Api>,
) -> Json<NodeTasks> {
    Json(api.backend.tasks())
}
