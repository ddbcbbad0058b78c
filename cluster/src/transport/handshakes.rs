//! Handshakes in progress on the cluster's port: bounded in total and per address, each with a
//! short time-out.
//!
//! A client without a certificate is unknown. A member's handshake takes milliseconds and an idle
//! one lasts until its deadline. So a handshake above the bound ends the oldest one and is not
//! refused: a flood cannot keep members out.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use henge_runtime::{Clock, LogLimit};
use henge_types::limits;
use tokio_util::sync::CancellationToken;

use super::members::Members;
use crate::metrics;

/// Log lines about failed handshakes per minute.
const LINES_PER_MINUTE: u32 = 10;

/// The handshakes of one listener; clones share them.
#[derive(Clone)]
pub struct Handshakes {
    shared: Arc<Shared>,
}

struct Shared {
    members: Members,
    clock: Arc<dyn Clock>,
    log: LogLimit,
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    next: u64,
    /// By address, and within it by age.
    by_address: BTreeMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

/// The reason why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No certificate of the cluster, or no handshake at all.
    Refused,
    /// It took too long.
    TimedOut,
    /// Newer ones took its place.
    Displaced,
}

impl Failure {
    const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Displaced => "displaced",
        }
    }
}

impl Handshakes {
    /// No handshakes in progress. Addresses of members do not count in the total, only each for
    /// itself.
    pub fn new(members: Members, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                members,
                clock,
                log: LogLimit::new(LINES_PER_MINUTE, Duration::from_secs(60)),
                under_way: Mutex::default(),
            }),
        }
    }

    /// Begins one more handshake from this address. Above a bound, the oldest one ends.
    pub(super) fn begin(&self, address: IpAddr) -> Handshake {
        let address = address.to_canonical();
        let mut under_way = self.shared.lock();
        let of_address = under_way.by_address.get(&address).map_or(0, BTreeMap::len);
        let crowded = if of_address >= limits::HANDSHAKES_PER_ADDRESS_MAX {
            Some(address)
        } else if self.is_member(address) {
            None
        } else {
            let strangers = under_way.by_address.iter();
            let strangers = strangers.filter(|(address, _)| !self.is_member(**address));
            let strangers = strangers.map(|(address, handshakes)| (handshakes.len(), *address));
            let all: usize = strangers.clone().map(|(handshakes, _)| handshakes).sum();
            let most = strangers.max().map(|(_, address)| address);
            most.filter(|_| all >= limits::HANDSHAKES_AT_ONCE_MAX)
        };
        let oldest = crowded.and_then(|address| {
            let handshakes = under_way.by_address.get_mut(&address)?;
            handshakes.pop_first()
        });
        let number = under_way.next;
        under_way.next += 1;
        let displaced = CancellationToken::new();
        let of_address = under_way.by_address.entry(address).or_default();
        of_address.insert(number, displaced.clone());
        drop(under_way);
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        Handshake {
            handshakes: self.clone(),
            address,
            number,
            displaced,
        }
    }

    /// Whether more are in progress than a starting cluster needs.
    pub(super) fn are_many(&self) -> bool {
        let under_way = self.shared.lock();
        let all: usize = under_way.by_address.values().map(BTreeMap::len).sum();
        all >= limits::HANDSHAKES_PER_ADDRESS_MAX / 2
    }

    fn is_member(&self, address: IpAddr) -> bool {
        self.shared.members.has_address(address)
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshakes")
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handshake in progress, until it is dropped.
pub(super) struct Handshake {
    handshakes: Handshakes,
    address: IpAddr,
    number: u64,
    displaced: CancellationToken,
}

impl Handshake {
    /// Resolves when newer ones take its place.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }

    /// Counts and logs its failure.
    pub(super) fn failed(&self, failure: Failure, why: &dyn Display) {
        metrics::handshake_failed(failure.label());
        let shared = &self.handshakes.shared;
        if let Some(held_back) = shared.log.admit(shared.clock.instant()) {
            let (address, how) = (self.address, failure.label());
            tracing::warn!(%address, how, %why, held_back, "a cluster handshake failed");
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut under_way = self.handshakes.shared.lock();
        if let Some(of_address) = under_way.by_address.get_mut(&self.address) {
            of_address.remove(&self.number);
            if of_address.is_empty() {
                under_way.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use henge_runtime::SystemClock;
    use henge_types::{ClusterId, Incarnation, NodeId, NodeRecord};

    use super::super::members::Identity;
    use super::*;

    fn handshakes() -> Handshakes {
        let own = Identity {
            cluster: ClusterId::from_bytes([1; 16]),
            node: NodeId::new(1),
            incarnation: Incarnation::from_bytes([1; 16]),
        };
        let member = NodeRecord {
            node: own.node,
            incarnation: own.incarnation,
            rpc: "10.0.0.1:7441".to_owned(),
            http: String::new(),
        };
        Handshakes::new(Members::new(own, &[member]), SystemClock::shared())
    }

    fn count(handshakes: &Handshakes) -> usize {
        let under_way = handshakes.shared.lock();
        under_way.by_address.values().map(BTreeMap::len).sum()
    }

    fn address(number: usize) -> IpAddr {
        let number = u8::try_from(number).expect("small");
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn one_address_has_so_many_and_its_oldest_goes() {
        let all = handshakes();
        let begun: Vec<_> = (0..limits::HANDSHAKES_PER_ADDRESS_MAX + 3)
            .map(|_| all.begin(address(1)))
            .collect();
        let displaced = begun
            .iter()
            .map(|handshake| handshake.displaced.is_cancelled());
        let displaced: Vec<_> = displaced.collect();
        assert_eq!(displaced[..4], [true, true, true, false]);
        assert_eq!(count(&all), limits::HANDSHAKES_PER_ADDRESS_MAX);
        drop(begun);
        assert_eq!(count(&all), 0);
    }

    #[test]
    fn strangers_have_so_many_in_all_and_members_their_own() {
        let all = handshakes();
        let addresses = limits::HANDSHAKES_AT_ONCE_MAX / limits::HANDSHAKES_PER_ADDRESS_MAX;
        let strangers: Vec<_> = (0..addresses)
            .flat_map(|number| vec![address(number); limits::HANDSHAKES_PER_ADDRESS_MAX])
            .map(|address| all.begin(address))
            .collect();
        assert!(
            strangers
                .iter()
                .all(|handshake| !handshake.displaced.is_cancelled())
        );
        let member = all.begin(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(count(&all), limits::HANDSHAKES_AT_ONCE_MAX + 1);
        let late = all.begin(address(99));
        assert_eq!(count(&all), limits::HANDSHAKES_AT_ONCE_MAX + 1);
        assert!(!late.displaced.is_cancelled() && !member.displaced.is_cancelled());
        let gone = strangers
            .iter()
            .filter(|handshake| handshake.displaced.is_cancelled());
        assert_eq!(gone.count(), 1);
    }
}
