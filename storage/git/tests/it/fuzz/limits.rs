//! The cost of the deltas of one pack.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use henge_git::{Deadline, PushLimits, Stop};
use henge_runtime::Clock;

use crate::inputs::{Entry, Kind, Place, REF, Taken, object_id, pack_body, with_trailer};

/// A delta that copies the first 64 kB of a base of `base` bytes `copies` times.
fn copies(base: usize, copies: usize) -> Vec<u8> {
    let mut delta = Vec::new();
    for mut size in [base, copies * 0x1_0000] {
        while size > 0x7f {
            delta.push(u8::try_from(size & 0x7f).unwrap() | 0x80);
            size >>= 7;
        }
        delta.push(u8::try_from(size).unwrap());
    }
    delta.extend(std::iter::repeat_n(0x80, copies));
    delta
}

/// Deltas with results of 2 to `number` times 64 kB on one base.
fn star(number: u8) -> Vec<u8> {
    let base = vec![0; 0x1_0000];
    let id = object_id(Kind::Blob, &base);
    let deltas: Vec<Vec<u8>> = (2..=number)
        .map(|number| copies(base.len(), usize::from(number)))
        .collect();
    let mut entries = vec![Entry::Whole(Kind::Blob, &base)];
    entries.extend(deltas.iter().map(|delta| Entry::RefDelta(id, delta)));
    with_trailer(&pack_body(&entries))
}

#[test]
fn an_object_that_is_sent_as_a_delta_on_itself_is_refused() {
    // Such an object cannot be read: its base is looked up by its id, which may find the delta
    // itself.
    let base = vec![0; 0x1_0000];
    let id = object_id(Kind::Blob, &base);
    let delta = copies(base.len(), 1);
    let pack = pack_body(&[Entry::Whole(Kind::Blob, &base), Entry::RefDelta(id, &delta)]);
    let place = Place::new();
    match place.push(&[(id, REF)], &with_trailer(&pack), &PushLimits::default()) {
        // The result depends on which of the two the index lists first.
        Taken::Accepted => {}
        Taken::Refused(report) => assert!(report.contains("deltas away from"), "{report}"),
    }
}

fn refused(place: &Place, pack: &[u8], limits: &PushLimits) -> String {
    let tip = object_id(Kind::Blob, &vec![0; 0x1_0000]);
    match place.push(&[(tip, REF)], pack, limits) {
        Taken::Accepted => panic!("the push was accepted"),
        Taken::Refused(report) => report,
    }
}

#[test]
fn objects_far_larger_than_their_pack_are_refused() {
    let limits = PushLimits {
        inflated_ratio_max: 10,
        inflated_bytes_free: 1 << 20,
        ..PushLimits::default()
    };
    // 64 kB times 1 + 2 + ... + 12 are five megabytes.
    let report = refused(&Place::new(), &star(12), &limits);
    let reason = "the objects of the pack have more than 10";
    assert!(report.contains(reason), "{report}");
    let place = Place::new();
    let tip = object_id(Kind::Blob, &vec![0; 0x1_0000]);
    let taken = place.push(&[(tip, REF)], &star(12), &PushLimits::default());
    assert_eq!(taken, Taken::Accepted);
}

#[test]
fn branching_chains_that_keep_too_much_are_refused() {
    // Every object is the base of a whole chain and of one more delta, so that the whole chain is
    // kept in memory.
    let base = vec![0; 0x1_0000];
    let mut objects = vec![base.clone()];
    let mut deltas = Vec::new();
    for level in 1..=12 {
        let below = objects.last().unwrap();
        let id = object_id(Kind::Blob, below);
        // gix resolves the later one of two deltas on one base first.
        for extra in [1, 0] {
            deltas.push((id, copies(below.len(), level + 1 + 20 * extra)));
        }
        objects.push(vec![0; (level + 1) * 0x1_0000]);
    }
    let mut entries = vec![Entry::Whole(Kind::Blob, &base)];
    entries.extend(deltas.iter().map(|(id, delta)| Entry::RefDelta(*id, delta)));
    let pack = with_trailer(&pack_body(&entries));
    let limits = PushLimits {
        resolved_bytes_max: 4 << 20,
        ..PushLimits::default()
    };
    let report = refused(&Place::new(), &pack, &limits);
    let reason = "would take more than 4194304 bytes at once";
    assert!(report.contains(reason), "{report}");
    // A single base for all deltas is no chain: it is needed in any case.
    let place = Place::new();
    let tip = object_id(Kind::Blob, &base);
    assert_eq!(
        place.push(&[(tip, REF)], &star(12), &limits),
        Taken::Accepted
    );
}

#[test]
fn chains_whose_deltas_are_larger_than_an_object_may_be_are_refused() {
    // Each delta is as large as its result: no byte is copied.
    let text = |number: usize| format!("{number:0100}").into_bytes();
    let deltas: Vec<_> = (1..110)
        .map(|number| {
            let delta = [&[100, 100, 100], &text(number)[..]].concat();
            (object_id(Kind::Blob, &text(number - 1)), delta)
        })
        .collect();
    let base = text(0);
    let mut entries = vec![Entry::Whole(Kind::Blob, &base)];
    entries.extend(deltas.iter().map(|(id, delta)| Entry::RefDelta(*id, delta)));
    let pack = with_trailer(&pack_body(&entries));
    let limits = PushLimits {
        object_bytes_max: 10_000,
        ..PushLimits::default()
    };
    let report = refused(&Place::new(), &pack, &limits);
    // 97 deltas of 103 bytes are allowed, 98 are not.
    let hex = crate::inputs::hex(&object_id(Kind::Blob, &text(98)));
    let reason = format!("object {hex} is made of more than 10000 bytes of deltas");
    assert!(report.contains(&reason), "{report}");
}

#[test]
fn how_many_objects_a_pack_has_is_no_matter_of_how_large_one_may_be() {
    let texts: Vec<_> = (0..2000)
        .map(|number| format!("{number}").into_bytes())
        .collect();
    let entries: Vec<_> = texts
        .iter()
        .map(|text| Entry::Whole(Kind::Blob, text))
        .collect();
    let pack = with_trailer(&pack_body(&entries));
    let limits = PushLimits {
        object_bytes_max: 10_000,
        ..PushLimits::default()
    };
    let tip = object_id(Kind::Blob, &texts[0]);
    assert_eq!(
        Place::new().push(&[(tip, REF)], &pack, &limits),
        Taken::Accepted
    );
}

/// A clock that advances by a second with every read.
#[derive(Debug)]
struct Ticking {
    begun: Instant,
    looks: AtomicU64,
}

impl Clock for Ticking {
    fn instant(&self) -> Instant {
        self.begun + Duration::from_secs(self.looks.fetch_add(1, Ordering::Relaxed))
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

#[test]
fn the_deadline_is_looked_at_for_every_delta() {
    let pack = star(100);
    // The pack is read at once: nearly all clock reads are those of the deltas.
    for seconds in [2, 10, 50, 90] {
        let clock = Arc::new(Ticking {
            begun: Instant::now(),
            looks: AtomicU64::new(0),
        });
        let looks = Arc::clone(&clock);
        let limits = PushLimits {
            stop: Stop::at(Deadline::after(clock, Duration::from_secs(seconds))),
            ..PushLimits::default()
        };
        let report = refused(&Place::new(), &pack, &limits);
        assert!(report.contains("the push took too long"), "{report}");
        let looks = looks.looks.load(Ordering::Relaxed);
        assert!(looks < seconds + 10, "{looks} looks at {seconds} s");
    }
}
