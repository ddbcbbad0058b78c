//! Connections between nodes as byte streams, injected: sockets, or a network in memory.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways, each way in order.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Whether packets, which QUIC needs, reach the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagrams {
    /// They do, by UDP on the port number of the listener.
    Udp,
    /// There are byte streams only.
    None,
}

/// The connections of a node to and from the others.
pub trait Network: Debug + Send + Sync + 'static {
    /// Connects to `HOST:PORT`. Waits without a time-out of its own: the caller sets a deadline.
    ///
    /// # Errors
    /// When the address is invalid, or the other side refuses.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;

    /// Listens at an address until the listener is dropped.
    ///
    /// # Errors
    /// When the address is not this machine's, or is in use.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// Whether packets reach the other nodes.
    fn datagrams(&self) -> Datagrams;
}

/// Accepts the connections to an address.
pub trait Listener: Send + 'static {
    /// The next connection, with the address of its other side.
    ///
    /// # Errors
    /// When one could not be accepted. The next one may succeed.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Duplex>, IpAddr)>>;
}
