//! Requests that are refused because others have all that there is: counted, and told to the operator with their address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use henge_runtime::{Clock, LogLimit};

use crate::http::Peer;
use crate::metrics::{self, Shortage};

/// Log lines, in a minute.
const LINES_PER_MINUTE: u32 = 10;

/// Refusals of one router; clones share them.
#[derive(Debug, Clone)]
pub(super) struct ShortageLog {
    clock: Arc<dyn Clock>,
    lines: Arc<LogLimit>,
}

impl ShortageLog {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            lines: Arc::new(LogLimit::new(LINES_PER_MINUTE, Duration::from_secs(60))),
        }
    }

    /// Counts one, and writes a line if there were few of late.
    pub(super) fn refused(&self, shortage: Shortage, peer: Option<Peer>) {
        metrics::request_refused(shortage);
        if let Some(held_back) = self.lines.admit(self.clock.instant()) {
            // Where there is no listener, nobody is known.
            let address = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.address);
            tracing::warn!(
                %address,
                held_back,
                reason = shortage.label(),
                "a request for git was refused: others have all that there is"
            );
        }
    }
}
