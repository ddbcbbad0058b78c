//! The permits of connections, and the eviction of idle connections.
//!
//! When all permits are taken, a new connection gets the permit of an idle one. Among the addresses
//! with an idle connection, the one with the most connections loses the connection that has been
//! idle for the longest time. Example: a client that opens many connections keeps no other client
//! out, and a proxy may hold all permits while no other client comes. A few permits are reserved
//! for health requests, for the case that all connections are at work.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use henge_api::metrics;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The time by the runtime's clock, which tests pause.
#[expect(
    clippy::disallowed_methods,
    reason = "tokio's clock is the runtime's, and stands still in tests that say so"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Bits of an IPv6 address that identify a client: a host gets a whole network of 64 bits.
const IPV6_PREFIX: u32 = 64;

/// The numbers of permits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once.
    pub(super) max: usize,
    /// Further connections, for `/healthz`, `/readyz` and `/metrics` only.
    pub(super) kept: usize,
    /// The share of one address in these.
    pub(super) kept_per_address: usize,
}

/// The permits; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Door {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
    places: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    /// Connections with a reserved permit, and the clients that they count for.
    kept: BTreeMap<u64, IpAddr>,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    /// Requests whose response is not complete.
    requests: usize,
    /// The beginning of the idle time, if there are none.
    idle_since: Instant,
    leave: CancellationToken,
}

/// The result for a new connection.
#[derive(Debug)]
pub(super) enum Entered {
    /// A permit.
    Place(Place),
    /// A permit reserved for health requests.
    Kept(KeptPlace),
    /// No permit.
    Full,
}

impl Door {
    /// A door with these bounds.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            shared: Arc::new(Shared {
                bounds,
                state: Mutex::default(),
                places: TaskTracker::new(),
            }),
        }
    }

    /// Admits a connection. If all permits are taken, an idle connection is evicted for it.
    pub(super) fn enter(&self, address: IpAddr) -> Entered {
        let client = client_of(address);
        let bounds = &self.shared.bounds;
        let mut state = self.shared.lock();
        if state.connections.len() >= bounds.max {
            let Some(leaving) = state.who_leaves() else {
                if !state.has_kept_place(bounds, client) {
                    return Entered::Full;
                }
                let id = state.next_id();
                state.kept.insert(id, client);
                state.tell();
                drop(state);
                return Entered::Kept(KeptPlace {
                    shared: Arc::clone(&self.shared),
                    id,
                    _open: self.shared.places.token(),
                });
            };
            if let Some(connection) = state.connections.remove(&leaving) {
                connection.leave.cancel();
            }
        }
        let (id, leave) = (state.next_id(), CancellationToken::new());
        let connection = Connection {
            address: client,
            requests: 0,
            idle_since: now(),
            leave: leave.clone(),
        };
        state.connections.insert(id, connection);
        state.tell();
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

    /// Waits until all connections have ended; `false` when the deadline passed first.
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
    /// A number that no other connection has.
    fn next_id(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Whether a reserved permit is left for this client.
    fn has_kept_place(&self, bounds: &Bounds, client: IpAddr) -> bool {
        let of_client = self.kept.values().filter(|other| **other == client);
        self.kept.len() < bounds.kept && of_client.count() < bounds.kept_per_address
    }

    fn tell(&self) {
        metrics::connections(self.connections.len(), self.kept.len());
    }

    /// The connection to evict: an idle one, of the address with the most connections, idle for the
    /// longest time.
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

/// The address that a client is counted by.
pub(super) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << (u128::BITS - IPV6_PREFIX));
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

/// The permit of one connection; clones share it, and the last one frees it.
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

    /// Cancelled when the connection is evicted.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.inside.leave
    }

    /// Notes that a request began; it is under way until the result is dropped.
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
        let mut state = self.shared.lock();
        state.connections.remove(&self.id);
        state.tell();
    }
}

/// A request whose response is not complete.
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

/// A permit reserved for health requests.
#[derive(Debug)]
pub(super) struct KeptPlace {
    shared: Arc<Shared>,
    id: u64,
    _open: TaskTrackerToken,
}

impl KeptPlace {
    /// A number that no other connection of this process has.
    pub(super) const fn number(&self) -> u64 {
        self.id
    }
}

impl Drop for KeptPlace {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.kept.remove(&self.id);
        state.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn door(max: usize, kept: usize) -> Door {
        Door::new(Bounds {
            max,
            kept,
            kept_per_address: kept,
        })
    }

    fn place(door: &Door, last: u8) -> Place {
        match door.enter(address(last)) {
            Entered::Place(place) => place,
            other @ (Entered::Kept(_) | Entered::Full) => panic!("{other:?}"),
        }
    }

    /// Regression: 1,024 silent sockets of one address kept all other clients out for a minute.
    #[tokio::test(start_paused = true)]
    async fn the_address_with_the_most_connections_gives_its_longest_idle_one_up() {
        let door = door(4, 1);
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
        let door = door(2, 1);
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

    /// Regression: 32 connections of one address held all permits reserved for health requests.
    #[tokio::test]
    async fn no_address_has_all_kept_places() {
        let door = Door::new(Bounds {
            max: 0,
            kept: 3,
            kept_per_address: 2,
        });
        let kept = |last| match door.enter(address(last)) {
            Entered::Kept(place) => Some(place),
            Entered::Full => None,
            Entered::Place(place) => panic!("{place:?}"),
        };
        let mut held = vec![kept(1).expect("one"), kept(1).expect("another")];
        assert!(kept(1).is_none(), "the address has its share");
        held.push(kept(2).expect("one of another address"));
        assert!(kept(3).is_none(), "there are no more");
        let numbers: Vec<_> = held.iter().map(KeptPlace::number).collect();
        assert_eq!(numbers, [0, 1, 2]);
        held.remove(0);
        held.push(kept(1).expect("one that came free"));
        assert!(kept(1).is_none(), "the address has its share");
    }

    #[tokio::test]
    async fn open_connections_are_counted_by_kind() {
        let (recorder, page) = henge_api::MetricsHandle::recorder();
        let _collecting = metrics::set_default_local_recorder(&recorder);
        let open = |kind: &str, held: usize| {
            let line = format!("henge_api_connections{{kind=\"{kind}\"}} {held}\n");
            let page = page.render();
            assert!(page.contains(&line), "no {line:?} in:\n{page}");
        };
        let door = door(1, 1);
        let only = place(&door, 1);
        let answered = only.begin();
        let kept = door.enter(address(2));
        open("any", 1);
        open("health", 1);
        drop((kept, answered, only));
        open("any", 0);
        open("health", 0);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let client = |text: &str| client_of(text.parse().expect("an address"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
    }
}
