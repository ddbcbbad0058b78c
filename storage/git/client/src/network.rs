//! Connections: trusted addresses and certificates, and time-outs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use crate::address::{AddressPolicy, Unfit};
use crate::error::Error;
use crate::trust::Trust;
use crate::url::{RemoteUrl, Scheme};

/// Time-outs of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For connecting to one address, TLS included.
    pub connect: Duration,
    /// Idle time-out in either direction.
    pub rest: Duration,
}

impl Default for Timeouts {
    /// The idle time-out is long because servers that count the objects to send are silent
    /// meanwhile.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            rest: Duration::from_secs(120),
        }
    }
}

/// Access to servers. Clones share the loaded certificates.
#[derive(Debug, Clone)]
pub struct Network {
    /// The runtime of the sockets. Blocking calls of this crate must not run on its workers.
    pub handle: Handle,
    /// The trusted certificates.
    pub trust: Trust,
    /// The allowed addresses.
    pub addresses: AddressPolicy,
    /// The time-outs.
    pub timeouts: Timeouts,
}

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Network {
    /// Connects to the server of `url`. The connection uses the checked address: the name is not
    /// resolved again.
    pub(crate) async fn connect(&self, url: &RemoteUrl) -> Result<Box<dyn Stream>, Error> {
        let tls = match url.scheme() {
            Scheme::Http => None,
            Scheme::Https => Some(TlsConnector::from(self.trust.config()?)),
        };
        let mut failed = None;
        for address in self.resolve(url).await? {
            match self.connect_to(address).await {
                Ok(stream) => return self.secure(url, tls, stream).await,
                Err(error) => failed = Some(error),
            }
        }
        Err(Error::Connect {
            host: url.host().to_owned(),
            source: failed.unwrap_or_else(|| io::Error::other("it has no address")),
        })
    }

    async fn resolve(&self, url: &RemoteUrl) -> Result<Vec<SocketAddr>, Error> {
        let lookup = tokio::net::lookup_host((url.host(), url.port()));
        let failed = |source| Error::Resolve {
            host: url.host().to_owned(),
            source,
        };
        let found = tokio::time::timeout(self.timeouts.connect, lookup)
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        let mut allowed = Vec::new();
        let mut refused = None;
        for address in found {
            match self.addresses.refusal(address.ip()) {
                None => allowed.push(address),
                Some(why) if refused.is_none() => refused = Some((why, address.ip())),
                Some(_) => {}
            }
        }
        let host = || url.host().to_owned();
        match refused.filter(|_| allowed.is_empty()) {
            None => Ok(allowed),
            Some((Unfit::Metadata, address)) => Err(Error::AddressForbidden {
                host: host(),
                address,
            }),
            Some((Unfit::NotPublic, address)) => Err(Error::AddressRefused {
                host: host(),
                address,
            }),
        }
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = tokio::time::timeout(self.timeouts.connect, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn secure(
        &self,
        url: &RemoteUrl,
        tls: Option<TlsConnector>,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, Error> {
        let Some(tls) = tls else {
            return Ok(Box::new(stream));
        };
        let failed = |source| Error::Tls {
            host: url.host().to_owned(),
            source,
        };
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|error| failed(io::Error::other(error)))?;
        let stream = tokio::time::timeout(self.timeouts.connect, tls.connect(name, stream))
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        Ok(Box::new(stream))
    }
}

/// A [`Network`] that several remotes share.
pub type SharedNetwork = Arc<Network>;
