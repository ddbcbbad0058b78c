//! The places of connections, and who gives one up when there is none.
//!
//! When all places are taken, a newcomer gets the place of a connection that has no request under way: of the address with the
//! most connections, the one that has been without for the longest. So whoever opens many connections keeps nobody else
//! out, and a proxy may hold as many as it likes while nobody else comes. For the case that all connections are at work a few
//! places are kept for those that ask how the node stands.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// By the clock of the runtime, which tests pause.
#[expect(
    clippy::disallowed_methods,
    reason = "tokio's clock is the runtime's, and stands still in tests that say so"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Bits of an IPv6 address that tell one client from another: hosts get whole networks of 64 bits.
const IPV6_PREFIX: u32 = 64;

/// The places; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Door {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Connections at once.
    max: usize,
    /// More of them that may only ask how the node stands.
    kept: usize,
    state: Mutex<State>,
    places: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    /// Connections in the places that are kept.
    kept_taken: usize,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    /// Requests that are not answered to their last byte.
    requests: usize,
    /// Since when there is none.
    idle_since: Instant,
    leave: CancellationToken,
}

/// What a newcomer gets.
#[derive(Debug)]
pub(super) enum Entered {
    /// A place.
    Place(Place),
    /// One of the few that are kept for those that ask how the node stands.
    Kept(KeptPlace),
    /// Nothing.
    Full,
}

impl Door {
    /// A door with `max` places, and `kept` more for those that ask how the node stands.
    pub(super) fn new(max: usize, kept: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                max,
                kept,
                state: Mutex::default(),
                places: TaskTracker::new(),
            }),
        }
    }

    /// Lets a connection in.
    pub(super) fn enter(&self, address: IpAddr) -> Entered {
        let mut state = self.shared.lock();
        if state.connections.len() >= self.shared.max {
            let Some(leaving) = state.who_leaves() else {
                if state.kept_taken >= self.shared.kept {
                    return Entered::Full;
                }
                state.kept_taken += 1;
                drop(state);
                return Entered::Kept(KeptPlace {
                    shared: Arc::clone(&self.shared),
                    _open: self.shared.places.token(),
                });
            };
            if let Some(connection) = state.connections.remove(&leaving) {
                connection.leave.cancel();
            }
        }
        let (id, leave) = (state.next, CancellationToken::new());
        state.next += 1;
        let connection = Connection {
            address: client_of(address),
            requests: 0,
            idle_since: now(),
            leave: leave.clone(),
        };
        state.connections.insert(id, connection);
        drop(state);
        Entered::Place(Place {
            inside: Arc::new(Inside {
                shared: Arc::clone(&self.shared),
                id,
                leave,
                _open: self.shared.places.token(),
            }),
        })
    }

    /// Waits until all connections are gone; `false` when the deadline passed first.
    pub(super) async fn all_left(&self, deadline: Duration) -> bool {
        self.shared.places.close();
        let left = tokio::time::timeout(deadline, self.shared.places.wait());
        left.await.is_ok()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The connection that gives its place up: idle, of the address with the most connections, for the longest time.
    fn who_leaves(&self) -> Option<u64> {
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for connection in self.connections.values() {
            *of_address.entry(connection.address).or_default() += 1;
        }
        let all = self.connections.iter();
        let idle = all.filter(|(_, connection)| connection.requests == 0);
        idle.max_by_key(|(_, connection)| {
            let held = of_address.get(&connection.address).copied();
            (
                held.unwrap_or_default(),
                std::cmp::Reverse(connection.idle_since),
            )
        })
        .map(|(id, _)| *id)
    }
}

/// What counts as one client.
pub(super) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << (u128::BITS - IPV6_PREFIX));
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

/// The place of one connection; clones share it, and it is free when the last of them is gone.
#[derive(Debug, Clone)]
pub(super) struct Place {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    shared: Arc<Shared>,
    id: u64,
    leave: CancellationToken,
    _open: TaskTrackerToken,
}

impl Place {
    /// A number that no other connection of this process has.
    pub(super) fn number(&self) -> u64 {
        self.inside.id
    }

    /// Cancelled when the place was given to somebody else.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.inside.leave
    }

    /// A request began; it is under way until the result is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        self.change(|connection| connection.requests += 1);
        UnderWay(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Connection)) {
        let mut state = self.inside.shared.lock();
        if let Some(connection) = state.connections.get_mut(&self.inside.id) {
            change(connection);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.shared.lock().connections.remove(&self.id);
    }
}

/// A request that is not answered to its last byte.
#[derive(Debug)]
pub(super) struct UnderWay(Place);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.change(|connection| {
            connection.requests = connection.requests.saturating_sub(1);
            connection.idle_since = now();
        });
    }
}

/// One of the places that are kept for those that ask how the node stands.
#[derive(Debug)]
pub(super) struct KeptPlace {
    shared: Arc<Shared>,
    _open: TaskTrackerToken,
}

impl Drop for KeptPlace {
    fn drop(&mut self) {
        self.shared.lock().kept_taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn place(door: &Door, last: u8) -> Place {
        match door.enter(address(last)) {
            Entered::Place(place) => place,
            other @ (Entered::Kept(_) | Entered::Full) => panic!("{other:?}"),
        }
    }

    /// 1,024 sockets of one address that sent nothing shut the door for a minute.
    #[tokio::test(start_paused = true)]
    async fn the_address_with_the_most_connections_gives_its_longest_idle_one_up() {
        let door = Door::new(4, 1);
        let other = place(&door, 1);
        tokio::time::advance(SECOND).await;
        let mut flood = Vec::new();
        for _ in 0..3 {
            flood.push(place(&door, 2));
            tokio::time::advance(SECOND).await;
        }
        let answered = flood[0].begin();
        drop(answered);
        let newcomer = place(&door, 3);
        let left: Vec<_> = flood
            .iter()
            .map(|place| place.leave().is_cancelled())
            .collect();
        assert_eq!(left, [false, true, false], "idle for the longest");
        assert!(!other.leave().is_cancelled(), "idle for longer, and alone");
        assert!(!newcomer.leave().is_cancelled());
    }

    #[tokio::test]
    async fn who_is_answered_keeps_its_place_and_some_are_kept() {
        let door = Door::new(2, 1);
        let places = [place(&door, 1), place(&door, 1)];
        let mut under_way: Vec<_> = places.iter().map(Place::begin).collect();
        let Entered::Kept(kept) = door.enter(address(2)) else {
            panic!("a place is kept");
        };
        assert!(matches!(door.enter(address(2)), Entered::Full));
        drop(kept);
        assert!(matches!(door.enter(address(2)), Entered::Kept(_)));
        under_way.pop();
        let newcomer = place(&door, 2);
        let left: Vec<_> = places
            .iter()
            .map(|place| place.leave().is_cancelled())
            .collect();
        assert_eq!(left, [false, true]);
        drop((under_way, places));
        assert!(!door.all_left(Duration::ZERO).await);
        drop(newcomer);
        assert!(door.all_left(SECOND).await);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let client = |text: &str| client_of(text.parse().expect("an address"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
    }
}
