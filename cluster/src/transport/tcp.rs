//! The network of the operating system.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};

use super::network::{Datagrams, Duplex, Listener, Network};

/// TCP, with UDP beside it. Nagle's algorithm is off: every write is a whole message.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNetwork;

impl TcpNetwork {
    /// A shared handle for the components.
    pub fn shared() -> Arc<dyn Network> {
        Arc::new(Self)
    }
}

impl Network for TcpNetwork {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    fn datagrams(&self) -> Datagrams {
        Datagrams::Udp
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Duplex>, IpAddr)>> {
        Box::pin(async move {
            let (stream, address) = Self::accept(self).await?;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot switch Nagle's algorithm off");
            }
            Ok((Box::new(stream) as Box<dyn Duplex>, address.ip()))
        })
    }
}
