//! Bulk streams between nodes: packs, snapshots, whole git requests. Two byte streams, one each
//! way.
//!
//! A stream opens with a preamble (the caller, the service, a head for the service) and one
//! response byte; after that it belongs to the service. It runs over QUIC. Where no QUIC packet
//! passes, it runs over a TLS connection to the same port number, with the same certificates.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Scope, failpoint};
use henge_types::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsConnector;

use super::CUT_OFF;
use super::members::{Identity, Members};
use super::network::{Duplex, Network};
use super::quic::Quic;
use super::tls::{ALPN_BULK, Tls};
use crate::starts::headers::StartHeader;
use crate::starts::{StartRefusal, Starts};

/// The preamble: bounds the bytes read from an unverified caller.
const PREAMBLE_BYTES_MAX: u32 = 256 * 1024;
/// Time-out of a caller's preamble.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time-out of one attempt to open a stream, before the next one.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1500);

const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;

/// The reason why a stream did not open.
#[derive(Debug, Error)]
pub enum BulkError {
    /// The node is not a member.
    #[error("node {0} is not a member of the cluster")]
    UnknownPeer(NodeId),
    /// The peer does not answer.
    #[error("cannot reach node {node}: {source}")]
    Unreachable {
        /// The peer.
        node: NodeId,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The peer refused.
    #[error("node {node} refused: {reason}")]
    Refused {
        /// The peer.
        node: NodeId,
        /// Its reason.
        reason: String,
    },
}

/// An open stream. Shutting the write half down marks the end; a stream that breaks earlier is an
/// error on the other side, never an end.
pub struct BulkStream(Box<dyn Duplex>);

impl fmt::Debug for BulkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BulkStream")
    }
}

impl AsyncRead for BulkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for BulkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves one kind of stream.
pub trait BulkHandler: Send + Sync + 'static {
    /// Serves one stream of a member; its error is logged and breaks the stream.
    fn handle(
        &self,
        peer: NodeId,
        head: Bytes,
        stream: BulkStream,
    ) -> BoxFuture<'static, io::Result<()>>;
}

/// A transport of streams to another node.
pub trait BulkTransport: Send + Sync + 'static {
    /// Opens two byte streams to `node` at `address`, encrypted and verified.
    fn open(&self, node: NodeId, address: String) -> BoxFuture<'static, io::Result<BulkStream>>;

    /// The last attempt failed: the connection kept for this node is not used again.
    fn forget(&self, node: NodeId);
}

#[derive(Serialize, Deserialize)]
struct Preamble {
    cluster: ClusterId,
    node: NodeId,
    incarnation: Incarnation,
    service: String,
    head: Bytes,
}

/// Opens and serves bulk streams; clones share it.
#[derive(Clone)]
pub struct Bulk {
    members: Members,
    starts: Starts,
    /// The transports that a stream is tried over, in this order.
    transports: Arc<[Arc<dyn BulkTransport>]>,
    handlers: Arc<RwLock<BTreeMap<&'static str, Arc<dyn BulkHandler>>>>,
    scope: Scope,
}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

impl Bulk {
    /// Streams over `quic`, if present, and else over connections of the network.
    pub fn new(
        (members, starts): (Members, Starts),
        tls: &Tls,
        (quic, network): (Option<Quic>, Arc<dyn Network>),
        scope: Scope,
    ) -> Self {
        let tls = tls.clone();
        let connections: Arc<dyn BulkTransport> = Arc::new(Connections { tls, network });
        let transports = match quic {
            Some(quic) => {
                let quic: Arc<dyn BulkTransport> = Arc::new(quic);
                // A kept connection may lead to a dead process; a fresh one may meet a blocked UDP.
                vec![Arc::clone(&quic), quic, connections]
            }
            None => vec![connections],
        };
        Self {
            members,
            starts,
            transports: transports.into(),
            handlers: Arc::default(),
            scope,
        }
    }

    /// Serves streams of this kind with `handler` from now on.
    pub fn serve(&self, service: &'static str, handler: Arc<dyn BulkHandler>) {
        self.handlers
            .write()
            .expect("invariant: registering does not panic")
            .insert(service, handler);
    }

    /// Opens a stream of this kind to `node`.
    ///
    /// # Errors
    /// When the peer is unknown, does not answer before `deadline`, or refuses.
    pub async fn open(
        &self,
        node: NodeId,
        service: &'static str,
        head: Bytes,
        deadline: Duration,
    ) -> Result<BulkStream, BulkError> {
        let unreachable = |source| BulkError::Unreachable { node, source };
        let opened = tokio::time::timeout(deadline, self.open_inner(node, service, head));
        opened
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
    }

    async fn open_inner(
        &self,
        node: NodeId,
        service: &'static str,
        head: Bytes,
    ) -> Result<BulkStream, BulkError> {
        if failpoint::is_armed(CUT_OFF) {
            return Err(BulkError::UnknownPeer(node));
        }
        let record = self.members.get(node).ok_or(BulkError::UnknownPeer(node))?;
        let preamble = self.preamble(node, service, head);
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for transport in self.transports.iter() {
            let attempt = introduce(transport.open(node, record.rpc.clone()), &preamble);
            match tokio::time::timeout(OPEN_TIMEOUT, attempt).await {
                Ok(Ok((ACCEPTED, stream))) => return Ok(stream),
                Ok(Ok((_, mut stream))) => {
                    let mut reason = String::new();
                    let read = (&mut stream).take(4096).read_to_string(&mut reason).await;
                    read.map_err(|source| BulkError::Unreachable { node, source })?;
                    return Err(BulkError::Refused { node, reason });
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            transport.forget(node);
        }
        Err(BulkError::Unreachable { node, source: last })
    }

    fn preamble(&self, callee: NodeId, service: &'static str, head: Bytes) -> Vec<u8> {
        let own = self.members.own();
        let preamble = Preamble {
            cluster: own.cluster,
            node: own.node,
            incarnation: own.incarnation,
            service: service.to_owned(),
            head,
        };
        let header = StartHeader {
            claim: self.starts.claim(),
            known: self.starts.known(callee),
        };
        // A release without starts reads the preamble and skips the bytes after it.
        let mut bytes = postcard::to_stdvec(&preamble)
            .expect("invariant: a preamble is representable in postcard");
        bytes.extend_from_slice(&header.encode());
        bytes
    }

    /// Serves one stream of a verified peer, in a task of its own.
    pub(crate) fn accept(
        &self,
        certificate: Option<NodeId>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) {
        let bulk = self.clone();
        let stream = BulkStream(Box::new(stream));
        self.scope.spawn("bulk stream", OnPanic::Log, async move {
            if let Err(error) = bulk.dispatch(certificate, stream).await {
                tracing::debug!(peer = ?certificate, %error, "bulk stream ended early");
            }
        });
    }

    async fn dispatch(
        &self,
        certificate: Option<NodeId>,
        mut stream: BulkStream,
    ) -> io::Result<()> {
        let (preamble, header) =
            tokio::time::timeout(PREAMBLE_TIMEOUT, read_preamble(&mut stream)).await??;
        let said = Identity {
            cluster: preamble.cluster,
            node: preamble.node,
            incarnation: preamble.incarnation,
        };
        if failpoint::is_armed(CUT_OFF) {
            return refuse(&mut stream, "cut off").await;
        }
        let peer = match self.members.admit(&said, certificate) {
            Ok(peer) => peer,
            Err(stranger) => return refuse(&mut stream, &stranger.to_string()).await,
        };
        if let Err(refusal) = self.admit_start(&said, header.as_ref()) {
            return refuse(&mut stream, &refusal.to_string()).await;
        }
        let handler = {
            let handlers = self
                .handlers
                .read()
                .expect("invariant: registering does not panic");
            handlers.get(preamble.service.as_str()).cloned()
        };
        let Some(handler) = handler else {
            return refuse(
                &mut stream,
                &format!("this node serves no {:?} streams", preamble.service),
            )
            .await;
        };
        stream.write_u8(ACCEPTED).await?;
        stream.flush().await?;
        handler.handle(peer, preamble.head, stream).await
    }
}

impl Bulk {
    fn admit_start(
        &self,
        said: &Identity,
        header: Option<&StartHeader>,
    ) -> Result<(), StartRefusal> {
        let claim = header.map(|header| &header.claim);
        let known = header.and_then(|header| header.known.as_ref());
        self.starts
            .admit(said.node, said.incarnation, claim, known)?;
        self.starts.may_take_part()
    }
}

/// Sends the preamble and reads the response byte.
async fn introduce(
    opening: BoxFuture<'static, io::Result<BulkStream>>,
    preamble: &[u8],
) -> io::Result<(u8, BulkStream)> {
    let mut stream = opening.await?;
    let len = u32::try_from(preamble.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(preamble).await?;
    stream.flush().await?;
    let answer = stream.read_u8().await?;
    Ok((answer, stream))
}

async fn read_preamble(stream: &mut BulkStream) -> io::Result<(Preamble, Option<StartHeader>)> {
    let len = stream.read_u32().await?;
    if len > PREAMBLE_BYTES_MAX {
        return Err(io::Error::other(format!("a preamble of {len} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    stream.read_exact(&mut bytes).await?;
    let (preamble, rest) = postcard::take_from_bytes(&bytes).map_err(io::Error::other)?;
    Ok((preamble, StartHeader::decode(rest)))
}

async fn refuse(stream: &mut BulkStream, reason: &str) -> io::Result<()> {
    tracing::warn!(reason, "bulk stream refused");
    stream.write_u8(REFUSED).await?;
    stream.write_all(reason.as_bytes()).await?;
    stream.shutdown().await
}

/// Bulk streams over TLS: one connection per stream.
struct Connections {
    tls: Tls,
    network: Arc<dyn Network>,
}

impl BulkTransport for Connections {
    fn open(&self, node: NodeId, address: String) -> BoxFuture<'static, io::Result<BulkStream>> {
        let connector = TlsConnector::from(Arc::new(self.tls.client(ALPN_BULK)));
        let name = self.tls.server_name(node);
        let connecting = self.network.connect(address);
        Box::pin(async move {
            let tls = connector.connect(name, connecting.await?).await?;
            Ok(BulkStream(Box::new(tls)))
        })
    }

    fn forget(&self, _node: NodeId) {}
}

impl BulkStream {
    /// Joins the two halves of a stream.
    pub(crate) fn join(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self(Box::new(tokio::io::join(read, write)))
    }
}
