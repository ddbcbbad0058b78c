//! The reports of the cluster and its nodes.

use futures::future::BoxFuture;
use henge_types::status::{ClusterStatus, NodeReport};
use henge_types::tasks::NodeTasks;

/// The state of the cluster and of this node.
pub trait Status {
    /// The cluster, from all members that answer within about a second; needs no quorum.
    fn status(&self) -> BoxFuture<'_, ClusterStatus>;

    /// The report of this node.
    fn report(&self) -> NodeReport;

    /// The background tasks of this node.
    fn tasks(&self) -> NodeTasks;

    /// Whether this node serves.
    ///
    /// # Errors
    /// The reason why not, for people.
    fn ready(&self) -> Result<(), String>;

    /// Whether the node may serve clients at all: its start is registered with the cluster.
    ///
    /// # Errors
    /// The reason why not, for people.
    fn serving(&self) -> Result<(), String> {
        Ok(())
    }
}
