//! A node whose configuration names another cluster than the one that it is in.

use henge_types::NodeRecord;
use sha2::{Digest, Sha256};

use super::Formation;
use crate::config::ClusterConfig;

impl Formation {
    /// A node whose configuration names another cluster than the one it is in ends: it would route by it.
    pub(super) fn check_configuration(&self, nodes: &[NodeRecord]) {
        let config = &self.cluster.shared.config;
        let shards = self.meta(|meta| meta.cluster().map(|cluster| cluster.shards));
        if let Some(shards) = shards.flatten()
            && let Some(reason) = mismatch(config, shards, nodes)
        {
            self.cluster.shared.starts.end(&reason);
        }
    }
}

/// What founders must agree on before one that is not the first begins the meta group: who they are, and the shards.
pub(crate) fn digest(config: &ClusterConfig) -> [u8; 32] {
    let mut founders: Vec<_> = config.founders.iter().collect();
    founders.sort_by_key(|founder| founder.node);
    let mut sha = Sha256::new();
    sha.update(config.shards.to_be_bytes());
    sha.update(config.replication.to_be_bytes());
    for founder in founders {
        sha.update(founder.node.get().to_be_bytes());
        sha.update(founder.incarnation.as_bytes());
    }
    sha.finalize().into()
}

/// What of a node's configuration differs from the cluster that it is in; `None` where nothing does.
fn mismatch(config: &ClusterConfig, shards: u32, nodes: &[NodeRecord]) -> Option<String> {
    let advice = "the shards and founders of a cluster are fixed when it is formed: set them in node.toml as they were";
    if config.shards != shards {
        let said = config.shards;
        return Some(format!(
            "node.toml says {said} shards, the cluster was formed with {shards}: {advice}"
        ));
    }
    let differs = |node: &&NodeRecord| !nodes.contains(node);
    if let Some(founder) = config.founders.iter().find(differs) {
        let member = nodes.iter().find(|node| node.node == founder.node);
        let known = member.map_or_else(|| "no such node".to_owned(), describe);
        return Some(format!(
            "node.toml names as a founder {}, the cluster knows {known}: {advice}",
            describe(founder)
        ));
    }
    let missing = nodes.iter().find(|node| !config.founders.contains(node))?;
    Some(format!(
        "node.toml does not name {}, which founded the cluster: {advice}",
        describe(missing)
    ))
}

fn describe(node: &NodeRecord) -> String {
    format!(
        "node {} (incarnation {}, rpc {}, http {})",
        node.node, node.incarnation, node.rpc, node.http
    )
}
