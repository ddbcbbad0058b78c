//! The QUIC endpoint under bulk streams: one connection per peer, kept while it is used.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use henge_types::{NodeId, limits};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use rustls_pki_types::CertificateDer;

use super::bulk::{Bulk, BulkStream, BulkTransport};
use super::handshakes::{Failure, Handshake, Handshakes};
use super::listener::HANDSHAKE_TIMEOUT;
use super::tls::{ALPN_BULK, Tls};

/// Streams that one peer may have open here at once.
const STREAMS_PER_PEER_MAX: u32 = 256;
/// Bytes that one stream may have in flight: bandwidth times delay of a fast local network.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The same for a whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// Idle time-out of a connection, milliseconds; keep-alives preserve the live ones.
const IDLE_MS_MAX: u32 = 6_000;
/// Bytes buffered for all connections that are not accepted yet.
const HANDSHAKES_BYTES_MAX: u64 = 64 * limits::HANDSHAKE_QUIC_BYTES_MAX;
/// Requested size of the kernel's socket buffers; the kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The endpoint; clones share it.
#[derive(Debug, Clone)]
pub struct Quic {
    endpoint: Endpoint,
    tls: Tls,
    client: ClientConfig,
    connections: Arc<Mutex<BTreeMap<NodeId, Connection>>>,
}

impl Quic {
    /// Binds UDP at `listen`. 0-RTT stays off: it could be replayed.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn bind(listen: SocketAddr, tls: &Tls) -> io::Result<Self> {
        let transport = Arc::new(transport_config());
        let server =
            QuicServerConfig::try_from(tls.server(&[ALPN_BULK])).map_err(io::Error::other)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server
            .transport_config(Arc::clone(&transport))
            .max_incoming(limits::HANDSHAKES_AT_ONCE_MAX)
            .incoming_buffer_size(limits::HANDSHAKE_QUIC_BYTES_MAX)
            .incoming_buffer_size_total(HANDSHAKES_BYTES_MAX);
        let client = QuicClientConfig::try_from(tls.client(ALPN_BULK)).map_err(io::Error::other)?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(server),
            socket(listen)?,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            tls: tls.clone(),
            client,
            connections: Arc::default(),
        })
    }

    /// Accepts connections until the scope ends, and passes their streams to `bulk`.
    pub fn serve(&self, bulk: Bulk, handshakes: Handshakes, scope: &Scope) {
        let quic = self.clone();
        let connections = scope.child("quic");
        scope.spawn("quic accept", OnPanic::EndProcess, async move {
            while let Some(incoming) = quic.endpoint.accept().await {
                // The source address may be spoofed until it has answered.
                let is_unknown = !incoming.remote_address_validated() && incoming.may_retry();
                if is_unknown && handshakes.are_many() {
                    if let Err(error) = incoming.retry() {
                        tracing::debug!(%error, "a quic client cannot be asked again");
                    }
                    continue;
                }
                let handshake = handshakes.begin(incoming.remote_address().ip());
                let (bulk, tls) = (bulk.clone(), quic.tls.clone());
                connections.spawn("quic connection", OnPanic::Log, async move {
                    if let Some(connected) = connected(incoming, handshake).await {
                        serve_connection(&connected, &bulk, &tls).await;
                    }
                });
            }
        });
    }

    async fn connection(&self, node: NodeId, address: &str) -> io::Result<Connection> {
        let kept = {
            let connections = self
                .connections
                .lock()
                .expect("invariant: the map is only read and written");
            connections
                .get(&node)
                .filter(|connection| connection.close_reason().is_none())
                .cloned()
        };
        if let Some(connection) = kept {
            return Ok(connection);
        }
        let address: SocketAddr = tokio::net::lookup_host(address)
            .await?
            .next()
            .ok_or_else(|| io::Error::other(format!("{address} resolves to nothing")))?;
        let connecting = self
            .endpoint
            .connect_with(self.client.clone(), address, &self.tls.dns_name(node))
            .map_err(io::Error::other)?;
        let connection = connecting.await?;
        let mut connections = self
            .connections
            .lock()
            .expect("invariant: the map is only read and written");
        connections.insert(node, connection.clone());
        Ok(connection)
    }
}

impl BulkTransport for Quic {
    fn open(&self, node: NodeId, address: String) -> BoxFuture<'static, io::Result<BulkStream>> {
        let quic = self.clone();
        Box::pin(async move {
            let (send, receive) = quic.connection(node, &address).await?.open_bi().await?;
            Ok(BulkStream::join(receive, send))
        })
    }

    fn forget(&self, node: NodeId) {
        let mut connections = self
            .connections
            .lock()
            .expect("invariant: the map is only read and written");
        // Not closed: other streams may run on it. A dead one ends by its idle time-out.
        connections.remove(&node);
    }
}

/// The connection once it has shown a certificate of the cluster.
async fn connected(incoming: Incoming, handshake: Handshake) -> Option<Connection> {
    let connecting = tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming);
    tokio::select! {
        biased;
        () = handshake.displaced() => {
            handshake.failed(Failure::Displaced, &"too many at once");
            None
        }
        connected = connecting => match connected {
            Ok(Ok(connection)) => Some(connection),
            Ok(Err(error)) => {
                handshake.failed(Failure::Refused, &error);
                None
            }
            Err(late) => {
                handshake.failed(Failure::TimedOut, &late);
                None
            }
        },
    }
}

async fn serve_connection(connection: &Connection, bulk: &Bulk, tls: &Tls) {
    let peer = peer(connection, tls);
    while let Ok((send, receive)) = connection.accept_bi().await {
        bulk.accept(peer, tokio::io::join(receive, send));
    }
}

fn peer(connection: &Connection, tls: &Tls) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    tls.peer(Some(chain))
}

fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_PEER_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .initial_mtu(1400)
        .initial_rtt(Duration::from_millis(10))
        .keep_alive_interval(Some(Duration::from_secs(2)))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS_MAX).into()));
    config
}

fn socket(listen: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    // The kernel caps them silently at net.core.rmem_max and wmem_max.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}
