//! Log lines about refused requests: a bounded number in a minute, each with the address of one
//! request.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use henge_git::http::Peer;
use henge_runtime::{Clock, LogLimit};

/// Log lines of one kind, in a minute.
const LINES_PER_MINUTE: u32 = 10;

/// The lines of one kind.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    clock: Arc<dyn Clock>,
    lines: LogLimit,
}

/// The content of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefusalLine {
    /// The address of the request.
    pub(crate) address: IpAddr,
    /// Lines that were not written since the last one.
    pub(crate) held_back: u64,
}

impl RefusalLog {
    /// No line yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            lines: LogLimit::new(LINES_PER_MINUTE, Duration::from_secs(60)),
        }
    }

    /// Counts one more refused request. Returns the content of a line, if one may be written.
    pub(crate) fn line(&self, peer: Option<Peer>) -> Option<RefusalLine> {
        let held_back = self.lines.admit(self.clock.instant())?;
        let address = address_of(peer);
        Some(RefusalLine { address, held_back })
    }
}

/// The peer of a request.
pub(crate) fn peer_of(request: &Request) -> Option<Peer> {
    request.extensions().get::<Peer>().copied()
}

/// The address for which a request is counted. Without a listener all requests have the same.
pub(crate) fn address_of(peer: Option<Peer>) -> IpAddr {
    peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.address)
}
