//! The ports of each node, and whether they are free.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use henge_types::NodeId;
use thiserror::Error;

use super::layout::Settings;

/// A port that a node needs and cannot use.
#[derive(Debug, Error)]
pub(crate) enum PortError {
    /// Another program listens on it.
    #[error(
        "port {} on {} is in use, and node {node} needs it for {purpose}: stop what listens there, \
         or make another cluster with another --dir and --base-port",
        .address.port(),
        .address.ip()
    )]
    InUse {
        address: SocketAddr,
        node: NodeId,
        purpose: &'static str,
    },
    /// Listening fails for another reason.
    #[error("cannot listen on {address} for node {node}'s {purpose}: {source}")]
    Refused {
        address: SocketAddr,
        node: NodeId,
        purpose: &'static str,
        source: io::Error,
    },
}

/// Node `node`'s HTTP listener.
pub(crate) fn http(base: u16, node: NodeId) -> SocketAddr {
    at(base, node, 0)
}

/// Node `node`'s cluster listener, TCP and UDP. The twenty ports before it are reserved for SSH.
pub(crate) fn rpc(base: u16, node: NodeId) -> SocketAddr {
    at(base, node, 40)
}

fn at(base: u16, node: NodeId, offset: u16) -> SocketAddr {
    let port = u16::try_from(node.get())
        .ok()
        .and_then(|node| base.checked_add(offset)?.checked_add(node))
        .expect("invariant: base port and nodes are bounded so that every port fits");
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Checks that every port is free. Another program may still take one before the node does: the
/// node's log then has the error.
pub(crate) fn check(settings: &Settings) -> Result<(), PortError> {
    for node in settings.nodes() {
        let (http, rpc) = (
            http(settings.base_port, node),
            rpc(settings.base_port, node),
        );
        free(http, node, "HTTP", TcpListener::bind(http).map(drop))?;
        free(
            rpc,
            node,
            "cluster traffic (TCP)",
            TcpListener::bind(rpc).map(drop),
        )?;
        free(
            rpc,
            node,
            "cluster traffic (UDP)",
            UdpSocket::bind(rpc).map(drop),
        )?;
    }
    Ok(())
}

fn free(
    address: SocketAddr,
    node: NodeId,
    purpose: &'static str,
    bound: io::Result<()>,
) -> Result<(), PortError> {
    bound.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            PortError::InUse {
                address,
                node,
                purpose,
            }
        } else {
            PortError::Refused {
                address,
                node,
                purpose,
                source,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ClusterId;

    #[test]
    fn ports_are_counted_from_the_base() {
        let node = NodeId::new(2);
        assert_eq!(http(7400, node).to_string(), "127.0.0.1:7402");
        assert_eq!(rpc(7400, node).to_string(), "127.0.0.1:7442");
        assert_eq!(rpc(65_476, NodeId::new(19)).port(), 65_535);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let settings = Settings {
            cluster_id: ClusterId::from_bytes([1; 16]),
            nodes: 1,
            shards: 1,
            base_port: port - 1,
        };
        let error = check(&settings).expect_err("in use").to_string();
        assert!(
            error.contains(&format!("port {port} on 127.0.0.1")),
            "{error}"
        );
        assert!(error.contains("node 1 needs it for HTTP"), "{error}");
    }
}
