//! Permits for anonymous requests, limited in total, for each address, and for each connection: no
//! client can hold all permits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;

/// The origin of a request. The listener puts it into the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The client's address; for IPv6 its network of 64 bits.
    pub address: IpAddr,
    /// The connection: a number unique in this process.
    pub connection: u64,
}

/// Limits on permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceBounds {
    /// In total.
    pub in_all: usize,
    /// For one address.
    pub per_address: usize,
    /// For one connection.
    pub per_connection: usize,
}

/// Permits for requests; clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: PlaceBounds,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    /// The number of requests that wait for a permit.
    waiting: usize,
    by_address: HashMap<IpAddr, usize>,
    by_connection: HashMap<u64, usize>,
}

impl Places {
    /// Permits within `bounds`.
    pub fn new(bounds: PlaceBounds) -> Self {
        Self {
            shared: Arc::new(Shared {
                bounds,
                taken: Mutex::default(),
                freed: Notify::new(),
            }),
        }
    }

    /// A permit, if one is free now. For an unknown peer only the total limit applies.
    pub fn try_enter(&self, peer: Option<Peer>) -> Option<TakenPlace> {
        let bounds = &self.shared.bounds;
        let mut taken = self.shared.lock();
        if taken.in_all >= bounds.in_all {
            return None;
        }
        if let Some(peer) = peer {
            let of_address = taken.by_address.get(&peer.address).copied();
            let of_connection = taken.by_connection.get(&peer.connection).copied();
            if of_address.unwrap_or_default() >= bounds.per_address
                || of_connection.unwrap_or_default() >= bounds.per_connection
            {
                return None;
            }
            *taken.by_address.entry(peer.address).or_default() += 1;
            *taken.by_connection.entry(peer.connection).or_default() += 1;
        }
        taken.in_all += 1;
        drop(taken);
        Some(TakenPlace {
            shared: Arc::clone(&self.shared),
            peer,
        })
    }

    /// A permit, if one is free within this time. The number of waiting requests is limited to the
    /// total number of permits; further requests get none.
    pub async fn enter(&self, peer: Option<Peer>, within: Duration) -> Option<TakenPlace> {
        if let Some(place) = self.try_enter(peer) {
            return Some(place);
        }
        let _waits = self.wait_in_line()?;
        let waiting = async {
            loop {
                // Registered first: a permit released meanwhile is not missed.
                let freed = self.shared.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if let Some(place) = self.try_enter(peer) {
                    return place;
                }
                freed.await;
            }
        };
        tokio::time::timeout(within, waiting).await.ok()
    }
}

impl Places {
    fn wait_in_line(&self) -> Option<Waiting> {
        let mut taken = self.shared.lock();
        if taken.waiting >= self.shared.bounds.in_all {
            return None;
        }
        taken.waiting += 1;
        drop(taken);
        Some(Waiting(Arc::clone(&self.shared)))
    }
}

/// A request that waits for a permit.
struct Waiting(Arc<Shared>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut taken = self.0.lock();
        taken.waiting = taken.waiting.saturating_sub(1);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit, released on drop.
#[derive(Debug)]
pub struct TakenPlace {
    shared: Arc<Shared>,
    peer: Option<Peer>,
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        let mut taken = self.shared.lock();
        taken.in_all = taken.in_all.saturating_sub(1);
        if let Some(peer) = self.peer {
            less(&mut taken.by_address, &peer.address);
            less(&mut taken.by_connection, &peer.connection);
        }
        drop(taken);
        self.shared.freed.notify_waiters();
    }
}

/// Wraps `body` so that `held` is dropped with it, after its last byte.
pub fn until_sent<T: Send + Unpin + 'static>(body: Body, held: T) -> Body {
    Body::new(UntilSent { body, _held: held })
}

struct UntilSent<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> HttpBody for UntilSent<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: PlaceBounds = PlaceBounds {
        in_all: 5,
        per_address: 4,
        per_connection: 2,
    };

    fn peer(address: u8, connection: u64) -> Option<Peer> {
        Some(Peer {
            address: IpAddr::from([10, 0, 0, address]),
            connection,
        })
    }

    /// One connection once held all permits for requests without a token.
    #[test]
    fn no_connection_and_no_address_takes_all_places() {
        let places = Places::new(BOUNDS);
        let enter = |address, connection| places.try_enter(peer(address, connection));
        let mut held = vec![enter(1, 1).unwrap(), enter(1, 1).unwrap()];
        assert!(enter(1, 1).is_none(), "the connection has its share");
        held.extend([enter(1, 2).unwrap(), enter(1, 3).unwrap()]);
        assert!(enter(1, 4).is_none(), "the address has its share");
        held.push(enter(2, 5).unwrap());
        assert!(enter(3, 6).is_none(), "there are no more");
        held.remove(0);
        held.push(enter(1, 1).unwrap());
        drop(held);
        let taken = places.shared.lock();
        assert_eq!(taken.in_all, 0);
        assert!(taken.by_address.is_empty() && taken.by_connection.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_that_comes_free() {
        let places = Places::new(BOUNDS);
        let wait = Duration::from_secs(5);
        let held: Vec<_> = (0..2)
            .map(|_| places.try_enter(peer(1, 1)).unwrap())
            .collect();
        assert!(places.enter(peer(1, 1), wait).await.is_none());
        let (entered, ()) = tokio::join!(places.enter(peer(1, 1), wait), async {
            tokio::time::sleep(wait / 2).await;
            drop(held);
        });
        assert!(entered.is_some());
    }
}
