//! Refusals for lack of a shared resource: counted, and logged for the operator with the client's
//! address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use henge_runtime::{Clock, LogLimit};

use crate::http::Peer;
use crate::metrics::{self, Shortage};

/// The maximum number of log lines in a minute.
const LINES_PER_MINUTE: u32 = 10;

/// The log of one router's refusals; clones share it.
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

    /// Counts a refusal, and writes a log line within the limit.
    pub(super) fn refused(&self, shortage: Shortage, peer: Option<Peer>) {
        metrics::request_refused(shortage);
        if let Some(held_back) = self.lines.admit(self.clock.instant()) {
            // Without a listener the address is unknown.
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
