//! The listener of a node's connections: TLS first, then by ALPN gRPC or a bulk stream.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use henge_runtime::Scope;
use henge_runtime::tasks::OnPanic;
use henge_types::{NodeId, limits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::bulk::Bulk;
use super::handshakes::{Failure, Handshake, Handshakes};
use super::network::{Duplex, Network};
use super::tls::{ALPN_BULK, ALPN_GRPC, Tls};

/// Accepted gRPC connections waiting for the server; members are few.
const ACCEPTED_MAX: usize = 64;
/// Time-out of a handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(limits::HANDSHAKE_MS_MAX);
/// A pause after a failed accept (out of file descriptors), to avoid a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The node in the certificate of a gRPC connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<NodeId>);

/// A gRPC connection with the identity of its peer.
pub struct GrpcStream {
    tls: TlsStream<Box<dyn Duplex>>,
    peer: Peer,
}

impl fmt::Debug for GrpcStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcStream")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Connected for GrpcStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for GrpcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for GrpcStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Listens at an address of the network and accepts until the scope ends; the returned stream
/// yields the gRPC connections.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(
    (network, listen): (&dyn Network, SocketAddr),
    tls: &Tls,
    bulk: Bulk,
    handshakes: Handshakes,
    scope: &Scope,
) -> io::Result<ReceiverStream<io::Result<GrpcStream>>> {
    let mut listener = network.listen(listen).await?;
    let acceptor = TlsAcceptor::from(Arc::new(tls.server(&[ALPN_GRPC, ALPN_BULK])));
    let (sender, receiver) = mpsc::channel(ACCEPTED_MAX);
    let tls = tls.clone();
    let under_way = scope.child("handshakes");
    scope.spawn("cluster accept", OnPanic::EndProcess, async move {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a cluster connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, tls, bulk, sender) =
                (acceptor.clone(), tls.clone(), bulk.clone(), sender.clone());
            let handshake = handshakes.begin(address);
            under_way.spawn("handshake", OnPanic::Log, async move {
                if let Some(stream) = accept(&acceptor, stream, handshake).await {
                    hand_over(stream, &tls, &bulk, &sender).await;
                }
            });
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// The connection once it has shown a certificate of the cluster.
async fn accept(
    acceptor: &TlsAcceptor,
    stream: Box<dyn Duplex>,
    handshake: Handshake,
) -> Option<TlsStream<Box<dyn Duplex>>> {
    let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    tokio::select! {
        biased;
        () = handshake.displaced() => {
            handshake.failed(Failure::Displaced, &"too many at once");
            None
        }
        accepted = accepting => match accepted {
            Ok(Ok(stream)) => Some(stream),
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

async fn hand_over(
    stream: TlsStream<Box<dyn Duplex>>,
    tls: &Tls,
    bulk: &Bulk,
    grpc: &mpsc::Sender<io::Result<GrpcStream>>,
) {
    let session = stream.get_ref().1;
    let peer = tls.peer(session.peer_certificates());
    if session.alpn_protocol() == Some(ALPN_BULK) {
        bulk.accept(peer, stream);
    } else if grpc
        .send(Ok(GrpcStream {
            tls: stream,
            peer: Peer(peer),
        }))
        .await
        .is_err()
    {
        tracing::debug!("the gRPC server has stopped");
    }
}
