//! Wrong tokens: from where they come, and answers that come the slower the more there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use henge_runtime::{Clock, LogLimit};
use henge_types::limits;
use tokio::sync::Semaphore;

/// Log lines about wrong tokens, in a minute.
const LINES_PER_MINUTE: u32 = 10;
/// The first wait, once an address has sent too many; doubled with each further one.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest wait.
const DELAY_MAX: Duration = Duration::from_millis(limits::WRONG_TOKEN_DELAY_MS_MAX);
/// In such a time one wrong token of an address is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// The other end of a connection, put into its requests' extensions by the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// What an address has sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    wrong: u32,
    last: Instant,
}

impl Sent {
    /// How many are not forgotten.
    fn at(self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.last);
        let forgotten = passed.as_secs() / FORGOTTEN_AFTER.as_secs();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.wrong.saturating_sub(forgotten)
    }
}

/// Wrong tokens of late, by address.
#[derive(Debug)]
pub(crate) struct WrongTokens {
    clock: Arc<dyn Clock>,
    sent: Mutex<BTreeMap<IpAddr, Sent>>,
    /// Answers that are held back at once.
    waiting: Semaphore,
    log: LogLimit,
}

/// Too many answers are held back already.
pub(crate) struct TooMany;

impl WrongTokens {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            sent: Mutex::default(),
            waiting: Semaphore::new(limits::WRONG_TOKENS_WAITING_MAX),
            log: LogLimit::new(LINES_PER_MINUTE, Duration::from_secs(60)),
        }
    }

    /// Notes and logs one more, and waits as long as its address has earned. Right tokens never wait.
    ///
    /// # Errors
    /// When too many others wait.
    pub(crate) async fn one_more(&self, peer: Option<PeerAddress>) -> Result<(), TooMany> {
        let now = self.clock.instant();
        let address = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.ip());
        if let Some(held_back) = self.log.admit(now) {
            tracing::warn!(%address, held_back, "a wrong token came");
        }
        let delay = delay(self.note(subscriber(address), now));
        if delay.is_zero() {
            return Ok(());
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| TooMany)?;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// How many the address has sent of late, with this one.
    fn note(&self, address: IpAddr, now: Instant) -> u32 {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= limits::WRONG_TOKEN_ADDRESSES_MAX && !sent.contains_key(&address) {
            sent.retain(|_, sent| sent.at(now) > 0);
        }
        if sent.len() >= limits::WRONG_TOKEN_ADDRESSES_MAX && !sent.contains_key(&address) {
            // More addresses than can be told apart: all new ones are taken for one that has sent a lot.
            return u32::MAX;
        }
        let before = sent.get(&address).map_or(0, |sent| sent.at(now));
        let wrong = before.saturating_add(1);
        sent.insert(address, Sent { wrong, last: now });
        wrong
    }
}

/// What one subscriber has of the address: all of an IPv4 address, the network of an IPv6 one.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

fn delay(wrong: u32) -> Duration {
    let beyond = wrong.saturating_sub(limits::WRONG_TOKENS_FREE);
    match beyond.checked_sub(1) {
        None => Duration::ZERO,
        Some(doubled) => {
            let factor = 2_u32.checked_pow(doubled).unwrap_or(u32::MAX);
            DELAY_MIN.saturating_mul(factor).min(DELAY_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use henge_runtime::SystemClock;

    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_wait_grows_to_its_bound_and_is_forgotten() {
        assert_eq!(delay(0), Duration::ZERO);
        assert_eq!(delay(limits::WRONG_TOKENS_FREE), Duration::ZERO);
        assert_eq!(delay(limits::WRONG_TOKENS_FREE + 1), DELAY_MIN);
        assert_eq!(delay(limits::WRONG_TOKENS_FREE + 3), 4 * DELAY_MIN);
        assert_eq!(delay(u32::MAX), DELAY_MAX);
        let clock = SystemClock::shared();
        let wrong = WrongTokens::new(Arc::clone(&clock));
        let now = clock.instant();
        for count in 1..=10 {
            assert_eq!(wrong.note(v4(1), now), count);
        }
        assert_eq!(wrong.note(v4(2), now), 1);
        assert_eq!(wrong.note(v4(1), now + 4 * FORGOTTEN_AFTER), 7);
    }

    #[test]
    fn so_many_addresses_are_told_apart() {
        let clock = SystemClock::shared();
        let wrong = WrongTokens::new(Arc::clone(&clock));
        let now = clock.instant();
        let many = u32::try_from(limits::WRONG_TOKEN_ADDRESSES_MAX).expect("small");
        for number in 0..many {
            assert_eq!(wrong.note(IpAddr::V4(number.into()), now), 1);
        }
        assert_eq!(wrong.note(IpAddr::V4(many.into()), now), u32::MAX);
        assert_eq!(wrong.note(IpAddr::V4(0.into()), now), 2);
        let later = now + 2 * FORGOTTEN_AFTER;
        assert_eq!(wrong.note(IpAddr::V4(many.into()), later), 1);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let address = |text: &str| subscriber(text.parse().expect("an address"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1:2:3"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), v4(1));
    }
}
