//! The networks of a shard that its leader watches, and when one of them is due.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use henge_types::NetworkId;
use henge_types::status::CompactionDepth as Depth;

/// More packs than this are merged at once.
const PACKS_MAX: usize = 32;
/// More packs than this are merged after [`QUIET`] without a push.
const PACKS_QUIET: usize = 6;
/// Time without a push before more than [`PACKS_QUIET`] packs are merged.
const QUIET: Duration = Duration::from_secs(2);
/// Additional time without a push for every MiB of packs before they become one. The worst case, a
/// push each time just after the merge, costs the leader about 1 % of a processor.
const SETTLED_PER_MIB: Duration = Duration::from_secs(4);
/// Larger networks keep a geometric progression of packs: its cost is small beside that of a clone
/// of this size.
const SETTLED_BYTES_MAX: u64 = 1024 * MIB;
const MIB: u64 = 1024 * 1024;
/// The backoff after a first failure; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// A network to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// The network.
    pub network: NetworkId,
    /// How deep.
    pub depth: Depth,
    /// The priority.
    pub urgency: Urgency,
}

/// The priority of a compaction: requests come first, then the network with more packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency {
    /// Whether it was requested.
    pub asked: bool,
    /// The number of packs.
    pub packs: usize,
}

/// The packs of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Packs {
    /// How many there are.
    pub count: usize,
    /// Bytes of all.
    pub bytes: u64,
}

impl Packs {
    /// Time without a push before the packs become one: `least` for the smallest network, `None`
    /// when they are not merged.
    fn settle_after(self, least: Option<Duration>) -> Option<Duration> {
        let least = least.filter(|_| self.count > 1 && self.bytes <= SETTLED_BYTES_MAX)?;
        let mib = u32::try_from(self.bytes / MIB).ok()?;
        Some(least.saturating_add(SETTLED_PER_MIB.saturating_mul(mib)))
    }
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    /// When it got its last pack.
    grew: Instant,
    asked: Option<Depth>,
    failures: u32,
    not_before: Option<Instant>,
    /// Whether its packs are a geometric progression; reset by a new pack.
    is_progression: bool,
}

impl Watched {
    const fn new(grew: Instant) -> Self {
        Self {
            grew,
            asked: None,
            failures: 0,
            not_before: None,
            is_progression: false,
        }
    }

    /// The depth of the compaction that is due now, if any; `settle` is the time without a push
    /// before all packs of a small network become one.
    fn is_due(&self, now: Instant, packs: Packs, settle: Option<Duration>) -> Option<Depth> {
        if let Some(depth) = self.asked {
            return Some(depth);
        }
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return None;
        }
        let quiet = now.saturating_duration_since(self.grew);
        let many = packs.count > PACKS_MAX || packs.count > PACKS_QUIET && quiet >= QUIET;
        if many && !self.is_progression {
            return Some(Depth::Geometric);
        }
        let after = packs.settle_after(settle);
        let settled = after.is_some_and(|after| quiet >= after);
        settled.then_some(Depth::Everything)
    }
}

/// The networks of a shard that may become due: those that got packs since the last look that found
/// nothing to do.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Time without a push before the packs of a small network become one; `None` when they are not
    /// merged.
    pub(super) settle: Option<Duration>,
    networks: BTreeMap<NetworkId, Watched>,
}

impl Watch {
    /// The network got a pack at `at`, or had packs then.
    pub(super) fn grew(&mut self, network: NetworkId, at: Instant) {
        let watched = self.networks.entry(network);
        let watched = watched.or_insert_with(|| Watched::new(at));
        watched.grew = watched.grew.max(at);
        watched.is_progression = false;
    }

    /// All of these networks have packs.
    pub(super) fn grew_all(&mut self, networks: Vec<NetworkId>, at: Instant) {
        for network in networks {
            self.grew(network, at);
        }
    }

    /// A compaction was requested.
    pub(super) fn asked(&mut self, network: NetworkId, depth: Depth, now: Instant) {
        let watched = self.networks.entry(network);
        watched.or_insert_with(|| Watched::new(now)).asked = Some(depth);
    }

    /// Whether no network can become due before one gets a pack or a request.
    pub(super) fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The most urgent network that is due, and the largest pack count of one that may become due.
    /// Networks with nothing to do, and dropped ones, are removed from the watch until they get a
    /// pack.
    pub(super) fn due(
        &mut self,
        now: Instant,
        packs_of: impl Fn(&NetworkId) -> Packs,
    ) -> (Option<Due>, usize) {
        let mut best: Option<Due> = None;
        let (mut most, settle) = (0, self.settle);
        self.networks.retain(|network, watched| {
            let packs = packs_of(network);
            if let Some(depth) = watched.is_due(now, packs, settle) {
                let urgency = Urgency {
                    asked: watched.asked.is_some(),
                    packs: packs.count,
                };
                if best.is_none_or(|best| best.urgency < urgency) {
                    best = Some(Due {
                        network: *network,
                        depth,
                        urgency,
                    });
                }
            }
            let may_become_due = watched.asked.is_some()
                || packs.count > PACKS_QUIET && !watched.is_progression
                || packs.settle_after(settle).is_some();
            if may_become_due {
                most = most.max(packs.count);
            }
            may_become_due
        });
        (best, most)
    }

    /// A compaction ended; `Ok` is whether there was anything to do.
    pub(super) fn ended<E>(&mut self, due: Due, now: Instant, outcome: Result<bool, &E>) {
        let Due { network, depth, .. } = due;
        let Some(watched) = self.networks.get_mut(&network) else {
            return;
        };
        watched.asked = None;
        match outcome {
            Ok(true) => *watched = Watched::new(watched.grew),
            // Independent of the number of packs: they may still become one.
            Ok(false) if depth == Depth::Geometric => watched.is_progression = true,
            // One pack: nothing is left to do.
            Ok(false) => {
                self.networks.remove(&network);
            }
            Err(_) => {
                let doubled = BACKOFF_MIN.saturating_mul(1 << watched.failures.min(16));
                watched.failures += 1;
                watched.not_before = Some(now + doubled.min(BACKOFF_MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(byte: u8) -> NetworkId {
        NetworkId::from_bytes([byte; 16])
    }

    fn due(byte: u8, depth: Depth, asked: bool, packs: usize) -> Option<Due> {
        Some(Due {
            network: network(byte),
            depth,
            urgency: Urgency { asked, packs },
        })
    }

    /// So many packs, of 1 byte in total.
    const fn packs(count: usize) -> Packs {
        Packs { count, bytes: 1 }
    }

    #[expect(clippy::disallowed_methods, reason = "a point to count from")]
    fn watching(networks: &[u8]) -> (Watch, Instant) {
        let start = Instant::now();
        let mut watch = Watch::default();
        for byte in networks {
            watch.grew(network(*byte), start);
        }
        (watch, start)
    }

    #[test]
    fn many_packs_are_due_at_once_and_some_when_it_is_quiet() {
        let (mut watch, start) = watching(&[1]);
        assert_eq!(watch.due(start, |_| packs(PACKS_MAX)).0, None);
        let many = watch.due(start, |_| packs(PACKS_MAX + 1));
        let most = PACKS_MAX + 1;
        assert_eq!(many, (due(1, Depth::Geometric, false, most), most));
        let quiet = start + QUIET;
        let some = watch.due(quiet, |_| packs(PACKS_QUIET + 1));
        assert_eq!(some.0, due(1, Depth::Geometric, false, PACKS_QUIET + 1));
        watch.grew(network(1), quiet);
        assert_eq!(watch.due(quiet, |_| packs(PACKS_QUIET + 1)).0, None);
        assert_eq!(watch.due(quiet, |_| packs(PACKS_QUIET)).0, None);
        let forgotten = watch.due(quiet + QUIET, |_| packs(PACKS_MAX + 1));
        assert_eq!(forgotten, (None, 0), "it was well, and did not grow since");
    }

    #[test]
    fn the_one_asked_for_comes_first_then_the_one_with_most_packs() {
        let (mut watch, start) = watching(&[1, 2, 3]);
        let many = |network: &NetworkId| packs(33 + usize::from(network.as_bytes()[0]));
        let most_packs = due(3, Depth::Geometric, false, 36);
        assert_eq!(watch.due(start, many).0, most_packs);
        watch.asked(network(1), Depth::Everything, start);
        let asked = due(1, Depth::Everything, true, 34);
        assert_eq!(watch.due(start, many).0, asked);
        watch.ended::<()>(asked.unwrap(), start, Ok(false));
        assert_eq!(watch.due(start, many).0, most_packs);
    }

    #[test]
    fn a_failure_is_tried_again_later_and_later() {
        let (mut watch, start) = watching(&[1]);
        let many = |_: &NetworkId| packs(100);
        let again = due(1, Depth::Geometric, false, 100);
        let failed = again.unwrap();
        let mut now = start;
        for pause in [1, 2, 4, 8] {
            watch.ended(failed, now, Err(&()));
            let pause = Duration::from_secs(pause);
            let early = now + pause - Duration::from_millis(1);
            assert_eq!(watch.due(early, many).0, None);
            now += pause;
            assert_eq!(watch.due(now, many).0, again);
        }
        for _ in 0..100 {
            watch.ended(failed, now, Err(&()));
        }
        assert_eq!(watch.due(now + BACKOFF_MAX, many).0, again);
        watch.ended(failed, now, Err(&()));
        watch.asked(network(1), Depth::Geometric, now);
        let asked = due(1, Depth::Geometric, true, 100);
        assert_eq!(watch.due(now, many).0, asked, "now means now");
    }

    #[test]
    fn a_network_that_rests_becomes_one_pack_a_larger_one_later() {
        let settle = Duration::from_secs(5);
        let large = |mib: u64| {
            let bytes = mib * MIB;
            Packs { count: 2, bytes }
        };
        for (found, after) in [
            (packs(2), Some(settle)),
            (packs(PACKS_QUIET), Some(settle)),
            (large(10), Some(settle + 10 * SETTLED_PER_MIB)),
            (large(1024), Some(settle + 1024 * SETTLED_PER_MIB)),
            (large(1025), None),
            (packs(1), None),
        ] {
            let (mut watch, start) = watching(&[1]);
            watch.settle = Some(settle);
            let Some(after) = after else {
                let never = start + Duration::from_hours(1000);
                assert_eq!(watch.due(never, |_| found).0, None, "{found:?}");
                continue;
            };
            let early = start + after - Duration::from_millis(1);
            assert_eq!(watch.due(early, |_| found).0, None, "{found:?}");
            let count = found.count;
            let everything = due(1, Depth::Everything, false, count);
            assert_eq!(watch.due(start + after, |_| found).0, everything);
            watch.grew(network(1), start + after);
            assert_eq!(watch.due(start + after, |_| found).0, None, "a push");
        }
        let (mut watch, start) = watching(&[1]);
        let never = start + Duration::from_hours(1000);
        assert_eq!(watch.due(never, |_| packs(2)).0, None, "it is off");
    }

    #[test]
    fn many_packs_in_a_progression_are_left_until_they_settle() {
        let (mut watch, start) = watching(&[1]);
        watch.settle = Some(Duration::from_secs(5));
        let many = |_: &NetworkId| packs(PACKS_MAX + 1);
        let geometric = watch.due(start, many).0.unwrap();
        assert_eq!(geometric.depth, Depth::Geometric);
        watch.ended::<()>(geometric, start, Ok(false));
        assert_eq!(watch.due(start, many).0, None);
        let settled = start + Duration::from_secs(5);
        let everything = due(1, Depth::Everything, false, PACKS_MAX + 1);
        assert_eq!(watch.due(settled, many).0, everything);
        watch.grew(network(1), settled);
        assert_eq!(watch.due(settled, many).0, Some(geometric));
    }

    #[test]
    fn nothing_is_watched_that_cannot_become_due() {
        let (mut watch, start) = watching(&[1]);
        assert!(!watch.is_empty());
        assert_eq!(watch.due(start, |_| packs(1)), (None, 0));
        assert!(watch.is_empty());
        watch.asked(network(1), Depth::Geometric, start);
        assert!(!watch.is_empty());
    }
}
