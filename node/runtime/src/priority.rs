//! Permits that go to the waiter with the highest priority.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// A bounded number of permits. Where several tasks wait for one, the highest priority gets it, and
/// among equals the longest wait. Clones share the permits.
///
/// Example: with one permit and the priorities 3, 7 and 7 waiting, the first 7 gets it, then the
/// other 7, then 3.
pub struct PriorityPermits<P: Ord>(Arc<Mutex<State<P>>>);

struct State<P: Ord> {
    free: usize,
    waiting: BTreeMap<(P, Reverse<u64>), oneshot::Sender<PriorityPermit<P>>>,
    /// Waits begun so far.
    waits: u64,
}

impl<P: Ord> Clone for PriorityPermits<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Ord> fmt::Debug for PriorityPermits<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityPermits").finish_non_exhaustive()
    }
}

impl<P: Ord> PriorityPermits<P> {
    /// This number of permits.
    pub fn new(permits: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: permits,
            waiting: BTreeMap::new(),
            waits: 0,
        })))
    }

    /// Waits for a permit. A wait that is dropped takes none.
    pub async fn acquire(&self, priority: P) -> PriorityPermit<P> {
        let granted = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return self.permit();
            }
            // Removes waits that were dropped meanwhile.
            state.waiting.retain(|_, waiter| !waiter.is_closed());
            state.waits += 1;
            let rank = (priority, Reverse(state.waits));
            let (grant, granted) = oneshot::channel();
            state.waiting.insert(rank, grant);
            granted
        };
        granted
            .await
            .expect("invariant: a waiter is only taken out with a permit")
    }

    fn permit(&self) -> PriorityPermit<P> {
        PriorityPermit(Some(self.clone()))
    }

    fn release(&self) {
        let mut state = self.lock();
        while let Some((_, waiter)) = state.waiting.pop_last() {
            match waiter.send(self.permit()) {
                Ok(()) => return,
                // The waiter is gone: the permit goes to the next one, and must not be released by
                // its drop.
                Err(mut permit) => permit.0 = None,
            }
        }
        state.free += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.0
            .lock()
            .expect("invariant: handing out permits does not panic")
    }
}

/// A permit, released when it is dropped.
pub struct PriorityPermit<P: Ord>(Option<PriorityPermits<P>>);

impl<P: Ord> fmt::Debug for PriorityPermit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityPermit").finish_non_exhaustive()
    }
}

impl<P: Ord> Drop for PriorityPermit<P> {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_highest_priority_comes_first_then_the_longest_wait() {
        let permits = PriorityPermits::new(1);
        let held = permits.acquire((9, "holder")).await;
        let mut low = Box::pin(permits.acquire((3, "low")));
        let mut early = Box::pin(permits.acquire((7, "high")));
        let mut late = Box::pin(permits.acquire((7, "high")));
        for wait in [&mut low, &mut early, &mut late] {
            assert!(wait.now_or_never().is_none(), "there is one permit");
        }
        drop(held);
        assert!((&mut late).now_or_never().is_none());
        let first = (&mut early).now_or_never().expect("the first of the high");
        drop(first);
        assert!((&mut low).now_or_never().is_none());
        let second = (&mut late).now_or_never().expect("the other");
        drop(second);
        assert!((&mut low).now_or_never().is_some(), "the last");
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_takes_no_permit() {
        let permits = PriorityPermits::new(1);
        let held = permits.acquire(1).await;
        let mut dropped = Box::pin(permits.acquire(8));
        assert!((&mut dropped).now_or_never().is_none());
        let mut granted = Box::pin(permits.acquire(7));
        assert!((&mut granted).now_or_never().is_none());
        drop(dropped);
        // Granted, and dropped before its next poll.
        drop(held);
        drop(granted);
        assert!(permits.acquire(1).now_or_never().is_some());
    }
}
