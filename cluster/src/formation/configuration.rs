//! A node whose configuration names another cluster than its own, or other addresses of its
//! members.

use std::sync::atomic::Ordering;

use henge_types::NodeRecord;
use sha2::{Digest, Sha256};

use super::Formation;
use crate::config::ClusterConfig;

impl Formation {
    /// Ends a node whose configuration names another cluster than its own, because it would route
    /// by that configuration. If only addresses of the same members differ, the node continues with
    /// the cluster's addresses.
    pub(super) fn check_configuration(&self, nodes: &[NodeRecord]) {
        let config = &self.cluster.shared.config;
        let shards = self.meta(|meta| meta.cluster().map(|cluster| cluster.shards));
        if let Some(shards) = shards.flatten()
            && let Some(reason) = mismatch(config, shards, nodes)
        {
            self.cluster.shared.starts.end(&reason);
            return;
        }
        let moved = other_addresses(config, nodes);
        if !moved.is_empty() && !self.told_addresses.swap(true, Ordering::Relaxed) {
            for said in moved {
                tracing::warn!("{said}");
            }
        }
    }
}

/// Digest of the configuration that founders must agree on before another founder than the first
/// begins the meta group: the founders and the shards.
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

/// The difference between a node's configuration and its cluster; `None` if there is none.
fn mismatch(config: &ClusterConfig, shards: u32, nodes: &[NodeRecord]) -> Option<String> {
    let advice = "the shards and founders of a cluster are fixed when it is formed: set them in node.toml as they were";
    if config.shards != shards {
        let said = config.shards;
        return Some(format!(
            "node.toml says {said} shards, the cluster was formed with {shards}: {advice}"
        ));
    }
    let is_named =
        |by: &[NodeRecord], node: &NodeRecord| by.iter().any(|other| is_same(other, node));
    let founders = &config.founders;
    if let Some(founder) = founders.iter().find(|founder| !is_named(nodes, founder)) {
        let member = nodes.iter().find(|node| node.node == founder.node);
        let known = member.map_or_else(|| "no such node".to_owned(), describe);
        return Some(format!(
            "node.toml names as a founder {}, the cluster knows {known}: {advice}",
            describe(founder)
        ));
    }
    let missing = nodes.iter().find(|node| !is_named(founders, node))?;
    Some(format!(
        "node.toml does not name {}, which founded the cluster: {advice}",
        describe(missing)
    ))
}

/// Whether both are the same incarnation of the same node, at any address.
fn is_same(one: &NodeRecord, other: &NodeRecord) -> bool {
    (one.node, one.incarnation) == (other.node, other.incarnation)
}

/// The founders whose addresses in the configuration differ from the cluster's, as warnings.
fn other_addresses(config: &ClusterConfig, nodes: &[NodeRecord]) -> Vec<String> {
    let founders = config.founders.iter();
    let pairs = founders.filter_map(|founder| {
        let known = nodes.iter().find(|node| is_same(node, founder))?;
        (known != founder).then_some((founder, known))
    });
    let say = |(founder, known): (&NodeRecord, &NodeRecord)| {
        format!(
            "node.toml says that node {} is reached at rpc {} and http {}, the cluster knows rpc {} and http {}: this node goes on \
             with the addresses that the cluster knows, and so do the others",
            founder.node, founder.rpc, founder.http, known.rpc, known.http
        )
    };
    pairs.map(say).collect()
}

fn describe(node: &NodeRecord) -> String {
    format!(
        "node {} (incarnation {}, rpc {}, http {})",
        node.node, node.incarnation, node.rpc, node.http
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timings;
    use crate::transport::members::Identity;
    use crate::transport::tls::TlsFiles;
    use henge_types::{ClusterId, Incarnation, NodeId};

    fn node(number: u64, life: u8, http: &str) -> NodeRecord {
        NodeRecord {
            node: NodeId::new(number),
            incarnation: Incarnation::from_bytes([life; 16]),
            rpc: format!("10.0.0.{number}:7000"),
            http: http.to_owned(),
        }
    }

    fn config(shards: u32, founders: Vec<NodeRecord>) -> ClusterConfig {
        ClusterConfig {
            identity: Identity {
                cluster: ClusterId::from_bytes([1; 16]),
                node: NodeId::new(1),
                incarnation: Incarnation::from_bytes([1; 16]),
            },
            listen: "127.0.0.1:0".parse().expect("an address"),
            rpc: String::new(),
            http: String::new(),
            data_dir: std::path::PathBuf::new(),
            tls: TlsFiles {
                ca: std::path::PathBuf::new(),
                cert: std::path::PathBuf::new(),
                key: std::path::PathBuf::new(),
            },
            founders,
            shards,
            replication: 3,
            timings: Timings {
                heartbeat_ms: 100,
                election_ms_min: 500,
                election_ms_max: 1000,
            },
            wal_segment_bytes: 1,
            wal_bytes_max: 1,
            version: String::new(),
        }
    }

    /// A changed address in node.toml after the formation of the cluster made the node end, from
    /// the upgrade that brought the check on. Its founders had not changed.
    #[test]
    fn other_addresses_are_told_and_not_refused() {
        let nodes = [node(1, 1, "one:80"), node(2, 2, "two:80")];
        let same = config(4, nodes.to_vec());
        assert_eq!(mismatch(&same, 4, &nodes), None);
        assert_eq!(other_addresses(&same, &nodes), Vec::<String>::new());
        let moved = config(4, vec![node(2, 2, "two:8080"), node(1, 1, "one:80")]);
        assert_eq!(mismatch(&moved, 4, &nodes), None);
        let told = other_addresses(&moved, &nodes);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("http two:8080, the cluster knows rpc 10.0.0.2:7000 and http two:80")
        );
    }

    #[test]
    fn another_cluster_is_refused() {
        let nodes = [node(1, 1, "one:80"), node(2, 2, "two:80")];
        let refused = |shards, founders: &[NodeRecord]| {
            let refused = mismatch(&config(shards, founders.to_vec()), 4, &nodes);
            refused.expect("refused")
        };
        assert!(refused(5, &nodes).contains("5 shards"));
        assert!(refused(4, &nodes[..1]).contains("does not name node 2"));
        let wiped = [node(1, 1, "one:80"), node(2, 9, "two:80")];
        assert!(refused(4, &wiped).contains("names as a founder node 2"));
        let more = [&nodes[..], &[node(3, 3, "three:80")]].concat();
        assert!(refused(4, &more).contains("no such node"));
    }
}
