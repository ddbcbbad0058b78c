//! Permits to make responses: the selection of objects that a client lacks takes memory and a
//! processor.
//!
//! The number of permits is small. A released permit goes to the repository with the fewest
//! permits, and among equals to the request that waited longest. Requests without a token never
//! hold all permits of a kind of work, nor more of them than half of the processors. Example:
//! thirty requests for one repository do not delay a request for another one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::protocol::{Asker, Stop};

/// Permits for clients that have nothing in common with the server.
const CLONES_MAX: usize = 4;
/// Those among them for requests without a token.
const ANONYMOUS_CLONES_MAX: usize = 2;
/// Permits for clients that have some of the history: these cost much less.
const FETCHES_MAX: usize = 16;
/// Those among them for requests without a token.
const ANONYMOUS_FETCHES_MAX: usize = 8;
/// The interval at which a waiting request checks its deadline.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The kind of work for a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The client has no object of the server.
    Clone,
    /// The client has some of the history.
    Fetch,
}

/// The limits on permits.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// For requests without a token, of each kind of work: half of the processors, at least one.
    anonymous: usize,
}

impl Places {
    const fn of(self, work: Work, asker: Asker) -> usize {
        let (most, anonymous) = match work {
            Work::Clone => (CLONES_MAX, ANONYMOUS_CLONES_MAX),
            Work::Fetch => (FETCHES_MAX, ANONYMOUS_FETCHES_MAX),
        };
        match asker {
            Asker::Known => most,
            Asker::Anybody if anonymous < self.anonymous => anonymous,
            Asker::Anybody => self.anonymous,
        }
    }
}

/// The permits of a server.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    places: Places,
    next: u64,
    /// In the order of their arrival.
    waiting: Vec<Ticket>,
    made: Vec<Ticket>,
}

#[derive(Debug, Clone)]
struct Ticket {
    number: u64,
    work: Work,
    asker: Asker,
    repository: Arc<[u8]>,
}

impl State {
    fn made(&self, is_it: impl Fn(&Ticket) -> bool) -> usize {
        self.made.iter().filter(|made| is_it(made)).count()
    }

    fn has_place(&self, ticket: &Ticket) -> bool {
        let of_work = |made: &Ticket| made.work == ticket.work;
        let of_asker = |made: &Ticket| of_work(made) && made.asker == ticket.asker;
        self.made(of_work) < self.places.of(ticket.work, Asker::Known)
            && self.made(of_asker) < self.places.of(ticket.work, ticket.asker)
    }

    /// The next request in line among those with a free permit.
    fn next_of(&self, work: Work) -> Option<u64> {
        let waiting = self.waiting.iter();
        let may_go = waiting.filter(|ticket| ticket.work == work && self.has_place(ticket));
        let rank = |ticket: &&Ticket| {
            let made =
                self.made(|made| made.work == ticket.work && made.repository == ticket.repository);
            (made, ticket.number)
        };
        may_go.min_by_key(rank).map(|ticket| ticket.number)
    }
}

impl Turns {
    /// The permits of a machine with so many processors.
    pub(super) fn new(processors: usize) -> Self {
        let places = Places {
            anonymous: (processors / 2).max(1),
        };
        Self {
            state: Mutex::new(State {
                places,
                next: 0,
                waiting: Vec::new(),
                made: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Waits for a permit; `None` when the deadline passed first.
    pub(super) fn take(
        self: &Arc<Self>,
        work: Work,
        asker: Asker,
        repository: &[u8],
        stop: &Stop,
    ) -> Option<MakingTurn> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let ticket = Ticket {
            number,
            work,
            asker,
            repository: repository.into(),
        };
        state.waiting.push(ticket.clone());
        let got = loop {
            if state.next_of(work) == Some(number) {
                break true;
            }
            if stop.is_set() {
                break false;
            }
            let waited = self.changed.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting.retain(|waiting| waiting.number != number);
        if got {
            state.made.push(ticket);
        }
        drop(state);
        // The next request may have a permit as well, or have waited only behind this one.
        self.changed.notify_all();
        got.then(|| MakingTurn {
            turns: Arc::clone(self),
            number,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit to make a response, released on drop.
#[derive(Debug)]
pub(crate) struct MakingTurn {
    turns: Arc<Turns>,
    number: u64,
}

impl Drop for MakingTurn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.made.retain(|made| made.number != self.number);
        drop(state);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// So many that their number does not matter.
    const PROCESSORS: usize = 64;

    /// A permit that is available now.
    fn now(turns: &Arc<Turns>, work: Work, asker: Asker, repository: &str) -> Option<MakingTurn> {
        let stopped = Stop::default();
        stopped.stop();
        turns.take(work, asker, repository.as_bytes(), &stopped)
    }

    #[test]
    fn those_without_a_token_leave_places_to_others() {
        let turns = Arc::new(Turns::new(PROCESSORS));
        let clone = |asker| now(&turns, Work::Clone, asker, "r");
        let anybody: Vec<_> = (0..ANONYMOUS_CLONES_MAX)
            .map(|_| clone(Asker::Anybody).unwrap())
            .collect();
        assert!(clone(Asker::Anybody).is_none());
        let known: Vec<_> = (ANONYMOUS_CLONES_MAX..CLONES_MAX)
            .map(|_| clone(Asker::Known).unwrap())
            .collect();
        assert!(clone(Asker::Known).is_none());
        assert!(now(&turns, Work::Fetch, Asker::Anybody, "r").is_some());
        drop(anybody);
        let more: Vec<_> = (0..ANONYMOUS_CLONES_MAX)
            .map(|_| clone(Asker::Known).unwrap())
            .collect();
        assert!(clone(Asker::Anybody).is_none(), "all places are taken");
        drop((known, more));
        assert!(turns.lock().made.is_empty() && turns.lock().waiting.is_empty());
    }

    /// Two clones and eight fetches without a token once occupied both processors of a node, to the
    /// disadvantage of requests with a token.
    #[test]
    fn those_without_a_token_have_half_of_the_processors() {
        for (processors, clones, fetches) in [
            (0, 1, 1),
            (1, 1, 1),
            (2, 1, 1),
            (3, 1, 1),
            (4, 2, 2),
            (8, 2, 4),
            (16, 2, 8),
            (64, 2, 8),
        ] {
            let turns = Arc::new(Turns::new(processors));
            for (work, most) in [(Work::Clone, clones), (Work::Fetch, fetches)] {
                let anybody =
                    |number: usize| now(&turns, work, Asker::Anybody, &number.to_string());
                let made: Vec<_> = (0..FETCHES_MAX).filter_map(anybody).collect();
                assert_eq!(made.len(), most, "{work:?} of {processors}");
                assert!(now(&turns, work, Asker::Known, "r").is_some());
                drop(made);
                assert!(anybody(0).is_some(), "they are given back");
            }
        }
    }

    /// Thirty requests for one repository once made a clone of another one wait for all of them.
    #[test]
    fn another_repository_does_not_wait_for_all_of_a_flood() {
        let turns = Arc::new(Turns::new(PROCESSORS));
        let flood = || now(&turns, Work::Clone, Asker::Known, "flood");
        let mut made: VecDeque<_> = (0..CLONES_MAX).map(|_| flood().unwrap()).collect();
        let wait = |repository: &'static str| {
            let before = turns.lock().next;
            let (told, got) = std::sync::mpsc::sync_channel(1);
            let waiting = {
                let turns = Arc::clone(&turns);
                #[expect(clippy::disallowed_methods, reason = "a client that waits")]
                std::thread::spawn(move || {
                    let stop = Stop::default();
                    let turn = turns.take(Work::Clone, Asker::Known, repository.as_bytes(), &stop);
                    told.send(repository).unwrap();
                    turn
                })
            };
            while turns.lock().next == before {
                std::thread::yield_now();
            }
            (waiting, got)
        };
        let first = wait("flood");
        let other = wait("other");
        drop(made.pop_front());
        let long = Duration::from_secs(60);
        assert_eq!(other.1.recv_timeout(long), Ok("other"));
        assert!(first.1.try_recv().is_err(), "it came first, and waits");
        drop(made.pop_front());
        assert_eq!(first.1.recv_timeout(long), Ok("flood"));
        let turn = other.0.join().unwrap();
        assert!(turn.is_some() && first.0.join().unwrap().is_some());
    }
}
