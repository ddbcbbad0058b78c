//! Connections between nodes as byte streams, handed down: sockets, or a network in memory.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways, each way in order.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Whether packets reach the other nodes, which QUIC needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagrams {
    /// They do, by UDP on the port number that is listened on.
    Udp,
    /// There are byte streams only.
    None,
}

/// How a node reaches the others, and is reached.
pub trait Network: Debug + Send + Sync + 'static {
    /// Connects to `HOST:PORT`. Waits as long as nothing answers: a deadline is the caller's.
    ///
    /// # Errors
    /// When the address is none, or the other side refuses.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;

    /// Listens at an address until the listener is dropped.
    ///
    /// # Errors
    /// When the address is not this machine's, or is taken.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// Whether packets reach the other nodes.
    fn datagrams(&self) -> Datagrams;
}

/// Takes the connections of an address.
pub trait Listener: Send + 'static {
    /// The next connection, with the address of its other side.
    ///
    /// # Errors
    /// When one could not be taken. The next one may be.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Duplex>, IpAddr)>>;
}
