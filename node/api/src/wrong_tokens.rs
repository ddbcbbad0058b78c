//! Wrong tokens: their addresses, and the delay of their answers, which grows with their number.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use henge_git::http::{Peer, PlaceBounds, Places};
use henge_runtime::Clock;
use henge_types::limits;

use crate::metrics;
use crate::refusal_log::{RefusalLine, RefusalLog, address_of};

/// The first delay of an address above the free number; doubled with each further token.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest delay.
const DELAY_MAX: Duration = Duration::from_millis(limits::WRONG_TOKEN_DELAY_MS_MAX);
/// The time after which one wrong token of an address expires.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// The time between two searches for expired addresses.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The wrong tokens of an address.
#[derive(Debug, Clone, Copy)]
struct Sent {
    wrong: u32,
    last: Instant,
}

impl Sent {
    /// The number that has not expired.
    fn at(self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.last);
        let forgotten = passed.as_secs() / FORGOTTEN_AFTER.as_secs();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.wrong.saturating_sub(forgotten)
    }
}

/// The recent wrong tokens of all addresses.
#[derive(Debug, Default)]
struct Senders {
    by_address: BTreeMap<IpAddr, Sent>,
    /// The time of the last search for expired addresses.
    swept: Option<Instant>,
}

impl Senders {
    fn is_full(&self, address: IpAddr) -> bool {
        self.by_address.len() >= limits::WRONG_TOKEN_ADDRESSES_MAX
            && !self.by_address.contains_key(&address)
    }

    /// Removes expired addresses, at most once per [`SWEEP_PAUSE`]: each search visits all
    /// addresses.
    fn sweep(&mut self, now: Instant) {
        let is_soon = |swept| now.saturating_duration_since(swept) < SWEEP_PAUSE;
        if !self.swept.is_some_and(is_soon) {
            self.by_address.retain(|_, sent| sent.at(now) > 0);
            self.swept = Some(now);
        }
    }
}

/// The time of the answer to a wrong token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// At once: it is among the first of its address.
    AtOnce,
    /// After the delay of its address.
    Late,
    /// At once, because the number of delayed answers is at its bound: of its connection, of its
    /// address, or in all.
    Crowded,
}

impl Answered {
    const fn label(self) -> &'static str {
        match self {
            Self::AtOnce => "at_once",
            Self::Late => "late",
            Self::Crowded => "crowded",
        }
    }
}

/// Recent wrong tokens, by address.
#[derive(Debug)]
pub(crate) struct WrongTokens {
    clock: Arc<dyn Clock>,
    senders: Mutex<Senders>,
    /// Answers that are delayed at once.
    waiting: Places,
    log: RefusalLog,
}

impl WrongTokens {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let waiting = Places::new(PlaceBounds {
            in_all: limits::WRONG_TOKENS_WAITING_MAX,
            per_address: limits::WRONG_TOKENS_WAITING_PER_ADDRESS,
            per_connection: limits::WRONG_TOKENS_WAITING_PER_CONNECTION,
        });
        Self {
            clock: Arc::clone(&clock),
            senders: Mutex::default(),
            waiting,
            log: RefusalLog::new(clock),
        }
    }

    /// Records and logs one more wrong token, and waits for the delay of its address. Valid tokens
    /// never wait.
    ///
    /// A token from an address at its bound costs a comparison of counters, and takes no permit of
    /// another address.
    pub(crate) async fn one_more(&self, peer: Option<Peer>) -> Answered {
        if let Some(RefusalLine { address, held_back }) = self.log.line(peer) {
            tracing::warn!(%address, held_back, "a wrong token came");
        }
        let place = self.waiting.try_enter(peer);
        let delay = match place {
            Some(_) => delay(self.note(address_of(peer), self.clock.instant())),
            None => Duration::ZERO,
        };
        let answered = match &place {
            None => Answered::Crowded,
            Some(_) if delay.is_zero() => Answered::AtOnce,
            Some(_) => Answered::Late,
        };
        metrics::wrong_token(answered.label());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        drop(place);
        answered
    }

    /// The number of recent wrong tokens of the address, this one included.
    fn note(&self, address: IpAddr, now: Instant) -> u32 {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.is_full(address) {
            senders.sweep(now);
        }
        if senders.is_full(address) {
            // The table of addresses is full: every new one is treated as one with many wrong
            // tokens.
            return u32::MAX;
        }
        let before = senders.by_address.get(&address);
        let wrong = before.map_or(0, |sent| sent.at(now)).saturating_add(1);
        let sent = Sent { wrong, last: now };
        senders.by_address.insert(address, sent);
        wrong
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
        // A search visits all addresses, so a flood must not cause one for each token.
        let almost = now + FORGOTTEN_AFTER - SWEEP_PAUSE / 2;
        assert_eq!(wrong.note(IpAddr::V4(many.into()), almost), u32::MAX);
        let forgotten = now + FORGOTTEN_AFTER;
        assert_eq!(wrong.note(IpAddr::V4(many.into()), forgotten), u32::MAX);
        let later = almost + SWEEP_PAUSE;
        assert_eq!(wrong.note(IpAddr::V4(many.into()), later), 1);
    }

    fn peer(address: u8, connection: u64) -> Option<Peer> {
        Some(Peer {
            address: v4(address),
            connection,
        })
    }

    /// 64 wrong tokens of one address were delayed, and a wrong token of another one was answered
    /// 429, on which git gives up.
    #[tokio::test(start_paused = true)]
    async fn no_address_takes_all_places_to_wait() {
        let wrong = WrongTokens::new(SystemClock::shared());
        for address in 1..=3 {
            for _ in 0..limits::WRONG_TOKENS_FREE {
                assert_eq!(wrong.one_more(peer(address, 0)).await, Answered::AtOnce);
            }
        }
        let of_address = (1..=20).map(|connection| wrong.one_more(peer(1, connection)));
        let mut of_address = Box::pin(futures::future::join_all(of_address));
        assert!(futures::poll!(of_address.as_mut()).is_pending());
        let of_connection = (0..6).map(|_| wrong.one_more(peer(2, 100)));
        let mut of_connection = Box::pin(futures::future::join_all(of_connection));
        assert!(futures::poll!(of_connection.as_mut()).is_pending());
        assert_eq!(wrong.one_more(peer(3, 200)).await, Answered::Late);
        for (answered, late) in [
            (of_address.await, limits::WRONG_TOKENS_WAITING_PER_ADDRESS),
            (
                of_connection.await,
                limits::WRONG_TOKENS_WAITING_PER_CONNECTION,
            ),
        ] {
            let (waited, crowded): (Vec<_>, Vec<_>) = answered
                .into_iter()
                .partition(|answered| *answered == Answered::Late);
            assert_eq!(waited.len(), late);
            assert!(crowded.iter().all(|one| *one == Answered::Crowded));
        }
    }
}
