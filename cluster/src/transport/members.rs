//! The members of the cluster, their addresses and their incarnations.
//!
//! Every call between nodes names caller and incarnation. A caller that is not in the membership is
//! refused before openraft sees the call: a wiped follower must never be counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use henge_types::{ClusterId, Incarnation, NodeId, NodeRecord};
use thiserror::Error;

/// The identity of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's number.
    pub node: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
}

/// The reason why a caller was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Stranger {
    /// The call carries no identity.
    #[error("the caller does not say who it is")]
    Silent,
    /// The caller belongs to another cluster.
    #[error("the caller belongs to cluster {0}")]
    OtherCluster(ClusterId),
    /// The certificate names another node.
    #[error("the caller says it is node {said}, its certificate says {certificate:?}")]
    Certificate {
        /// The node in the call.
        said: NodeId,
        /// The node in its certificate.
        certificate: Option<NodeId>,
    },
    /// No member has that number.
    #[error("node {0} is not a member")]
    NotAMember(NodeId),
    /// The member's disk was wiped, or this is an old copy of it.
    #[error(
        "node {node} is a member as incarnation {member}, not as {said}: start it with the data directory of incarnation {member}; where that is gone, leave it stopped"
    )]
    Incarnation {
        /// The node.
        node: NodeId,
        /// The incarnation in the membership.
        member: Incarnation,
        /// The incarnation in the call.
        said: Incarnation,
    },
}

/// The members known to this node; clones share them.
#[derive(Debug, Clone)]
pub struct Members {
    own: Identity,
    nodes: Arc<RwLock<BTreeMap<NodeId, NodeRecord>>>,
}

impl Members {
    /// Starts with the founders; the meta group's state takes over once it is there.
    pub fn new(own: Identity, founders: &[NodeRecord]) -> Self {
        let nodes = founders
            .iter()
            .map(|node| (node.node, node.clone()))
            .collect();
        Self {
            own,
            nodes: Arc::new(RwLock::new(nodes)),
        }
    }

    /// The identity of this node.
    pub fn own(&self) -> Identity {
        self.own
    }

    /// The record of a member, with its addresses.
    pub fn get(&self, node: NodeId) -> Option<NodeRecord> {
        self.read().get(&node).cloned()
    }

    /// All of them, by number.
    pub fn all(&self) -> Vec<NodeRecord> {
        self.read().values().cloned().collect()
    }

    /// Whether a member has this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        let nodes = self.read();
        let mut addresses = nodes.values().map(|node| node.rpc.parse::<SocketAddr>());
        addresses.any(|rpc| rpc.is_ok_and(|rpc| rpc.ip().to_canonical() == address))
    }

    /// Replaces the members by those in the meta group's state.
    pub fn replace(&self, nodes: Vec<NodeRecord>) {
        let nodes = nodes.into_iter().map(|node| (node.node, node)).collect();
        *self
            .nodes
            .write()
            .expect("invariant: replacing members does not panic") = nodes;
    }

    /// Whether a call of this caller is admitted.
    ///
    /// # Errors
    /// With the reason of the refusal.
    pub fn admit(&self, said: &Identity, certificate: Option<NodeId>) -> Result<NodeId, Stranger> {
        if said.cluster != self.own.cluster {
            return Err(Stranger::OtherCluster(said.cluster));
        }
        if certificate != Some(said.node) {
            return Err(Stranger::Certificate {
                said: said.node,
                certificate,
            });
        }
        let nodes = self.read();
        let member = nodes
            .get(&said.node)
            .ok_or(Stranger::NotAMember(said.node))?;
        if member.incarnation != said.incarnation {
            return Err(Stranger::Incarnation {
                node: said.node,
                member: member.incarnation,
                said: said.incarnation,
            });
        }
        Ok(said.node)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<NodeId, NodeRecord>> {
        self.nodes
            .read()
            .expect("invariant: replacing members does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: u64, life: u8) -> Identity {
        Identity {
            cluster: ClusterId::from_bytes([1; 16]),
            node: NodeId::new(node),
            incarnation: Incarnation::from_bytes([life; 16]),
        }
    }

    fn members() -> Members {
        let record = |node: u64| NodeRecord {
            node: NodeId::new(node),
            incarnation: Incarnation::from_bytes([1; 16]),
            rpc: String::new(),
            http: String::new(),
        };
        Members::new(identity(1, 1), &[record(1), record(2)])
    }

    #[test]
    fn a_member_in_its_incarnation_is_admitted() {
        assert_eq!(
            members().admit(&identity(2, 1), Some(NodeId::new(2))),
            Ok(NodeId::new(2))
        );
    }

    #[test]
    fn a_wiped_member_is_refused() {
        let refused = members().admit(&identity(2, 9), Some(NodeId::new(2)));
        assert!(
            matches!(refused, Err(Stranger::Incarnation { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn strangers_and_borrowed_names_are_refused() {
        let members = members();
        assert_eq!(
            members.admit(&identity(3, 1), Some(NodeId::new(3))),
            Err(Stranger::NotAMember(NodeId::new(3)))
        );
        let borrowed = members.admit(&identity(2, 1), Some(NodeId::new(1)));
        assert!(
            matches!(borrowed, Err(Stranger::Certificate { .. })),
            "{borrowed:?}"
        );
        let mut other = identity(2, 1);
        other.cluster = ClusterId::from_bytes([2; 16]);
        assert_eq!(
            members.admit(&other, Some(NodeId::new(2))),
            Err(Stranger::OtherCluster(other.cluster))
        );
    }
}
