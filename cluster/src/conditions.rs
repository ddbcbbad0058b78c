//! The conditions that hold on this node: the code that detects a condition raises and clears it,
//! and the node's report lists it.
//!
//! Conditions are kept in memory only: after a start the same code detects each of them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use henge_runtime::Clock;
use henge_types::{Condition, ConditionKind, limits};
use metrics::gauge;

/// A handle on this node's conditions; clones share them.
#[derive(Debug, Clone)]
pub struct Conditions {
    clock: Arc<dyn Clock>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    by_kind: BTreeMap<ConditionKind, BTreeMap<String, Finding>>,
    /// Kinds with more conditions raised than kept.
    overflowed: BTreeSet<ConditionKind>,
}

#[derive(Debug)]
struct Finding {
    since_ms: u64,
    detail: String,
}

/// The conditions in a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The first conditions, by kind and subject: the kinds are in the order of their severity.
    pub conditions: Vec<Condition>,
    /// At least this many more hold.
    pub left_out: u32,
}

impl Conditions {
    /// No conditions.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        for kind in ConditionKind::ALL {
            gauge!("henge_conditions", "kind" => kind.name()).set(0.0);
        }
        Self {
            clock,
            held: Arc::default(),
        }
    }

    /// A condition holds. If it held before, its start time stays and its detail is replaced.
    pub fn raise(
        &self,
        kind: ConditionKind,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) {
        let subject = cut(subject.into(), limits::CONDITION_SUBJECT_BYTES_MAX);
        let detail = cut(detail.into(), limits::CONDITION_DETAIL_BYTES_MAX);
        let since_ms = self.clock.unix_ms();
        let mut held = self.lock();
        let of_kind = held.by_kind.entry(kind).or_default();
        if let Some(finding) = of_kind.get_mut(&subject) {
            finding.detail = detail;
            return;
        }
        if of_kind.len() >= limits::CONDITIONS_KEPT_PER_KIND_MAX {
            held.overflowed.insert(kind);
            return;
        }
        tracing::warn!(
            condition = kind.name(),
            subject,
            detail,
            "a condition holds"
        );
        of_kind.insert(subject, Finding { since_ms, detail });
        count(kind, of_kind.len());
    }

    /// A condition holds no longer. Without effect if it did not hold.
    pub fn clear(&self, kind: ConditionKind, subject: &str) {
        let subject = cut(subject.to_owned(), limits::CONDITION_SUBJECT_BYTES_MAX);
        let mut held = self.lock();
        let Some(of_kind) = held.by_kind.get_mut(&kind) else {
            return;
        };
        if of_kind.remove(&subject).is_none() {
            return;
        }
        tracing::info!(
            condition = kind.name(),
            subject,
            "a condition holds no longer"
        );
        count(kind, of_kind.len());
        held.overflowed.remove(&kind);
    }

    /// Replaces the conditions of one kind by `found`, from subject to detail. For code that checks
    /// all subjects at once.
    pub fn replace(&self, kind: ConditionKind, found: &BTreeMap<String, String>) {
        let gone: Vec<String> = {
            let held = self.lock();
            let of_kind = held.by_kind.get(&kind).into_iter().flatten();
            of_kind
                .map(|(subject, _)| subject.clone())
                .filter(|subject| {
                    !found.keys().any(|kept| {
                        cut(kept.clone(), limits::CONDITION_SUBJECT_BYTES_MAX) == *subject
                    })
                })
                .collect()
        };
        for subject in gone {
            self.clear(kind, &subject);
        }
        for (subject, detail) in found {
            self.raise(kind, subject.clone(), detail.clone());
        }
    }

    /// The time since when a condition holds, milliseconds since the Unix epoch; `None` if it does
    /// not hold.
    pub fn since_ms(&self, kind: ConditionKind, subject: &str) -> Option<u64> {
        let held = self.lock();
        Some(held.by_kind.get(&kind)?.get(subject)?.since_ms)
    }

    /// The conditions that hold, bounded in number.
    pub fn list(&self) -> Listed {
        let held = self.lock();
        let kept: usize = held.by_kind.values().map(BTreeMap::len).sum();
        let conditions: Vec<Condition> = held
            .by_kind
            .iter()
            .flat_map(|(kind, findings)| findings.iter().map(move |found| (*kind, found)))
            .take(limits::CONDITIONS_REPORTED_MAX)
            .map(|(kind, (subject, finding))| Condition {
                kind,
                subject: subject.clone(),
                since_ms: finding.since_ms,
                detail: finding.detail.clone(),
            })
            .collect();
        let left_out = kept - conditions.len() + held.overflowed.len();
        Listed {
            conditions,
            left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held
            .lock()
            .expect("invariant: noting a condition does not panic")
    }
}

fn count(kind: ConditionKind, held: usize) {
    let held = u32::try_from(held).unwrap_or(u32::MAX);
    gauge!("henge_conditions", "kind" => kind.name()).set(f64::from(held));
}

/// The text, truncated to at most `bytes_max` bytes between two characters.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::*;

    #[derive(Debug)]
    struct HandClock(AtomicU64, Instant);

    impl Clock for HandClock {
        fn unix_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn instant(&self) -> Instant {
            self.1
        }
    }

    fn at(ms: u64) -> (Arc<HandClock>, Conditions) {
        let now = henge_runtime::SystemClock.instant();
        let clock = Arc::new(HandClock(AtomicU64::new(ms), now));
        (Arc::clone(&clock), Conditions::new(clock))
    }

    #[test]
    fn raising_again_keeps_since_and_updates_detail() {
        let (clock, conditions) = at(1_000);
        conditions.raise(ConditionKind::LowSpace, "/data", "1 GiB free");
        clock.0.store(9_000, Ordering::Relaxed);
        conditions.raise(ConditionKind::LowSpace, "/data", "0 GiB free");
        let listed = conditions.list();
        assert_eq!(
            listed.conditions,
            [Condition {
                kind: ConditionKind::LowSpace,
                subject: "/data".to_owned(),
                since_ms: 1_000,
                detail: "0 GiB free".to_owned(),
            }]
        );
        conditions.clear(ConditionKind::LowSpace, "/data");
        conditions.clear(ConditionKind::LowSpace, "/data");
        assert_eq!(conditions.list(), Listed::default());
        conditions.raise(ConditionKind::LowSpace, "/data", "again");
        assert_eq!(
            conditions.since_ms(ConditionKind::LowSpace, "/data"),
            Some(9_000)
        );
    }

    #[test]
    fn replacing_clears_what_was_not_found() {
        let (_, conditions) = at(1);
        let found = |subjects: &[&str]| {
            let entries = subjects.iter().map(|s| ((*s).to_owned(), String::new()));
            entries.collect::<BTreeMap<_, _>>()
        };
        conditions.replace(ConditionKind::ReplicaLags, &found(&["1", "2"]));
        conditions.raise(ConditionKind::LowSpace, "/", "");
        conditions.replace(ConditionKind::ReplicaLags, &found(&["2", "3"]));
        let listed = conditions.list().conditions;
        let subjects: Vec<&str> = listed.iter().map(|c| c.subject.as_str()).collect();
        assert_eq!(subjects, ["2", "3", "/"]);
    }

    /// A damaged disk raises one condition per pack, and there may be a million packs.
    #[test]
    fn memory_and_reports_are_bounded_and_the_rest_is_counted() {
        let (_, conditions) = at(1);
        let kept = limits::CONDITIONS_KEPT_PER_KIND_MAX;
        for pack in 0..kept + 10 {
            conditions.raise(ConditionKind::PacksDamaged, format!("{pack:08}"), "");
        }
        conditions.raise(ConditionKind::StatesDiffer, "é".repeat(500), "");
        let listed = conditions.list();
        assert_eq!(listed.conditions.len(), limits::CONDITIONS_REPORTED_MAX);
        let left_out = kept + 1 - limits::CONDITIONS_REPORTED_MAX + 1;
        assert_eq!(listed.left_out, u32::try_from(left_out).unwrap());
        let first = listed.conditions.first().expect("the gravest");
        assert_eq!(first.kind, ConditionKind::StatesDiffer);
        assert_eq!(first.subject.len(), limits::CONDITION_SUBJECT_BYTES_MAX);
        conditions.clear(ConditionKind::PacksDamaged, "00000000");
        assert_eq!(
            conditions.list().left_out,
            u32::try_from(left_out - 2).unwrap()
        );
    }
}
