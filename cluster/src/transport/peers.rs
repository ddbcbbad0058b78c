//! gRPC channels to the other nodes: opened on first use, kept, dialled by node, verified by
//! certificate.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use henge_proto::cluster::cluster_client::ClusterClient;
use henge_proto::cluster::raft_client::RaftClient;
use henge_runtime::failpoint;
use henge_types::{Incarnation, NodeId, limits};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::CUT_OFF;
use super::members::{Identity, Members};
use super::network::Network;
use super::tls::{ALPN_GRPC, Tls};
use crate::starts::Starts;
use crate::starts::headers::StartHeader;

/// Metadata: the caller's cluster.
pub const CLUSTER: &str = "henge-cluster";
/// Metadata: the caller's number.
pub const NODE: &str = "henge-node";
/// Metadata: the caller's incarnation.
pub const INCARNATION: &str = "henge-incarnation";

/// Time-out of dialling.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval of probes on an idle connection, so that a dead peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The node is not a member known here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("node {0} is not a member of the cluster")]
pub struct UnknownPeer(pub NodeId);

/// Adds the caller's identity to every call.
#[derive(Debug, Clone)]
pub struct Introduce {
    cluster: MetadataValue<Ascii>,
    node: MetadataValue<Ascii>,
    incarnation: MetadataValue<Ascii>,
    starts: Starts,
    /// The node that is called.
    callee: NodeId,
}

impl Introduce {
    fn new(own: &Identity, starts: Starts, callee: NodeId) -> Self {
        let value = |text: String| {
            MetadataValue::try_from(text).expect("invariant: ids are digits and letters")
        };
        Self {
            cluster: value(own.cluster.to_string()),
            node: value(own.node.to_string()),
            incarnation: value(own.incarnation.to_string()),
            starts,
            callee,
        }
    }
}

impl Interceptor for Introduce {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(NODE, self.node.clone());
        metadata.insert(INCARNATION, self.incarnation.clone());
        let header = StartHeader {
            claim: self.starts.claim(),
            known: self.starts.known(self.callee),
        };
        header.insert(metadata);
        Ok(request)
    }
}

/// The caller's identity in a call.
pub fn introduced(metadata: &tonic::metadata::MetadataMap) -> Option<Identity> {
    let text = |key| metadata.get(key)?.to_str().ok();
    Some(Identity {
        cluster: text(CLUSTER)?.parse().ok()?,
        node: NodeId::new(text(NODE)?.parse().ok()?),
        incarnation: text(INCARNATION)?.parse::<Incarnation>().ok()?,
    })
}

/// A channel that adds the caller's identity to its calls.
pub type PeerChannel = InterceptedService<Channel, Introduce>;

#[derive(Debug, Clone)]
struct Connected {
    address: String,
    channel: Channel,
}

/// Channels to the other nodes; clones share them.
#[derive(Debug, Clone)]
pub struct Peers {
    members: Members,
    tls: Tls,
    network: Arc<dyn Network>,
    introduce: Introduce,
    channels: Arc<Mutex<BTreeMap<NodeId, Connected>>>,
}

impl Peers {
    /// No channels.
    pub fn new(members: Members, starts: Starts, tls: Tls, network: Arc<dyn Network>) -> Self {
        let own = members.own();
        let introduce = Introduce::new(&own, starts, own.node);
        Self {
            members,
            tls,
            network,
            introduce,
            channels: Arc::default(),
        }
    }

    /// A client for the peer's Raft groups.
    ///
    /// # Errors
    /// When it is not a member.
    pub fn raft(&self, node: NodeId) -> Result<RaftClient<PeerChannel>, UnknownPeer> {
        let client = RaftClient::with_interceptor(self.channel(node)?, self.introduce(node));
        Ok(client
            .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::RPC_MESSAGE_BYTES_MAX))
    }

    /// A client for the peer's service above Raft.
    ///
    /// # Errors
    /// When it is not a member.
    pub fn cluster(&self, node: NodeId) -> Result<ClusterClient<PeerChannel>, UnknownPeer> {
        let client = ClusterClient::with_interceptor(self.channel(node)?, self.introduce(node));
        Ok(client
            .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::RPC_MESSAGE_BYTES_MAX))
    }

    /// The incarnation of the member's data directory.
    ///
    /// # Errors
    /// When it is not a member.
    pub fn incarnation(&self, node: NodeId) -> Result<Incarnation, UnknownPeer> {
        let member = self.members.get(node).ok_or(UnknownPeer(node))?;
        Ok(member.incarnation)
    }

    fn introduce(&self, callee: NodeId) -> Introduce {
        Introduce {
            callee,
            ..self.introduce.clone()
        }
    }

    fn channel(&self, node: NodeId) -> Result<Channel, UnknownPeer> {
        if failpoint::is_armed(CUT_OFF) {
            return Err(UnknownPeer(node));
        }
        let record = self.members.get(node).ok_or(UnknownPeer(node))?;
        let mut channels = self
            .channels
            .lock()
            .expect("invariant: making a channel does not panic");
        if let Some(connected) = channels.get(&node)
            && connected.address == record.rpc
        {
            return Ok(connected.channel.clone());
        }
        let channel = self.dial(node, record.rpc.clone());
        channels.insert(
            node,
            Connected {
                address: record.rpc,
                channel: channel.clone(),
            },
        );
        Ok(channel)
    }

    /// A lazy channel: it dials at the first call and again whenever the connection breaks.
    fn dial(&self, node: NodeId, address: String) -> Channel {
        let connector = TlsConnector::from(Arc::new(self.tls.client(ALPN_GRPC)));
        let (name, network) = (self.tls.server_name(node), Arc::clone(&self.network));
        let connect = tower::service_fn(move |_| {
            let (connector, name) = (connector.clone(), name.clone());
            let connecting = network.connect(address.clone());
            async move {
                let tls = connector.connect(name, connecting.await?).await?;
                io::Result::Ok(TokioIo::new(tls))
            }
        });
        // The address of the endpoint is never dialled: the connector has the real one.
        Endpoint::from_static("http://node.henge.internal")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .connect_with_connector_lazy(connect)
    }
}
