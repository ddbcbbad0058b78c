//! The listeners for the other nodes: byte streams, and QUIC where the network has datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use henge_runtime::Scope;
use tokio_stream::wrappers::ReceiverStream;

use super::bulk::Bulk;
use super::handshakes::Handshakes;
use super::listener::{self, GrpcStream};
use super::members::Members;
use super::network::Datagrams;
use super::quic::Quic;
use super::tls::Tls;
use crate::host::Host;
use crate::start_error::StartError;
use crate::starts::Starts;

/// The listeners of a node.
pub(crate) struct Doors {
    /// Bulk streams, in and out.
    pub(crate) bulk: Bulk,
    /// Connections for the gRPC server.
    pub(crate) incoming: ReceiverStream<io::Result<GrpcStream>>,
    /// None where the network has no datagrams.
    pub(crate) quic: Option<QuicDoor>,
}

/// A QUIC endpoint that accepts no connection yet.
pub(crate) struct QuicDoor {
    quic: Quic,
    handshakes: Handshakes,
}

impl Doors {
    /// Listens at `listen`. QUIC connections wait for [`QuicDoor::serve`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn open(
        listen: SocketAddr,
        host: &Host,
        (members, starts): (&Members, &Starts),
        tls: &Tls,
        scope: &Scope,
    ) -> Result<Self, StartError> {
        let network = &host.network;
        let handshakes = || Handshakes::new(members.clone(), Arc::clone(&host.clock));
        let quic = match network.datagrams() {
            Datagrams::Udp => {
                let bound = Quic::bind(listen, tls);
                Some(bound.map_err(StartError::io(format!("cannot bind UDP {listen}")))?)
            }
            Datagrams::None => None,
        };
        let bulk = Bulk::new(
            (members.clone(), starts.clone()),
            tls,
            (quic.clone(), Arc::clone(network)),
            scope.child("bulk"),
        );
        let address = (network.as_ref(), listen);
        let incoming = listener::listen(address, tls, bulk.clone(), handshakes(), scope).await;
        let incoming = incoming.map_err(StartError::io(format!("cannot bind TCP {listen}")))?;
        let quic = quic.map(|quic| QuicDoor {
            quic,
            handshakes: handshakes(),
        });
        Ok(Self {
            bulk,
            incoming,
            quic,
        })
    }
}

impl QuicDoor {
    /// Accepts connections until the scope ends, and passes their streams to `bulk`.
    pub(crate) fn serve(self, bulk: Bulk, scope: &Scope) {
        self.quic.serve(bulk, self.handshakes, scope);
    }
}
