//! What the cluster and its nodes say of themselves.

use futures::future::BoxFuture;
use henge_types::status::{ClusterStatus, NodeReport};
use henge_types::tasks::NodeTasks;

/// The state of the cluster and of this node.
pub trait Status {
    /// The cluster, as far as its members answer in about a second; needs no quorum.
    fn status(&self) -> BoxFuture<'_, ClusterStatus>;

    /// What this node says of itself.
    fn report(&self) -> NodeReport;

    /// What this node does in the background.
    fn tasks(&self) -> NodeTasks;

    /// Whether this node serves; else why not.
    ///
    /// # Errors
    /// The reason, for a person.
    fn ready(&self) -> Result<(), String>;

    /// Whether the node may serve clients at all: its start is registered with the cluster.
    ///
    /// # Errors
    /// The reason, for a person.
    fn serving(&self) -> Result<(), String> {
        Ok(())
    }
}
