//! Refused requests and ended connections of the listener: counted, and logged with the client's
//! address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use henge_api::metrics;
use henge_git::http::Peer;
use henge_runtime::LogLimit;

use super::door::{client_of, now};

/// Log lines of one kind per minute.
const LINES_PER_MINUTE: u32 = 10;

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// An idle connection was evicted for a new one: its address has the most connections.
    Displaced,
    /// A connection got 503: all others are at work.
    Busy,
    /// A connection was closed without a response: the permits reserved for health were taken too.
    Full,
    /// A connection sent no request in time.
    Late,
    /// A request is not plain HTTP; its connection ends.
    Malformed,
    /// A connection's client read nothing of a response.
    Stalled,
    /// The same for an HTTP/2 stream.
    StreamStalled,
    /// An HTTP/2 stream took too long.
    StreamLate,
}

impl Refusal {
    const ALL: [Self; 8] = [
        Self::Displaced,
        Self::Busy,
        Self::Full,
        Self::Late,
        Self::Malformed,
        Self::Stalled,
        Self::StreamStalled,
        Self::StreamLate,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Displaced => "displaced",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Late => "late",
            Self::Malformed => "malformed",
            Self::Stalled => "stalled",
            Self::StreamStalled => "stream_stalled",
            Self::StreamLate => "stream_late",
        }
    }

    /// The text of the log line. A connection without a request has none: browsers connect in
    /// advance. Many such connections show up because others are evicted.
    const fn text(self) -> Option<&'static str> {
        match self {
            Self::Displaced => {
                Some("an idle connection was closed for a newcomer: its address has the most")
            }
            Self::Busy => Some("a connection was answered 503: all connections are at work"),
            Self::Full => Some(
                "a connection was closed: all are at work, and those kept for health are taken too",
            ),
            Self::Late => None,
            Self::Malformed => Some("a request was refused: it is not plain HTTP"),
            Self::Stalled => {
                Some("a connection was cut off: its client takes nothing of the answer")
            }
            Self::StreamStalled => {
                Some("a request was cut off: its client takes nothing of the answer")
            }
            Self::StreamLate => Some("a request was cut off: it took too long"),
        }
    }
}

/// The refusals of one listener; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Refusals {
    lines: Arc<[(Refusal, LogLimit)]>,
}

impl Default for Refusals {
    fn default() -> Self {
        let limit = || LogLimit::new(LINES_PER_MINUTE, Duration::from_secs(60));
        Self {
            lines: Refusal::ALL.map(|refusal| (refusal, limit())).into(),
        }
    }
}

impl Refusals {
    /// Counts a refusal, and logs it within the rate limit of its kind.
    pub(super) fn note(&self, refusal: Refusal, address: IpAddr) {
        metrics::listener_refused(refusal.label());
        let Some(text) = refusal.text() else {
            return;
        };
        let line = self.lines.iter().find(|(kind, _)| *kind == refusal);
        if let Some(held_back) = line.and_then(|(_, limit)| limit.admit(now().into_std())) {
            tracing::warn!(%address, held_back, "{text}");
        }
    }

    /// The client of the connection with this number.
    pub(super) fn client(&self, address: IpAddr, connection: u64) -> Client {
        Client {
            refusals: self.clone(),
            address: address.to_canonical(),
            connection,
            is_malformed: Arc::default(),
        }
    }
}

/// The client of one connection, and its refusals; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    refusals: Refusals,
    address: IpAddr,
    connection: u64,
    /// Whether a malformed request was counted.
    is_malformed: Arc<AtomicBool>,
}

impl Client {
    /// The peer that its requests name.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            address: client_of(self.address),
            connection: self.connection,
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refusals.note(refusal, self.address);
    }

    /// Counts a malformed request, once: the check of its bytes and the parser behind it may both
    /// report it.
    pub(super) fn malformed(&self) {
        if !self.is_malformed.swap(true, Ordering::Relaxed) {
            self.refused(Refusal::Malformed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use henge_api::MetricsHandle;

    use super::*;

    /// The output of the log.
    #[derive(Debug, Default, Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            log.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Regression: connections were evicted, refused and cut off, and neither the metrics nor the
    /// log showed it.
    #[tokio::test(start_paused = true)]
    async fn refusals_are_counted_and_the_log_says_from_where() {
        let (recorder, page) = MetricsHandle::recorder();
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        {
            let _collecting = metrics::set_default_local_recorder(&recorder);
            let _logging = tracing::subscriber::set_default(subscriber.finish());
            let refusals = Refusals::default();
            let client = refusals.client(IpAddr::from([192, 0, 2, 1]), 7);
            for refusal in Refusal::ALL {
                for _ in 0..20 {
                    client.refused(refusal);
                }
            }
            tokio::time::advance(Duration::from_secs(60)).await;
            client.malformed();
            client.malformed();
        }
        let page = page.render();
        for refusal in Refusal::ALL {
            let times = match refusal {
                Refusal::Malformed => 21,
                Refusal::Displaced
                | Refusal::Busy
                | Refusal::Full
                | Refusal::Late
                | Refusal::Stalled
                | Refusal::StreamStalled
                | Refusal::StreamLate => 20,
            };
            let label = refusal.label();
            let line = format!("henge_api_listener_refusals_total{{reason=\"{label}\"}} {times}\n");
            assert!(page.contains(&line), "no {line:?} in:\n{page}");
        }
        let log = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let log = String::from_utf8(log).expect("text");
        for text in Refusal::ALL.into_iter().filter_map(Refusal::text) {
            let lines = log.lines().filter(|line| line.contains(text));
            let named = lines.filter(|line| line.contains("address=192.0.2.1"));
            let most = usize::try_from(LINES_PER_MINUTE).expect("small");
            let is_again = Refusal::Malformed.text() == Some(text);
            assert_eq!(named.count(), most + usize::from(is_again), "{text}: {log}");
        }
        assert!(log.contains("held_back=10"), "{log}");
    }

    #[test]
    fn a_client_is_counted_by_its_network() {
        let address = "2001:db8::1".parse().expect("an address");
        let peer = Refusals::default().client(address, 7).peer();
        assert_eq!(peer.address, client_of(address));
        assert_eq!(peer.connection, 7);
    }
}
