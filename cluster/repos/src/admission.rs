//! Limits the fetches that a node handles at once.
//!
//! Equal fetches wait for the first of them. A waiting fetch uses no CPU and gives its permit back:
//! a clone that a hundred machines request at once must not block other clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use henge_git::Admission;
use henge_types::limits;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The fetch permits of a node.
#[derive(Debug)]
pub(crate) struct Admissions {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Why a fetch was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// No permit came free in time.
    Full,
    /// The node shuts down.
    Stopping,
}

impl From<AcquireError> for NotAdmitted {
    fn from(_: AcquireError) -> Self {
        Self::Stopping
    }
}

impl Default for Admissions {
    fn default() -> Self {
        Self::new(limits::FETCHES_AT_ONCE, limits::FETCHES_WAITING_MAX)
    }
}

impl Admissions {
    fn new(working: usize, waiting: usize) -> Self {
        Self {
            working: Arc::new(Semaphore::new(working)),
            waiting: Arc::new(Semaphore::new(waiting)),
        }
    }

    /// Permits in use, those of waiting fetches included.
    pub(crate) fn held(&self) -> usize {
        let most = limits::FETCHES_AT_ONCE + limits::FETCHES_WAITING_MAX;
        let free = self.working.available_permits() + self.waiting.available_permits();
        most.saturating_sub(free)
    }

    /// Waits up to `within` for a permit. The permit is held until the result is dropped or waits.
    pub(crate) async fn admit(&self, within: Duration) -> Result<Admitted, NotAdmitted> {
        let place = Arc::clone(&self.working).acquire_owned();
        let place = tokio::time::timeout(within, place)
            .await
            .map_err(|_| NotAdmitted::Full)??;
        Ok(Admitted {
            place: Mutex::new(Place::Working(place)),
            waiting: Arc::clone(&self.waiting),
        })
    }
}

/// The permit of one fetch.
#[derive(Debug)]
pub(crate) struct Admitted {
    place: Mutex<Place>,
    waiting: Arc<Semaphore>,
}

/// The permit; released on drop.
#[derive(Debug)]
enum Place {
    Working(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit),
    Waiting(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit),
}

impl Admission for Admitted {
    /// Exchanges the permit for a waiting permit, if one is free. The fetch keeps the waiting
    /// permit: sending a response that another fetch computed costs almost no CPU.
    fn waits(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::Working(_))
            && let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned()
        {
            *place = Place::Waiting(waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_leaves_its_place_to_others_while_there_is_room() {
        let admissions = Admissions::new(2, 3);
        let admit = || admissions.admit(Duration::ZERO);
        let mut held = Vec::new();
        for _ in 0..3 {
            let admitted = admit().await.unwrap();
            admitted.waits();
            admitted.waits();
            held.push(admitted);
        }
        // Three fetches wait; there is no waiting permit for a fourth.
        for _ in 0..2 {
            let admitted = admit().await.unwrap();
            admitted.waits();
            held.push(admitted);
        }
        assert_eq!(admit().await.unwrap_err(), NotAdmitted::Full);
        // One waiting fetch ends: another one may wait in its place.
        held.remove(0);
        held[3].waits();
        let last = admit().await.unwrap();
        assert_eq!(admit().await.unwrap_err(), NotAdmitted::Full);
        drop((held, last));
        assert_eq!(admissions.working.available_permits(), 2);
        assert_eq!(admissions.waiting.available_permits(), 3);
    }
}
