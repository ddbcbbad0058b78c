//! The environment of a node, injected: the machine's own parts, or those of a test.

use std::sync::Arc;

use henge_runtime::{Clock, Random};
use henge_storage::disk::Disk;
use henge_storage::wal::OnFatal;

use crate::transport::network::Network;

/// The environment of a node; clones share it.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its clocks.
    pub clock: Arc<dyn Clock>,
    /// Its random numbers.
    pub random: Arc<dyn Random>,
    /// The disk of the write-ahead log and of the node's starts. The kv and the snapshots are files
    /// of the operating system.
    pub disk: Arc<dyn Disk>,
    /// Its connections to the other nodes.
    pub network: Arc<dyn Network>,
    /// The consequence of an I/O error of the log. On a simulated disk the process goes on.
    pub on_log_failure: OnFatal,
}
